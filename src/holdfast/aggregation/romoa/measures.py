"""What Romoa measures on the uploads: layer-wise cosine and Pearson correlation, and the element-wise cosine.

Everything streams by blocks of columns; beside the uploads only `[n, layers]` moments are kept, and for the
element-wise term the selected parameters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.aggregation.screening import like
from holdfast.aggregation.stacking import Block, Rows, block_columns, is_tensor, spans

Array = NDArray[Any]
SLICE = 1 << 14
"""Single parameters that are computed at a time."""
CONSTANT = 1e-13
"""A variance below this share of the mean square is rounding: the layer is constant, its correlation 0."""


@dataclass(frozen=True)
class Moments:
    """Per participant and layer, `[n, G]`: u·m, u·u and sum u; per layer, `[G]`: m·m and sum m, and its size."""

    along: Array
    square: Array
    total: Array
    mean_square: Array
    mean_total: Array
    sizes: Array

    def cosine(self) -> Array:
        """Eq. 6: the cosine of each participant's layer with the mean's; 0 where either is zero."""
        return _ratio(self.along, np.sqrt(self.square) * np.sqrt(self.mean_square))

    def deviations(self) -> tuple[Array, Array]:
        """Standard deviation of the layer's parameters, `[n, G]` and for the mean `[G]`; 0 where it is constant."""
        return _deviation(self.square, self.total, self.sizes), _deviation(
            self.mean_square, self.mean_total, self.sizes
        )

    def pearson(self) -> Array:
        """The correlation coefficient; 0 where either layer is constant (or has one parameter)."""
        mine, common = self.deviations()
        covariance = self.along / self.sizes - (self.total / self.sizes) * (self.mean_total / self.sizes)
        return np.clip(_ratio(covariance, mine * common), -1.0, 1.0)

    def printed_pearson(self) -> Array:
        """Eq. 7 as printed: the cosine over the product of both standard deviations, which has a dimension."""
        mine, common = self.deviations()
        return _ratio(self.cosine(), mine * common)

    def norms(self) -> Array:
        """The length of every participant's update, `[n]`."""
        return np.asarray(np.sqrt(self.square.sum(axis=1)))


def _ratio(above: Array, below: Array) -> Array:
    quotient: Array = np.divide(above, below, out=np.zeros(np.broadcast(above, below).shape), where=below > 0)
    return quotient


def _deviation(square: Array, total: Array, sizes: Array) -> Array:
    mean_square = square / sizes
    variance = mean_square - (total / sizes) ** 2
    deviation: Array = np.where(variance > CONSTANT * mean_square, np.sqrt(np.maximum(variance, 0.0)), 0.0)
    return deviation


def pieces(where: slice, bounds: Array) -> Iterator[tuple[int, slice]]:
    """The layers that a block of columns touches, each with its columns counted from the block's start."""
    first = int(np.searchsorted(bounds, where.start, side="right")) - 1
    for layer in range(first, len(bounds) - 1):
        if bounds[layer] >= where.stop:
            return
        start, stop = max(int(bounds[layer]), where.start), min(int(bounds[layer + 1]), where.stop)
        yield layer, slice(start - where.start, stop - where.start)


def measure(rows: Rows, usable: Array, reference: Any, bounds: Array) -> Moments:
    """Moments of every layer in one pass; the mean is over the usable rows."""
    from holdfast.aggregation.romoa.kernels import add_moments  # numba takes a second to load: only who needs it waits

    sums = np.zeros((len(bounds) - 1, rows.n + 1, 3))
    for where, block in host_blocks(rows):
        base = np.empty(0, block.dtype) if reference is None else like(reference[where], block)
        for layer, columns in pieces(where, bounds):
            add_moments(block, columns.start, columns.stop, base, usable, sums[layer])
    part = np.moveaxis(sums, 0, 1)
    return Moments(
        part[:-1, :, 0],
        part[:-1, :, 1],
        part[:-1, :, 2],
        part[-1, :, 1],
        part[-1, :, 2],
        np.maximum(np.diff(bounds), 1.0),
    )


