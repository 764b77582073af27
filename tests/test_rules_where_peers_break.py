"""Where other libraries break: one test per defect found in them, on every rule it can concern."""

import time
from typing import Any

import numpy as np
import pytest
import torch

from holdfast.aggregation import (
    RULES,
    CenteredClipping,
    GeometricMedian,
    Krum,
    Mean,
    MultiKrum,
    NormClipping,
    ResidualReweighting,
    TrimmedMean,
)
from holdfast.aggregation.models import aggregate_models
from tests.rules_under_test import MEAN_LIKE, NEEDS_AN_ORIGIN, build, ident, involves, outermost_bound, rules

HUGE = (1e10, 1e30, 1e38, -1e38, np.inf, -np.inf, np.nan)
ONES = np.linspace(0.98, 1.02, 9, dtype=np.float32)[:, None] * np.ones((9, 6), dtype=np.float32)


@pytest.mark.parametrize("value", HUGE)
def test_trimming_does_not_subtract_what_it_trims(value: float) -> None:
    """Sum less the largest and smallest: -0.5 for nine ones and one 1e10 in fedlib and KU, 0 in FLPoison."""
    rows = np.concatenate([ONES, np.full((1, 6), value, dtype=np.float32)])
    for f in (1, 2, 4):
        result = TrimmedMean(f=f)(rows)
        assert (result >= 0.98).all()
        assert (result <= 1.02).all()


def test_trimming_nothing_is_the_mean() -> None:
    """A slice that ends at -0 is empty: all zeros in FLPoison, NaN in the authors' code of residual reweighting."""
    np.testing.assert_allclose(TrimmedMean(f=0)(ONES), ONES.mean(axis=0), rtol=1e-6)
    for rule in rules(0):
        if rule.min_clients() <= 9:
            assert np.isfinite(rule(ONES)).all(), rule
            assert (rule(ONES) > 0).all(), rule


def test_trimming_takes_both_ends() -> None:
    """A slice one too long keeps the maximum: 6.44 for one 50 among ten ones in FLEX-clash."""
    rows = np.ones((10, 3))
    rows[4] = 50.0
    np.testing.assert_array_equal(TrimmedMean(f=1)(rows), np.ones(3))


def test_trimming_goes_by_value_not_by_sample_count() -> None:
    """FedML sorts clients by their sample counts: whoever holds the median number of samples survives."""
    rows = np.concatenate([ONES, np.full((1, 6), 50.0, dtype=np.float32)])
    for position in range(10):
        counts = np.arange(10.0) + 1
        counts[[9, position]] = counts[[position, 9]]
        assert TrimmedMean(f=2).aggregate(rows, weights=counts).value.max() < 1.1


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("first", [0, 4])
def test_equal_sample_counts_do_not_collapse(weighted: bool, first: int) -> None:
    """FedML keeps weights in a set: with five equal ones, its geometric median is client 0's model, 50 here."""
    rows = np.ones((5, 8))
    rows[first] = 50.0
    result = GeometricMedian(weighted=weighted).aggregate(rows, weights=[20.0] * 5)
    np.testing.assert_allclose(result.value, np.ones(8), atol=1e-4)


@pytest.mark.parametrize("rule", [GeometricMedian(), Krum(f=2), MultiKrum(f=2)], ids=ident)
def test_whole_models_are_compared_not_layers(rule: Any) -> None:
    """FedML takes geometric medians per layer, FederatedScope adds layers' norms: a rotation would tell."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(9, 12))
    turn, _ = np.linalg.qr(rng.normal(size=(12, 12)))
    np.testing.assert_allclose(rule(rows @ turn), rule(rows) @ turn, atol=1e-5)


@pytest.mark.parametrize("name", RULES)
def test_every_name_runs_its_own_rule(name: str) -> None:
    """Accepted by the configuration and never dispatched (FedML, twice) is plain averaging without a warning."""
    rule = build(name, 1)
    rng = np.random.default_rng(1)
    rows = rng.normal(1.0, 0.1, size=(max(12, rule.min_clients()), 40))
    rows[0] += 30.0
    if name != "mean":
        assert np.abs(rule(rows) - rows.mean(axis=0)).max() > 1e-3
    others = [build(other, 1) for other in RULES if other != name]
    assert all(type(other) is not type(rule) for other in others)


@pytest.mark.parametrize("claim", [1e12, 1e15, 1e300])
def test_no_client_sets_its_own_weight(claim: float) -> None:
    """One client that passes the selection and claims 1e12 examples is the result of Flower's multi-Krum."""
    rows = np.concatenate([ONES, np.full((1, 6), 1.1, dtype=np.float32)])
    counts = np.array([10.0] * 9 + [claim])
    for rule in rules(1):
        shares = rule.aggregate(rows, weights=counts).client_weights
        if isinstance(rule, Mean | GeometricMedian | MultiKrum | TrimmedMean):
            assert shares is not None
            assert shares[9] <= 2 / 10 + 1e-9, rule


def test_no_samples_at_all_is_an_even_share() -> None:
    """A total weight of zero divides by zero in Flower."""
    np.testing.assert_allclose(Mean().aggregate(ONES, weights=np.zeros(9)).value, ONES.mean(axis=0), rtol=1e-6)
    weighted = GeometricMedian(weighted=True).aggregate(ONES, weights=np.zeros(9)).value
    np.testing.assert_array_equal(weighted, GeometricMedian()(ONES))


