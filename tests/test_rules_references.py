"""Every rule against its definition, written again in float64 loops, and against the recorded vectors."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.aggregation import (
    Bucketing,
    Bulyan,
    CenteredClipping,
    FoolsGold,
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
from holdfast.aggregation.averaging import capped_shares
from tests.conftest import shared

DTYPES = st.sampled_from((np.float32, np.float64))


@st.composite
def matrices(draw: st.DrawFn, least: int = 1) -> np.ndarray:
    """Rows around an offset much larger than their spread, as model weights are; some far away."""
    n = draw(st.integers(least, max(least, 14)))
    d = draw(st.integers(1, 30))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows = rng.normal(size=(n, d)) + draw(st.sampled_from((0.0, 50.0)))
    rows[: draw(st.integers(0, (n - 1) // 3))] *= 1000.0
    return rows.astype(draw(DTYPES))


def close(value: np.ndarray, expected: np.ndarray, rows: np.ndarray) -> None:
    tolerance = 2e-6 if rows.dtype == np.float32 else 1e-9
    scale = np.median(np.abs(rows.astype(np.float64))) + np.abs(expected).max()
    np.testing.assert_allclose(value, expected, rtol=0, atol=tolerance * 10 * scale)


def squared(a: np.ndarray, b: np.ndarray) -> float:
    return math.fsum((float(x) - float(y)) ** 2 for x, y in zip(a, b, strict=True))


def krum_score(rows: np.ndarray, i: int, f: int) -> float:
    others = sorted(squared(rows[i], rows[j]) for j in range(len(rows)) if j != i)
    return sum(others[: max(1, len(rows) - f - 2)])


@given(matrices())
def test_mean_and_median(rows: np.ndarray) -> None:
    exact = [[float(x) for x in column] for column in rows.T]
    close(Mean()(rows), np.array([math.fsum(c) / len(c) for c in exact]), rows)
    middle = [(sorted(c)[(len(c) - 1) // 2] + sorted(c)[len(c) // 2]) / 2 for c in exact]
    close(Median()(rows), np.array(middle), rows)


@given(matrices(least=3), st.data())
def test_trimmed_mean_and_mean_around_median(rows: np.ndarray, data: st.DataObject) -> None:
    n = len(rows)
    f = data.draw(st.integers(0, (n - 1) // 2))
    trimmed, around = [], []
    for column in rows.astype(np.float64).T:
        ordered = sorted(column)
        trimmed.append(math.fsum(ordered[f : n - f]) / (n - 2 * f))
        middle = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
        around.append(math.fsum(sorted(column, key=lambda x: (abs(x - middle), x))[: n - f]) / (n - f))
    close(TrimmedMean(f=f)(rows), np.array(trimmed), rows)
    if rows.dtype == np.float64:  # in float32 two values may be equally far from the median up to rounding
        close(MeanAroundMedian(f=f)(rows), np.array(around), rows)


@given(matrices(least=5), st.data())
def test_krum_and_multi_krum(rows: np.ndarray, data: st.DataObject) -> None:
    n = len(rows)
    f = data.draw(st.integers(0, (n - 4) // 2))
    scores = [krum_score(rows, i, f) for i in range(n)]
    chosen = Krum(f=f, strict=False).aggregate(rows)
    best = int(np.argmax(chosen.client_weights))
    assert scores[best] <= min(scores) * (1 + 1e-4)
    np.testing.assert_array_equal(chosen.value, rows[best])
    several = MultiKrum(f=f, m=2, strict=False).aggregate(rows)
    picked = np.flatnonzero(several.client_weights)
    assert max(scores[i] for i in picked) <= sorted(scores)[1] * (1 + 1e-4)
    close(several.value, rows[picked].astype(np.float64).mean(axis=0), rows)


def test_distances_keep_their_precision_beside_an_offset_and_an_outlier() -> None:
    """Where ||x||^2 + ||y||^2 - 2xy on raw float32 rows is off by more than the distance itself."""
    rng = np.random.default_rng(0)
    base = rng.normal(size=20_000)
    rows = (base + 1e-3 * rng.normal(size=(9, 20_000))).astype(np.float32)
    rows[7] = 1e12
    scores = Krum(f=1).aggregate(rows).diagnostics["scores"]
    for i in (0, 3):
        assert scores[i] == pytest.approx(krum_score(rows, i, 1), rel=1e-4)


@given(st.integers(0, 2**32 - 1), st.integers(0, 3))
def test_bulyan(seed: int, f: int) -> None:
    rows = np.random.default_rng(seed).normal(size=(4 * f + 5, 7))
    left, chosen = list(range(len(rows))), []
    while len(chosen) < len(rows) - 2 * f:
        distances = {i: sorted(squared(rows[i], rows[j]) for j in left if j != i) for i in left}
        k = max(1, len(left) - f - 2)
        best = min(left, key=lambda i: (round(sum(distances[i][:k]), 9), distances[i][k:]))
        chosen.append(best)
        left.remove(best)
    expected = []
    for column in rows[chosen].T:
        middle = np.median(column)
        expected.append(np.mean(sorted(column, key=lambda x: abs(x - middle))[: len(chosen) - 2 * f]))
    np.testing.assert_allclose(Bulyan(f=f)(rows), expected, atol=1e-9)


@given(matrices(least=3))
def test_geometric_median_minimizes_the_sum_of_distances(rows: np.ndarray) -> None:
    result = GeometricMedian().aggregate(rows)
    exact = rows.astype(np.float64)

    def objective(point: np.ndarray) -> float:
        return sum(math.sqrt(squared(point, row)) for row in exact)

    point = exact.mean(axis=0)
    for _ in range(400):
        distances = np.maximum(np.linalg.norm(exact - point, axis=1), 1e-9)
        point = (exact / distances[:, None]).sum(axis=0) / (1 / distances).sum()
    rounding = 2 * len(rows) * float(np.finfo(rows.dtype).eps) * float(np.linalg.norm(result.value))
    assert objective(result.value) <= min(objective(point), *map(objective, exact)) * (1 + 2e-6) + rounding
    np.testing.assert_allclose(result.client_weights.sum(), 1.0)


def test_geometric_median_iterates_as_recorded() -> None:
    case = json.loads(shared("vectors/romoa.json").read_text())["rfa"]
    rows = np.array(case["points"])
    for steps, expected in enumerate(case["iterates"], start=1):
        rule = GeometricMedian(nu=case["nu"], max_iter=steps, tolerance=0.0, start="mean")
        np.testing.assert_allclose(rule(rows), expected, rtol=1e-9)


def test_krum_chooses_as_recorded() -> None:
    case = json.loads(shared("vectors/romoa.json").read_text())["krum"]
    result = Krum(f=case["f"]).aggregate(np.array(case["points"]))
    np.testing.assert_allclose(result.diagnostics["scores"], case["scores"], rtol=1e-9)
    np.testing.assert_array_equal(result.value, case["points"][case["selected"]])


@given(matrices(least=2), st.integers(1, 4), st.booleans())
def test_centered_clipping(rows: np.ndarray, iterations: int, reference: bool) -> None:
    exact = rows.astype(np.float64)
    center = np.full(rows.shape[1], 0.5) if reference else np.median(exact, axis=0)
    tau = 3.0
    for _ in range(iterations):
        steps = [(row - center) * min(1.0, tau / max(np.linalg.norm(row - center), 1e-300)) for row in exact]
        center = center + np.mean(steps, axis=0)
    given_reference = np.full(rows.shape[1], 0.5) if reference else None
    value = CenteredClipping(tau=tau, iterations=iterations).aggregate(rows, reference=given_reference).value
    close(value, center, rows)


@given(st.integers(0, 2**32 - 1), st.integers(2, 8))
def test_foolsgold(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    rounds = rng.normal(size=(3, n, 12))
    rounds[:, 0] = rounds[:, 1] + 0.05 * rng.normal(size=(3, 12))  # two sybils
    history, state, rule = np.zeros((n, 12)), None, FoolsGold()
    for updates in rounds:
        history += updates
        result = rule.aggregate(updates, state=state)
        state = result.state
        cos = [
            [history[i] @ history[j] / np.linalg.norm(history[i]) / np.linalg.norm(history[j]) for j in range(n)]
            for i in range(n)
        ]
        largest = [max(cos[i][j] for j in range(n) if j != i) for i in range(n)]
        trust = []
        for i in range(n):
            pardoned = [
                cos[i][j] * (largest[i] / largest[j] if largest[j] > largest[i] > 0 else 1.0)
                for j in range(n)
                if j != i
            ]
            trust.append(min(1.0, max(0.0, 1.0 - max(pardoned))))
        top = max(trust)
        logits = [1.0 if a == top else min(1.0, max(0.0, math.log(a / top / (1 - a / top)) + 0.5)) for a in trust]
        np.testing.assert_allclose(result.client_weights, np.array(logits) / sum(logits), atol=1e-9)
        np.testing.assert_allclose(result.value, np.array(logits) @ updates / sum(logits), atol=1e-9)


def test_foolsgold_remembers_by_client_not_by_position() -> None:
    rng = np.random.default_rng(0)
    updates = rng.normal(size=(4, 6))
    first = FoolsGold().aggregate(updates, clients="abcd")
    straight = FoolsGold().aggregate(updates, clients="abcd", state=first.state)
    turned = FoolsGold().aggregate(updates[::-1], clients="dcba", state=first.state)
    np.testing.assert_allclose(turned.client_weights, straight.client_weights[::-1])


@given(matrices(least=3), st.data())
def test_nearest_neighbor_mixing(rows: np.ndarray, data: st.DataObject) -> None:
    n = len(rows)
    f = data.draw(st.integers(0, (n - 1) // 2))
    mixed = []
    for i in range(n):
        order = sorted(range(n), key=lambda j: 0.0 if j == i else squared(rows[i], rows[j]))
        mixed.append(rows[order[: n - f]].astype(np.float64).mean(axis=0))
    close(NearestNeighborMixing(Median(), f=f)(rows), np.median(mixed, axis=0), rows)


@given(matrices(), st.floats(0.1, 100.0))
def test_norm_clipping(rows: np.ndarray, bound: float) -> None:
    exact = rows.astype(np.float64)
    clipped = [row * min(1.0, bound / max(np.linalg.norm(row), 1e-300)) for row in exact]
    close(NormClipping(Mean(), bound=bound)(rows), np.mean(clipped, axis=0), rows)
    norms = sorted(np.linalg.norm(row) for row in exact)
    adaptive = 2.0 * norms[(len(norms) - 1) // 2]
    clipped = [row * min(1.0, adaptive / max(np.linalg.norm(row), 1e-300)) for row in exact]
    close(NormClipping(Median(), multiple=2.0)(rows), np.median(clipped, axis=0), rows)


@given(matrices(least=2), st.integers(1, 5), st.integers(0, 1000))
def test_bucketing(rows: np.ndarray, s: int, seed: int) -> None:
    order = np.random.default_rng([seed, 0]).permutation(len(rows))
    buckets = [rows[order[i : i + s]].astype(np.float64).mean(axis=0) for i in range(0, len(rows), s)]
    close(Bucketing(Median(), s=s, seed=seed)(rows), np.median(buckets, axis=0), rows)


@given(
    st.lists(st.one_of(st.just(0.0), st.floats(1e-3, 1e15)), min_size=1, max_size=20),
    st.floats(1.0, 5.0),
)
def test_no_share_exceeds_its_cap(weights: list[float], cap: float) -> None:
    n = len(weights)
    shares = capped_shares(np.array(weights), n, cap)
    assert shares.sum() == pytest.approx(1.0)
    assert (shares >= 0).all()
    assert (shares <= max(cap / n, 1 / n) * (1 + 1e-9)).all() or n == 1
    order = np.argsort(weights, kind="stable")
    assert (np.diff(shares[order]) >= -1e-12).all()  # who claims more never gets less


def test_generous_caps_leave_reported_weights_as_they_are() -> None:
    weights = np.array([1.0, 2.0, 5.0])
    np.testing.assert_allclose(Mean(cap=math.inf).aggregate(np.eye(3), weights=weights).value, weights / 8)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (Median(), [0, 0.5, 0.5, 0]),
        (TrimmedMean(f=1), [0, 0.5, 0.5, 0]),
        (MeanAroundMedian(f=1), [1 / 3, 1 / 3, 1 / 3, 0]),
        (Krum(f=0), [0, 1, 0, 0]),
        (MultiKrum(f=0, m=2), [0, 0.5, 0.5, 0]),
        (Mean(), [0.25, 0.25, 0.25, 0.25]),
        (NormClipping(Mean(), bound=4.0), [0.25, 0.25, 0.25, 0.05]),
    ],
    ids=repr,
)
def test_influence_is_the_share_each_client_has_in_the_result(rule: object, expected: list[float]) -> None:
    rows = np.array([[1.0, 1.0], [2.0, 2.0], [2.1, 2.1], [20.0, 0.0]]) * [[1.0, 1.0]]
    rows[3] = [16.0, 12.0]
    np.testing.assert_allclose(rule.aggregate(rows).client_weights, expected)  # type: ignore[attr-defined]
