"""What happens between matrix products, as LLVM vector code: transposes, max-pooling, ReLU and sums of rows.

ReLU and max-pooling treat NaN as torch does (it stays NaN), so a model that has diverged shows it.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from holdfast.training.compiled.emit import (
    CODES,
    I8,
    I32,
    I64,
    MEMORY,
    TABLE,
    Blocks,
    Emitter,
    call,
    define,
    intrinsic,
    kernel_type,
)

__all__ = ["define_vector_kernels", "pool_line", "relu", "relu_gradient", "row_sum", "transpose", "unpool_line"]

DEAD = 255  # the code of a pooled cell that ReLU has set to zero: no gradient goes anywhere


_PLAIN, _CODED = (MEMORY, TABLE), (MEMORY, TABLE, CODES)
_TRANSPOSE, _POOL, _UNPOOL, _RELU, _RELU_GRADIENT, _ROW_SUM = range(64, 70)  # numbers after the micro-kernels'


def _caller(slot: int, arrays: tuple[types.Array, ...], integers: int) -> Any:
    """What an intrinsic gives numba: its type, and code that calls the kernel of that number."""

    def code(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return call(context, builder, slot, arrays, arguments)

    return types.void(*arrays, *[types.int64] * integers), code


def _transpose_body(
    e: Emitter, mem: Any, tab: Any, source: Any, source_table: Any, target: Any, target_table: Any
) -> None:
    """Four rounds of swapping halves: after round s, lanes and rows have exchanged bit s of their numbers."""
    b = e.builder
    rows = [e.load(e.at(mem, source, b.load(e.at(tab, source_table, row))), 16) for row in range(16)]
    for bit in (8, 4, 2, 1):
        swapped = list(rows)
        for row in range(16):
            if row & bit:
                continue
            low = [16 + lane - bit if lane & bit else lane for lane in range(16)]
            high = [16 + lane if lane & bit else lane + bit for lane in range(16)]
            swapped[row] = e.shuffle(rows[row], rows[row + bit], low)
            swapped[row + bit] = e.shuffle(rows[row], rows[row + bit], high)
        rows = swapped
    for row, value in enumerate(rows):
        e.store(value, e.at(mem, target, b.load(e.at(tab, target_table, row))))


@intrinsic
def transpose(typing, mem, tab, source, source_table, target, target_table):  # type: ignore[no-untyped-def]
    """Transpose 16 x 16 floats: row i is read at `source + tab[source_table + i]`, column j written likewise."""
    return _caller(_TRANSPOSE, _PLAIN, 4)


def _is_nan(e: Emitter, value: Any) -> Any:
    return e.builder.fcmp_unordered("uno", value, value)


def _vector(e: Emitter, scalar: Any) -> Any:
    """An i64 as a vector of i32 lanes."""
    return e.splat(e.builder.trunc(scalar, I32))


def _pool_body(
    e: Emitter, mem: Any, tab: Any, codes: Any, source: Any, row: Any, height: Any, width: Any, cells: Any, batch: Any,
    target: Any, code: Any, rectify: Any,
) -> None:  # fmt: skip
    b = e.builder
    best, place = e.variables(2, None)[0], e.variables(1, ir.VectorType(I32, e.lanes))[0]
    zero = ir.Constant(e.vector, [0.0] * e.lanes)
    alive = b.icmp_signed("==", rectify, I64(0))
    with e.repeat(cells) as cell, e.repeat(b.sdiv(batch, I64(e.lanes))) as part:
        lanes = b.mul(part.index, I64(e.lanes))
        corner = e.at(mem, source, b.mul(cell.index, b.mul(width, batch)), lanes)
        b.store(e.load(corner), best)
        b.store(ir.Constant(ir.VectorType(I32, e.lanes), [0] * e.lanes), place)
        with e.repeat(height) as down, e.repeat(width) as across:
            value = e.load(e.at(corner, b.mul(down.index, row), b.mul(across.index, batch)))
            top = b.load(best)
            larger = b.or_(b.fcmp_ordered(">", value, top), b.and_(_is_nan(e, value), b.not_(_is_nan(e, top))))
            here = _vector(e, b.add(b.mul(down.index, width), across.index))
            b.store(b.select(larger, here, b.load(place)), place)
            b.store(b.select(larger, value, top), best)
        top = b.load(best)
        kept = b.or_(b.fcmp_unordered(">", top, zero), e.splat(alive))
        out = b.add(b.mul(cell.index, batch), lanes)
        e.store(b.select(kept, top, zero), e.at(mem, target, out))
        dead = ir.Constant(ir.VectorType(I32, e.lanes), [DEAD] * e.lanes)
        chosen = b.select(kept, b.load(place), dead)
        e.store(b.trunc(chosen, ir.VectorType(I8, e.lanes)), e.at(codes, code, out))


@intrinsic
def pool_line(typing, mem, tab, codes, source, row, height, width, cells, batch, target, code, rectify):  # type: ignore[no-untyped-def]
    """Pool one line of `cells` windows, each `height` x `width`, of lines `row` apart; note which place won.

    Of equals the first wins. With `rectify`, negative maxima become zero and get the code `DEAD`.
    """
    return _caller(_POOL, _CODED, 9)


def _unpool_body(
    e: Emitter, mem: Any, tab: Any, codes: Any, source: Any, code: Any, height: Any, width: Any, cells: Any, batch: Any,
    target: Any, row: Any,
) -> None:  # fmt: skip
    b = e.builder
    zero = ir.Constant(e.vector, [0.0] * e.lanes)
    wide, narrow = ir.VectorType(I32, e.lanes), ir.VectorType(I8, e.lanes)
    with e.repeat(cells) as cell, e.repeat(b.sdiv(batch, I64(e.lanes))) as part:
        lanes = b.mul(part.index, I64(e.lanes))
        at = b.add(b.mul(cell.index, batch), lanes)
        value = e.load(e.at(mem, source, at))
        winner = b.zext(b.load(b.bitcast(e.at(codes, code, at), narrow.as_pointer()), align=1), wide)
        corner = e.at(mem, target, b.mul(cell.index, b.mul(width, batch)), lanes)
        with e.repeat(height) as down, e.repeat(width) as across:
            here = b.icmp_signed("==", winner, _vector(e, b.add(b.mul(down.index, width), across.index)))
            address = e.at(corner, b.mul(down.index, row), b.mul(across.index, batch))
            e.store(b.select(here, value, zero), address)


@intrinsic
def unpool_line(typing, mem, tab, codes, source, code, height, width, cells, batch, target, row):  # type: ignore[no-untyped-def]
    """The gradient of `pool_line`: each cell's gradient goes to the place that won, zero to the others."""
    return _caller(_UNPOOL, _CODED, 8)


