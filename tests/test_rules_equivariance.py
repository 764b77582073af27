"""Order, place, scale and unanimity: what must not change a rule's mind, over the whole registry."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.aggregation import Krum, make
from tests.rules_under_test import NEEDS_AN_ORIGIN, ORDER_DEPENDENT, READS_MODELS, any_rule, ident, involves, rules


@st.composite
def clean(draw: st.DrawFn) -> tuple[Any, np.ndarray, np.random.Generator]:
    """A rule, rows it accepts in which no two scores tie, and a generator for the rest."""
    rule = draw(any_rule(draw(st.integers(0, 2))))
    n = draw(st.integers(max(4, rule.min_clients()), max(12, rule.min_clients())))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return rule, rng.normal(size=(n, draw(st.integers(2, 40)))), rng


@given(clean())
def test_order_of_the_clients_does_not_matter(case: tuple[Any, np.ndarray, np.random.Generator]) -> None:
    rule, rows, rng = case
    if involves(rule, ORDER_DEPENDENT):
        return
    order = rng.permutation(len(rows))
    plain, permuted = rule.aggregate(rows), rule.aggregate(rows[order])
    np.testing.assert_allclose(permuted.value, plain.value, rtol=1e-7, atol=1e-9, err_msg=repr(rule))
    # Mixtures that are equal up to rounding may share a coordinate or not.
    if plain.client_weights is not None and not involves(rule, ("NearestNeighborMixing",)):
        np.testing.assert_allclose(permuted.client_weights, plain.client_weights[order], atol=1e-7)


@given(clean(), st.floats(-100, 100))
def test_moving_all_rows_and_the_reference_moves_the_result(
    case: tuple[Any, np.ndarray, np.random.Generator], by: float
) -> None:
    rule, rows, _ = case
    if involves(rule, READS_MODELS):
        return
    origin = np.zeros(rows.shape[1])
    plain = rule.aggregate(rows, reference=origin).value
    moved = rule.aggregate(rows + by, reference=origin + by).value
    np.testing.assert_allclose(moved, plain + by, rtol=1e-6, atol=1e-6, err_msg=repr(rule))


@given(clean(), st.floats(-100, 100))
def test_rules_without_an_origin_move_with_the_rows_alone(
    case: tuple[Any, np.ndarray, np.random.Generator], by: float
) -> None:
    rule, rows, _ = case
    if involves(rule, NEEDS_AN_ORIGIN):
        return
    np.testing.assert_allclose(rule(rows + by), rule(rows) + by, rtol=1e-6, atol=1e-6, err_msg=repr(rule))


@given(clean(), st.sampled_from((2.0**-20, 0.125, 1024.0)))
def test_scaling_all_rows_scales_the_result(case: tuple[Any, np.ndarray, np.random.Generator], factor: float) -> None:
    rule, rows, _ = case
    np.testing.assert_allclose(rule(rows * factor), rule(rows) * factor, rtol=1e-6, atol=1e-9 * factor)


@pytest.mark.parametrize("rule", rules(1), ids=ident)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_when_all_agree_so_does_the_rule(rule: Any, dtype: type) -> None:
    row = np.random.default_rng(3).normal(size=23).astype(dtype)
    value = rule(np.tile(row, (rule.min_clients() + 5, 1)))
    np.testing.assert_allclose(value, row, rtol=4 * np.finfo(dtype).eps)


@given(st.integers(0, 2**32 - 1))
def test_of_tied_krum_scores_the_one_with_the_nearer_next_neighbor_wins(seed: int) -> None:
    rows = np.random.default_rng(seed).normal(size=(3, 4))  # the two closest of three always tie
    distances = ((rows[:, None] - rows[None]) ** 2).sum(axis=2)
    pair = np.unravel_index((distances + np.diag([np.inf] * 3)).argmin(), (3, 3))
    nearer = min(pair, key=lambda i: distances[i].sum())
    np.testing.assert_array_equal(Krum(f=0)(rows), rows[nearer])


def test_buckets_depend_on_the_seed_and_the_round_only() -> None:
    rows = np.random.default_rng(4).normal(size=(12, 6))
    rule = make("bucketing", rule="median", s=3, seed=5)
    first = rule.aggregate(rows)
    again = rule.aggregate(rows)
    second = rule.aggregate(rows, state=first.state)
    other = make("bucketing", rule="median", s=3, seed=6).aggregate(rows)
    np.testing.assert_array_equal(first.value, again.value)
    assert not np.array_equal(first.value, second.value)
    assert not np.array_equal(first.value, other.value)
    assert second.state[0] == 2
