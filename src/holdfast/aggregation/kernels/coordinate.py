"""Order statistics per coordinate over client rows: median, trimmed mean, mean around the median, sorting.

`rows` is an array `[n, d]` or a sequence of n arrays `[d]` (read in place, never stacked), float32 or float64, free
of NaN: the screen comes first. Selection is exact and sums of float32 are taken in float64 in ascending order, so
the compiled form, the NumPy form and any order of the clients give the same bits.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.aggregation.kernels import emit
from holdfast.aggregation.kernels.networks import MAX_NETWORK, Network, middle_ranks, selection_network
from holdfast.aggregation.kernels.parallel import for_chunks

Floats = NDArray[Any]
Rows = Floats | Sequence[Floats]
CHUNK = 16384
"""Coordinates per unit of work; a multiple of every register width."""


def row_list(rows: Rows) -> list[Floats]:
    """One contiguous 1-D array per client, all float32 or all float64, without copying where that already holds."""
    dtype = np.float64 if any(np.asarray(r).dtype == np.float64 for r in rows) else np.float32
    return [np.ascontiguousarray(r, dtype=dtype) for r in rows]


def row_pointers(rows: Sequence[Floats]) -> Any:
    """The addresses of the rows, as a kernel takes them; keeps the rows alive."""
    pointers = (ctypes.c_void_p * len(rows))(*[r.ctypes.data for r in rows])
    pointers.rows = rows  # type: ignore[attr-defined]
    return pointers


def order_statistics_mean(rows: Rows, lo: int, hi: int, *, threads: int | None = None) -> Floats:
    """Mean of the sorted values of rank lo..hi-1, per coordinate: `[d]`.

    >>> order_statistics_mean(np.array([[5.0, 1.0], [1.0, 1.0], [3.0, 7.0], [2.0, 2.0]]), 1, 3)
    array([2.5, 1.5])
    """
    return _reduce(row_list(rows), lo, hi, around=False, threads=threads)


def median(rows: Rows, *, threads: int | None = None) -> Floats:
    """Coordinate-wise median (the mean of the two middle values for even n): `[d]`.

    >>> median(np.array([[5.0, 1.0], [1.0, 1.0], [3.0, 7.0]]))
    array([3., 1.])
    """
    lo, hi = middle_ranks(len(rows))
    return order_statistics_mean(rows, lo, hi, threads=threads)


def trimmed_mean(rows: Rows, f: int, *, threads: int | None = None) -> Floats:
    """Coordinate-wise mean without the f smallest and f largest values: `[d]`."""
    return order_statistics_mean(rows, f, len(rows) - f, threads=threads)


def mean_around_median(rows: Rows, f: int, *, threads: int | None = None) -> Floats:
    """Coordinate-wise mean of the n - f values closest to the median; of two equally close the smaller stays.

    Needs 2 f <= n.

    >>> mean_around_median(np.array([[0.0], [1.0], [2.0], [9.0]]), 1)
    array([1.])
    """
    return _reduce(row_list(rows), 0, len(rows) - f, around=True, threads=threads)


def column_sort(rows: Rows) -> Floats:
    """The values of every coordinate in ascending order: `[n, d]`."""
    wires, scratch = _copied(row_list(rows), 0, len(rows[0]))
    return np.stack(_network_rows(selection_network(len(rows), range(len(rows))), wires, scratch))


def _reduce(rows: list[Floats], lo: int, hi: int, *, around: bool, threads: int | None) -> Floats:
    n, d, dtype = len(rows), len(rows[0]), rows[0].dtype
    out = np.empty(d, dtype)
    if n > MAX_NETWORK:
        run, chunk = _sorting_run(rows, out, lo, hi, around), 512
    elif emit.available():
        run, chunk = _compiled_run(rows, out, lo, hi, around), CHUNK
    else:
        run, chunk = _numpy_run(rows, out, lo, hi, around), max(256, 65536 // n)
    guess_ns = 0.15 * n * d if n <= 32 else 0.5 * n * d
    for_chunks(lambda _, begin, end: run(begin, end), d, chunk, ns=guess_ns, threads=threads)
    return out


def reduction_network(n: int, lo: int, hi: int, around: bool) -> Network:
    """The network behind a reduction: everything sorted for `around`, else the wanted ranks only."""
    return selection_network(n, range(n) if around else range(lo, hi))


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


def _numpy_run(rows: list[Floats], out: Floats, lo: int, hi: int, around: bool) -> Callable[[int, int], None]:
    net = reduction_network(len(rows), lo, hi, around)

    def run(begin: int, end: int) -> None:
        wires, scratch = _copied(rows, begin, end)
        with np.errstate(invalid="ignore", over="ignore"):
            _mean_of(_network_rows(net, wires, scratch), lo, hi, around, out[begin:end])

    return run


def _sorting_run(rows: list[Floats], out: Floats, lo: int, hi: int, around: bool) -> Callable[[int, int], None]:
    """For many clients: transpose a tile and sort its lines, which NumPy does with vector instructions."""

    def run(begin: int, end: int) -> None:
        tile = np.empty((end - begin, len(rows)), out.dtype)
        for k, row in enumerate(rows):
            tile[:, k] = row[begin:end]
        tile.sort(axis=1)
        with np.errstate(invalid="ignore", over="ignore"):
            _mean_of(list(np.ascontiguousarray(tile.T)), lo, hi, around, out[begin:end])

    return run


# ---- compiled ------------------------------------------------------------------------------------------------------


def _compiled_run(rows: list[Floats], out: Floats, lo: int, hi: int, around: bool) -> Callable[[int, int], None]:
    kernel = _kernel(len(rows), lo, hi, around, out.dtype.name)
    lanes = emit.lanes(out.dtype.name)
    if len(out) < lanes:  # one padded register
        short, width = out, len(out)
        rows = [np.pad(r, (0, lanes - width)) for r in rows]
        out = np.empty(lanes, out.dtype)
    else:
        short, width = None, 0
    pointers = row_pointers(rows)

    def run(begin: int, end: int) -> None:
        kernel(pointers, out.ctypes.data, begin, max(end, lanes))
        if short is not None:
            short[:] = out[:width]

    return run


@lru_cache(maxsize=128)
def _kernel(n: int, lo: int, hi: int, around: bool, dtype: str) -> Callable[..., None]:
    """`void kernel(rows, out, begin, end)` reduces the coordinates begin..end-1; end is at least one register.

    The last register ends at `end`: it may overlap the one before and compute the same values again.
    """
    e = emit.Emitter(dtype, emit.lanes(dtype))
    e.label("entry")
    last = e.let(f"sub i64 %end, {e.lanes}")
    e.do("br label %loop")
    e.label("loop")
    e.do("%i = phi i64 [ %begin, %entry ], [ %next, %loop ]")
    over = e.let(f"icmp sgt i64 %i, {last}")
    at = e.let(f"select i1 {over}, i64 {last}, i64 %i")

    def value(k: int) -> str:
        pointer = e.at(e.row_pointer("%rows", k), at)
        e.prefetch(pointer, 512 if n < 64 else 128)  # many streams: what comes too early is gone again
        return e.load(pointer)

    ranked = e.network(reduction_network(n, lo, hi, around), value)
    e.store(_emit_mean(e, ranked, lo, hi, around), e.at("%out", at))
    e.do(f"%next = add i64 %i, {e.lanes}")
    done = e.let("icmp sge i64 %next, %end")
    e.do(f"br i1 {done}, label %exit, label %loop")
    e.label("exit")
    e.do("ret void")
    name = f"order_{n}_{lo}_{hi}_{int(around)}_{dtype}"
    text = e.function(name, ["ptr noalias %rows", "ptr noalias %out", "i64 %begin", "i64 %end"])
    return emit.compile_function(text, name, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64])


def _emit_mean(e: emit.Emitter, ranked: list[str], lo: int, hi: int, around: bool) -> str:
    """Code for `_mean_of`, operation by operation."""
    n, kept = len(ranked), hi - lo
    if kept == 1 and not around:
        return ranked[lo]
    terms = ranked[lo:hi]
    if around:
        m0, m1 = middle_ranks(n)
        half = e.constant(0.5, "double")
        low, high = (e.binary("fmul", e.widen(ranked[m]), half, e.wide) for m in (m0, m1 - 1))
        center = e.binary("fadd", low, high, e.wide)
        terms = []
        for a in range(n - kept):
            above = e.binary("fsub", e.widen(ranked[a + kept]), center, e.wide)
            below = e.binary("fsub", center, e.widen(ranked[a]), e.wide)
            up = e.let(f"fcmp olt {e.wide} {above}, {below}")
            terms.append(e.select(up, ranked[a + kept], ranked[a]))
        terms += ranked[n - kept : kept]
    scale = 2.0 ** -(kept - 1).bit_length() if e.scalar == "double" else 1.0
    total = e.constant(0.0, "double")
    for term in terms:
        wide = e.widen(term)
        scaled = wide if scale == 1.0 else e.binary("fmul", wide, e.constant(scale, "double"), e.wide)
        total = e.binary("fadd", total, scaled, e.wide)
    mean = e.narrow(e.binary("fdiv", total, e.constant(kept * scale, "double"), e.wide))
    if e.scalar == "double":
        first, final = (ranked[0], ranked[-1]) if around else (ranked[lo], ranked[hi - 1])
        mean = e.minimum(e.maximum(mean, first), final)
    return mean
