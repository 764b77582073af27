"""LLVM code for this machine, made at run time: a small text emitter and a just-in-time compiler.

One instruction stream per client count, straight through the comparators of a network with one vector register
per client: within a few percent of hand-written C++, and nothing to compile at install time. llvmlite comes with
numba; where it is missing or fails, `available()` is False and the callers use their NumPy form of the same network.
"""

from __future__ import annotations

import ctypes
import math
import platform
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

from holdfast.aggregation.kernels import objects
from holdfast.aggregation.kernels.networks import Network

IR_TYPE = {"float32": "float", "float64": "double"}
KEEP_CHARACTERS = 200_000
"""Code longer than this takes more than a blink to compile and is kept on disk."""

_lock = threading.Lock()
_loaded: list[bytes] = []  # the engine may refer to what it was given


class Emitter:
    """Lines of LLVM IR for one function over vectors of `lanes` numbers of one type.

    Attributes:
        lanes: numbers per vector register.
        scalar: `float` or `double`.
        vector: the vector type's name.
    """

    def __init__(self, dtype: str, lanes: int) -> None:
        self.lanes = lanes
        self.scalar = IR_TYPE[dtype]
        self.bytes = 4 if dtype == "float32" else 8
        self.vector = f"<{lanes} x {self.scalar}>"
        self.wide = f"<{lanes} x double>"
        self.mask = f"<{lanes} x i1>"
        self.integers = f"<{lanes} x i{8 * self.bytes}>"
        self.block = ""
        self.lines: list[str] = []
        self._count = 0

    def label(self, name: str) -> None:
        """Start a basic block."""
        self.lines.append(f"{name}:")
        self.block = name

    def do(self, text: str) -> None:
        """Emit an instruction without a result."""
        self.lines.append(f"  {text}")

    def let(self, text: str) -> str:
        """Emit an instruction that has a result and return the result's name."""
        self._count += 1
        name = f"%v{self._count}"
        self.lines.append(f"  {name} = {text}")
        return name

    def binary(self, operation: str, a: str, b: str, kind: str | None = None) -> str:
        """Emit a two-operand instruction."""
        return self.let(f"{operation} {kind or self.vector} {a}, {b}")

    def load(self, pointer: str) -> str:
        """Load a vector, at any alignment."""
        return self.let(f"load {self.vector}, ptr {pointer}, align {self.bytes}")

    def store(self, value: str, pointer: str) -> None:
        """Store a vector, at any alignment."""
        self.do(f"store {self.vector} {value}, ptr {pointer}, align {self.bytes}")

    def at(self, pointer: str, index: str | int, kind: str | None = None) -> str:
        """Address of element `index`."""
        return self.let(f"getelementptr inbounds {kind or self.scalar}, ptr {pointer}, i64 {index}")

    def room(self, vectors: int) -> str:
        """Space for so many vectors on the stack; to be called in the entry block."""
        return self.let(f"alloca [{vectors} x {self.vector}], align 64")

    def splat(self, scalar: str, kind: str | None = None) -> str:
        """Broadcast a scalar value to all lanes."""
        kind = kind or self.scalar
        vector = f"<{self.lanes} x {kind}>"
        one = self.let(f"insertelement {vector} poison, {kind} {scalar}, i64 0")
        return self.let(f"shufflevector {vector} {one}, {vector} poison, <{self.lanes} x i32> zeroinitializer")

    def constant(self, value: float, kind: str | None = None) -> str:
        """A vector constant, exact in double precision (LLVM wants hexadecimal for inexact decimals)."""
        kind = kind or self.scalar
        if kind == "float":
            value = ctypes.c_float(value).value
        bits = ctypes.c_uint64.from_buffer(ctypes.c_double(value)).value
        return "<" + ", ".join([f"{kind} 0x{bits:016X}"] * self.lanes) + ">"

    def less(self, a: str, b: str, kind: str = "olt") -> str:
        """Compare lane by lane."""
        return self.let(f"fcmp {kind} {self.vector} {a}, {b}")

    def select(self, mask: str, a: str, b: str, kind: str | None = None) -> str:
        """Take `a` where the mask is set, else `b`."""
        kind = kind or self.vector
        return self.let(f"select {self.mask} {mask}, {kind} {a}, {kind} {b}")

    def minimum(self, a: str, b: str) -> str:
        """Smaller value per lane."""
        return self.select(self.less(a, b), a, b)

    def maximum(self, a: str, b: str) -> str:
        """Larger value per lane."""
        return self.select(self.less(a, b), b, a)

    def absolute(self, a: str) -> str:
        """Magnitude per lane."""
        name = f"@llvm.fabs.v{self.lanes}f{8 * self.bytes}"
        return self.let(f"call {self.vector} {name}({self.vector} {a})")

    def widen(self, a: str) -> str:
        """The same numbers in double precision."""
        return a if self.scalar == "double" else self.let(f"fpext {self.vector} {a} to {self.wide}")

    def halves_in_double(self, a: str) -> str:
        """The sum of the two halves of a vector, in double precision."""
        half = self.lanes // 2
        parts = []
        for begin in (0, half):
            which = ", ".join(f"i32 {begin + lane}" for lane in range(half))
            part = self.let(f"shufflevector {self.vector} {a}, {self.vector} poison, <{half} x i32> <{which}>")
            widen = f"fpext <{half} x float> {part} to <{half} x double>"
            parts.append(part if self.scalar == "double" else self.let(widen))
        return self.binary("fadd", parts[0], parts[1], f"<{half} x double>")

    def narrow(self, a: str) -> str:
        """Double precision rounded to the function's type."""
        return a if self.scalar == "double" else self.let(f"fptrunc {self.wide} {a} to {self.vector}")

    def network(
        self, net: Network, value: Callable[[int], str], done: Callable[[int, str], None] = lambda rank, value: None
    ) -> list[str]:
        """Send `value(w)` for every wire w through a network; returns the values by rank (unwanted ranks: garbage).

        A wire's value is asked for when the network first touches it, and `done(rank, value)` is called as soon as
        it has touched it last, which keeps few registers busy. Compare-and-select in this form becomes one `min` or
        `max` instruction; LLVM's own minimum intrinsics would add instructions for NaN, which the screen removes.
        """
        wires: dict[int, str] = {}
        rank = {wire: rank for rank, wire in enumerate(net.wire)}
        last = {wire: step for step, c in enumerate(net.comparators) for wire in (c.low, c.high)}
        for step, c in enumerate(net.comparators):
            for w in (c.low, c.high):
                if w not in wires:
                    wires[w] = value(w)
            a, b = wires[c.low], wires[c.high]
            mask = self.less(a, b)
            if c.keep_low:
                wires[c.low] = self.select(mask, a, b)
            if c.keep_high:
                wires[c.high] = self.select(mask, b, a)
            for w in (c.low, c.high):
                if last[w] == step:
                    done(rank[w], wires[w])
        for w in net.wire:
            if w not in last:  # no comparator: already in its place
                wires[w] = value(w)
                done(rank[w], wires[w])
        return [wires[w] for w in net.wire]

    def loop(
        self,
        count: int | str,
        body: Callable[[str, list[str]], list[str]],
        initial: Sequence[tuple[str, str]] = (),
    ) -> list[str]:
        """A counted loop with `(type, value)` accumulators; `body(index, accumulators)` returns their next values.

        The loop runs at least once. Returns the final accumulators.
        """
        self._count += 1
        name = f"l{self._count}"
        before = self.block
        self.do(f"br label %{name}")
        self.label(name)
        head = len(self.lines)
        accumulators = [f"%{name}a{i}" for i in range(len(initial))]
        after = body(f"%{name}i", accumulators)
        following = self.let(f"add i64 %{name}i, 1")
        phis = [f"  %{name}i = phi i64 [ 0, %{before} ], [ {following}, %{self.block} ]"]
        for accumulator, (kind, start), end in zip(accumulators, initial, after, strict=True):
            phis.append(f"  {accumulator} = phi {kind} [ {start}, %{before} ], [ {end}, %{self.block} ]")
        self.lines[head:head] = phis
        more = self.let(f"icmp slt i64 {following}, {count}")
        self.do(f"br i1 {more}, label %{name}, label %{name}x")
        self.label(f"{name}x")
        return after

    def when(self, condition: str, body: Callable[[], None]) -> None:
        """Run the code of `body` only if the scalar condition holds; it may not define values used later."""
        self._count += 1
        name = f"c{self._count}"
        self.do(f"br i1 {condition}, label %{name}, label %{name}x")
        self.label(name)
        body()
        self.do(f"br label %{name}x")
        self.label(f"{name}x")

    def any(self, mask: str) -> str:
        """Scalar: whether the mask is set in any lane."""
        bits = self.let(f"bitcast {self.mask} {mask} to i{self.lanes}")
        return self.let(f"icmp ne i{self.lanes} {bits}, 0")

    def count_where(self, mask: str, counter: str) -> str:
        """`counter + 1` in the lanes where the mask is set; counters are integer vectors."""
        kind = self.integers
        return self.select(mask, self.binary("add", counter, self._integer(1), kind), counter, kind)

    def as_float(self, counter: str) -> str:
        """An integer vector as floating point."""
        return self.let(f"sitofp {self.integers} {counter} to {self.vector}")

    def sqrt(self, a: str) -> str:
        """Square root per lane."""
        name = f"@llvm.sqrt.v{self.lanes}f{8 * self.bytes}"
        return self.let(f"call {self.vector} {name}({self.vector} {a})")

    def exp(self, a: str) -> str:
        """Exponential of numbers that are not positive: 2 to a whole number times a short series, never subnormal."""
        bits, mantissa, bias, terms = (32, 23, 127, 7) if self.bytes == 4 else (64, 52, 1023, 13)
        power = self.maximum(self.binary("fmul", a, self.constant(1 / math.log(2))), self.constant(1.0 - bias))
        whole = self.let(f"call {self.vector} @llvm.rint.v{self.lanes}f{bits}({self.vector} {power})")
        part = self.binary("fsub", power, whole)
        series = self.constant(math.log(2) ** terms / math.factorial(terms))
        for term in reversed(range(terms)):
            series = self.multiply_add(series, part, self.constant(math.log(2) ** term / math.factorial(term)))
        exponent = self.let(f"fptosi {self.vector} {whole} to {self.integers}")
        biased = self.binary("add", exponent, self._integer(bias), self.integers)
        shifted = self.binary("shl", biased, self._integer(mantissa), self.integers)
        return self.binary("fmul", series, self.let(f"bitcast {self.integers} {shifted} to {self.vector}"))

    def _integer(self, value: int) -> str:
        return "<" + ", ".join([f"i{8 * self.bytes} {value}"] * self.lanes) + ">"

    def multiply_add(self, a: str, b: str, c: str, kind: str | None = None) -> str:
        """`a * b + c`, rounded once."""
        wide = kind == self.wide
        name = f"@llvm.fma.v{self.lanes}f{64 if wide else 8 * self.bytes}"
        kind = kind or self.vector
        return self.let(f"call {kind} {name}({kind} {a}, {kind} {b}, {kind} {c})")

    def row_pointer(self, rows: str, k: int) -> str:
        """Address of row k from the table of rows."""
        return self.let(f"load ptr, ptr {self.at(rows, k, 'ptr')}, align 8")

    def prefetch(self, pointer: str, ahead: int) -> None:
        """Ask for the data `ahead` bytes on: the hardware gives up at some fifty streams."""
        target = self.let(f"getelementptr i8, ptr {pointer}, i64 {ahead}")
        self.do(f"call void @llvm.prefetch.p0(ptr {target}, i32 0, i32 3, i32 1)")

    def function(self, name: str, arguments: Iterable[str]) -> str:
        """The finished module text: `void name(arguments)` with the lines emitted so far as its body."""
        body = "\n".join(self.lines)
        v, w, wide = self.vector, 8 * self.bytes, self.wide
        wide_fma = "" if v == wide else f"declare {wide} @llvm.fma.v{self.lanes}f64({wide}, {wide}, {wide})\n"
        return (
            "declare void @llvm.prefetch.p0(ptr, i32, i32, i32)\n"
            f"declare {v} @llvm.fabs.v{self.lanes}f{w}({v})\n"
            f"declare {v} @llvm.sqrt.v{self.lanes}f{w}({v})\n"
            f"declare {v} @llvm.rint.v{self.lanes}f{w}({v})\n"
            f"declare {v} @llvm.fma.v{self.lanes}f{w}({v}, {v}, {v})\n"
            + wide_fma
            + f"define void @{name}({', '.join(arguments)}) {_attributes()} {{\n{body}\n}}\n"
        )