def select(rows: Rows, usable: Array, count: int) -> Array:
    """Eq. 4: indices of the parameters that are among the `count` largest of some usable row, by absolute value.

    Exact, in four passes (seven in float64): the count-th largest of every row is found digit by digit, then marked;
    of equal values the first are taken.
    """
    from holdfast.aggregation.romoa.kernels import DIGIT, add_digit_counts, mark_largest

    bits = np.dtype(np.int64 if rows.dtype == np.float64 else np.int32)
    magnitude = (1 << (bits.itemsize * 8 - 1)) - 1  # all but the sign
    every = np.arange(rows.n)
    prefix, left = np.zeros(rows.n, np.int64), np.full(rows.n, count, np.int64)
    width = 1 << DIGIT
    for shift in reversed(range(0, bits.itemsize * 8, DIGIT)):
        counts = np.zeros((rows.n, width), np.int64)
        for _, block in host_blocks(rows):
            add_digit_counts(block.view(bits), magnitude, usable, prefix, shift, counts)
        reached = counts[:, ::-1].cumsum(axis=1)  # magnitudes with this digit or a larger one
        digit = width - 1 - (reached >= left[:, None]).argmax(axis=1)
        left -= reached[every, width - 1 - digit] - counts[every, digit]
        prefix = (prefix << DIGIT) | digit
    mask = np.zeros(rows.d, dtype=np.bool_)
    for where, block in host_blocks(rows):
        mark_largest(block.view(bits), magnitude, usable, prefix, left, mask[where])
    return np.flatnonzero(mask)


def gathered(rows: Rows, reference: Any, indices: Array) -> Iterator[tuple[slice, Array]]:
    """The updates of all rows at ascending parameters, some at a time: which of `indices`, and the values `[n, k]`."""
    for where, block in rows.blocks():
        begin, end = np.searchsorted(indices, [where.start, where.stop])
        if end == begin:
            continue
        values = on_host(block)
        base = None if reference is None else like(reference[where], values)
        for part in spans(int(end - begin), SLICE):
            at = slice(int(begin) + part.start, int(begin) + part.stop)
            local = indices[at] - where.start
            found = np.empty((rows.n, len(local)), rows.dtype)
            for i in range(rows.n):
                np.take(values[i], local, out=found[i])
            if base is not None:
                found -= base[local]
            yield at, found


def lengths_of(updates: Array, usable: Array) -> Array:
    """Squared lengths of gathered updates, float64 `[n+1]`, the mean's last."""
    wide = updates.astype(np.float64)
    mean = wide[usable].mean(axis=0)
    return np.append(np.einsum("ik,ik->i", wide, wide), mean @ mean)


def element_cosine(updates: Array, usable: Array, norms: Array) -> Array:
    """Eq. 5: each parameter's share `[n, k]` of the cosine over the selection; 0 for a zero vector.

    `norms` `[n]` are the products of each update's and the mean's length over the whole selection.
    """
    wide = updates.astype(np.float64)
    wide *= wide[usable].mean(axis=0)
    wide /= np.where(norms > 0, norms, np.inf)[:, None]
    return wide


def host_blocks(rows: Rows) -> Iterator[tuple[slice, Array]]:
    """The blocks as C-contiguous arrays for the compiled passes; others are copied a few megabytes at a time."""
    for where, block in rows.blocks():
        values = on_host(block)
        if values.flags.c_contiguous:
            yield where, values
            continue
        for part in spans(values.shape[1], block_columns(rows)):
            yield slice(where.start + part.start, where.start + part.stop), np.ascontiguousarray(values[:, part])


def on_host(block: Block) -> Array:
    """A block as an array; blocks on another device are copied."""
    return np.asarray(block.cpu().numpy() if is_tensor(block) else block)
