"""Small helpers to emit LLVM vector code from numba intrinsics, and the block sizes that suit the target CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic as numba_intrinsic

I8, I32, I64, F32 = ir.IntType(8), ir.IntType(32), ir.IntType(64), ir.FloatType()

MEMORY = types.Array(types.float32, 1, "C")
TABLE = types.Array(types.int64, 1, "C")
CODES = types.Array(types.uint8, 1, "C")


def intrinsic(function: Callable[..., Any]) -> Any:
    """`numba.extending.intrinsic`; for a type checker, callers see no `typing` argument that numba adds."""
    return numba_intrinsic(function)


@dataclass(frozen=True)
class Blocks:
    """How many vector registers the micro-kernels keep busy.

    Attributes:
        lanes: floats per vector.
        rows: most rows of a panel block.
        vectors: vectors per row of a panel block; `rows * vectors` accumulators.
        sum_rows: most rows of a correlation block.
        sum_columns: most columns of a correlation block; `sum_rows * sum_columns` accumulators.
        fused: the CPU has fused multiply-add.
    """

    lanes: int
    rows: int
    vectors: int
    sum_rows: int
    sum_columns: int
    fused: bool


def blocks(context: Any) -> Blocks:
    """The block sizes for the CPU numba compiles for (NUMBA_CPU_NAME and NUMBA_CPU_FEATURES are respected).

    They depend on nothing but what numba itself puts into the key of its compilation cache.
    """
    triple, _, features = context.codegen().magic_tuple()
    enabled = set(features.split(","))
    if "+avx512f" in enabled:
        return Blocks(lanes=16, rows=12, vectors=2, sum_rows=5, sum_columns=5, fused=True)
    if "+avx2" in enabled and "+fma" in enabled:
        return Blocks(lanes=8, rows=6, vectors=2, sum_rows=3, sum_columns=3, fused=True)
    if "aarch64" in triple or "arm64" in triple:
        return Blocks(lanes=4, rows=12, vectors=2, sum_rows=5, sum_columns=5, fused=True)
    return Blocks(lanes=4, rows=6, vectors=2, sum_rows=3, sum_columns=3, fused=False)


class Emitter:
    """One LLVM function under construction, with the few vector operations the kernels are made of."""

    def __init__(self, builder: ir.IRBuilder, shape: Blocks) -> None:
        self.builder, self.shape, self.lanes = builder, shape, shape.lanes
        self.vector = ir.VectorType(F32, shape.lanes)

    def at(self, base: Any, *offsets: Any) -> Any:
        """The address `base + sum(offsets)`, in elements."""
        for offset in offsets:
            base = self.builder.gep(base, [I64(offset) if isinstance(offset, int) else offset])
        return base

    def load(self, address: Any, lanes: int | None = None) -> Any:
        """Load `lanes` floats, from any address that is a multiple of 4."""
        kind = self.vector if lanes is None else ir.VectorType(F32, lanes)
        return self.builder.load(self.builder.bitcast(address, kind.as_pointer()), align=4)

    def store(self, value: Any, address: Any) -> None:
        """Store a vector; its lanes' type decides the pointer's."""
        size = 4 if value.type.element == F32 else 1
        self.builder.store(value, self.builder.bitcast(address, value.type.as_pointer()), align=size)

    def splat(self, value: Any, lanes: int | None = None) -> Any:
        """A vector whose lanes all hold `value`."""
        lanes = lanes or self.lanes
        kind = ir.VectorType(value.type, lanes)
        first = self.builder.insert_element(ir.Constant(kind, ir.Undefined), value, I32(0))
        zeros = ir.Constant(ir.VectorType(I32, lanes), [0] * lanes)
        return self.builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), zeros)

    def shuffle(self, first: Any, second: Any, lanes: list[int]) -> Any:
        """Pick lanes of two vectors, numbered through."""
        mask = ir.Constant(ir.VectorType(I32, len(lanes)), lanes)
        return self.builder.shuffle_vector(first, second, mask)

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """`a * b + c` per lane."""
        if not self.shape.fused:
            return self.builder.fadd(self.builder.fmul(a, b), c)
        name = f"llvm.fma.v{self.lanes}f32"
        kind = ir.FunctionType(self.vector, [self.vector] * 3)
        found = self.builder.module.globals.get(name) or ir.Function(self.builder.module, kind, name)
        return self.builder.call(found, [a, b, c])

    def total(self, value: Any) -> Any:
        """The sum of a vector's lanes, by halves: always the same order."""
        width = self.lanes
        while width > 1:
            width //= 2
            low = self.shuffle(value, value, list(range(width)))
            high = self.shuffle(value, value, list(range(width, 2 * width)))
            value = self.builder.fadd(low, high)
        return self.builder.extract_element(value, I32(0))

    def variables(self, number: int, kind: Any = None) -> list[Any]:
        """Local variables (registers, once LLVM is through)."""
        with self.builder.goto_entry_block():
            return [self.builder.alloca(kind or self.vector) for _ in range(number)]

    def repeat(self, count: Any) -> Any:
        """A counted loop, for use with `with`; its `index` is an i64."""
        return cgutils.for_range(self.builder, I64(count) if isinstance(count, int) else count)


def define(module: ir.Module, name: str, kind: ir.FunctionType, shape: Blocks, body: Callable[..., None]) -> Any:
    """A new function of the module; `body(emitter, *arguments)` writes it."""
    found = ir.Function(module, kind, name)
    found.linkage = "internal"
    builder = ir.IRBuilder(found.append_basic_block("entry"))
    body(Emitter(builder, shape), *found.args)
    builder.ret_void()
    return found


_POINTERS: dict[Any, ir.Type] = {MEMORY: F32.as_pointer(), TABLE: I64.as_pointer(), CODES: I8.as_pointer()}


def kernel_type(arrays: Sequence[types.Array], integers: int) -> ir.FunctionType:
    """The type of a kernel: addresses of arrays, then integers."""
    return ir.FunctionType(ir.VoidType(), [_POINTERS[array] for array in arrays] + [I64] * integers)


def call(
    context: Any, builder: ir.IRBuilder, slot: Any, arrays: Sequence[types.Array], arguments: Sequence[Any]
) -> Any:
    """Call the kernel whose address is `tab[slot]`, `tab` being the second array.

    Kernels are reached by address, not by name, because numba links and optimizes what a function calls by name
    again for each of its callers: seconds each time.
    """
    kind = kernel_type(arrays, len(arguments) - len(arrays))
    addresses = [context.make_array(array)(context, builder, value).data for array, value in zip(arrays, arguments)]  # noqa: B905
    place = builder.load(builder.gep(addresses[1], [I64(slot) if isinstance(slot, int) else slot]))
    builder.call(builder.inttoptr(place, kind.as_pointer()), [*addresses, *arguments[len(arrays) :]])
    return context.get_dummy_value()


@intrinsic
def block_sizes(typing):  # type: ignore[no-untyped-def]
    """(lanes, rows, vectors, sum_rows, sum_columns) of the CPU this is compiled for, as compile-time constants."""

    def code(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        shape = blocks(context)
        numbers = (shape.lanes, shape.rows, shape.vectors, shape.sum_rows, shape.sum_columns)
        return context.make_tuple(builder, signature.return_type, [I64(number) for number in numbers])

    return types.Tuple([types.int64] * 5)(), code  # type: ignore[no-untyped-call]
