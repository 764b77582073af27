"""Residual reweighting against the published algorithm and FedML's, written plainly in torch, in the same run.

    python benchmarks/residual_reweighting.py [--quick]

Both peers are formulated here from what their sources do, step by step on whole K x K matrices per coordinate in
chunks of 2,000 coordinates: the authors' code keeps all pairwise slopes and a hat matrix by inversion; FedML's has
no leverage and Gaussian weights. Neither can be installed: one is research code for CUDA, the other is never called.
"ours" is the whole rule call on the caller's array, both passes and the screen. All results are compared first.
"""

from __future__ import annotations

import argparse
import math
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from typing import Any

import numpy as np
import torch
from torch import Tensor

from holdfast.aggregation.kernels.networks import middle_ranks, selection_network
from holdfast.aggregation.regression import ResidualReweighting
from measure import contest, machine, minmax_rate, save

SIZES = [(10, 1_000_000), (20, 300_000), (50, 100_000), (100, 30_000), (200, 10_000)]
QUICK = [(10, 50_000), (100, 2_000)]
PEER_COLUMNS = {10: 40_000, 20: 10_000, 50: 4_000, 100: 2_000, 200: 500}
"""The peers' cost per coordinate is constant, so they get fewer coordinates."""
CHUNK = 2000


def median_along(values: Tensor) -> Tensor:
    """Median of the last axis, the mean of the two middle values for an even count."""
    ranked = values.sort(dim=-1).values
    lo, hi = middle_ranks(values.shape[-1])
    return ranked[..., lo:hi].mean(dim=-1)


def repeated_median(ranked: Tensor) -> Tensor:
    """Slopes of repeated-median lines through sorted columns `[c, K]`, from all K x K slopes at once."""
    k = ranked.shape[1]
    x = torch.arange(k, dtype=ranked.dtype)
    slopes = (ranked[:, :, None] - ranked[:, None, :]) / (x[:, None] - x[None, :])
    others = slopes[:, ~torch.eye(k, dtype=torch.bool)].reshape(-1, k, k - 1)
    return median_along(median_along(others))


def peer(y: Tensor, *, gaussian: bool, lam: float = 2.0, delta: float = 0.1) -> tuple[Tensor, Tensor]:
    """The aggregate `[D]` and the client weights of rows `[K, D]`."""
    k = len(y)
    total, corrected = torch.zeros(k), []
    for part in y.T.split(CHUNK):
        order = part.argsort(dim=1)
        x = order.argsort(dim=1).to(part.dtype)
        ranked = part.gather(1, order)
        slope = repeated_median(ranked)
        intercept = median_along(ranked) - slope * (k - 1) / 2
        line = intercept[:, None] + slope[:, None] * x
        residual = part - line
        scale = median_along(residual.abs().sort(dim=1).values[:, 1:])
        tau = 1.4826 * (1 + 5 / (k - 1)) * scale + 1e-7
        e = residual / tau[:, None]
        if gaussian:
            w = torch.exp(-(e**2) / (2 * lam**2))
        else:
            design = torch.stack([torch.ones_like(x), x], dim=2)
            hat = design @ torch.linalg.inv(design.mT @ design) @ design.mT
            root = (1 - hat.diagonal(dim1=1, dim2=2)).clamp_min(0).sqrt()
            bound = lam * math.sqrt(2 / k)
            w = root / e * (e / root).clamp(-bound, bound)
            w = torch.where(w.isnan(), 1.0, w)
        total += (w * w.std(dim=1, keepdim=True)).sum(dim=0)
        corrected.append(torch.where(w >= delta, part, line))
    p = (total / total.max()) ** 2
    p = p / p.sum()
    return torch.cat(corrected) @ p, p


def operations(n: int) -> int:
    """Minima and maxima per coordinate that the rule cannot do without, in this algorithm."""
    inner = selection_network(n - 1, range(*middle_ranks(n - 1))).operations
    outer = selection_network(n, range(*middle_ranks(n))).operations
    return n * inner + selection_network(n, range(n)).operations + 2 * outer


def measure(n: int, d: int) -> dict[str, Any]:
    """Microseconds per coordinate of everybody, and how far the results are apart."""
    x = np.random.default_rng(n).normal(size=(n, d)).astype(np.float32)
    x[: n // 4] *= 10
    few = np.ascontiguousarray(x[:, : PEER_COLUMNS[n]])
    tensor = torch.from_numpy(few)
    huber, gaussian = ResidualReweighting(), ResidualReweighting(weighting="gaussian")
    gaps = []
    for rule, gauss in ((huber, False), (gaussian, True)):
        value, shares = peer(tensor, gaussian=gauss)
        ours = rule.aggregate(few)
        gaps.append(max(np.abs(ours.value - value.numpy()).max(), np.abs(ours.client_weights - shares.numpy()).max()))
    times = contest({"ours": lambda: huber(x), "ours, Gaussian": lambda: gaussian(x)}, turns=5, budget=12)
    peers = contest(
        {"published": lambda: peer(tensor, gaussian=False), "FedML": lambda: peer(tensor, gaussian=True)}, turns=3
    )
    return {
        "n": n,
        "d": d,
        "us_ours": 1e6 * times["ours"] / d,
        "us_ours_gaussian": 1e6 * times["ours, Gaussian"] / d,
        "us_published": 1e6 * peers["published"] / few.shape[1],
        "us_fedml": 1e6 * peers["FedML"] / few.shape[1],
        "operations": operations(n),
        "largest_difference": float(max(gaps)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes only, nothing saved")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    rate = minmax_rate()
    print(f"{machine()}\n{'not measured' if rate is None else f'{rate / 1e9:.0f} G'} min/max/s, one core")
    rows = []
    for n, d in QUICK if quick else SIZES:
        row = measure(n, d)
        row["of_minmax"] = None if rate is None else row["operations"] / row["us_ours"] * 1e6 / rate
        rows.append(row)
        bound = "" if rate is None else f" ({row['of_minmax']:.0%} of min/max)"
        print(
            f"n={n:<4} d={d:<8} ours {row['us_ours']:8.4f} us{bound}, Gaussian {row['us_ours_gaussian']:8.4f} us  "
            f"published {row['us_published'] / row['us_ours']:4.0f}x  "
            f"FedML {row['us_fedml'] / row['us_ours_gaussian']:4.0f}x  differ by {row['largest_difference']:.0e}",
            flush=True,
        )
    if not quick:
        print("saved", save("residual_reweighting", rows, minmax_per_second=rate))


if __name__ == "__main__":
    main()
