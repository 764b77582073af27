"""What rules do to one block of columns, whichever library holds it: one name per operation, array or tensor.

Arrays (and CPU tensors, which arrive as arrays) go to the compiled kernels, tensors on a device to their torch twins.
Weights and matrices over clients are small float64 arrays everywhere; only the blocks live on a device.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from holdfast.aggregation import kernels
from holdfast.aggregation.kernels import gram as gram_kernels
from holdfast.aggregation.kernels.parallel import default_threads
from holdfast.aggregation.stacking import Block, is_tensor

median = kernels.median
trimmed_mean = kernels.trimmed_mean
order_statistics_mean = kernels.order_statistics_mean

ROUNDING = 64
"""Values this many units of rounding apart count as equal where influence is shared out."""


_limited = threading.local()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Keep BLAS to one thread while inside.

    Its own threads spin while they wait: on a busy machine, our products of a few rows took 14 times as long with two
    of them. Blocks run on the kernels' own pool instead. Asking for it takes as long as a median of a thousand numbers,
    so who is inside already is not made to ask again.
    """
    if getattr(_limited, "inside", False):
        yield
        return
    _limited.inside = True
    try:
        with _blas().limit(limits=1, user_api="blas"):
            yield
    finally:
        _limited.inside = False


@lru_cache(maxsize=1)
def _blas() -> ThreadpoolController:
    return ThreadpoolController()


def mean_around_median(block: Block, f: int, *, squares: kernels.Squares | None = None) -> Block:
    """Coordinate-wise mean of the n - f values closest to the median, `[c]`; any f < n."""
    if 2 * f <= len(block):
        return kernels.mean_around_median(block, f, squares=squares)
    return _few_around_median(block, len(block) - f)


def gram(block: Block, center: Block) -> np.ndarray[Any, Any]:
    """Inner products of the rows about a center, float64 `[n, n]`."""
    if is_tensor(block):
        product: np.ndarray[Any, Any] = kernels.centered_gram(block, center).cpu().numpy()
        return product
    with one_blas_thread():
        return gram_kernels.centered_gram(block, center, threads=default_threads())


def weighted_sum(block: Block, weights: np.ndarray[Any, Any]) -> Block:
    """`weights @ block`, `[c]`; a single chosen row comes through unchanged."""
    if is_tensor(block):
        import torch

        return kernels.weighted_sum(block, torch.from_numpy(weights).to(block.device))
    chosen = np.flatnonzero(weights)
    if len(chosen) == 1:
        return block[chosen[0]] * block.dtype.type(weights[chosen[0]])
    with one_blas_thread():
        return weights.astype(block.dtype) @ block


def mix(matrix: np.ndarray[Any, Any], block: Block) -> Block:
    """New rows that are weighted sums of the old: `matrix @ block`, `[m, c]`."""
    if is_tensor(block):
        import torch

        return torch.from_numpy(matrix).to(device=block.device, dtype=block.dtype) @ block
    with one_blas_thread():
        return matrix.astype(block.dtype) @ block


def kept_shares(block: Block, lo: Block, hi: Block) -> np.ndarray[Any, Any]:
    """Each row's share in a mean of the values within [lo, hi], summed over the columns: float64 `[n]`.

    Within one column the rows inside share equally, so ties (up to rounding: mixtures of the same rows may differ in
    their last digits) are settled without regard to their order.
    """
    slack = ROUNDING * float(np.finfo(np.float32 if block.itemsize == 4 else np.float64).eps) * (abs(lo) + abs(hi))
    kept = (block >= lo - slack) & (block <= hi + slack)
    if is_tensor(kept):
        shares: np.ndarray[Any, Any] = (kept / kept.sum(dim=0)).double().sum(dim=1).cpu().numpy()
        return shares
    kept = kept.astype(np.float32)
    kept /= kept.sum(axis=0)
    summed: np.ndarray[Any, Any] = kept.sum(axis=1, dtype=np.float64)
    return summed


def _few_around_median(block: Block, kept: int) -> Block:
    """The same where fewer than half of the values are kept, which the kernels do not do.

    The values kept are neighbors in sorted order. Starting from the smallest ones, a value is exchanged for the one
    `kept` ranks above it as long as that one is closer to the median.
    """
    ranked = kernels.column_sort(block)
    ranked = ranked.double() if is_tensor(ranked) else ranked.astype(np.float64)
    n = len(block)
    center = 0.5 * (ranked[(n - 1) // 2] + ranked[n // 2])
    terms = [ranked[rank] for rank in range(kept)]
    for rank in range(n - kept):
        closer = ranked[rank + kept] - center < center - ranked[rank]
        old, new = terms[rank % kept], ranked[rank + kept]
        terms[rank % kept] = new.where(closer, old) if is_tensor(block) else np.where(closer, new, old)
    mean = sum(terms[1:], terms[0]) / kept
    return mean.to(block.dtype) if is_tensor(block) else mean.astype(block.dtype)
