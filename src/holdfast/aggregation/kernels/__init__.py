"""Fast coordinate-wise kernels: compiled for this machine where possible, NumPy otherwise, torch for tensors.

Every function takes an array `[n, d]`, a sequence of n arrays `[d]`, or a tensor `[..., n, d]` on any device, and
gives back the same kind. Inputs are free of NaN (the screen comes first) and are never changed.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from holdfast.aggregation.kernels import coordinate, gram, tensors

__all__ = [
    "centered_gram",
    "column_sort",
    "mean_around_median",
    "median",
    "order_statistics_mean",
    "trimmed_mean",
    "weighted_sum",
]


def order_statistics_mean(rows: Any, lo: int, hi: int, *, threads: int | None = None) -> Any:
    """Mean of the sorted values of rank lo..hi-1, per coordinate: `[..., d]`."""
    if isinstance(rows, Tensor):
        return tensors.order_statistics_mean(rows, lo, hi)
    return coordinate.order_statistics_mean(rows, lo, hi, threads=threads)


def median(rows: Any, *, threads: int | None = None) -> Any:
    """Coordinate-wise median; the mean of the two middle values for an even number of clients: `[..., d]`."""
    return tensors.median(rows) if isinstance(rows, Tensor) else coordinate.median(rows, threads=threads)


def trimmed_mean(rows: Any, f: int, *, threads: int | None = None) -> Any:
    """Coordinate-wise mean without the f smallest and the f largest values; needs 2 f < n: `[..., d]`."""
    if isinstance(rows, Tensor):
        return tensors.trimmed_mean(rows, f)
    return coordinate.trimmed_mean(rows, f, threads=threads)


def mean_around_median(rows: Any, f: int, *, threads: int | None = None) -> Any:
    """Coordinate-wise mean of the n - f values closest to the median (ties: the smaller); needs 2 f <= n."""
    if isinstance(rows, Tensor):
        return tensors.mean_around_median(rows, f)
    return coordinate.mean_around_median(rows, f, threads=threads)


def column_sort(rows: Any) -> Any:
    """The values of every coordinate in ascending order along the clients: `[..., n, d]`."""
    return rows.sort(dim=-2).values if isinstance(rows, Tensor) else coordinate.column_sort(rows)


def centered_gram(rows: Any, center: Any, *, block: int = gram.BLOCK) -> Any:
    """Inner products of the rows after subtracting `center`: float64 `[..., n, n]`."""
    if isinstance(rows, Tensor):
        return tensors.centered_gram(rows, center, block=block)
    return gram.centered_gram(rows, center, block=block)


def weighted_sum(rows: Any, w: Any) -> Any:
    """`sum_k w[k] rows[k]` per coordinate, summed in float64: `[..., d]`."""
    return tensors.weighted_sum(rows, w) if isinstance(rows, Tensor) else gram.weighted_sum(rows, w)
