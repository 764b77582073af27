"""Median, trimmed mean and mean around the median against Flower, ByzFL, torch and NumPy, in one run on one core.

    python benchmarks/coordinate_wise_rules.py [--quick]

Peers come from `pip install -c constraints.txt flwr byzfl`; one that is missing is reported as such. "rule" is the
whole call on the caller's array, screen included; "kernel" is the compiled network alone. The percentages say how
close the rule comes to reading memory once, and to doing nothing but the network's minima and maxima.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from holdfast.aggregation.averaging import MeanAroundMedian, Median, TrimmedMean
from holdfast.aggregation.kernels import coordinate, order_code
from holdfast.aggregation.kernels.networks import middle_ranks
from measure import (
    byzfl_aggregators,
    contest,
    flower_aggregate,
    machine,
    minmax_rate,
    ratio,
    read_bandwidth,
    save,
)

SIZES = [(10, 100_000), (10, 1_000_000), (10, 11_000_000), (20, 1_000_000), (50, 1_000_000), (50, 11_000_000)]
SIZES += [(100, 1_000_000), (100, 11_000_000), (200, 1_000_000)]
QUICK = [(10, 100_000), (50, 50_000)]
PEER_VALUES = 5_000_000
"""Peers get as many columns as fit this many values: their cost per coordinate does not depend on d."""


def median_peers(x: np.ndarray[Any, Any]) -> dict[str, Callable[[], Any] | None]:
    """The peers' median of the rows of x."""
    flower, byzfl, tensor = flower_aggregate(), byzfl_aggregators(), torch.from_numpy(x)
    results = [([row], 1) for row in x]
    return {
        "Flower": flower and (lambda: flower.aggregate_median(results)),
        "ByzFL numpy": byzfl and (lambda: byzfl.Median()(x)),
        "ByzFL torch": byzfl and (lambda: byzfl.Median()(tensor)),
        "torch.median": lambda: torch.median(tensor, dim=0).values,
        "torch.sort": lambda: torch.sort(tensor, dim=0).values[len(x) // 2],
        "np.median": lambda: np.median(x, axis=0),
    }


def trimmed_peers(x: np.ndarray[Any, Any], f: int) -> dict[str, Callable[[], Any] | None]:
    """The peers' trimmed mean of the rows of x."""
    flower, byzfl, tensor = flower_aggregate(), byzfl_aggregators(), torch.from_numpy(x)
    results = [([row], 1) for row in x]
    return {
        "Flower": flower and (lambda: flower.aggregate_trimmed_avg(results, f / len(x))),
        "ByzFL numpy": byzfl and (lambda: byzfl.TrMean(f)(x)),
        "ByzFL torch": byzfl and (lambda: byzfl.TrMean(f)(tensor)),
        "torch.sort": lambda: torch.sort(tensor, dim=0).values[f : len(x) - f].mean(dim=0),
    }


def around_peers(x: np.ndarray[Any, Any], f: int) -> dict[str, Callable[[], Any] | None]:
    """The peers' mean around the median of the rows of x."""
    byzfl, tensor = byzfl_aggregators(), torch.from_numpy(x)
    return {
        "ByzFL numpy": byzfl and (lambda: byzfl.Meamed(f)(x)),
        "ByzFL torch": byzfl and (lambda: byzfl.Meamed(f)(tensor)),
    }


def around_reference(x: np.ndarray[Any, Any], f: int) -> np.ndarray[Any, Any]:
    """The mean around the median, from its definition."""
    exact = x.astype(np.float64)
    far = np.abs(exact - np.median(exact, axis=0))
    return np.take_along_axis(exact, np.argsort(far, axis=0)[: len(x) - f], axis=0).mean(axis=0)


def measure(rule: str, x: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Nanoseconds per coordinate of everybody."""
    n, d = x.shape
    f, around = n // 5, rule == "mean around median"
    lo, hi = middle_ranks(n) if rule == "median" else (0, n - f) if around else (f, n - f)
    whole = {"median": Median(), "trimmed mean": TrimmedMean(f=f), "mean around median": MeanAroundMedian(f=f)}[rule]
    kernel = coordinate.mean_around_median if around else coordinate.trimmed_mean
    dropped = lo if rule == "median" else f
    ours = contest({"rule": lambda: whole(x), "kernel": lambda: kernel(x, dropped, threads=1)}, turns=15)
    columns = min(d, PEER_VALUES // n)
    few = np.ascontiguousarray(x[:, :columns])
    peers = median_peers(few) if rule == "median" else around_peers(few, f) if around else trimmed_peers(few, f)
    times = contest({name: call for name, call in peers.items() if call is not None}, turns=3)
    some = few[:, :1000]
    reference = around_reference(some, f) if around else np.sort(some, axis=0)[lo:hi].mean(axis=0, dtype=np.float64)
    return {
        "rule": rule,
        "n": n,
        "d": d,
        "ns_rule": 1e9 * ours["rule"] / d,
        "ns_kernel": 1e9 * ours["kernel"] / d,
        "operations": order_code.reduction_network(n, lo, hi, around).operations,
        "ns_peers": {name: 1e9 * times[name] / columns if name in times else None for name in peers},
        "error": float(np.abs(whole(few)[:1000] - reference).max()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes only, nothing saved")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    bandwidth, rate = read_bandwidth(64 if quick else 256), minmax_rate()
    minmax = "not measured" if rate is None else f"{rate / 1e9:.0f} G min/max/s"
    print(f"{machine()}\nreads {bandwidth / 1e9:.1f} GB/s, {minmax}, one core")
    rows = []
    for n, d in QUICK if quick else SIZES:
        x = np.random.default_rng(n).standard_normal(size=(n, d), dtype=np.float32)
        for rule in ("median", "trimmed mean", "mean around median"):
            row = measure(rule, x)
            row["of_bandwidth"] = 4 * n / row["ns_rule"] * 1e9 / bandwidth
            row["of_minmax"] = None if rate is None else row["operations"] / row["ns_rule"] * 1e9 / rate
            rows.append(row)
            ahead = "  ".join(f"{name} {ratio(t, row['ns_rule'])}" for name, t in row["ns_peers"].items())
            bound = "" if rate is None else f", {row['of_minmax']:.0%} of min/max"
            print(
                f"{rule:18} n={n:<4} d={d:<9} rule {row['ns_rule']:7.2f} ns "
                f"({row['of_bandwidth']:.0%} of memory{bound})  kernel {row['ns_kernel']:7.2f} ns  {ahead}",
                flush=True,
            )
    if not quick:
        print("saved", save("coordinate_wise_rules", rows, bytes_per_second=bandwidth, minmax_per_second=rate))


if __name__ == "__main__":
    main()
