"""Code generation for residual reweighting, first pass: one vector register of coordinates at a time.

Pass 1 (`fit_kernel`) sorts a coordinate's n values; ranks are then positions, and every slope is a difference of
sorted values times a constant reciprocal. The n inner medians are the same selection network over the n - 1 slopes
of one client to all others, run in a loop over clients: the table of reciprocals slides by one entry, and the
sorted values without the client itself are kept in a small buffer in which one entry changes per step. It adds each
client's confidence times importance to `weights` and leaves the line and a bit per rejected value for the second pass
(`irls_correct.py`).

The same steps in plain torch are in `residuals.py`, which the tests compare with.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial, reduce
from itertools import combinations

from holdfast.aggregation.kernels import emit
from holdfast.aggregation.kernels.emit import Emitter
from holdfast.aggregation.kernels.networks import middle_ranks, selection_network
from holdfast.aggregation.kernels.options import rounding

UNROLL = 24
"""Up to this many clients, loops over clients are written out and their values stay in registers."""

PARAMETERS = ("tau_factor", "floor_abs", "floor_rel", "bend", "delta")
"""Run-time parameters of pass 1: gamma (1 + 5/(n-1)), the two floors, lam sqrt(2/n) (Gaussian: lam), delta."""


@dataclass(frozen=True)
class Form:
    """What the code depends on; everything else is a run-time parameter.

    Attributes: as in `residuals.Options`, plus the number of clients and the dtype.
    """

    n: int
    dtype: str
    line: str
    weighting: str
    ties: str
    rank_base: int
    intercept: str
    drop_smallest: int
    leverage: str
    keep_equal: bool
    zero_rejected: bool
    std_before: bool


class Slots:
    """n vectors, addressed by client: names in registers when loops are written out, else a buffer on the stack."""

    def __init__(self, e: Emitter, n: int, unrolled: bool) -> None:
        self.e = e
        self.names: dict[str | int, str] = {}
        self.buffer = "" if unrolled else e.room(n)

    def _address(self, k: str | int) -> str:
        return self.e.at(self.buffer, k, self.e.vector)

    def put(self, k: str | int, value: str) -> None:
        """Set the vector of client k."""
        if self.buffer:
            self.e.do(f"store {self.e.vector} {value}, ptr {self._address(k)}, align 64")
        else:
            self.names[k] = value

    def get(self, k: str | int) -> str:
        """The vector of client k."""
        if not self.buffer:
            return self.names[k]
        return self.e.let(f"load {self.e.vector}, ptr {self._address(k)}, align 64")


class _Pass1:
    """Emits the body of pass 1 for one register of coordinates."""

    def __init__(self, form: Form) -> None:
        self.form = form
        self.e = Emitter(form.dtype, emit.lanes(form.dtype))
        self.unrolled = form.n <= UNROLL
        self.e.label("entry")
        n = form.n
        self.y = Slots(self.e, n, False)  # the tie loop reads it by a run-time index
        self.z = Slots(self.e, n, self.unrolled)
        self.others = Slots(self.e, n, False)
        self.inner = Slots(self.e, n, self.unrolled)
        self.rank = Slots(self.e, n, False)
        self.size = Slots(self.e, n, self.unrolled)
        self.weight = Slots(self.e, n, self.unrolled)
        self.parameter = {
            name: self.e.splat(self.e.let(f"load {self.e.scalar}, ptr {self.e.at('%parameters', i)}"))
            for i, name in enumerate(PARAMETERS)
        }

    def each(self, body: Callable[[str, list[str]], list[str]], initial: tuple[tuple[str, str], ...] = ()) -> list[str]:
        """`body` for every client: written out for few clients, a loop for many."""
        if not self.unrolled:
            return self.e.loop(self.form.n, body, initial)
        values = [start for _, start in initial]
        for k in range(self.form.n):
            values = body(str(k), values)
        return values

    def median_of(self, value: Callable[[int], str], count: int, drop: int = 0) -> str:
        """Median of `count` values without the `drop` smallest."""
        lo, hi = middle_ranks(count - drop)
        ranks = range(lo + drop, hi + drop)
        ranked = self.e.network(selection_network(count, ranks), value)
        picked = [ranked[r] for r in ranks]
        return picked[0] if len(picked) == 1 else self.halfway(*picked)

    def halfway(self, a: str, b: str) -> str:
        half = self.e.constant(0.5)
        return self.e.multiply_add(b, half, self.e.binary("fmul", a, half))

    def sort(self) -> tuple[str, str]:
        """Fill y, and z with the sorted values less their median; returns the median and whether there are ties."""
        e, n = self.e, self.form.n

        def value(k: int) -> str:
            pointer = e.at(e.row_pointer("%rows", k), "%i")
            e.prefetch(pointer, 512)
            loaded = e.load(pointer)
            self.y.put(k, loaded)
            return loaded

        ranked = e.network(selection_network(n, range(n)), value)
        lo, hi = middle_ranks(n)
        med = ranked[lo] if hi - lo == 1 else self.halfway(ranked[lo], ranked[hi - 1])
        tied = None
        for k in range(n):
            self.z.put(k, e.binary("fsub", ranked[k], med))
            if k:
                equal = e.less(ranked[k - 1], ranked[k], "oeq")
                tied = equal if tied is None else e.binary("or", tied, equal, e.mask)
        assert tied is not None  # at least three clients
        return med, e.any(tied)

    def slope(self) -> str:
        """The repeated median of the slopes; fills `inner` with the median slope of each sorted position."""
        e, n = self.e, self.form.n
        for k in range(n - 1):
            self.others.put(k, self.z.get(k + 1))

        def one(i: str, _: list[str]) -> list[str]:
            here = self.z.get(i)
            first = e.at("%reciprocals", e.binary("sub", str(n - 1), i, "i64"))

            def to(w: int) -> str:
                reciprocal = e.splat(e.let(f"load {e.scalar}, ptr {e.at(first, w)}"))
                return e.binary("fmul", e.binary("fsub", self.others.get(w), here), reciprocal)

            self.inner.put(i, self.median_of(to, n - 1))
            self.others.put(i, here)
            return []

        e.loop(n, one)
        return self.median_of(self.inner.get, n)

    def unrolled_slope(self) -> str:
        """The same for few clients: every slope is computed once, by a constant, for both of its ends."""
        e, n = self.e, self.form.n
        slopes: dict[tuple[int, int], str] = {}

        def towards(i: int, w: int) -> str:
            j = w + (w >= i)  # the w-th of the others
            ends = min(i, j), max(i, j)
            if ends not in slopes:
                rise = e.binary("fsub", self.z.get(ends[1]), self.z.get(ends[0]))
                slopes[ends] = rise if abs(j - i) == 1 else e.binary("fmul", rise, e.constant(1 / abs(j - i)))
            return slopes[ends]

        for i in range(n):
            self.inner.put(i, self.median_of(partial(towards, i), n - 1))
        return self.median_of(self.inner.get, n)

    def pairwise_slope(self) -> str:
        """The Theil-Sen slope: one selection over all pairs."""
        e = self.e
        pairs = list(combinations(range(self.form.n), 2))

        def of(w: int) -> str:
            i, j = pairs[w]
            return e.binary("fmul", e.binary("fsub", self.z.get(j), self.z.get(i)), e.constant(1 / (j - i)))

        return self.median_of(of, len(pairs))

    def offset(self, slope: str) -> str | None:
        """Height of the line over the median at the middle rank; None where it is zero by definition."""
        e, form = self.e, self.form
        if form.intercept == "midrank" or form.line == "median":
            return None
        middle = (form.n - 1) / 2

        def height(i: int) -> str:
            x, by = (i - middle, slope) if form.intercept == "hierarchical" else (i + form.rank_base, self.inner.get(i))
            return self.e.multiply_add(e.constant(-x), by, self.z.get(i))

        level = self.median_of(height, form.n)
        if form.intercept == "hierarchical":
            return level
        return e.multiply_add(slope, e.constant(middle + form.rank_base), level)

    def ranks(self, tied: str) -> None:
        """Fill `rank` with each client's rank less the middle one, counting how many values are smaller."""
        e, n = self.e, self.form.n

        def count(k: str, _: list[str]) -> list[str]:
            mine = self.y.get(k)
            counters = ["zeroinitializer"] * 4  # independent, so that they need not wait for each other
            for j in range(n):
                counters[j % 4] = e.count_where(e.less(self.y.get(j), mine), counters[j % 4])
            smaller = reduce(lambda a, b: e.binary("add", a, b, e.integers), counters)
            self.rank.put(k, e.binary("fadd", e.as_float(smaller), e.constant(-(n - 1) / 2)))
            return []

        self.each(count)
        e.when(tied, self.split_ties)

    def split_ties(self) -> None:
        """Equal values share the mean of their ranks, or are ranked in the order of the clients."""
        e, n = self.e, self.form.n
        average = self.form.ties == "average"

        def shift(k: str, _: list[str]) -> list[str]:
            mine = self.y.get(k)

            def equal(j: str, counter: list[str]) -> list[str]:
                same = e.less(self.y.get(j), mine, "oeq")
                if not average:
                    earlier = e.let(f"icmp slt i64 {j}, {k}")
                    same = e.let(f"select i1 {earlier}, {e.mask} {same}, {e.mask} zeroinitializer")
                return [e.count_where(same, counter[0])]

            count = e.as_float(e.loop(n, equal, [(e.integers, "zeroinitializer")])[0])
            if average:
                count = e.multiply_add(count, e.constant(0.5), e.constant(-0.5))
            self.rank.put(k, e.binary("fadd", self.rank.get(k), count))
            return []

        e.loop(n, shift)

    def scale(self, med: str, slope: str | None, offset: str | None) -> str:
        """Fill `size` with the absolute residuals; returns their scale tau."""
        e, parameter = self.e, self.parameter

        def residual(k: str, _: list[str]) -> list[str]:
            r = e.binary("fsub", self.y.get(k), med)
            if offset is not None:
                r = e.binary("fsub", r, offset)
            if slope is not None:
                r = e.binary("fsub", r, e.binary("fmul", slope, self.rank.get(k)))
            self.size.put(k, e.absolute(r))
            return []

        self.each(residual)
        m = self.median_of(
            lambda k: self.size.get(k if not self.unrolled else str(k)), self.form.n, self.form.drop_smallest
        )
        floor = e.multiply_add(e.absolute(med), parameter["floor_rel"], parameter["floor_abs"])
        tau = e.binary("fadd", e.binary("fmul", m, parameter["tau_factor"]), floor)
        if slope is None:
            return tau
        noise = e.constant(rounding(self.form.n, 2.0**-23 if self.form.dtype == "float32" else 2.0**-52))
        return e.maximum(tau, e.binary("fmul", slope, noise))

    def reach(self, k: str) -> str:
        """Root of one less the leverage of client k, a function of its rank."""
        e, form = self.e, self.form
        n = form.n
        u = self.rank.get(k)
        if form.leverage == "two-column":
            rest = e.multiply_add(e.binary("fmul", u, u), e.constant(-12.0 / (n * (n * n - 1))), e.constant(1 - 1 / n))
        else:
            x = e.binary("fadd", u, e.constant((n - 1) / 2 + form.rank_base))
            squares = sum((i + form.rank_base) ** 2 for i in range(n))
            rest = e.multiply_add(e.binary("fmul", x, x), e.constant(-1.0 / squares), e.constant(1.0))
        return e.sqrt(e.maximum(rest, e.constant(0.0)))

    def confidence(self, tau: str) -> str:
        """Fill `weight`, record rejections; returns the sum of the weights that the importance is computed from."""
        e, form = self.e, self.form
        one, zero = e.constant(1.0), e.constant(0.0)
        bound = e.binary("fmul", tau, self.parameter["bend"])

        def weigh(k: str, total: list[str]) -> list[str]:
            size = self.size.get(k)
            if form.weighting == "gaussian":
                t = e.binary("fdiv", size, bound)
                bell = e.exp(e.binary("fmul", e.binary("fmul", t, t), e.constant(-0.5)))
                w = e.select(e.less(size, zero, "oeq"), one, bell)
            else:
                limit = e.binary("fmul", bound, self.reach(k))
                w = e.select(e.less(size, limit, "ole"), one, e.binary("fdiv", limit, size))
            rejected = e.less(w, self.parameter["delta"], "olt" if form.keep_equal else "ole")
            self.record(k, rejected)
            corrected = e.select(rejected, zero, w) if form.zero_rejected else w
            self.weight.put(k, w if form.std_before else corrected)
            if form.std_before and form.zero_rejected:
                self.size.put(k, corrected)  # the residual is no longer needed
            return [e.binary("fadd", total[0], self.weight.get(k))]

        return self.each(weigh, ((e.vector, zero),))[0]

    def record(self, k: str, rejected: str) -> None:
        """Store client k's bits for these coordinates and count them."""
        e = self.e
        bits = e.let(f"bitcast {e.mask} {rejected} to i{e.lanes}")
        bits = bits if e.lanes == 16 else e.let(f"zext i{e.lanes} {bits} to i16")
        e.do(f"store i16 {bits}, ptr {e.at('%masks_here', k, 'i16')}, align 2")
        many = e.let(f"zext i16 {e.let(f'call i16 @llvm.ctpop.i16(i16 {bits})')} to i64")
        counter = e.at("%rejections", k, "i64")
        before = e.let(f"load i64, ptr {counter}, align 8")
        e.do(f"store i64 {e.binary('add', before, many, 'i64')}, ptr {counter}, align 8")

    def accumulate(self, total: str) -> None:
        """Importance = sample standard deviation of the weights; add weight times importance per client."""
        e, form = self.e, self.form
        mean = e.binary("fdiv", total, e.constant(float(form.n)))

        def square(k: str, accumulated: list[str]) -> list[str]:
            deviation = e.binary("fsub", self.weight.get(k), mean)
            return [e.multiply_add(deviation, deviation, accumulated[0])]

        squares = self.each(square, ((e.vector, e.constant(0.0)),))[0]
        importance = e.sqrt(e.binary("fmul", squares, e.constant(1.0 / (form.n - 1))))
        contributed = self.size if form.std_before and form.zero_rejected else self.weight

        def add(k: str, _: list[str]) -> list[str]:
            term = e.halves_in_double(e.binary("fmul", contributed.get(k), importance))
            kind = f"<{e.lanes // 2} x double>"
            pointer = e.at("%weights", k, kind)
            before = e.let(f"load {kind}, ptr {pointer}, align 8")
            e.do(f"store {kind} {e.binary('fadd', before, term, kind)}, ptr {pointer}, align 8")
            return []

        self.each(add)


