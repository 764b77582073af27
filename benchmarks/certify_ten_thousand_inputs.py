"""Certify 10,000 inputs: holdfast beside the loops that published code uses for the same numbers.

    python benchmarks/certify_ten_thousand_inputs.py [--quick]

n=1000 clients, k=10, N=500 models, 10 labels, alpha=0.001 for all inputs together. The loops are written here as the
papers' pseudocode reads: one input after the other, Clopper-Pearson by statsmodels' `proportion_confint` as the
published bagging code calls it (if statsmodels is installed) or by the `beta.ppf` of SciPy that it calls in turn,
radius by bisection over floating-point log-gammas; for the deployed ensemble one matrix product and one sort per
input and rival. All run in one process; loops are run on a sample of the inputs and scaled up ("sample" tells how
many). Caches are emptied before every turn of holdfast.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import special, stats

from holdfast.certification import bounds, certify_deployed, certify_ideal, certify_secret
from holdfast.certification import secret as secret_module
from holdfast.ensemble import make_design
from measure import save, version

try:
    from statsmodels.stats.proportion import proportion_confint
except ImportError:
    proportion_confint = None

N_CLIENTS, K, N_MODELS, N_LABELS, ALPHA = 1000, 10, 500, 10, 0.001
Array = np.ndarray[Any, Any]
Interval = Callable[[Any, float], tuple[float, float]]


def made_up_votes(inputs: int) -> Array:
    """Votes of models that are right with a probability that differs between inputs."""
    rng = np.random.default_rng(0)
    truth, share = rng.integers(0, N_LABELS, inputs), rng.beta(6, 1, inputs)
    noise = rng.integers(0, N_LABELS, (N_MODELS, inputs))
    return np.where(rng.random((N_MODELS, inputs)) < share, truth, noise).astype(np.uint8)


def log_share(m: int) -> float:
    """The logarithm of C(n-m, k) / C(n, k)."""
    lgamma = special.gammaln
    return float(
        lgamma(N_CLIENTS - m + 1) - lgamma(N_CLIENTS - m - K + 1) - lgamma(N_CLIENTS + 1) + lgamma(N_CLIENTS - K + 1)
    )


def bisect(gap: float) -> int:
    """The largest m with gap > 2 - 2 C(n-m, k) / C(n, k), in floats."""
    if gap <= 0:
        return -1
    low, high = 0, N_CLIENTS - K
    while low < high:
        middle = (low + high + 1) // 2
        if gap > 2 - 2 * np.exp(log_share(middle)):
            low = middle
        else:
            high = middle - 1
    return low


def scipy_interval(count: int, level: float) -> tuple[float, float]:
    """Clopper-Pearson as statsmodels computes it: both ends, whichever is needed."""
    low = stats.beta.ppf(level, count, N_MODELS - count + 1) if count else 0.0
    up = stats.beta.ppf(1 - level, count + 1, N_MODELS - count) if count < N_MODELS else 1.0
    return low, up


def statsmodels_interval(count: int, level: float) -> tuple[float, float]:
    """The call of the published bagging code, which keeps counts off the ends."""
    count = min(max(count, 1e-10), N_MODELS - 1e-10)
    low, up = proportion_confint(count, N_MODELS, alpha=2 * level, method="beta")
    return float(low), float(up)


def loop_one_vs_rest(counts: Array, inputs: int, interval: Interval) -> list[int]:
    """Cao et al., Algorithm 2: a bound for the winner, 1 minus it for the others."""
    return [bisect(2 * interval(row.max(), ALPHA / inputs)[0] - 1) for row in counts]


def loop_every_label(counts: Array, inputs: int, interval: Interval) -> list[int]:
    """The published bagging loop: a Clopper-Pearson bound for every label at alpha / L."""
    radii = []
    for row in counts:
        ends = [interval(count, ALPHA / inputs / N_LABELS) for count in row]
        winner = int(row.argmax())
        low = ends[winner][0]
        up = max(end[1] for z, end in enumerate(ends) if z != winner)
        radii.append(bisect(low - min(up, 1 - low)))
    return radii


def loop_deployed(votes: Array, membership: Array) -> list[int]:
    """Client scores by a matrix product for every input and rival, sorted, summed until the lead is used up."""
    radii = []
    by_client = membership.T.astype(np.float64)
    for column in votes.T:
        counts = np.bincount(column, minlength=N_LABELS)
        winner, best = int(counts.argmax()), N_CLIENTS
        for rival in range(N_LABELS):
            if rival != winner:
                lead = counts[winner] - counts[rival] - (rival < winner)
                scores = by_client @ (1.0 + (column == winner) - (column == rival))
                best = min(best, int((np.cumsum(np.sort(scores)[::-1]) <= lead).sum()))
        radii.append(best)
    return radii


def forget() -> None:
    """Empty every cache, so that each turn pays for everything."""
    bounds._lower.cache_clear()
    bounds.coin_threshold.cache_clear()
    secret_module._quantile.cache_clear()
    secret_module._tables.cache_clear()


def seconds(call: Callable[[], Any], turns: int) -> tuple[float, Any]:
    """Fewest processor seconds of several turns, and the result."""
    best, result = float("inf"), None
    for _ in range(turns):
        forget()
        began = time.process_time()
        result = call()
        best = min(best, time.process_time() - began)
    return best, result


def compare(inputs: int, sample: int, turns: int) -> list[dict[str, Any]]:
    """Every certificate, ours on all inputs and the loop on a sample of them."""
    votes = made_up_votes(inputs)
    design = make_design("random", n=N_CLIENTS, k=K, n_models=N_MODELS, seed=0)
    balanced = make_design("partitions", n=N_CLIENTS, k=K, n_models=N_MODELS, seed=0)
    counts = np.stack([np.bincount(column, minlength=N_LABELS) for column in votes.T])
    some = min(sample, inputs)
    ideal = {"n": N_CLIENTS, "k": K, "alpha": ALPHA}
    few = slice(0, max(some // 10, 20))
    intervals: dict[str, Interval] = {"SciPy": scipy_interval}
    if proportion_confint is not None:
        intervals["statsmodels"] = statsmodels_interval
    contests: list[tuple[str, Callable[[], Any], Callable[[], Any] | None, int]] = []
    for peer, interval in intervals.items():
        contests += [
            (f"ideal, Cao et al. | loop, {peer}",
             lambda: certify_ideal(counts, method="as-published-ensemble", **ideal),
             lambda f=interval: loop_one_vs_rest(counts[:some], inputs, f), some),
            (f"ideal, rank-verified | loop per label, {peer}", lambda: certify_ideal(counts, **ideal),
             lambda f=interval: loop_every_label(counts[:some], inputs, f), some),
        ]  # fmt: skip
    contests += [
        ("deployed, degree, random design", lambda: certify_deployed(votes, design.membership, N_LABELS),
         lambda: loop_deployed(votes[:, few], design.membership), few.stop),
        ("deployed, degree, partitions", lambda: certify_deployed(votes, balanced.membership, N_LABELS),
         lambda: loop_deployed(votes[:, few], balanced.membership), few.stop),
        ("secret, partitions", lambda: certify_secret(votes, [K] * 100, 5, N_LABELS, alpha=ALPHA), None, 0),
    ]  # fmt: skip
    rows: list[dict[str, Any]] = []
    for name, ours, loop, looped in contests:
        took, certificate = seconds(ours, turns)
        row = {"what": name, "inputs": inputs, "seconds": took, "mean_radius": float(certificate.radius.mean())}
        if loop is not None:
            slow, radii = seconds(loop, 1)
            mine = certificate.radius[:looped]
            row |= {"sample": looped, "loop_seconds": slow * inputs / looped, "ratio": slow * inputs / looped / took}
            row |= {"equal": float(np.mean(mine == radii)), "ours_larger": float(np.mean(mine > np.array(radii)))}
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="1,000 inputs and a small sample for the loops")
    quick = parser.parse_args().quick
    rows = compare(1000, 100, 1) if quick else compare(10_000, 2000, 3)
    print(f"{'certificate':50} {'ours s':>8} {'loop s':>9} {'ratio':>7} {'equal':>6} {'larger':>6} {'mean m':>7}")
    for row in rows:
        loop = "".join(
            f" {row[key]:{width}}" if key in row else " " * (int(width.split(".")[0]) + 1)
            for key, width in (("loop_seconds", "9.2f"), ("ratio", "7.0f"), ("equal", "6.2f"), ("ours_larger", "6.2f"))
        )
        print(f"{row['what']:50} {row['seconds']:8.3f}{loop} {row['mean_radius']:7.2f}")
    name = "certify_ten_thousand_inputs" + ("_quick" if quick else "")
    save(name, rows, scipy=version("scipy"), statsmodels=version("statsmodels"))


if __name__ == "__main__":
    main()
