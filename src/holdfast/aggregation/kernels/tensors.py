"""The coordinate-wise kernels for torch tensors `[..., n, d]`: leading axes are independent federations.

Tensors in main memory are read in place by the compiled kernels; on other devices the same definitions run as torch
operations, in blocks of coordinates so that the extra memory stays small.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from holdfast.aggregation.kernels import coordinate, gram
from holdfast.aggregation.kernels.networks import middle_ranks

BLOCK_VALUES = 1 << 24
"""Values sorted at once on a device."""


def _on_host(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)


def _federations(x: Tensor, one: Callable[[Any], Any]) -> Tensor:
    """Apply a NumPy kernel to every `[n, d]` of a tensor in main memory."""
    stacked = x.detach().reshape(-1, *x.shape[-2:])
    results = [torch.from_numpy(one(federation.numpy())) for federation in stacked]
    if not results:
        return x.new_empty((*x.shape[:-2], x.shape[-1]))
    return torch.stack(results).reshape(*x.shape[:-2], x.shape[-1])


def _blocks(x: Tensor, one: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply a torch form to blocks of coordinates, in at least single precision, and join the results."""
    exact = x.detach() if x.dtype == torch.float64 else x.detach().float()
    width = max(1, BLOCK_VALUES // max(1, exact[..., 0].numel()))
    return torch.cat([one(part) for part in torch.split(exact, width, dim=-1)], dim=-1).to(x.dtype)


def _mean(terms: Tensor) -> Tensor:
    kept = terms.shape[-2]
    if terms.dtype == torch.float32:
        return terms.double().mean(-2).float()
    scale = 2.0 ** -(kept - 1).bit_length()
    return (terms * scale).sum(-2) / (kept * scale)


def order_statistics_mean(x: Tensor, lo: int, hi: int) -> Tensor:
    """Mean of the sorted values of rank lo..hi-1 along the clients: `[..., d]`."""
    if _on_host(x):
        return _federations(x, lambda rows: coordinate.order_statistics_mean(rows, lo, hi))
    return _blocks(x, lambda part: _mean(part.sort(dim=-2).values[..., lo:hi, :]))


def median(x: Tensor) -> Tensor:
    """Coordinate-wise median: `[..., d]`."""
    return order_statistics_mean(x, *middle_ranks(x.shape[-2]))


def trimmed_mean(x: Tensor, f: int) -> Tensor:
    """Coordinate-wise mean without the f smallest and f largest values: `[..., d]`."""
    return order_statistics_mean(x, f, x.shape[-2] - f)


def mean_around_median(x: Tensor, f: int) -> Tensor:
    """Coordinate-wise mean of the n - f values closest to the median; needs 2 f <= n: `[..., d]`."""
    if _on_host(x):
        return _federations(x, lambda rows: coordinate.mean_around_median(rows, f))
    return _blocks(x, lambda part: _mean(_around(part.sort(dim=-2).values, f)))


def _around(ranked: Tensor, f: int) -> Tensor:
    n = ranked.shape[-2]
    m0, m1 = middle_ranks(n)
    wide = ranked.double()
    center = 0.5 * wide[..., m0 : m0 + 1, :] + 0.5 * wide[..., m1 - 1 : m1, :]
    low, high = ranked[..., :f, :], ranked[..., n - f :, :]
    up = wide[..., n - f :, :] - center < center - wide[..., :f, :]
    return torch.cat([torch.where(up, high, low), ranked[..., f : n - f, :]], dim=-2)


def column_sort(x: Tensor) -> Tensor:
    """The values of every coordinate in ascending order: `[..., n, d]`."""
    return x.sort(dim=-2).values


def centered_gram(x: Tensor, center: Tensor, *, block: int = gram.BLOCK) -> Tensor:
    """Inner products of the rows after subtracting `center` `[..., d]`: float64 `[..., n, n]`."""
    if _on_host(x) and x.dim() == 2:
        return torch.from_numpy(gram.centered_gram(x.detach().numpy(), center.detach().numpy(), block=block))
    total = x.new_zeros((*x.shape[:-1], x.shape[-2]), dtype=torch.float64)
    for begin in range(0, x.shape[-1], block):
        part = x[..., begin : begin + block].detach().double() - center[..., None, begin : begin + block].double()
        total += part @ part.mT
    return total


def weighted_sum(x: Tensor, w: Tensor) -> Tensor:
    """`sum_k w[..., k] x[..., k, :]` in at least float64 accuracy per block; rows of weight zero are not read."""
    if _on_host(x) and x.dim() == 2:
        return torch.from_numpy(gram.weighted_sum(x.detach().numpy(), w.tolist()))
    weights = w.double()[..., :, None]

    def one(part: Tensor) -> Tensor:
        return torch.where(weights == 0, 0.0, part.double() * weights).sum(-2)

    return _blocks(x, one)
