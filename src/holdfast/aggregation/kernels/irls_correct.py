"""Code generation for residual reweighting, second pass: average the values, the line's where they were rejected."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import lru_cache

from holdfast.aggregation.kernels import emit
from holdfast.aggregation.kernels.emit import Emitter
from holdfast.aggregation.kernels.irls_code import Slots


@lru_cache(maxsize=64)
def correct_kernel(n: int, dtype: str, ties: str) -> Callable[..., None]:
    """Compile pass 2.

    `void correct(columns, rows, shares, center, slope, masks, out)`: shares are double `[n]`; the rest as in pass 1.
    """
    e = Emitter(dtype, emit.lanes(dtype))
    e.label("entry")
    changed = e.room(1)
    values = Slots(e, n, False)

    def rank(k: str, mine: str) -> str:
        below, upto = "zeroinitializer", "zeroinitializer"
        for j in range(n):
            theirs = values.get(j)
            smaller, not_larger = e.less(theirs, mine), e.less(theirs, mine, "ole")
            if ties == "average":
                below, upto = e.count_where(smaller, below), e.count_where(not_larger, upto)
            else:  # equal values rank in the order of the clients
                earlier = e.let(f"icmp slt i64 {j}, {k}")
                counted = e.let(f"select i1 {earlier}, {e.mask} {not_larger}, {e.mask} {smaller}")
                below = e.count_where(counted, below)
        if ties == "average":  # (smaller + not larger - 1) / 2 - (n - 1) / 2
            total = e.as_float(e.binary("add", below, upto, e.integers))
            return e.multiply_add(total, e.constant(0.5), e.constant(-n / 2))
        return e.binary("fadd", e.as_float(below), e.constant(-(n - 1) / 2))

    def client(k: str, total: list[str]) -> list[str]:
        mine = values.get(k)
        bits = e.let(f"load i16, ptr {e.at('%masks_here', k, 'i16')}, align 2")
        e.do(f"store {e.vector} {mine}, ptr {changed}, align 64")

        def correct() -> None:
            narrow = bits if e.lanes == 16 else e.let(f"trunc i16 {bits} to i{e.lanes}")
            mask = e.let(f"bitcast i{e.lanes} {narrow} to {e.mask}")
            center, slope = e.load(e.at("%center", "%i")), e.load(e.at("%slope", "%i"))
            line = e.multiply_add(slope, rank(k, mine), center)
            e.do(f"store {e.vector} {e.select(mask, line, mine)}, ptr {changed}, align 64")

        e.when(e.let(f"icmp ne i16 {bits}, 0"), correct)
        corrected = e.let(f"load {e.vector}, ptr {changed}, align 64")
        share = e.splat(e.let(f"load double, ptr {e.at('%shares', k, 'double')}"), "double")
        return [e.multiply_add(e.widen(corrected), share, total[0], e.wide)]

    def register(block: str, _: list[str]) -> list[str]:
        e.lines.append(f"  %i = mul i64 {block}, {e.lanes}")
        e.lines.append(f"  %masks_here = getelementptr i16, ptr %masks, i64 {e.binary('mul', block, str(n), 'i64')}")

        def read(k: str, _: list[str]) -> list[str]:
            pointer = e.at(e.let(f"load ptr, ptr {e.at('%rows', k, 'ptr')}, align 8"), "%i")
            e.prefetch(pointer, 512)
            values.put(k, e.load(pointer))
            return []

        e.loop(n, read)
        total = e.loop(n, client, [(e.wide, e.constant(0.0, "double"))])[0]
        e.store(e.narrow(total), e.at("%out", "%i"))
        return []

    e.loop(e.let(f"sdiv i64 %columns, {e.lanes}"), register)
    e.do("ret void")
    pointers = ["rows", "shares", "center", "slope", "masks", "out"]
    text = e.function("correct", ["i64 %columns", *[f"ptr noalias %{p}" for p in pointers]])
    return emit.compile_function(text, "correct", [ctypes.c_int64, *[ctypes.c_void_p] * len(pointers)])
