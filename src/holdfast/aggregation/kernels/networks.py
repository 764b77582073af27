"""Selection networks: which minima and maxima find given order statistics of n values, whatever the values are.

A sorting network is a fixed list of comparators `(low, high)`: afterwards wire `low` holds the smaller and wire
`high` the larger value. Because the list does not depend on the data, the same comparators serve 16 coordinates
at once in one vector register. `selection_network` builds Batcher's odd-even merge sort by recursive halving and
then walks it backwards, dropping every minimum or maximum that no wanted order statistic depends on.

The recursive order matters: it finishes one half before it starts the other, so few values are live at a time
and a compiler spills four times less than with the usual loop order.

Batcher, "Sorting networks and their applications", AFIPS 1968.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

MAX_NETWORK = 256
"""Above this many clients straight-line code stops paying and the kernels sort instead."""


@dataclass(frozen=True)
class Comparator:
    """One comparator; a side that nothing reads later is not computed."""

    low: int
    high: int
    keep_low: bool
    keep_high: bool


@dataclass(frozen=True)
class Network:
    """Comparators in execution order, and on which wire each order statistic ends up.

    Attributes:
        n: number of input wires.
        comparators: the pruned comparators.
        wire: `wire[r]` holds the value of rank r (0 = smallest); only the wanted ranks are valid.
    """

    n: int
    comparators: tuple[Comparator, ...]
    wire: tuple[int, ...]

    @property
    def operations(self) -> int:
        """Number of minima and maxima: the lower bound of the work, used to report how close a kernel comes."""
        return sum(c.keep_low + c.keep_high for c in self.comparators)


def _merge(a: Sequence[int], b: Sequence[int], out: list[tuple[int, int]]) -> list[int]:
    """Append the odd-even merge of two sorted wire lists to `out`; returns the wires in ascending order."""
    if not a or not b:
        return [*a, *b]
    if len(a) == len(b) == 1:
        out.append((a[0], b[0]))
        return [a[0], b[0]]
    even, odd = _merge(a[::2], b[::2], out), _merge(a[1::2], b[1::2], out)
    merged = [even[0]]
    for low, high in zip(odd, even[1:], strict=False):
        out.append((low, high))
        merged += [low, high]
    paired = len(merged) // 2
    return merged + odd[paired:] + even[paired + 1 :]


def _sort(wires: Sequence[int], out: list[tuple[int, int]]) -> list[int]:
    if len(wires) < 2:
        return list(wires)
    half = len(wires) // 2
    return _merge(_sort(wires[:half], out), _sort(wires[half:], out), out)


@lru_cache(maxsize=256)
def _network(n: int, ranks: frozenset[int]) -> Network:
    pairs: list[tuple[int, int]] = []
    return _pruned(_sort(range(n), pairs), pairs, ranks)


@lru_cache(maxsize=256)
def _merging(runs: tuple[int, ...], ranks: frozenset[int]) -> Network:
    pairs: list[tuple[int, int]] = []
    ends = [*accumulate(runs)]
    wire: list[int] = []
    for begin, end in reversed([*zip([0, *ends], ends, strict=False)]):
        wire = _merge(range(begin, end), wire, pairs)
    return _pruned(wire, pairs, ranks)


def _pruned(wire: Sequence[int], pairs: Sequence[tuple[int, int]], ranks: frozenset[int]) -> Network:
    needed = {wire[r] for r in ranks}
    kept = []
    for low, high in reversed(pairs):
        if low in needed or high in needed:
            kept.append(Comparator(low, high, low in needed, high in needed))
            needed |= {low, high}
    return Network(len(wire), tuple(reversed(kept)), tuple(wire))


def selection_network(n: int, ranks: Iterable[int]) -> Network:
    """The pruned network that finds the order statistics `ranks` (0 = smallest) of n values.

    >>> net = selection_network(5, [2])
    >>> net.operations, len(selection_network(5, range(5)).comparators)
    (12, 9)
    """
    return _network(n, frozenset(ranks))


def merging_network(runs: Sequence[int], ranks: Iterable[int]) -> Network:
    """The pruned network that finds `ranks` of consecutive runs of wires, each of which is sorted already.

    >>> merging_network([2, 2], range(4)).operations, selection_network(4, range(4)).operations
    (6, 10)
    """
    return _merging(tuple(runs), frozenset(ranks))


def middle_ranks(n: int) -> tuple[int, int]:
    """First and one-past-last rank whose mean is the median of n values.

    >>> middle_ranks(5), middle_ranks(6)
    ((2, 3), (2, 4))
    """
    return (n - 1) // 2, n // 2 + 1