def _attributes() -> str:
    """How to compile a function: with the widest registers, and in the order in which it is written.

    A network comes in an order that keeps few values live; LLVM's schedulers for modern x86 undo it and spill (twice
    the time at 200 clients). The model of an old in-order core makes them leave it alone. What is spilled anyway lies
    on whole cache lines (a fifth of the time at 200 clients).
    """
    widest = 'alignstack(64) "min-legal-vector-width"="512" "prefer-vector-width"="512"'
    return f'{widest} "tune-cpu"="atom"' if platform.machine() in ("x86_64", "AMD64") else widest


@lru_cache(maxsize=1)
def _host() -> tuple[Any, Any, int]:
    """The llvmlite binding, an engine that holds the code, and the register width in bytes; raises without llvmlite."""
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    features = binding.get_host_cpu_features()
    engine = binding.create_mcjit_compiler(binding.parse_assembly(""), _machine(binding))
    width = 64 if features.get("avx512f") else 32 if features.get("avx") else 16
    return binding, engine, width


def _machine(binding: Any) -> Any:
    cpu, features = binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten()
    return binding.Target.from_default_triple().create_target_machine(cpu=cpu, features=features, opt=2)


def _object_code(binding: Any, text: str) -> bytes:
    module = binding.parse_assembly(text)
    module.verify()
    code: bytes = _machine(binding).emit_object(module)
    return code


@lru_cache(maxsize=1)
def available() -> bool:
    """Whether kernels can be compiled on this machine."""
    try:
        _host()
    except Exception:  # any failure of the optional compiler means: use the NumPy form
        return False
    return True


def lanes(dtype: str) -> int:
    """Numbers per vector register of this machine."""
    return int(_host()[2]) // (4 if dtype == "float32" else 8)


def compile_function(text: str, name: str, argument_types: list[Any]) -> Callable[..., None]:
    """Compile a module and return its function, callable through ctypes (which releases the interpreter lock)."""
    with _lock:
        binding, engine, _ = _host()
        if len(text) < KEEP_CHARACTERS:
            code = _object_code(binding, text)
        else:
            host = (binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten())
            version = ".".join(map(str, binding.llvm_version_info))
            code = objects.kept((text, *host, version), lambda: _object_code(binding, text))
        _loaded.append(code)
        engine.add_object_file(binding.ObjectFileRef.from_data(code))
        engine.finalize_object()
        address = engine.get_function_address(name)
    function: Callable[..., None] = ctypes.CFUNCTYPE(None, *argument_types)(address)
    return function
