"""Residual reweighting of blocks of coordinates in plain torch: every option, any device, always in float64.

This is the readable form of the rule and the reference for the compiled one (`irls_code.py`). Letters follow the
paper (section 3.1): y values, x ranks, r residuals, tau the scale, h leverage, w parameter confidence, delta the
threshold, W model weight.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from holdfast.aggregation.kernels.networks import middle_ranks
from holdfast.aggregation.kernels.options import Options, rounding

SLOPES = 1 << 22
"""Slopes held at once: bounds the memory of a tile."""


class Lines(NamedTuple):
    """The line of every coordinate: value `center + slope * u` at a rank u counted from the middle rank."""

    center: Tensor
    slope: Tensor


class Confidence(NamedTuple):
    """What one tile `[..., n, b]` says about its clients.

    Attributes:
        weight: w after the correction of extreme values, `[..., n, b]`.
        importance: the standard deviation of w, `[..., b]`.
        rejected: which values are replaced by the line, `[..., n, b]`.
        corrected: y with extreme values replaced, `[..., n, b]`.
        tau: the scale of the residuals, `[..., b]`.
    """

    weight: Tensor
    importance: Tensor
    rejected: Tensor
    corrected: Tensor
    tau: Tensor


def middle(values: Tensor) -> Tensor:
    """Median along the second to last dimension, the mean of the two middle values for an even count."""
    lo, hi = middle_ranks(values.shape[-2])
    if _on_host(values):  # NumPy selects with vector instructions where torch sorts
        ranked = torch.from_numpy(np.partition(values.mT.contiguous().numpy(), (lo, hi - 1), axis=-1)).mT
    else:
        ranked = values.sort(dim=-2).values
    return (ranked[..., lo, :] + ranked[..., hi - 1, :]) / 2


def _on_host(values: Tensor) -> bool:
    return values.device.type == "cpu"


def line(ranked: Tensor, o: Options) -> Lines:
    """Fit the line through sorted values `[..., n, b]` at ranks 0..n-1."""
    n = ranked.shape[-2]
    med = middle(ranked)
    if o.line == "median" or n < 2:
        return Lines(med, torch.zeros_like(med))
    z = ranked - med.unsqueeze(-2)
    u = torch.arange(n, dtype=z.dtype, device=z.device).sub((n - 1) / 2).unsqueeze(-1)
    if o.line == "theil-sen":
        i, j = torch.triu_indices(n, n, 1, device=z.device)
        slope, inner = middle((z[..., j, :] - z[..., i, :]) / (j - i).unsqueeze(-1)), None
    else:
        others = torch.tensor([[j for j in range(n) if j != i] for i in range(n)], device=z.device)
        steps = (others - torch.arange(n, device=z.device).unsqueeze(-1)).unsqueeze(-1)
        inner = middle((z[..., others, :] - z.unsqueeze(-2)) / steps)
        slope = middle(inner)
    if o.intercept == "hierarchical":
        return Lines(med + middle(z - slope.unsqueeze(-2) * u), slope)
    if o.intercept == "direct":
        shift = (n - 1) / 2 + o.rank_base  # from ranks counted at rank_base to ranks counted from the middle
        if inner is None:
            x = u + shift
            pairs = (x[j] * z[..., i, :] - x[i] * z[..., j, :]) / (j - i).unsqueeze(-1)
            return Lines(med + middle(pairs) + slope * shift, slope)
        # (x_j y_i - x_i y_j) / (x_j - x_i) = y_i - x_i slope_ij, so its median over j follows from that of the slopes
        return Lines(med + middle(z - inner * (u + shift)) + slope * shift, slope)
    return Lines(med, slope)


def centered_ranks(y: Tensor, ties: str) -> Tensor:
    """Each value's rank in its column less the middle rank; equal values share a rank or keep the clients' order."""
    half = (y.shape[-2] - 1) / 2
    if ties == "stable":
        return y.argsort(dim=-2, stable=True).argsort(dim=-2).to(y.dtype) - half
    columns = y.mT.contiguous()
    ranked = columns.sort(dim=-1).values
    below, upto = (torch.searchsorted(ranked, columns, right=right) for right in (False, True))
    return ((below + upto - 1).to(y.dtype) / 2 - half).mT


def leverage(u: Tensor, o: Options) -> Tensor:
    """Diagonal of the hat matrix, a function of the rank alone."""
    n = u.shape[-2]
    if o.leverage == "two-column":
        return 1 / n + 12 * u * u / (n * (n * n - 1))
    return (u + (n - 1) / 2 + o.rank_base) ** 2 / sum((i + o.rank_base) ** 2 for i in range(n))


def confidence(y: Tensor, o: Options) -> Confidence:
    """Fit, weigh and correct one tile `[..., n, b]` of float64 values, n at least 3."""
    n = y.shape[-2]
    fitted = line(y.sort(dim=-2).values, o)
    u = centered_ranks(y, o.ties)
    center, slope = fitted.center.unsqueeze(-2), fitted.slope.unsqueeze(-2)
    r = ((y - center) - slope * u).abs()
    m = middle(r.sort(dim=-2).values[..., o.drop_smallest :, :])
    tau = o.gamma * (1 + 5 / (n - 1)) * m + o.floor_abs + o.floor_rel * middle(y).abs()
    tau = tau.maximum(fitted.slope * rounding(n, torch.finfo(y.dtype).eps))
    if o.weighting == "gaussian":
        w = torch.where(r == 0, 1.0, torch.exp(-((r / tau.unsqueeze(-2)) ** 2) / (2 * o.lam**2)))
    else:
        reach = (1 - leverage(u, o)).clamp_min(0).sqrt() * o.lam * math.sqrt(2 / n) * tau.unsqueeze(-2)
        w = torch.where(r <= reach, 1.0, reach / r)
    rejected = w < o.delta if o.keep_equal else w <= o.delta
    after = torch.where(rejected, 0.0, w) if o.zero_rejected else w
    importance = (w if o.std_before else after).std(dim=-2)
    return Confidence(after, importance, rejected, torch.where(rejected, center + slope * u, y), tau)


def tile_columns(n: int, batch: int) -> int:
    """Columns of a tile whose slopes stay within bounds."""
    return max(1, SLOPES // max(1, batch * n * n))


def fit(y: Tensor, o: Options) -> tuple[Tensor, Tensor]:
    """`W` and the number of rejected values per client over a block `[..., n, b]`: float64 and int64 `[..., n]`."""
    weights = y.new_zeros(y.shape[:-1], dtype=torch.float64)
    rejected = y.new_zeros(y.shape[:-1], dtype=torch.int64)
    if y.shape[-2] > 2:
        for tile in torch.split(y.detach(), tile_columns(y.shape[-2], y[..., 0, 0].numel()), dim=-1):
            c = confidence(tile.double(), o)
            weights += (c.weight * c.importance.unsqueeze(-2)).sum(-1)
            rejected += c.rejected.sum(-1)
    return weights, rejected


def correct(y: Tensor, shares: Tensor, o: Options) -> Tensor:
    """The average of the corrected values of a block with the given shares: `[..., b]` of the block's dtype."""
    parts = []
    for tile in torch.split(y.detach(), tile_columns(y.shape[-2], y[..., 0, 0].numel()), dim=-1):
        values = tile.double()
        corrected = confidence(values, o).corrected if y.shape[-2] > 2 else values
        parts.append((shares.unsqueeze(-1) * corrected).sum(-2).to(y.dtype))
    return torch.cat(parts, dim=-1) if parts else y.new_empty((*y.shape[:-2], 0))


def height(y: Tensor, o: Options) -> Tensor:
    """The line's height at the middle rank: `[..., b]` of the block's dtype."""
    tiles = torch.split(y.detach(), tile_columns(y.shape[-2], y[..., 0, 0].numel()), dim=-1)
    parts = [line(tile.double().sort(dim=-2).values, o).center.to(y.dtype) for tile in tiles]
    return torch.cat(parts, dim=-1) if parts else y.new_empty((*y.shape[:-2], 0))