@pytest.mark.parametrize("rule", rules(1), ids=ident)
def test_one_bad_round_is_forgotten(rule: Any) -> None:
    """ByzFL's centered clipping keeps a NaN in its momentum for ever after."""
    rng = np.random.default_rng(2)
    state = None
    for poison in (np.nan, np.inf, 1e38, None, None):
        rows = rng.normal(size=(12, 20)).astype(np.float32)
        if poison is not None:
            rows[3] = poison
        result = rule.aggregate(rows, state=state)
        state = result.state
        assert np.isfinite(result.value).all(), (rule, poison)


@pytest.mark.parametrize("rule", rules(2), ids=ident)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_hostile_rows_end_in_bounded_time_in_every_precision(rule: Any, dtype: Any) -> None:
    """One vector of 1e10 sends ByzFL's CAF into an endless loop; identical vectors give None."""
    if rule.min_clients() > 13:
        return
    rng = np.random.default_rng(3)
    honest = torch.from_numpy(rng.normal(1.0, 0.1, size=(13, 30)))
    begin = time.process_time()
    for value in (*HUGE, 1e-44, 0.0, 1.0):
        rows = honest.clone()
        rows[4], rows[9] = value, -value
        rows = rows.to(dtype)
        result = rule.aggregate(rows)
        assert result.value.dtype == dtype
        if outermost_bound(rule):
            assert bool(torch.isfinite(result.value).all()), (rule, value)
        same = torch.full((13, 30), value, dtype=torch.float64).to(dtype)
        assert bool(torch.isfinite(rule(same)).all()), (rule, value)
    assert time.process_time() - begin < 30  # the work of milliseconds, and a compilation


def test_parameters_take_any_number_and_any_kind_of_vector() -> None:
    """ByzFL refuses tau=1 and np.int64(2), and fails on every tensor or array given as momentum."""
    assert TrimmedMean(f=np.int64(2)) == TrimmedMean(f=2)
    rows = np.random.default_rng(4).normal(size=(7, 5))
    for tau in (1, 1.0, np.float32(1), np.int64(1)):
        start = np.full(5, 0.1)
        expected = CenteredClipping(tau=1.0).aggregate(rows, reference=start).value
        for reference in (start, torch.from_numpy(start), torch.from_numpy(start).float(), start.tolist()):
            value = CenteredClipping(tau=tau).aggregate(rows, reference=reference).value
            np.testing.assert_allclose(value, expected, atol=1e-7)
    assert NormClipping(Mean(), bound=2)(rows).dtype == np.float64


@pytest.mark.parametrize("rule", rules(1), ids=ident)
def test_double_precision_tensors_stay_double(rule: Any) -> None:
    """ByzFL casts them to single precision without a word."""
    rows = torch.from_numpy(1.0 + 1e-10 * np.random.default_rng(5).normal(size=(12, 6)))
    value = rule(rows)
    assert value.dtype == torch.float64
    if not involves(rule, (*NEEDS_AN_ORIGIN, *MEAN_LIKE)):
        assert 0 < float((value - 1.0).abs().max()) < 1e-8


@pytest.mark.parametrize("rule", rules(1), ids=ident)
def test_batch_norm_scalars_and_counters(rule: Any) -> None:
    """FedML's median crashes on batch norm, its residual reweighting on 2,000 weights or a 0-dimensional buffer."""
    models = []
    for seed in range(max(12, rule.min_clients())):
        torch.manual_seed(seed)
        net = torch.nn.Sequential(torch.nn.Linear(50, 50), torch.nn.BatchNorm1d(50))
        net(torch.randn(8, 50))
        models.append({**net.state_dict(), "temperature": torch.tensor(1.0 + seed)})
    assert models[0]["0.weight"].numel() > 2000
    result = aggregate_models(rule, models)
    net.load_state_dict({name: value for name, value in result.value.items() if name != "temperature"})
    assert result.value["1.num_batches_tracked"].dtype == torch.int64
    assert int(result.value["1.num_batches_tracked"]) == 1
    assert result.value["temperature"].shape == ()
    assert bool((result.value["1.running_var"] >= 0).all())


@pytest.mark.parametrize("variant", [None, "official", "paper"])
def test_identical_clients_share_residual_reweighting(variant: str | None) -> None:
    """All weights are NaN in the authors' code."""
    rule = ResidualReweighting() if variant is None else ResidualReweighting.variant(variant)
    rows = np.tile(np.random.default_rng(6).normal(size=30), (10, 1))
    result = rule.aggregate(rows)
    np.testing.assert_allclose(result.value, rows[0], rtol=1e-12)
    np.testing.assert_allclose(result.client_weights, np.full(10, 0.1))


@pytest.mark.parametrize("rule", rules(0), ids=ident)
@pytest.mark.parametrize("n", [1, 2, 3])
def test_one_parameter_and_few_clients(rule: Any, n: int) -> None:
    """No rule needs more than its theory says, and one number is a model too."""
    if n < rule.min_clients():
        return
    rows = np.arange(1.0, n + 1)[:, None]
    value = rule(rows)
    assert value.shape == (1,)
    assert 0 < value[0] <= n
