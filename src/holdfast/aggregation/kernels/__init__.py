"""Fast coordinate-wise kernels: compiled for this machine where possible, NumPy otherwise, torch for tensors.

Every function takes an array `[n, d]`, a sequence of n arrays `[d]`, or a tensor `[..., n, d]` on any device, and
gives back the same kind. Inputs are free of NaN and of absurd magnitudes (the screen comes first) and are never
changed. torch is imported only where there are tensors. Where a function takes `squares`, it adds the squares of all
it reads to it; for arrays only.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from holdfast.aggregation.kernels import coordinate, gram
from holdfast.aggregation.kernels.coordinate import Squares

__all__ = [
    "Squares",
    "centered_gram",
    "column_sort",
    "mean_around_median",
    "median",
    "order_statistics_mean",
    "trimmed_mean",
    "weighted_sum",
]


def _twin(rows: Any, module: ModuleType) -> ModuleType:
    """`module` for arrays, its torch twin for tensors."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(rows, torch.Tensor):
        return module
    from holdfast.aggregation.kernels import tensors

    return tensors


def _counted(squares: Squares | None) -> dict[str, Squares]:
    return {} if squares is None else {"squares": squares}


def order_statistics_mean(rows: Any, lo: int, hi: int) -> Any:
    """Mean of the sorted values of rank lo..hi-1, per coordinate: `[..., d]`."""
    return _twin(rows, coordinate).order_statistics_mean(rows, lo, hi)


def median(rows: Any, *, squares: Squares | None = None) -> Any:
    """Coordinate-wise median; the mean of the two middle values for an even number of clients: `[..., d]`."""
    return _twin(rows, coordinate).median(rows, **_counted(squares))


def trimmed_mean(rows: Any, f: int, *, squares: Squares | None = None) -> Any:
    """Coordinate-wise mean without the f smallest and the f largest values; needs 2 f < n: `[..., d]`."""
    return _twin(rows, coordinate).trimmed_mean(rows, f, **_counted(squares))


def mean_around_median(rows: Any, f: int, *, squares: Squares | None = None) -> Any:
    """Coordinate-wise mean of the n - f values closest to the median (ties: the smaller); needs 2 f <= n."""
    return _twin(rows, coordinate).mean_around_median(rows, f, **_counted(squares))


def column_sort(rows: Any) -> Any:
    """The values of every coordinate in ascending order along the clients: `[..., n, d]`."""
    return _twin(rows, coordinate).column_sort(rows)


def centered_gram(rows: Any, center: Any) -> Any:
    """Inner products of the rows after subtracting `center`: float64 `[..., n, n]`."""
    return _twin(rows, gram).centered_gram(rows, center)


def weighted_sum(rows: Any, w: Any) -> Any:
    """`sum_k w[k] rows[k]` per coordinate, summed in float64; rows of weight zero are not read: `[..., d]`."""
    return _twin(rows, gram).weighted_sum(rows, w)
