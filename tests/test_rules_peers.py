"""Agreement with ByzFL and Flower on clean input where they are right; where they are not, what we do instead."""

from typing import Any

import numpy as np
import pytest
import torch

from holdfast.aggregation import (
    Bulyan,
    CenteredClipping,
    GeometricMedian,
    Krum,
    Mean,
    MeanAroundMedian,
    Median,
    MultiKrum,
    NearestNeighborMixing,
    NormClipping,
    TrimmedMean,
)
from tests import peers

ROWS = np.random.default_rng(0).normal(size=(13, 50))


@pytest.mark.parametrize(
    ("ours", "name", "params"),
    [
        (Mean(), "Average", {}),
        (Median(), "Median", {}),
        (TrimmedMean(f=3), "TrMean", {"f": 3}),
        (MeanAroundMedian(f=3), "Meamed", {"f": 3}),
    ],
    ids=repr,
)
def test_same_as_byzfl(ours: Any, name: str, params: dict[str, Any]) -> None:
    theirs = getattr(peers.byzfl(), name)(**params)
    np.testing.assert_allclose(ours(ROWS), theirs(ROWS), rtol=1e-12)
    np.testing.assert_allclose(ours(torch.from_numpy(ROWS)), ours(ROWS), rtol=1e-12)


def test_byzfl_krum_counts_one_neighbor_more() -> None:
    """The paper sums n - f - 2 neighbors, ByzFL n - f - 1: its Krum for f is ours for f - 1."""
    byzfl = peers.byzfl()
    np.testing.assert_array_equal(Krum(f=2)(ROWS), byzfl.Krum(f=3)(ROWS))
    np.testing.assert_allclose(MultiKrum(f=2, m=10)(ROWS), byzfl.MultiKrum(f=3)(ROWS), rtol=1e-12)


def test_same_as_byzfl_before_a_rule() -> None:
    byzfl = peers.byzfl()
    mixed = byzfl.NNM(f=3)(ROWS)
    np.testing.assert_allclose(NearestNeighborMixing(Median(), f=3)(ROWS), np.median(mixed, axis=0), rtol=1e-12)
    clipped = byzfl.Clipping(c=5.0)(ROWS.copy())  # it writes into its input
    np.testing.assert_allclose(NormClipping(Mean(), bound=5.0)(ROWS), clipped.mean(axis=0), rtol=1e-12)
    started = byzfl.CenteredClipping(L=3, tau=2.0)(ROWS)
    ours = CenteredClipping(tau=2.0, iterations=3).aggregate(ROWS, reference=np.zeros(50)).value
    np.testing.assert_allclose(ours, started, rtol=1e-10, atol=1e-12)


def test_byzfl_geometric_median_is_three_steps_from_the_origin() -> None:
    """So it depends on where the origin lies; with steps enough and no shift it agrees with ours."""
    byzfl = peers.byzfl()
    np.testing.assert_allclose(GeometricMedian()(ROWS), byzfl.GeometricMedian(nu=1e-6, T=500)(ROWS), atol=1e-6)
    shifted = byzfl.GeometricMedian()(ROWS + 100.0) - 100.0
    assert np.abs(shifted - byzfl.GeometricMedian()(ROWS)).max() > 1e-4
    np.testing.assert_allclose(GeometricMedian()(ROWS + 100.0) - 100.0, GeometricMedian()(ROWS), atol=1e-6)


@pytest.mark.parametrize(
    ("ours", "name", "params"),
    [
        (Mean(), "FedAvg", {}),
        (Median(), "FedMedian", {}),
        (TrimmedMean(f=2), "FedTrimmedAvg", {"beta": 2 / 13 + 1e-9}),
        (Krum(f=3), "Krum", {"num_malicious_nodes": 3}),
        (MultiKrum(f=3, m=5), "MultiKrum", {"num_malicious_nodes": 3, "num_nodes_to_select": 5}),
    ],
    ids=repr,
)
def test_same_as_flower(ours: Any, name: str, params: dict[str, Any]) -> None:
    np.testing.assert_allclose(ours(ROWS), peers.flower(name, ROWS, **params), rtol=1e-9, atol=1e-12)


def test_flower_bulyan_takes_its_selection_in_one_go() -> None:
    """The paper takes rows away one by one; with no malicious row both select all, and agree."""
    np.testing.assert_allclose(Bulyan(f=0)(ROWS), peers.flower("Bulyan", ROWS, num_malicious_nodes=0), rtol=1e-9)


def test_one_undefined_row_breaks_peers_and_not_us() -> None:
    byzfl = peers.byzfl()
    rows = ROWS.copy()
    rows[4] = np.nan
    with np.errstate(all="ignore"):
        for name in ("Median", "GeometricMedian", "Krum"):
            params = {"f": 2} if name == "Krum" else {}
            assert np.isnan(getattr(byzfl, name)(**params)(rows)).any()
        assert np.isnan(peers.flower("FedMedian", rows)).any()
    for ours in (Median(), GeometricMedian(), Krum(f=2)):
        assert np.isfinite(ours(rows)).all()


def test_flower_takes_a_clients_word_for_its_weight_and_we_do_not() -> None:
    rows, examples = ROWS.copy(), [10.0] * 13
    examples[4] = 1e15
    np.testing.assert_allclose(peers.flower("FedAvg", rows, examples=examples), rows[4], rtol=1e-6)
    shares = Mean().aggregate(rows, weights=examples).client_weights
    assert shares[4] == pytest.approx(2 / 13)


def test_flower_distances_lose_small_updates_on_large_weights() -> None:
    """Raw float32 products: the row Flower's Krum takes is not the one with the smallest score."""
    rng = np.random.default_rng(1)
    base = 10.0 * rng.normal(size=20_000)
    steps = 1e-4 * rng.normal(size=(9, 20_000)) * np.linspace(0.5, 2.0, 9)[::-1, None]
    rows = (base + steps).astype(np.float32)
    exact = ((rows[:, None].astype(np.float64) - rows[None]) ** 2).sum(axis=2)
    best = np.sort(exact, axis=1)[:, 1:7].sum(axis=1).argmin()
    np.testing.assert_array_equal(Krum(f=1)(rows), rows[best])
    assert not np.array_equal(peers.flower("Krum", rows, num_malicious_nodes=1), rows[best])


def test_peers_change_the_callers_array_and_we_do_not() -> None:
    rows = ROWS.copy()
    peers.byzfl().Clipping(c=1.0)(rows)
    assert not np.array_equal(rows, ROWS)
    rows = ROWS.copy()
    NormClipping(Mean(), bound=1.0)(rows)
    np.testing.assert_array_equal(rows, ROWS)
