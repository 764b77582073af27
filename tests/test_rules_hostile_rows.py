"""Whatever up to f clients send, every rule gives back finite numbers, in bounded time, near the honest clients."""

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.aggregation import Krum, Mean, Median, TrimmedMean
from holdfast.types import ThreatModelError
from tests.rules_under_test import INSIDE_HONEST_RANGE, outermost_bound, rules

NS = (1, 2, 3, 5, 10, 50)
POISON = {
    "nan": np.nan,
    "inf": np.inf,
    "minus inf": -np.inf,
    "1e10": 1e10,
    "1e30": 1e30,
    "1e38": 1e38,
    "-1e38": -1e38,
    "largest": np.finfo(np.float32).max,
    "denormal": 1e-44,
    "zero": 0.0,
}


def runs(rule: Any, n: int) -> bool:
    """Whether the theory of the rule admits n at all."""
    if n >= rule.min_clients():
        return True
    with pytest.raises(ThreatModelError, match="needs n >="):
        rule(np.zeros((n, 2)))
    return False


@st.composite
def attacked(draw: st.DrawFn) -> tuple[Any, np.ndarray, int]:
    """A rule, rows of which the last f are hostile, and f."""
    n = draw(st.sampled_from(NS))
    f = draw(st.integers(0, min((n - 1) // 2, 4)))
    d = draw(st.sampled_from((1, 2, 17, 300)))
    dtype = draw(st.sampled_from((np.float16, np.float32, np.float64)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows = rng.normal(size=(n, d)) + draw(st.sampled_from((0.0, 1.0, 100.0)))
    if draw(st.booleans()):
        rows[:, 0] = 1.0  # a constant column
    if draw(st.booleans()):
        rows[:] = rows[0]  # everybody agrees
    rows = rows.astype(dtype)
    with np.errstate(over="ignore"):
        for i in range(n - f, n):
            value = dtype(draw(st.sampled_from(sorted(POISON.values(), key=str))))
            if draw(st.booleans()):
                rows[i, draw(st.integers(0, d - 1))] = value
            else:
                rows[i] = value
    return draw(st.sampled_from(rules(f))), rows, f


@given(attacked())
def test_output_is_finite_and_near_the_honest(case: tuple[Any, np.ndarray, int]) -> None:
    rule, rows, f = case
    n = len(rows)
    if not runs(rule, n):
        return
    before = rows.copy()
    result = rule.aggregate(rows)
    np.testing.assert_array_equal(rows, before)
    assert result.value.dtype == rows.dtype
    assert result.value.shape == rows.shape[1:]
    assert result.replaced.shape == (n,)
    assert set(np.flatnonzero(result.replaced)) == set(result.diagnostics["replaced"])
    assert set(np.flatnonzero(~np.isfinite(rows).all(axis=1))) <= set(np.flatnonzero(result.replaced))
    if outermost_bound(rule):
        assert np.isfinite(result.value).all(), rule
    if result.client_weights is not None:
        assert np.isfinite(result.client_weights).all()
        assert result.client_weights.shape == (n,)
    honest = rows[: n - f].astype(np.float64)
    slack = 4 * float(np.finfo(rows.dtype).eps) * np.abs(honest).max()
    if type(rule).__name__ in INSIDE_HONEST_RANGE:
        assert (result.value >= honest.min(axis=0) - slack).all()
        assert (result.value <= honest.max(axis=0) + slack).all()


@pytest.mark.parametrize("poison", POISON.values(), ids=POISON)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_huge_or_undefined_row_of_ten_changes_little(poison: float, dtype: type) -> None:
    rng = np.random.default_rng(0)
    rows = (1.0 + 0.01 * rng.normal(size=(10, 40))).astype(dtype)
    rows[4] = poison
    honest = np.delete(rows, 4, axis=0)
    for rule in rules(1):
        value = rule(rows)
        assert np.isfinite(value).all() or not outermost_bound(rule), rule
        replaced = bool(rule.aggregate(rows).replaced[4])
        if outermost_bound(rule) or replaced:
            # A rule may leave the honest range by a few spreads, never by orders of magnitude.
            limit = 1.0 if type(rule).__name__ == "NormClipping" else 0.2
            assert np.abs(value - honest.mean(axis=0)).max() < limit, (rule, poison)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_all_rows_hostile_gives_the_reference_or_zeros(dtype: type) -> None:
    rows = np.full((11, 3), np.nan, dtype=dtype)
    reference = np.array([1.0, 2.0, 3.0], dtype=dtype)
    for rule in rules(1):
        np.testing.assert_array_equal(rule(rows), np.zeros(3))
        result = rule.aggregate(rows, reference=reference)
        np.testing.assert_allclose(result.value, reference, rtol=1e-6)
        assert result.replaced.all()


def test_replaced_rows_are_named_with_the_reason() -> None:
    rows = np.ones((7, 4), dtype=np.float32)
    rows[1, 2] = np.nan
    rows[3] = 1e38
    result = TrimmedMean(f=2).aggregate(rows, faults={5: "shape (3,) where (4,) is expected"})
    assert result.diagnostics["replaced"] == {
        1: "holds a value that is not finite",
        3: "its norm 2.0e+38 is beyond 1.8e+16, the largest that float32 can square and sum",
        5: "shape (3,) where (4,) is expected",
    }
    np.testing.assert_array_equal(result.replaced, [False, True, False, True, False, True, False])


def test_a_missing_row_is_replaced_and_n_stays() -> None:
    rows = [np.array([1.0, 2.0]), None, np.array([1.0, 2.0]), np.array([3.0, 4.0]), np.array([1.0, 2.0])]
    result = Krum(f=1).aggregate(rows)
    np.testing.assert_array_equal(result.value, [1.0, 2.0])
    assert result.diagnostics["replaced"] == {1: "no update came"}
    assert len(result.client_weights) == 5


def test_a_replaced_row_never_switches_the_defense_off() -> None:
    """With n at the bound, dropping the NaN row would leave too few clients for the rule."""
    rows = np.ones((5, 3))
    rows[0] = np.nan
    np.testing.assert_array_equal(Krum(f=1)(rows), np.ones(3))


@pytest.mark.parametrize("scale", [1e-42, 1e-30, 1e-12, 1e12, 1e30, 1e37])
def test_unusual_scales_shared_by_all_are_not_absurd(scale: float) -> None:
    rng = np.random.default_rng(1)
    plain = rng.normal(size=(9, 30)).astype(np.float32)
    rows = (plain * np.float32(scale)).astype(np.float32)
    for rule in rules(1):
        if type(rule).__name__ == "CenteredClipping" or rule.min_clients() > 9:
            continue
        result = rule.aggregate(rows)
        assert not result.replaced.any(), rule
        expected = rule(plain.astype(np.float64)) * scale
        np.testing.assert_allclose(result.value, expected, rtol=1e-3, atol=2e-3 * scale + 1e-44, err_msg=repr(rule))


def test_the_screen_replaces_with_a_value_inside_the_range_of_the_others() -> None:
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(6, 50)) + 1e3
    rows[2] = np.inf
    clean = np.delete(rows, 2, axis=0)
    for rule in (Mean(), Median()):
        value = rule(rows)
        assert (value >= clean.min(axis=0)).all()
        assert (value <= clean.max(axis=0)).all()


@pytest.mark.parametrize(("a", "b"), list(itertools.combinations(POISON, 2)))
def test_two_kinds_of_poison_at_once(a: str, b: str) -> None:
    rows = np.linspace(0.9, 1.1, 11 * 5, dtype=np.float32).reshape(11, 5)
    rows[0], rows[1] = POISON[a], POISON[b]
    for rule in rules(2):
        if rule.min_clients() <= 11 and outermost_bound(rule):
            assert np.isfinite(rule(rows)).all(), (rule, a, b)
