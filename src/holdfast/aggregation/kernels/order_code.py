"""Code generation for order statistics: one vector register of coordinates at a time through a selection network.

Every kernel also adds up the squares of all it reads, one instruction per value: the sum shows whether a value was
not finite or absurd, so that the screen need not read the rows a second time (see `screening.vouched`).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import lru_cache

from holdfast.aggregation.kernels import emit
from holdfast.aggregation.kernels.emit import Emitter
from holdfast.aggregation.kernels.networks import Network, halves, merge_network, middle_ranks, selection_network

STRAIGHT = 128
"""Up to this many clients the network is one straight line; beyond, its code would not fit the instruction cache."""
LEAF = 32
"""In steps, runs of up to this many wires are sorted in registers."""
TILE = 4
"""Registers per row that one step takes together, so that memory is read in runs."""
RUN = 16
"""Cache lines of one row asked for in a row: with many rows, memory answers long runs much faster."""
SUMS = 2
"""Independent sums of squares, so that they need not wait for each other."""
_ARGUMENTS = ("ptr noalias %rows", "ptr noalias %out", "i64 %begin", "i64 %end", "ptr noalias %squares")


def width(n: int, dtype: str) -> int:
    """Coordinates that one round of the kernel for n clients takes, the fewest it can be given."""
    return emit.lanes(dtype) * (1 if n <= STRAIGHT else TILE)


@lru_cache(maxsize=128)
def order_kernel(n: int, lo: int, hi: int, around: bool, dtype: str) -> Callable[..., None]:
    """Compile `void kernel(rows, out, begin, end, squares)`: reduce the coordinates begin..end-1 of the rows.

    `end - begin` is at least `width(n, dtype)`; the last round ends at `end`: it may overlap the one before and compute
    the same values again. The sum of the squares of all values read is added to `squares`, `[SUMS, lanes]`.
    """
    name = f"order_{n}_{lo}_{hi}_{int(around)}_{dtype}"
    text = (_straight if n <= STRAIGHT else _in_steps)(name, n, lo, hi, around, dtype)
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    return emit.compile_function(text, name, [pointer, pointer, number, number, pointer])


def reduction_network(n: int, lo: int, hi: int, around: bool) -> Network:
    """The network behind a reduction: everything sorted for `around`, else the wanted ranks only."""
    return selection_network(n, range(n) if around else range(lo, hi))


def _straight(name: str, n: int, lo: int, hi: int, around: bool, dtype: str) -> str:
    e = Emitter(dtype, emit.lanes(dtype))
    e.label("entry")

    def body(at: str) -> None:
        squares = _Squares(e)
        ahead = _Runs(e, n, at) if n >= 4 * RUN else None

        def value(k: int) -> str:
            pointer = e.at(e.row_pointer("%rows", k), at)
            e.prefetch(pointer, 128 if ahead else 512)  # many streams: what comes too early is gone again
            if ahead:
                ahead.next()
            return squares.add(e.load(pointer))

        ranked = e.network(reduction_network(n, lo, hi, around), value)
        e.store(_mean(e, ranked, lo, hi, around), e.at("%out", at))
        squares.store()

    _rounds(e, e.lanes, body)
    return e.function(name, _ARGUMENTS)


class _Squares:
    """The sums of squares at `%squares`, `[SUMS, lanes]`, in registers between `__init__` and `store`."""

    def __init__(self, e: Emitter) -> None:
        self.e, self.count = e, 0
        self.sums = [e.load(e.at("%squares", i * e.lanes)) for i in range(SUMS)]

    def add(self, value: str) -> str:
        """Add a value's square; returns the value."""
        i = self.count % SUMS
        self.sums[i] = self.e.multiply_add(value, value, self.sums[i])
        self.count += 1
        return value

    def store(self) -> None:
        """Put the sums back."""
        for i, total in enumerate(self.sums):
            self.e.store(total, self.e.at("%squares", i * self.e.lanes))


