"""Order statistics per coordinate over client rows: median, trimmed mean, mean around the median, sorting.

`rows` is an array `[n, d]` or a sequence of n arrays `[d]` (read in place, never stacked), float32 or float64, free
of NaN: the screen comes first. Selection is exact and sums of float32 are taken in float64 in ascending order, so
the compiled form, the NumPy form and any order of the clients give the same bits.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.aggregation.kernels import emit
from holdfast.aggregation.kernels.networks import MAX_NETWORK, Network, middle_ranks, selection_network
from holdfast.aggregation.kernels.order_code import order_kernel, reduction_network
from holdfast.aggregation.kernels.parallel import for_chunks

Floats = NDArray[Any]
Rows = Floats | Sequence[Floats]
Run = Callable[[int, int, int], None]
"""`(index, begin, end)`: reduce the coordinates begin..end-1, the index-th unit of work."""
CHUNK = 16384
"""Coordinates per unit of work; a multiple of every register width."""


SUMS = 32
"""Room for one unit's partial sums of squares, whatever the registers' width."""


@dataclass
class Squares:
    """The sum of the squares of all values that kernels have read: not finite if one of them was not.

    Attributes:
        total: the sum, right to a percent; a value may be counted twice.
        values: how many values went in, each counted once.
    """

    total: float = 0.0
    values: int = 0

    def add(self, sums: Floats, values: int) -> None:
        """Add partial sums that hold the squares of so many values."""
        self.total += float(sums.sum(dtype=np.float64))
        self.values += values


def row_list(rows: Rows) -> list[Floats]:
    """One contiguous 1-D array per client, all float32 or all float64, without copying where that already holds."""
    if isinstance(rows, np.ndarray) and rows.dtype in (np.float32, np.float64) and rows.strides[1] == rows.itemsize:
        return list(rows)
    dtype = np.float64 if any(np.asarray(r).dtype == np.float64 for r in rows) else np.float32
    return [np.ascontiguousarray(r, dtype=dtype) for r in rows]


def row_pointers(rows: Sequence[Floats]) -> Any:
    """The addresses of the rows, as a kernel takes them; keeps the rows alive."""
    pointers = (ctypes.c_void_p * len(rows))(*[r.__array_interface__["data"][0] for r in rows])
    pointers.rows = rows  # type: ignore[attr-defined]
    return pointers


def order_statistics_mean(
    rows: Rows, lo: int, hi: int, *, squares: Squares | None = None, threads: int | None = None
) -> Floats:
    """Mean of the sorted values of rank lo..hi-1, per coordinate: `[d]`. All that is read is added to `squares`.

    >>> order_statistics_mean(np.array([[5.0, 1.0], [1.0, 1.0], [3.0, 7.0], [2.0, 2.0]]), 1, 3)
    array([2.5, 1.5])
    """
    return _reduce(row_list(rows), lo, hi, around=False, squares=squares, threads=threads)


def median(rows: Rows, *, squares: Squares | None = None, threads: int | None = None) -> Floats:
    """Coordinate-wise median (the mean of the two middle values for even n): `[d]`.

    >>> median(np.array([[5.0, 1.0], [1.0, 1.0], [3.0, 7.0]]))
    array([3., 1.])
    """
    lo, hi = middle_ranks(len(rows))
    return order_statistics_mean(rows, lo, hi, squares=squares, threads=threads)


def trimmed_mean(rows: Rows, f: int, *, squares: Squares | None = None, threads: int | None = None) -> Floats:
    """Coordinate-wise mean without the f smallest and f largest values: `[d]`."""
    return order_statistics_mean(rows, f, len(rows) - f, squares=squares, threads=threads)


def mean_around_median(rows: Rows, f: int, *, squares: Squares | None = None, threads: int | None = None) -> Floats:
    """Coordinate-wise mean of the n - f values closest to the median; of two equally close the smaller stays.

    Needs 2 f <= n.

    >>> mean_around_median(np.array([[0.0], [1.0], [2.0], [9.0]]), 1)
    array([1.])
    """
    return _reduce(row_list(rows), 0, len(rows) - f, around=True, squares=squares, threads=threads)


def column_sort(rows: Rows) -> Floats:
    """The values of every coordinate in ascending order: `[n, d]`."""
    wires, scratch = _copied(row_list(rows), 0, len(rows[0]))
    return np.stack(_network_rows(selection_network(len(rows), range(len(rows))), wires, scratch))


def _reduce(
    rows: list[Floats], lo: int, hi: int, *, around: bool, squares: Squares | None, threads: int | None
) -> Floats:
    n, d, dtype = len(rows), len(rows[0]), rows[0].dtype
    out = np.empty(d, dtype)
    if n > MAX_NETWORK:
        prepare, chunk = _sorting_run, 512
    elif emit.available():
        prepare, chunk = _compiled_run, CHUNK
    else:
        prepare, chunk = _numpy_run, max(256, 65536 // n)
    sums = np.zeros((-(-d // chunk), SUMS), dtype)
    guess_ns = 0.15 * n * d if n <= 32 else 0.5 * n * d
    for_chunks(prepare(rows, out, sums, lo, hi, around), d, chunk, ns=guess_ns, threads=threads)
    if squares is not None:
        squares.add(sums, n * d)
    return out


def _scale(kept: int, dtype: np.dtype[Any]) -> float:
    # float64 sums of huge values: a power of two that makes them fit, exactly undone by the division.
    return 1.0 if dtype == np.float32 else 2.0 ** -(kept - 1).bit_length()


# ---- NumPy: the same networks on tiles of the rows -----------------------------------------------------------------


def _copied(rows: list[Floats], begin: int, end: int) -> tuple[list[Floats], Floats]:
    return [r[begin:end].copy() for r in rows], np.empty(end - begin, rows[0].dtype)


def _network_rows(net: Network, wires: list[Floats], scratch: Floats) -> list[Floats]:
    """Run the network on whole rows, in place; returns the rows by rank."""
    for c in net.comparators:
        a, b = wires[c.low], wires[c.high]
        if c.keep_low and c.keep_high:
            np.minimum(a, b, out=scratch)
            np.maximum(a, b, out=b)
            wires[c.low], scratch = scratch, a
        elif c.keep_low:
            np.minimum(a, b, out=a)
        else:
            np.maximum(a, b, out=b)
    return [wires[w] for w in net.wire]


def _mean_of(ranked: Sequence[Floats], lo: int, hi: int, around: bool, out: Floats) -> None:
    """Reduce rows that are sorted by rank into `out`; the reference for the order of every operation."""
    n, kept = len(ranked), hi - lo
    scale = _scale(kept, out.dtype)
    if kept == 1 and not around:
        out[:] = ranked[lo]
        return
    total = np.zeros(len(out))
    if around:
        m0, m1 = middle_ranks(n)
        center = 0.5 * ranked[m0].astype(np.float64) + 0.5 * ranked[m1 - 1].astype(np.float64)
        terms: list[Floats] = []
        for a in range(n - kept):
            up = ranked[a + kept].astype(np.float64) - center < center - ranked[a].astype(np.float64)
            terms.append(np.where(up, ranked[a + kept], ranked[a]))
        terms += ranked[n - kept : kept]
    else:
        terms = list(ranked[lo:hi])
    for term in terms:
        total += term.astype(np.float64) * scale
    total /= kept * scale
    out[:] = total
    if out.dtype == np.float64:
        np.clip(out, ranked[lo if not around else 0], ranked[hi - 1 if not around else n - 1], out=out)


def _numpy_run(rows: list[Floats], out: Floats, sums: Floats, lo: int, hi: int, around: bool) -> Run:
    net = reduction_network(len(rows), lo, hi, around)

    def run(index: int, begin: int, end: int) -> None:
        wires, scratch = _copied(rows, begin, end)
        with np.errstate(invalid="ignore", over="ignore"):
            sums[index, 0] = sum(np.dot(wire, wire) for wire in wires)
            _mean_of(_network_rows(net, wires, scratch), lo, hi, around, out[begin:end])

    return run


def _sorting_run(rows: list[Floats], out: Floats, sums: Floats, lo: int, hi: int, around: bool) -> Run:
    """For many clients: transpose a tile and sort its lines, which NumPy does with vector instructions."""

    def run(index: int, begin: int, end: int) -> None:
        tile = np.empty((end - begin, len(rows)), out.dtype)
        for k, row in enumerate(rows):
            tile[:, k] = row[begin:end]
        with np.errstate(invalid="ignore", over="ignore"):
            sums[index, 0] = np.vdot(tile, tile)
            tile.sort(axis=1)
            _mean_of(list(np.ascontiguousarray(tile.T)), lo, hi, around, out[begin:end])

    return run


def _compiled_run(rows: list[Floats], out: Floats, sums: Floats, lo: int, hi: int, around: bool) -> Run:
    kernel = order_kernel(len(rows), lo, hi, around, out.dtype.name)
    lanes, short = emit.lanes(out.dtype.name), out
    if len(short) < lanes:  # one padded register
        rows = [np.pad(r, (0, lanes - len(short))) for r in rows]
        out = np.empty(lanes, out.dtype)
    pointers = row_pointers(rows)

    def run(index: int, begin: int, end: int) -> None:
        kernel(pointers, out.ctypes.data, begin, max(end, lanes), sums[index].ctypes.data)
        if out is not short:
            short[:] = out[: len(short)]

    return run
