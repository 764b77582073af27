"""The two micro-kernels that all layers are made of, as LLVM vector code.

`panel` is a matrix product whose operands are found by strides and a table of taps: linear layers (forward, input
gradient and the update `W += G X`), convolutions forward and their input gradient. `correlate` sums products of
two vectors over their lanes: the weight gradient of a convolution. Both keep a block of accumulators in registers
for the whole sum, so a result is the same whatever surrounds it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from holdfast.training.compiled.emit import (
    I64,
    MEMORY,
    TABLE,
    Blocks,
    Emitter,
    block_sizes,
    call,
    define,
    intrinsic,
    kernel_type,
)

__all__ = ["ADD", "BIAS", "SCALED", "ZERO", "block_sizes", "correlate", "define_microkernels", "panel"]

# What is added to the sums of a panel: nothing, what is there, or one number per row; or the sums, times one number
# per row, are added to what is there. NumPy's integers, because numba would compile a function again for each
# combination of literal ones.
ZERO, ADD, BIAS, SCALED = np.int64(0), np.int64(1), np.int64(2), np.int64(3)

_ARRAYS = (MEMORY, TABLE)
_CORRELATE_SLOTS = 16  # a panel of r rows is kernel number r, a correlation of r x c number 16 + 8 r + c


def _panel_columns(e: Emitter, rows: int, vectors: int, count: Any, first: Any, call: dict[str, Any]) -> None:
    """`count` blocks of `rows` x `vectors` sums, side by side, from column `first` on."""
    b, mem, tab = e.builder, call["mem"], call["tab"]
    width = vectors * e.lanes
    sums = e.variables(rows * vectors)
    with e.repeat(count) as column:
        shift = b.add(first, b.mul(column.index, I64(width)))
        targets = [e.at(mem, b.add(call["out"], shift), b.mul(call["out_row"], I64(row))) for row in range(rows)]
        for variable in sums:
            b.store(ir.Constant(e.vector, [0.0] * e.lanes), variable)
        with e.repeat(call["taps"]) as tap:
            at_tap = b.add(call["table"], tap.index)
            w = b.add(call["w"], b.load(e.at(tab, at_tap)))
            x = e.at(mem, call["x"], shift, b.load(e.at(tab, at_tap, call["taps"])))
            # One base per three rows: the other two are reached by scaled addressing, which spares registers.
            bases = [e.at(mem, w, b.mul(call["w_row"], I64(row))) for row in range(0, rows, 3)]
            with e.repeat(call["length"]) as inner:
                vector = e.at(x, b.mul(inner.index, call["x_step"]))
                values = [e.load(e.at(vector, place * e.lanes)) for place in range(vectors)]
                step = b.mul(inner.index, call["w_step"])
                for row in range(rows):
                    address = e.at(bases[row // 3], b.add(step, b.mul(call["w_row"], I64(row % 3))))
                    weight = e.splat(b.load(address))
                    for place in range(vectors):
                        variable = sums[row * vectors + place]
                        b.store(e.fma(weight, values[place], b.load(variable)), variable)
        _finish(e, vectors, sums, targets, call)


def _finish(e: Emitter, vectors: int, sums: list[Any], targets: list[Any], call: dict[str, Any]) -> None:
    """Add last, not first: small steps would lose digits if they were added to a large weight one by one."""
    b = e.builder
    scaled = b.icmp_signed("==", call["plus"], I64(int(SCALED)))
    with b.if_then(scaled):
        for place, variable in enumerate(sums):
            factor = e.splat(b.load(e.at(call["mem"], call["bias"], place // vectors)))
            b.store(b.fmul(factor, b.load(variable)), variable)
    with b.if_then(b.or_(scaled, b.icmp_signed("==", call["plus"], I64(int(ADD))))):
        for place, variable in enumerate(sums):
            there = e.load(e.at(targets[place // vectors], place % vectors * e.lanes))
            b.store(b.fadd(b.load(variable), there), variable)
    with b.if_then(b.icmp_signed("==", call["plus"], I64(int(BIAS)))):
        for place, variable in enumerate(sums):
            bias = e.splat(b.load(e.at(call["mem"], call["bias"], place // vectors)))
            b.store(b.fadd(b.load(variable), bias), variable)
    for place, variable in enumerate(sums):
        e.store(b.load(variable), e.at(targets[place // vectors], place % vectors * e.lanes))


_PANEL_NAMES = (
    "mem", "tab", "columns", "w", "w_row", "w_step", "x", "x_step", "out", "out_row", "table", "taps", "length",
    "plus", "bias",
)  # fmt: skip


def _panel_body(rows: int) -> Any:
    def body(e: Emitter, *arguments: Any) -> None:
        call = dict(zip(_PANEL_NAMES, arguments, strict=True))
        b = e.builder
        width = e.shape.vectors * e.lanes
        wide = b.sdiv(call["columns"], I64(width))
        _panel_columns(e, rows, e.shape.vectors, wide, I64(0), call)
        done = b.mul(wide, I64(width))
        narrow = b.sdiv(b.sub(call["columns"], done), I64(e.lanes))
        _panel_columns(e, rows, 1, narrow, done, call)

    return body


@intrinsic
def panel(typing, mem, tab, rows, columns, w, w_row, w_step, x, x_step, out, out_row, table, taps, length, plus, bias):  # type: ignore[no-untyped-def]
    """Sum products of scalars and vectors into a block of rows.

    `out[r, :] = plus + sum over taps t, q < length of w[wt + r w_row + q w_step] * x[xt + q x_step + :]`, where
    `wt = tab[table + t]` and `xt = tab[table + taps + t]`. All operands are offsets into `mem`; `columns` floats per
    row, a multiple of 16; at most `block_sizes()[1]` rows.
    """

    def code(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return call(context, builder, arguments[2], _ARRAYS, [*arguments[:2], *arguments[3:]])

    return types.void(*_ARRAYS, *[types.int64] * len(_PANEL_NAMES[1:])), code


_CORRELATE_NAMES = ("mem", "tab", "g", "g_row", "g_line", "x", "table", "x_line", "lines", "length", "out", "out_row")


def _correlate_body(rows: int, columns: int) -> Any:
    def body(e: Emitter, *arguments: Any) -> None:
        call = dict(zip(_CORRELATE_NAMES, arguments, strict=True))
        b, mem = e.builder, call["mem"]
        sums = e.variables(rows * columns)
        for variable in sums:
            b.store(ir.Constant(e.vector, [0.0] * e.lanes), variable)
        shifts = [b.load(e.at(call["tab"], call["table"], column)) for column in range(columns)]
        with e.repeat(call["lines"]) as line:
            g_line = b.add(call["g"], b.mul(line.index, call["g_line"]))
            gs = [e.at(mem, g_line, b.mul(call["g_row"], I64(row))) for row in range(rows)]
            x_line = b.add(call["x"], b.mul(line.index, call["x_line"]))
            xs = [e.at(mem, x_line, shift) for shift in shifts]
            with e.repeat(call["length"]) as inner:
                step = b.mul(inner.index, I64(e.lanes))
                left = [e.load(e.at(address, step)) for address in gs]
                for column, address in enumerate(xs):
                    right = e.load(e.at(address, step))
                    for row in range(rows):
                        variable = sums[row * columns + column]
                        b.store(e.fma(left[row], right, b.load(variable)), variable)
        for row in range(rows):
            for column in range(columns):
                target = e.at(mem, call["out"], b.mul(call["out_row"], I64(row)), column)
                b.store(b.fadd(b.load(target), e.total(b.load(sums[row * columns + column]))), target)

    return body


@intrinsic
def correlate(typing, mem, tab, rows, columns, g, g_row, g_line, x, table, x_line, lines, length, out, out_row):  # type: ignore[no-untyped-def]
    """Add sums of products of vectors to a block of `out`.

    `out[r, c] += sum over lines l, vectors v < length of g[r g_row + l g_line + v] . x[tab[table + c] + l x_line + v]`
    for consecutive columns c; at most `block_sizes()[3]` rows and `block_sizes()[4]` columns.
    """

    def code(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        slot = builder.add(builder.mul(arguments[2], I64(8)), builder.add(arguments[3], I64(_CORRELATE_SLOTS)))
        return call(context, builder, slot, _ARRAYS, [*arguments[:2], *arguments[4:]])

    return types.void(*_ARRAYS, *[types.int64] * len(_CORRELATE_NAMES)), code


def define_microkernels(module: ir.Module, shape: Blocks) -> dict[int, Any]:
    """Write all micro-kernels into a module; by slot."""
    panel_type = kernel_type(_ARRAYS, len(_PANEL_NAMES) - 2)
    found = {
        rows: define(module, f"holdfast_panel_{rows}", panel_type, shape, _panel_body(rows))
        for rows in range(1, shape.rows + 1)
    }
    correlate_type = kernel_type(_ARRAYS, len(_CORRELATE_NAMES) - 2)
    for rows in range(1, shape.sum_rows + 1):
        for columns in range(1, shape.sum_columns + 1):
            body = _correlate_body(rows, columns)
            kernel = define(module, f"holdfast_correlate_{rows}_{columns}", correlate_type, shape, body)
            found[_CORRELATE_SLOTS + 8 * rows + columns] = kernel
    return found
