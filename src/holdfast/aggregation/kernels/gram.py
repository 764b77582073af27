"""The centered Gram matrix behind every distance and similarity between clients, and weighted sums of rows.

One float32 matrix product of raw updates is not safe: model updates are a few percent of the weights, and the
distances that matter are lost in cancellation. Rows are centered first (on a robust center: one huge row must not
ruin the others), multiplied in blocks of columns, and the blocks are added up in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.aggregation.kernels.coordinate import CHUNK, Floats, Rows, row_list
from holdfast.aggregation.kernels.parallel import for_chunks

BLOCK = 8192
_SMALL, _LARGE = 2.0**-80, 2.0**120  # sums of float32 squares in between have lost nothing and did not overflow


def _block_gram(block: Floats) -> NDArray[np.float64]:
    """`block @ block.T` in float64, each row scaled by a power of two where its squares would not fit."""
    with np.errstate(over="ignore", invalid="ignore"):
        plain: NDArray[np.float64] = (block @ block.T).astype(np.float64)
    squares = np.diagonal(plain)
    if squares.min() > _SMALL and squares.max() < _LARGE:
        return plain
    largest = np.maximum(block.max(axis=1), -block.min(axis=1)).astype(np.float64)
    _, exponent = np.frexp(np.minimum(largest, np.finfo(block.dtype).max))
    scaled = np.ldexp(block, -exponent[:, None])
    with np.errstate(over="ignore"):
        product: NDArray[np.float64] = (scaled @ scaled.T).astype(np.float64)
        result: NDArray[np.float64] = np.ldexp(product, exponent[:, None] + exponent[None, :])
    return result


def centered_gram(rows: Rows, center: Floats, *, block: int = BLOCK, threads: int | None = None) -> NDArray[np.float64]:
    """Inner products of the rows after subtracting `center`: float64 `[n, n]`, error about 1e-7 of the entries.

    >>> centered_gram(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([1.0, 1.0]))
    array([[ 1.,  3.],
           [ 3., 13.]])
    """
    matrix = rows if isinstance(rows, np.ndarray) else None
    rows = row_list(rows)
    n, d = len(rows), len(rows[0])
    center = np.asarray(center)
    partial = np.zeros((max(1, -(-d // block)), n, n))

    def task(index: int, begin: int, end: int) -> None:
        tile = np.empty((n, end - begin), rows[0].dtype)
        with np.errstate(over="ignore"):
            if matrix is not None:
                np.subtract(matrix[:, begin:end], center[begin:end], out=tile)
            else:
                for k, row in enumerate(rows):
                    np.subtract(row[begin:end], center[begin:end], out=tile[k])
        partial[index] = _block_gram(tile)

    # BLAS runs its own threads, so the blocks are taken one after the other unless asked otherwise.
    for_chunks(task, d, block, ns=float(n * n * d) / 20, threads=1 if threads is None else threads)
    gram: NDArray[np.float64] = partial.sum(axis=0)
    return gram


def weighted_sum(rows: Rows, w: Sequence[float] | NDArray[Any], *, threads: int | None = None) -> Floats:
    """`sum_k w[k] rows[k]` per coordinate, summed in float64; rows of weight zero are not read: `[d]`.

    >>> weighted_sum(np.array([[1.0, 2.0], [3.0, 4.0], [np.inf, 0.0]]), [0.5, 0.5, 0.0])
    array([2., 3.])
    """
    rows = row_list(rows)
    weights = [float(x) for x in w]
    out = np.empty_like(rows[0])

    def task(_: int, begin: int, end: int) -> None:
        total = np.zeros(end - begin)
        term = np.empty_like(total)
        for row, weight in zip(rows, weights, strict=True):
            if weight:
                np.multiply(row[begin:end], weight, out=term, dtype=np.float64)
                total += term
        out[begin:end] = total

    for_chunks(task, len(out), min(CHUNK, 4096), ns=1.0 * len(rows) * len(out), threads=threads)
    return out
