"""Reading rows once, or many federations at once, changes no result: the screen alone decides what is bad."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from holdfast.aggregation import federations, screening
from holdfast.aggregation.stacking import stack
from tests.rules_under_test import ident, rules

N, D = 9, 8 * screening.SAMPLE + 37
VOUCHING = [rule for rule in rules(2) if rule.vouches]
COORDINATE_WISE = [rule for rule in rules(2) if rule.coordinate_wise]
POISON = (np.nan, np.inf, -np.inf, 1e17, 1e30, -3e38)
PLACES = (0, screening.SAMPLE - 1, screening.SAMPLE, D // 2, D - screening.SAMPLE - 1, D - 1)


def plain(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(N, D)).astype(np.float32)


def same(ours: Any, expected: Any) -> None:
    np.testing.assert_array_equal(ours.value, expected.value)
    np.testing.assert_array_equal(ours.replaced, expected.replaced)
    assert ours.diagnostics.get("replaced") == expected.diagnostics.get("replaced")
    if expected.client_weights is not None:
        np.testing.assert_array_equal(ours.client_weights, expected.client_weights)


def test_the_fast_rules_vouch() -> None:
    assert {type(rule).__name__ for rule in VOUCHING} >= {"Median", "TrimmedMean", "MeanAroundMedian"}
    assert all(rule.coordinate_wise for rule in VOUCHING)


@pytest.mark.parametrize("rule", VOUCHING, ids=ident)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_clean_rows_are_not_screened_again(rule: Any, dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = plain().astype(dtype)
    for given_rows in (rows, list(rows), torch.from_numpy(rows)):
        expected = rule.aggregate(given_rows)
        with monkeypatch.context() as patch:
            patch.setattr(federations, "on_trial", lambda _: None)
            same(rule.aggregate(given_rows), expected)
            patch.undo()
            patch.setattr(federations, "screen", None)  # a call would raise
            same(rule.aggregate(given_rows), expected)


@pytest.mark.parametrize("rule", VOUCHING, ids=ident)
@pytest.mark.parametrize("place", PLACES)
def test_one_bad_value_anywhere_is_found(rule: Any, place: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for poison in POISON:
        for dtype in (np.float32, np.float64):
            rows = plain(place).astype(dtype)
            rows[3, place] = poison
            ours = rule.aggregate(rows)
            assert bool(ours.replaced[3]) == (not np.isfinite(poison) or dtype == np.float32)
            assert np.isfinite(ours.value).all()
            with monkeypatch.context() as patch:
                patch.setattr(federations, "on_trial", lambda _: None)
                same(ours, rule.aggregate(rows))


@given(
    st.lists(st.floats(-44, 38), min_size=N, max_size=N),
    st.sampled_from((0.0, -35.0, 30.0)),
    st.sampled_from((np.float32, np.float64)),
    st.integers(0, D - 1),
)
def test_what_is_vouched_for_the_screen_passes(exponents: list[float], shift: float, dtype: type, place: int) -> None:
    """Rows of any mixture of sizes: where no second look is taken, it would have found nothing."""
    scales = 10.0 ** np.clip(np.array(exponents) / 4 + shift, -44, 38)
    with np.errstate(over="ignore"):
        rows = (plain() * scales[:, None]).astype(dtype)
        rows[1, place] *= dtype(1e3)
    (federation,) = stack(rows).federations
    rule = VOUCHING[0]
    with np.errstate(all="ignore"):
        trial = screening.on_trial(federation)
        if trial is None:
            return
        for where, block in trial.blocks():
            rule.plan(trial, federations.Given()).columns(where, block)
        screened = screening.screen(federation)
    if screening.vouched(trial):
        assert not screened.bad.any()
        assert screened.dtype == trial.dtype


def test_frozen_ends_and_unusual_scales_get_the_full_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    for rule in VOUCHING:
        for scale in (0.0, 1e-42, 1e-20, 1e-12, 1e11, 1e14, 1e30):
            rows = (plain(1) * np.float32(scale)).astype(np.float32)
            rows[:, : 2 * screening.SAMPLE] = rows[:, -2 * screening.SAMPLE :] = 0.0
            ours = rule.aggregate(rows)
            with monkeypatch.context() as patch:
                patch.setattr(federations, "on_trial", lambda _: None)
                same(ours, rule.aggregate(rows))


def test_values_that_were_not_counted_are_not_vouched_for() -> None:
    (federation,) = stack(plain()).federations
    trial = screening.on_trial(federation)
    assert trial is not None
    assert trial.squares is not None
    assert not screening.vouched(trial)
    trial.squares.add(np.ones(1), N * D - 1)
    assert not screening.vouched(trial)
    trial.squares.add(np.ones(1), 1)
    assert screening.vouched(trial)


@pytest.mark.parametrize("rule", COORDINATE_WISE, ids=ident)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_small_federations_are_computed_at_once(rule: Any, dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(2).normal(size=(3, 40, 9, 300)).astype(dtype)
    rows[1, 7, 4] = np.nan
    rows[2, 2, :, 5] = np.inf
    rows[0, 3] = 0.0
    for given_rows in (rows, torch.from_numpy(rows)):
        together = rule.aggregate(given_rows)
        value = rule(given_rows)
        with monkeypatch.context() as patch:
            patch.setattr(federations, "_together", lambda *_: {})
            expected = rule.aggregate(given_rows)
        np.testing.assert_array_equal(together.value, expected.value)
        np.testing.assert_array_equal(value, expected.value)
        np.testing.assert_array_equal(together.replaced, expected.replaced)
        assert together.diagnostics == expected.diagnostics
        if expected.client_weights is not None:
            np.testing.assert_array_equal(together.client_weights, expected.client_weights)


def test_only_federations_in_doubt_are_taken_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(3).normal(size=(500, 9, 200)).astype(np.float32)
    rows[17, 2, 3] = np.nan
    rows[400] *= np.float32(1e-30)
    alone = []
    one = federations._one

    def counted(rule: Any, federation: Any, *rest: Any) -> Any:
        alone.append(float(federation.source[0, 0]))
        return one(rule, federation, *rest)

    monkeypatch.setattr(federations, "_one", counted)
    for rule in COORDINATE_WISE:
        alone.clear()
        rule(rows)
        assert alone == [float(rows[i, 0, 0]) for i in (17, 400)]
