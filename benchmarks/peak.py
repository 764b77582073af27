"""What one core of this machine can do in float32: chains of fused multiply-adds on full vectors, nothing else."""

from __future__ import annotations

import time
from functools import cache
from typing import Any

from llvmlite import ir
from numba import float32, int64, njit
from numba.core import cgutils
from numba.extending import intrinsic

_CHAINS = 24
"""Independent sums: enough to hide the latency of an instruction on every current CPU, few enough for registers."""


def _lanes(context: Any) -> int:
    features = set(context.codegen().magic_tuple()[2].split(","))
    return 16 if "+avx512f" in features else 8 if "+avx2" in features else 4


@intrinsic
def _chains(typing, count):  # type: ignore[no-untyped-def]
    """`count` multiply-adds on each of the chains; the result only keeps them from being optimized away."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        lanes = _lanes(context)
        vector = ir.VectorType(ir.FloatType(), lanes)
        kind = ir.FunctionType(vector, [vector] * 3)
        fma = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{lanes}f32")
        sums = [builder.alloca(vector) for _ in range(_CHAINS)]
        for place, slot in enumerate(sums):
            builder.store(ir.Constant(vector, [1.0 + place] * lanes), slot)
        shrink, add = (ir.Constant(vector, [value] * lanes) for value in (0.999, 0.001))
        with cgutils.for_range(builder, arguments[0]):
            for slot in sums:
                builder.store(builder.call(fma, [builder.load(slot), shrink, add]), slot)
        total = builder.load(sums[0])
        for slot in sums[1:]:
            total = builder.fadd(total, builder.load(slot))
        return builder.extract_element(total, ir.IntType(32)(0))

    return float32(int64), emit


@intrinsic
def _vector_length(typing):  # type: ignore[no-untyped-def]
    def emit(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        return ir.IntType(64)(_lanes(context))

    return int64(), emit


@cache
def _program() -> Any:
    @njit
    def run(count):  # type: ignore[no-untyped-def]
        return _chains(count), count * _vector_length() * _CHAINS * 2

    run(10)
    return run


def peak_flops(seconds: float = 0.3) -> float:
    """Float32 operations per processor-second of one core, the best of short stretches within `seconds`."""
    run, best, spent = _program(), 0.0, 0.0
    while spent < seconds:
        began = time.process_time()
        _, operations = run(1_000_000)
        took = time.process_time() - began
        spent += took
        best = max(best, operations / took)
    return best


if __name__ == "__main__":
    print(f"{peak_flops(1.0) / 1e9:.1f} GFLOP/s per core")