@lru_cache(maxsize=64)
def fit_kernel(form: Form) -> Callable[..., None]:
    """Compile pass 1 for at least three clients.

    `void fit(rows, columns, parameters, reciprocals, weights, rejections, center, slope, masks)`: rows are the
    addresses of the first coordinate; columns a positive multiple of the register width; weights double
    `[n, lanes / 2]` and rejections int64 `[n]` are added to; center and slope `[columns]` and masks int16
    `[columns / lanes, n]` are written.
    """
    p = _Pass1(form)
    e = p.e

    def register(block: str, _: list[str]) -> list[str]:
        e.lines.append(f"  %i = mul i64 {block}, {e.lanes}")
        e.lines.append(
            f"  %masks_here = getelementptr i16, ptr %masks, i64 {e.binary('mul', block, str(form.n), 'i64')}"
        )
        med, tied = p.sort()
        slope = None
        if form.line != "median":
            repeated = p.unrolled_slope if p.unrolled else p.slope
            slope = repeated() if form.line == "repeated-median" else p.pairwise_slope()
        offset = p.offset(slope) if slope is not None else None
        p.ranks(tied)
        p.accumulate(p.confidence(p.scale(med, slope, offset)))
        e.store(med if offset is None else e.binary("fadd", med, offset), e.at("%center", "%i"))
        e.store(slope or e.constant(0.0), e.at("%slope", "%i"))
        return []

    count = e.let(f"sdiv i64 %columns, {e.lanes}")
    e.loop(count, register)
    e.do("ret void")
    pointers = ["rows", "parameters", "reciprocals", "weights", "rejections", "center", "slope", "masks"]
    text = e.function("fit", ["i64 %columns", *[f"ptr noalias %{p}" for p in pointers]])
    text = "declare i16 @llvm.ctpop.i16(i16)\n" + text
    return emit.compile_function(text, "fit", [ctypes.c_int64, *[ctypes.c_void_p] * len(pointers)])
