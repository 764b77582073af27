"""Compiled passes over the uploads: moments of every layer, and the largest parameters by radix selection.

Each reads a block of columns once; sums are kept in float64 whatever the block holds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[Any]

CHUNK = 2048
"""Columns whose mean is computed while they are still in the cache."""

DIGIT = 11
"""Bits of a digit of the radix selection: the counts of a row stay in the first-level cache."""


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def add_moments(
    block: Array, begin: int, end: int, base: Array, usable: Array, sums: Array
) -> None:  # pragma: no cover (compiled)
    """Add the columns `begin` to `end` of a block to `sums` `[n+1, 3]`: per row u·m, u·u and sum u.

    u is the row minus `base` (an empty base: zero), m the mean of the usable rows' u; the last row of `sums` gets
    m·m (twice) and sum m. No value may be NaN or infinite.
    """
    n = block.shape[0]
    inverse = 1.0 / usable.sum()
    mean, offset = np.empty(CHUNK), np.zeros(CHUNK)
    for start in range(begin, end, CHUNK):
        size = min(CHUNK, end - start)
        if base.size:
            for j in range(size):
                offset[j] = base[start + j]
        mean[:size] = 0.0
        for i in range(n):
            if usable[i]:
                row = block[i, start : start + size]
                for j in range(size):
                    mean[j] += row[j] - offset[j]
        for j in range(size):
            mean[j] *= inverse
        for i in range(n):
            row = block[i, start : start + size]
            along, square, total = 0.0, 0.0, 0.0
            for j in range(size):
                u = row[j] - offset[j]
                along += u * mean[j]
                square += u * u
                total += u
            sums[i, 0] += along
            sums[i, 1] += square
            sums[i, 2] += total
        square, total = 0.0, 0.0
        for j in range(size):
            square += mean[j] * mean[j]
            total += mean[j]
        sums[n, 0] += square
        sums[n, 1] += square
        sums[n, 2] += total


@njit(cache=True, nogil=True)
def add_digit_counts(
    bits: Array, magnitude: int, usable: Array, prefix: Array, shift: int, counts: Array
) -> None:  # pragma: no cover (compiled)
    """Count the digit at `shift` of every size whose higher digits equal its row's `prefix`.

    The bits of a float without its sign (the mask `magnitude`) order as its size does.
    """
    n, width = bits.shape
    for i in range(n):
        if usable[i]:
            for j in range(width):
                high = (bits[i, j] & magnitude) >> shift
                if (high >> DIGIT) == prefix[i]:
                    counts[i, high & ((1 << DIGIT) - 1)] += 1


@njit(cache=True, nogil=True)
def mark_largest(
    bits: Array, magnitude: int, usable: Array, threshold: Array, ties: Array, mask: Array
) -> None:  # pragma: no cover (compiled)
    """Mark what is above its row's threshold, and the first `ties` (counted down) that equal it."""
    n, width = bits.shape
    for i in range(n):
        if usable[i]:
            for j in range(width):
                size = bits[i, j] & magnitude
                if size > threshold[i]:
                    mask[j] = True
                elif size == threshold[i] and ties[i] > 0:
                    mask[j] = True
                    ties[i] -= 1
