"""Code generation for order statistics: one vector register of coordinates at a time through a selection network.

Every kernel also adds up the squares of all it reads, one instruction per value: the sum shows whether a value was
not finite or absurd, so that the screen need not read the rows a second time (see `screening.vouched`).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable
from functools import lru_cache, partial

from holdfast.aggregation.kernels import emit
from holdfast.aggregation.kernels.emit import Emitter
from holdfast.aggregation.kernels.networks import Network, merging_network, middle_ranks, selection_network

SUMS = 2
"""Independent sums of squares, so that they need not wait for each other."""
HALVES_PAY = 144
"""Rows from which the same code sorts one half after the other: one straight line for all would outgrow the caches."""


def reduction_network(n: int, lo: int, hi: int, around: bool) -> Network:
    """The network behind a reduction: everything sorted for `around`, else the wanted ranks only."""
    return selection_network(n, range(n) if around else range(lo, hi))


@lru_cache(maxsize=128)
def order_kernel(n: int, lo: int, hi: int, around: bool, dtype: str) -> Callable[..., None]:
    """Compile `void kernel(rows, out, begin, end, squares)`: reduce the coordinates begin..end-1 of the rows.

    `end` is at least one register; the last register ends there: it may overlap the one before and compute the same
    values again. The sum of the squares of all values read is added to `squares`, `[SUMS, lanes]`.
    """
    e = Emitter(dtype, emit.lanes(dtype))
    e.label("entry")
    room = e.room(n) if n >= HALVES_PAY else None
    last = e.binary("sub", "%end", str(e.lanes), "i64")
    above = e.binary("add", e.binary("sub", "%end", "%begin", "i64"), str(e.lanes - 1), "i64")

    def block(index: str, _: list[str]) -> list[str]:
        there = e.binary("add", "%begin", e.binary("mul", index, str(e.lanes), "i64"), "i64")
        at = e.let(f"select i1 {e.let(f'icmp sgt i64 {there}, {last}')}, i64 {last}, i64 {there}")
        ranked = _ranked(e, n, range(n) if around else range(lo, hi), at, room)
        e.store(_mean(e, ranked, lo, hi, around), e.at("%out", at))
        return []

    e.loop(e.binary("sdiv", above, str(e.lanes), "i64"), block)
    e.do("ret void")
    name = f"order_{n}_{lo}_{hi}_{int(around)}_{dtype}"
    pointers = ["ptr noalias %rows", "ptr noalias %out"]
    text = e.function(name, [*pointers, "i64 %begin", "i64 %end", "ptr noalias %squares"])
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    return emit.compile_function(text, name, [pointer, pointer, number, number, pointer])


def _ranked(e: Emitter, n: int, ranks: Iterable[int], at: str, room: str | None) -> list[str]:
    """Code that reads one register of coordinates of all rows; its values by rank (unwanted ranks: garbage)."""

    def value(squares: _Squares, table: str, k: int) -> str:
        pointer = e.at(e.row_pointer(table, k), at)
        e.prefetch(pointer, 512 if n < 64 else 128)  # many streams: what comes too early is gone again
        return squares.add(e.load(pointer))

    if room is None:
        with _Squares(e) as squares:
            return e.network(selection_network(n, ranks), partial(value, squares, "%rows"))
    half = n // 2

    def sort(which: str, _: list[str]) -> list[str]:
        first = e.binary("mul", which, str(half), "i64")
        table, out = e.at("%rows", first, "ptr"), e.at(room, first, e.vector)
        net = selection_network(half, range(half))
        with _Squares(e) as squares:
            e.network(net, partial(value, squares, table), lambda rank, v: e.store(v, e.at(out, rank, e.vector)))
        return []

    def sorted_or_left(squares: _Squares, k: int) -> str:
        return e.load(e.at(room, k, e.vector)) if k < 2 * half else value(squares, "%rows", k)

    e.loop(2, sort)
    with _Squares(e) as squares:
        return e.network(merging_network([half, half, n % 2], ranks), partial(sorted_or_left, squares))


class _Squares:
    """The sums of squares at `%squares`, in registers while in this context."""

    def __init__(self, e: Emitter) -> None:
        self.e, self.count = e, 0
        self.sums = [e.load(e.at("%squares", i * e.lanes)) for i in range(SUMS)]

    def add(self, value: str) -> str:
        """Add a value's square; returns the value."""
        i = self.count % SUMS
        self.sums[i] = self.e.multiply_add(value, value, self.sums[i])
        self.count += 1
        return value

    def __enter__(self) -> _Squares:
        return self

    def __exit__(self, *_: object) -> None:
        for i, total in enumerate(self.sums):
            self.e.store(total, self.e.at("%squares", i * self.e.lanes))


def _mean(e: Emitter, ranked: list[str], lo: int, hi: int, around: bool) -> str:
    """Code for `coordinate._mean_of`, operation by operation."""
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