class _Runs:
    """Asks for the next RUN cache lines of every row, a few rows in each of the RUN rounds before they are needed."""

    def __init__(self, e: Emitter, n: int, at: str) -> None:
        self.e, self.n, self.count = e, n, 0
        line = 64 // e.bytes
        self.round = e.binary("and", e.binary("sdiv", at, str(line), "i64"), str(RUN - 1), "i64")
        done = e.binary("mul", self.round, str(line), "i64")
        self.next_run = e.binary("add", e.binary("sub", at, done, "i64"), str(RUN * line), "i64")
        self.first_row = e.binary("mul", self.round, str(-(-n // RUN)), "i64")
        self.pointer = ""

    def next(self) -> None:
        """Ask for one more line."""
        e = self.e
        if self.count % RUN == 0:
            row = e.binary("add", self.first_row, str(self.count // RUN), "i64")
            known = e.let(f"icmp slt i64 {row}, {self.n}")
            row = e.let(f"select i1 {known}, i64 {row}, i64 {self.n - 1}")
            self.pointer = e.at(e.let(f"load ptr, ptr {e.at('%rows', row, 'ptr')}, align 8"), self.next_run)
        e.prefetch(self.pointer, 64 * (self.count % RUN), level=2)
        self.count += 1


def _rounds(e: Emitter, step: int, body: Callable[[str], None]) -> None:
    """A loop over the coordinates begin..end-1 in rounds of `step`, the last one ending at `end`."""
    last = e.binary("sub", "%end", str(step), "i64")
    e.do("br label %round")
    e.label("round")
    e.do("%i = phi i64 [ %begin, %entry ], [ %next, %after ]")
    over = e.let(f"icmp sgt i64 %i, {last}")
    body(e.let(f"select i1 {over}, i64 {last}, i64 %i"))
    e.do("br label %after")
    e.label("after")
    e.do(f"%next = add i64 %i, {step}")
    done = e.let("icmp sge i64 %next, %end")
    e.do(f"br i1 {done}, label %exit, label %round")
    e.label("exit")
    e.do("ret void")


# ---- many clients: the network in steps over a buffer ---------------------------------------------------------------


def _in_steps(name: str, n: int, lo: int, hi: int, around: bool, dtype: str) -> str:
    """Sort runs of rows, merge them pairwise in a buffer `[n, TILE]` of registers, merge the last two into the result.

    Runs of equal length share their code, which makes it a third as long as the straight line.
    """
    times = 0
    while max(k for _, k in halves(n, times)) > LEAF:
        times += 1
    helpers = [_leaf(k, dtype) for k in sorted({k for _, k in halves(n, times)})]
    for merged in range(1, times):
        helpers += [_merge(k, merged, dtype) for k in sorted({k for _, k in halves(n, times - merged)})]
    e = Emitter(dtype, emit.lanes(dtype))
    e.label("entry")
    buffer = e.let(f"alloca [{n * TILE} x {e.vector}], align 64")

    def body(at: str) -> None:
        for start, k in halves(n, times):
            rows, slots = e.at("%rows", start, "ptr"), e.at(buffer, start * TILE, e.vector)
            e.do(f"call void @sort{k}(ptr {rows}, ptr {slots}, i64 {at}, ptr %squares)")
        for merged in range(1, times):
            for start, k in halves(n, times - merged):
                e.do(f"call void @merge{k}(ptr {e.at(buffer, start * TILE, e.vector)})")

        def last(w: str, _: list[str]) -> list[str]:
            slots = _Slots(e, buffer, w)
            ranked = e.network(merge_network(n, times, range(n) if around else range(lo, hi)), slots.load)
            here = e.binary("add", at, e.binary("mul", w, str(e.lanes), "i64"), "i64")
            e.store(_mean(e, ranked, lo, hi, around), e.at("%out", here))
            return []

        e.loop(TILE, last)

    _rounds(e, e.lanes * TILE, body)
    return e.function(name, _ARGUMENTS, helpers)


class _Slots:
    """The w-th of the TILE registers of every wire."""

    def __init__(self, e: Emitter, buffer: str, w: str) -> None:
        self.e = e
        self.first = e.at(buffer, w, e.vector)

    def load(self, k: int) -> str:
        return self.e.let(f"load {self.e.vector}, ptr {self.e.at(self.first, k * TILE, self.e.vector)}, align 64")

    def store(self, k: int, value: str) -> None:
        self.e.do(f"store {self.e.vector} {value}, ptr {self.e.at(self.first, k * TILE, self.e.vector)}, align 64")


def _leaf(k: int, dtype: str) -> str:
    """Read TILE registers of each of k rows and leave them sorted in the buffer."""
    e = Emitter(dtype, emit.lanes(dtype))
    e.label("entry")

    def one(w: str, _: list[str]) -> list[str]:
        squares, slots = _Squares(e), _Slots(e, "%slots", w)
        here = e.binary("add", "%at", e.binary("mul", w, str(e.lanes), "i64"), "i64")

        def value(row: int) -> str:
            pointer = e.at(e.row_pointer("%rows", row), here)
            e.prefetch(pointer, 64 * TILE)
            return squares.add(e.load(pointer))

        e.network(merge_network(k, 0), value, slots.store)
        squares.store()
        return []

    e.loop(TILE, one)
    e.do("ret void")
    return e.helper(f"sort{k}", ["ptr noalias %rows", "ptr noalias %slots", "i64 %at", "ptr noalias %squares"])


def _merge(k: int, times: int, dtype: str) -> str:
    """Merge the two sorted halves of a run of k wires in the buffer."""
    e = Emitter(dtype, emit.lanes(dtype))
    e.label("entry")

    def one(w: str, _: list[str]) -> list[str]:
        slots = _Slots(e, "%slots", w)
        e.network(merge_network(k, times), slots.load, slots.store)
        return []

    e.loop(TILE, one)
    e.do("ret void")
    return e.helper(f"merge{k}", ["ptr noalias %slots"])


# ---- the mean of the ranks that are wanted ---------------------------------------------------------------------------


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