def _relu_body(e: Emitter, mem: Any, tab: Any, at: Any, length: Any) -> None:
    b = e.builder
    zero = ir.Constant(e.vector, [0.0] * e.lanes)
    with e.repeat(b.sdiv(length, I64(e.lanes))) as part:
        address = e.at(mem, at, b.mul(part.index, I64(e.lanes)))
        value = e.load(address)
        e.store(b.select(b.fcmp_ordered("<=", value, zero), zero, value), address)


@intrinsic
def relu(typing, mem, tab, at, length):  # type: ignore[no-untyped-def]
    """Set negative values to zero, in place."""
    return _caller(_RELU, _PLAIN, 2)


def _relu_gradient_body(e: Emitter, mem: Any, tab: Any, values: Any, gradients: Any, length: Any) -> None:
    b = e.builder
    zero = ir.Constant(e.vector, [0.0] * e.lanes)
    with e.repeat(b.sdiv(length, I64(e.lanes))) as part:
        shift = b.mul(part.index, I64(e.lanes))
        address = e.at(mem, gradients, shift)
        off = b.fcmp_ordered("<=", e.load(e.at(mem, values, shift)), zero)
        e.store(b.select(off, zero, e.load(address)), address)


@intrinsic
def relu_gradient(typing, mem, tab, values, gradients, length):  # type: ignore[no-untyped-def]
    """Set gradients to zero where ReLU's output is zero, in place."""
    return _caller(_RELU_GRADIENT, _PLAIN, 3)


def _row_sum_body(e: Emitter, mem: Any, tab: Any, at: Any, lines: Any, line: Any, length: Any, out: Any) -> None:
    """Two sums side by side, so that an addition need not wait for the one before."""
    b = e.builder
    sums = e.variables(2)
    zero = ir.Constant(e.vector, [0.0] * e.lanes)
    for variable in sums:
        b.store(zero, variable)
    with e.repeat(lines) as down, e.repeat(b.sdiv(length, I64(16))) as part:
        address = e.at(mem, at, b.mul(down.index, line), b.mul(part.index, I64(16)))
        for place in range(16 // e.lanes):
            variable = sums[place % 2]
            b.store(b.fadd(b.load(variable), e.load(e.at(address, place * e.lanes))), variable)
    target = e.at(mem, out)
    b.store(b.fadd(b.load(target), e.total(b.fadd(*[b.load(variable) for variable in sums]))), target)


@intrinsic
def row_sum(typing, mem, tab, at, lines, line, length, out):  # type: ignore[no-untyped-def]
    """Add the sum of `lines` stretches of `length` floats, `line` apart, to the float at `out`."""
    return _caller(_ROW_SUM, _PLAIN, 5)


def define_vector_kernels(module: ir.Module, shape: Blocks) -> dict[int, Any]:
    """Write these kernels into a module; by slot."""
    kernels: dict[int, tuple[str, tuple[types.Array, ...], int, Any]] = {
        _TRANSPOSE: ("transpose", _PLAIN, 4, _transpose_body),
        _POOL: ("pool", _CODED, 9, _pool_body),
        _UNPOOL: ("unpool", _CODED, 8, _unpool_body),
        _RELU: ("relu", _PLAIN, 2, _relu_body),
        _RELU_GRADIENT: ("relu_gradient", _PLAIN, 3, _relu_gradient_body),
        _ROW_SUM: ("row_sum", _PLAIN, 5, _row_sum_body),
    }
    return {
        slot: define(module, f"holdfast_{name}", kernel_type(arrays, integers), shape, body)
        for slot, (name, arrays, integers, body) in kernels.items()
    }
