"""Krum, multi-Krum, geometric median, FoolsGold, centered clipping and mixing against ByzFL, Flower and sklearn.

    python benchmarks/aggregation_rules.py [--quick]

Peers come from `pip install --no-deps -r tests/requirements-peers.txt`; one that is missing is reported as such. Ours
is the whole rule call on the caller's array, screen included, in one run on one core; beside it, which share of that
time it takes to read the rows once, and to multiply them into one Gram matrix (BLAS, float32). The last line is the
relative error of the squared distances a rule decides on, where updates are 0.2% of the weights: a peer whose error is
above 1 chooses by noise.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # OpenBLAS, which NumPy brings, reads it too

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.metrics.pairwise import cosine_similarity

from holdfast.aggregation import (
    CenteredClipping,
    FoolsGold,
    GeometricMedian,
    Krum,
    MultiKrum,
    NearestNeighborMixing,
    TrimmedMean,
)
from holdfast.aggregation.distance import row_distances
from holdfast.aggregation.stacking import stack
from measure import byzfl_aggregators, contest, flower_aggregate, machine, read_bandwidth, save

SIZES = [(10, 200_000), (10, 1_000_000), (20, 200_000), (50, 200_000), (100, 200_000), (200, 100_000)]
QUICK = [(10, 50_000), (50, 20_000)]
STEPS = 100
"""Weiszfeld steps that bring ByzFL's geometric median to the precision ours stops at."""

Calls = dict[str, Callable[[], Any] | None]


def byzfl_mixing(f: int) -> Any | None:
    """ByzFL's nearest-neighbor mixing, or None if it is not installed."""
    if byzfl_aggregators() is None:
        return None
    from byzfl.aggregators import preaggregators

    return preaggregators.NNM(f)


def contenders(x: np.ndarray[Any, Any]) -> dict[str, tuple[Callable[[], Any], Calls]]:
    """Ours and the peers' calls by rule."""
    f, tensor = len(x) // 5, torch.from_numpy(x)
    byzfl, flower, mixing = byzfl_aggregators(), flower_aggregate(), byzfl_mixing(f)
    results = [([row], 1) for row in x]
    krum, median, multi = Krum(f=f), GeometricMedian(), MultiKrum(f=f)
    mixed, gold = NearestNeighborMixing(TrimmedMean(f=f), f=f), FoolsGold()
    clipping = CenteredClipping(tau=float(np.sqrt(x.shape[1])), iterations=3)
    return {
        "krum": (
            lambda: krum(x),
            {
                "Flower": flower and (lambda: flower.aggregate_krum(results, f, 0)),
                "ByzFL torch": byzfl and (lambda: byzfl.Krum(f)(tensor)),
                "ByzFL numpy": byzfl and (lambda: byzfl.Krum(f)(x)),
            },
        ),
        "multi-krum": (
            lambda: multi(x),
            {
                "Flower": flower and (lambda: flower.aggregate_krum(results, f, len(x) - f)),
                "ByzFL torch": byzfl and (lambda: byzfl.MultiKrum(f)(tensor)),
                "ByzFL numpy": byzfl and (lambda: byzfl.MultiKrum(f)(x)),
            },
        ),
        "geometric median": (
            lambda: median(x),
            {
                "ByzFL torch, 3 steps": byzfl and (lambda: byzfl.GeometricMedian(nu=1e-6, T=3)(tensor)),
                f"ByzFL torch, {STEPS} steps": byzfl and (lambda: byzfl.GeometricMedian(nu=1e-6, T=STEPS)(tensor)),
                "ByzFL numpy, 3 steps": byzfl and (lambda: byzfl.GeometricMedian(nu=1e-6, T=3)(x)),
            },
        ),
        "foolsgold": (
            lambda: gold(x),
            {"sklearn cosine + sum": lambda: (cosine_similarity(x), x.mean(axis=0))},
        ),
        "centered clipping": (
            lambda: clipping(x),
            {
                "ByzFL torch": byzfl and (lambda: byzfl.CenteredClipping(L=3, tau=clipping.tau)(tensor)),
                "ByzFL numpy": byzfl and (lambda: byzfl.CenteredClipping(L=3, tau=clipping.tau)(x)),
            },
        ),
        "mixing + trimmed mean": (
            lambda: mixed(x),
            {
                "ByzFL torch": mixing and byzfl and (lambda: byzfl.TrMean(f)(mixing(tensor))),
                "ByzFL numpy": mixing and byzfl and (lambda: byzfl.TrMean(f)(mixing(x))),
            },
        ),
    }


def distance_errors(n: int, d: int) -> dict[str, float]:
    """Worst relative error of squared distances, where updates are 0.2% of the weights."""
    rng = np.random.default_rng(1)
    x = (rng.standard_normal(d) + 0.002 * rng.standard_normal((n, d))).astype(np.float32)
    exact = np.array([[((a.astype(np.float64) - b) ** 2).sum() for b in x] for a in x])
    squares = np.square(x).sum(axis=1)
    found = {
        "holdfast": row_distances(stack(x).federations[0]),
        "Flower's formula": squares[:, None] + squares[None, :] - 2 * x @ x.T,
        "torch.cdist": torch.cdist(torch.from_numpy(x), torch.from_numpy(x)).numpy().astype(np.float64) ** 2,
    }
    off = ~np.eye(n, dtype=bool)
    return {name: float((np.abs(value - exact)[off] / exact[off]).max()) for name, value in found.items()}


def _ahead(peer: float | None, ours: float) -> str:
    return "not installed" if peer is None else f"{peer / ours:.1f}x"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes only, nothing saved")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    bandwidth = read_bandwidth(64 if quick else 256)
    print(f"{machine()}\nreads {bandwidth / 1e9:.1f} GB/s, one core")
    rows = []
    for n, d in QUICK if quick else SIZES:
        x = np.random.default_rng(n).standard_normal(size=(n, d), dtype=np.float32)
        gram = contest({"gram": lambda x=x: x @ x.T})["gram"]
        for rule, (ours, peers) in contenders(x).items():
            calls = {name: call for name, call in peers.items() if call is not None}
            best = contest({"ours": ours, **calls}, turns=5)
            row = {"rule": rule, "n": n, "d": d, "ms": 1e3 * best.pop("ours")}
            row |= {"of_bandwidth": x.nbytes / bandwidth / row["ms"] * 1e3, "of_gram": 1e3 * gram / row["ms"]}
            row["ms_peers"] = {name: 1e3 * best[name] if name in best else None for name in peers}
            rows.append(row)
            ahead = "  ".join(f"{name} {_ahead(ms, row['ms'])}" for name, ms in row["ms_peers"].items())
            print(
                f"{rule:22} n={n:<4} d={d:<8} {row['ms']:8.2f} ms "
                f"({row['of_bandwidth']:.0%} reading once, {row['of_gram']:.0%} one Gram matrix)  {ahead}",
                flush=True,
            )
    errors = distance_errors(30, 20_000 if quick else 100_000)
    print("distances off by at most: " + ", ".join(f"{name} {error:.1e}" for name, error in errors.items()))
    if not quick:
        print("saved", save("aggregation_rules", rows, distance_errors=errors))


if __name__ == "__main__":
    main()
