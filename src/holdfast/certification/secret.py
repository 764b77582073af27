"""Certificates from a secret assignment: the malicious clients were chosen without knowing the groups.

Fix any set of m clients and draw the groups afterwards: B_m, the number of groups that contain one of them, is a random
number with a known distribution that mentions neither inputs nor votes. With b_m its (1 - alpha)-quantile, one event of
probability at least 1 - alpha protects ALL inputs whose margin is at least 2 b_m, since a group moves a margin by at
most 2. The union over inputs, labels or m that other certificates pay for is not needed.

Pr(B_m): in one partition the marks are placed one after the other; a class of A groups of size s with i marks in j
touched groups takes the next mark in a touched group in j s - i ways, in a fresh one in (A - j) s ways. Classes of
groups are joined by how the marks split between them, independent partitions by convolution. All terms are positive, so
floats err by a tiny known factor; what is too close to call is decided in integers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from holdfast.certification.certificate import Certificate
from holdfast.certification.tally import Number, check_alpha, check_integer, check_votes, tally, winners
from holdfast.types import ConfigError

# Sums and products of positive floats, at most some 10^5 of them in a row, err by less than this factor.
FLOAT_ERROR = 1e-9

ASSUMPTIONS = (
    "the set of malicious clients was fixed without knowledge of the assignment; what they do may depend on everything",
    "the assignment was drawn after enrollment from a secret seed that no client knows or can influence; "
    "drawing it again costs a new alpha",
    "malicious clients control at most the models they are members of: every model depends on its own clients only, "
    "with its own seed and nothing computed across groups",
    "of the n enrolled clients, m are malicious; no client can enroll again under a new name after the groups are "
    "known",
    "the votes are those of the models that answer queries, taken in evaluation mode; ties go to the smaller label",
)


def certify_secret(
    votes: ArrayLike,
    group_sizes: Sequence[int],
    repeats: int,
    n_labels: int,
    *,
    alpha: Number,
    n: int | None = None,
) -> Certificate:
    """Certify the vote of the N trained models against malicious clients who did not know the assignment.

    Guarantee: for any set of m clients fixed independently of the assignment, with probability at least 1 - alpha over
    the draw of the assignment, for ALL inputs at once: if radius >= m, the vote gives the same label whatever these m
    clients send. The votes may be clean or already under attack.

    Failure probability: alpha, once for all inputs, labels and later queries; a new draw of the assignment costs anew.

    Assumptions: printed with the certificate; above all, a secret seed, and no adaptive choice of whom to corrupt.

    Args:
        votes: `[N, T]` integers in 0..n_labels-1 with N = repeats * len(group_sizes).
        group_sizes: clients per group of one draw. For independent k-subsets: `[k]`, with `repeats=N` and `n`.
        repeats: independent draws (partitions).
        n_labels: L.
        alpha: failure probability in (0, 1), float or Fraction.
        n: clients, if some are in no group of a draw; default: the sum of `group_sizes`.

    Returns:
        a `Certificate` that never abstains: radius = largest m with 2 b_m <= margin = min over z of N_y - N_z - [z<y].

    Raises:
        ConfigError: if the votes do not fit the sizes and repeats, or a number is out of range.

    Example:
        >>> votes = np.zeros((500, 2), dtype=np.uint8)
        >>> votes[:125, 1] = 3
        >>> certify_secret(votes, [10] * 100, 5, n_labels=4, alpha=0.001).radius.tolist()
        [60, 26]
    """
    table = check_votes(votes, n_labels)
    sizes, repeats, enrolled = _check_groups(group_sizes, repeats, n)
    if len(table) != repeats * len(sizes):
        raise ConfigError(
            f"votes has {len(table)} rows, but {repeats} repeats of {len(sizes)} groups "
            f"make {repeats * len(sizes)} models"
        )
    level = check_alpha(alpha)
    label, lead = winners(tally(table, n_labels))
    margin = lead.min(axis=1)
    quantiles = [0]
    while len(quantiles) <= enrolled and 2 * quantiles[-1] <= margin.max(initial=0):
        quantiles.append(hit_quantile(sizes, repeats, len(quantiles), level, n=enrolled))
    reached = np.searchsorted(2 * np.array(quantiles), margin, side="right") - 1
    return Certificate(
        kind="secret",
        prediction=label,
        radius=np.minimum(reached, enrolled),
        alpha=float(alpha),
        method=f"hit quantile, n={enrolled}, N={len(table)} in {repeats} independent draws, alpha once for all inputs",
        assumptions=ASSUMPTIONS,
        margin=margin,
    )


def hit_quantile(group_sizes: Sequence[int], repeats: int, m: int, alpha: Number, *, n: int | None = None) -> int:
    """b_m: the smallest b with Pr(B_m > b) <= alpha, B_m = number of groups that contain one of m fixed clients.

    Args:
        group_sizes: clients per group of one draw; independent k-subsets are `[k]` with `n` given.
        repeats: independent draws.
        m: malicious clients, 0..n.
        alpha: in (0, 1), float or Fraction.
        n: clients, if some are in no group; default: the sum of `group_sizes`.

    Raises:
        ConfigError: for sizes below 1, more places than clients, or a number out of range.

    Cost: O(m^2) per draw for equal sizes, O(m^3) for two different ones; kept for the next call.

    Example:
        >>> hit_quantile([10] * 100, 5, 60, Fraction(1, 1000))
        249
        >>> hit_quantile([2], 3, 1, Fraction(1, 20), n=4)  # three independent pairs out of four clients
        3
    """
    sizes, repeats, enrolled = _check_groups(group_sizes, repeats, n)
    m, level = check_integer("m", m, 0, enrolled), check_alpha(alpha)
    classes = tuple(sorted(Counter(sizes).items()))
    return _quantile(classes, enrolled - sum(sizes), repeats, m, level)


def _check_groups(group_sizes: Sequence[int], repeats: int, n: int | None) -> tuple[tuple[int, ...], int, int]:
    sizes = tuple(check_integer("group_sizes", size, 1) for size in group_sizes)
    if not sizes:
        raise ConfigError("group_sizes is empty; needed is the number of clients of each group of one draw")
    places = sum(sizes)
    enrolled = places if n is None else check_integer("n", n, 1)
    if places > enrolled:
        raise ConfigError(f"group_sizes add up to {places} places, more than the n={enrolled} clients")
    return sizes, check_integer("repeats", repeats, 1), enrolled


Classes = tuple[tuple[int, int], ...]


@lru_cache(maxsize=1 << 14)
def _quantile(classes: Classes, idle: int, repeats: int, m: int, level: Fraction) -> int:
    chances = _repeat(_touched(classes, idle, m, exact=False), repeats)
    tails = np.concatenate([np.cumsum(chances[::-1])[::-1][1:], [0.0]])  # tails[b] = Pr(B > b)
    limit = float(level)
    sure = tails * (1 + FLOAT_ERROR) + 1e-280 <= limit
    possible = tails * (1 - FLOAT_ERROR) - 1e-280 <= limit
    b = int(np.argmax(sure))
    if sure[b] and b == int(np.argmax(possible)):
        return b
    ways = _repeat(_touched(classes, idle, m, exact=True), repeats)
    total = math.perm(idle + sum(size * groups for size, groups in classes), m) ** repeats
    above, b = 0, len(ways) - 1
    while b > 0 and (above + ways[b]) * level.denominator <= level.numerator * total:
        above += ways[b]
        b -= 1
    return b


def _repeat(one: NDArray[Any], repeats: int) -> NDArray[Any]:
    """The distribution of the sum of `repeats` independent draws, by squaring."""
    result: NDArray[Any] = np.array([1], dtype=one.dtype)
    for bit in bin(repeats)[2:]:
        result = np.convolve(result, result)
        if bit == "1":
            result = np.convolve(result, one)
    return result


def _touched(classes: Classes, idle: int, m: int, *, exact: bool) -> NDArray[Any]:
    """`[j]`: the chance that m marks touch j groups of one draw; the number of ordered placements if `exact`."""
    # One table serves many m, so its length is rounded up to a power of two.
    return _tables(classes, idle, m if exact else 1 << m.bit_length(), exact)[m]


@lru_cache(maxsize=16)
def _tables(classes: Classes, idle: int, top: int, exact: bool) -> list[NDArray[Any]]:
    """Rows 0..top of `_touched`, all classes of groups joined."""
    top = min(top, idle + sum(size * groups for size, groups in classes))
    tables, sizes = ([_idle_table(idle, top, exact)], [idle]) if idle else ([], [])
    for size, groups in classes:
        tables.append(_class_table(size, groups, top, exact))
        sizes.append(size * groups)
    joined, held = tables[0], sizes[0]
    for table, size in zip(tables[1:], sizes[1:], strict=True):
        joined, held = _join(joined, held, table, size, exact), held + size
    return joined


def _idle_table(idle: int, m: int, exact: bool) -> list[NDArray[Any]]:
    """Marks on clients in no group touch nothing; rows beyond the number of such clients are impossible."""
    ways = [math.perm(idle, i) for i in range(m + 1)]
    return [np.array([way] if exact else [float(way > 0)], dtype=object if exact else float) for way in ways]


def _class_table(size: int, groups: int, m: int, exact: bool) -> list[NDArray[Any]]:
    """Row i, entry j: i marks in a class of equal groups touch j of them (chance, or ordered placements)."""
    kind: Any = object if exact else float
    rows: list[NDArray[Any]] = [np.array([1], dtype=kind)]
    width = min(m, groups) + 1
    touched = np.arange(width, dtype=object if exact else np.int64)
    row = np.zeros(width, dtype=kind)
    row[0] = 1
    for i in range(m):
        stay = row * np.maximum(touched * size - i, 0)
        fresh = row * ((groups - touched) * size)
        row = stay
        row[1:] = row[1:] + fresh[:-1]
        if not exact:
            row = row / max(size * groups - i, 1)
        rows.append(row[: min(i + 1, groups) + 1].copy())
    return rows


def _join(left: list[NDArray[Any]], held: int, right: list[NDArray[Any]], size: int, exact: bool) -> list[NDArray[Any]]:
    """Tables of two classes together: i marks split as a and i - a, hypergeometrically."""
    joined = []
    for i in range(len(left)):
        width = max(len(left[a]) + len(right[i - a]) - 1 for a in range(i + 1))
        row = np.zeros(width, dtype=object if exact else float)
        for a in range(max(0, i - size), min(i, held) + 1):
            if exact:
                weight: Any = math.comb(i, a)
            else:
                weight = float(Fraction(math.comb(held, a) * math.comb(size, i - a), math.comb(held + size, i)))
            part = np.convolve(left[a], right[i - a])
            row[: len(part)] = row[: len(part)] + weight * part
        joined.append(row)
    return joined
