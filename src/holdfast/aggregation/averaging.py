"""Rules that treat every coordinate alone (median and its kin), and the mean they replace."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from holdfast.aggregation import columns
from holdfast.aggregation.calling import Rule
from holdfast.aggregation.parameters import check_count, check_number
from holdfast.aggregation.plans import Given, Plan
from holdfast.aggregation.screening import squares_of
from holdfast.aggregation.stacking import Block, Rows


@dataclass(frozen=True)
class Mean(Rule):
    r"""The average: what federated averaging does, and the baseline that one client can break.

    Formula: $v = \sum_i p_i x_i$, with $p_i = 1/n$, or, if weights are given, the reported weights made shares that
    are capped at `cap / n`; what the cap takes away goes to the others in proportion.

    Shapes: `[..., n, d]` to `[..., d]`; `weights` `[..., n]`, any unit.

    Tolerates: no malicious client. The screen still replaces rows that are not finite, and the cap bounds what a
    client gains by claiming more examples: never more than `cap` times an even share.

    Fails: one client sending a large enough update sets the result.

    Cost: one pass, O(n d) time, O(d) memory.

    Args:
        cap: the largest share a reported weight can earn, in units of the even share 1/n; at least 1 (all equal),
            `inf` for weights as reported.

    Raises:
        ConfigError: `cap` below 1.

    Example:
        >>> Mean()([[1.0, 2.0], [3.0, 6.0]])
        array([2., 4.])
        >>> Mean(cap=2).aggregate([[0.0], [0.0], [0.0], [8.0]], weights=[1, 1, 1, 1e15]).value
        array([4.])

    Paper: McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017,
    Algorithm 1; the cap is holdfast's.
    """

    cap: float = 2.0

    def __post_init__(self) -> None:
        check_number(self, "cap", least=1.0, infinite=True)

    def min_clients(self) -> int:
        """One."""
        return 1

    def plan(self, rows: Rows, given: Given) -> Plan:
        """Weigh the rows."""
        return weighted_mean(capped_shares(given.weights, rows.n, self.cap))


@dataclass(frozen=True)
class Median(Rule):
    r"""The middle value of every coordinate.

    Formula: $v_j = \operatorname{med}_i x_{ij}$; the mean of the two middle values for even n.

    Shapes: `[..., n, d]` to `[..., d]`.

    Tolerates: any f < n/2; then every coordinate lies between two honest values.

    Fails: on clients that honestly differ (skewed data), where it ignores minorities; its error grows with sqrt(d).

    Cost: one pass, O(n log n) comparisons per coordinate, O(d) memory; at the speed of memory up to n of about 20.

    Example:
        >>> Median()([[1.0, 5.0], [2.0, 4.0], [1e9, -1e9]])
        array([2., 4.])

    Paper: Yin et al., "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates", ICML 2018,
    Definition 1.
    """

    coordinate_wise = vouches = True

    def min_clients(self) -> int:
        """One; the median of one row is the row."""
        return 1

    def plan(self, rows: Rows, given: Given) -> Plan:
        """Take the middle of each column."""
        middle, squares = (rows.n - 1) // 2, squares_of(rows)
        return Plan(
            lambda _, block: columns.median(block, squares=squares),
            tally=lambda _, block: _window_tally(block, middle),
            apart=True,
        )


@dataclass(frozen=True)
class TrimmedMean(Rule):
    r"""Drop the f largest and the f smallest values of every coordinate and average the rest.

    Formula: $v_j = \frac{1}{n - 2f} \sum_{k=f+1}^{n-f} x_{(k)j}$, with $x_{(1)j} \le \dots \le x_{(n)j}$.

    Shapes: `[..., n, d]` to `[..., d]`.

    Tolerates: f malicious clients of n >= 2f + 1; then every coordinate lies between two honest values.

    Fails: with more than f malicious clients; small coordinated shifts inside the honest spread pass.

    Cost: one pass, O(n log n) comparisons per coordinate, O(d) memory. The kept values are summed, never obtained by
    subtracting the dropped ones from the total, so one huge value leaves no trace.

    Args:
        f: malicious clients to tolerate.

    Raises:
        ThreatModelError: n < 2f + 1.

    Example:
        >>> TrimmedMean(f=1)([[1.0], [2.0], [3.0], [1e10]])
        array([2.5])

    Paper: Yin et al., "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates", ICML 2018,
    Definition 2.
    """

    coordinate_wise = vouches = True
    f: int

    def __post_init__(self) -> None:
        check_count(self, "f")

    def min_clients(self) -> int:
        """2f + 1: an honest value must remain when f are dropped on each side."""
        return 2 * self.f + 1

    def plan(self, rows: Rows, given: Given) -> Plan:
        """Average the middle of each column."""
        squares = squares_of(rows)
        return Plan(
            lambda _, block: columns.trimmed_mean(block, self.f, squares=squares),
            tally=lambda _, block: _window_tally(block, self.f),
            apart=True,
        )


@dataclass(frozen=True)
class MeanAroundMedian(Rule):
    r"""Average, in every coordinate, the n - f values closest to the median.

    Formula: $v_j = \frac{1}{n - f} \sum_{i \in N_j} x_{ij}$, where $N_j$ holds the n - f indices with the smallest
    $|x_{ij} - \operatorname{med}_k x_{kj}|$; of two equally close values the smaller stays.

    Shapes: `[..., n, d]` to `[..., d]`.

    Tolerates: f malicious clients of n >= 2f + 1: the result is at most the honest spread away from the honest range.

    Fails: with more than f malicious clients; a malicious value as close as the farthest honest one is averaged in.

    Cost: one pass, O(n log^2 n) comparisons per coordinate, O(d) memory.

    Args:
        f: malicious clients to tolerate.

    Raises:
        ThreatModelError: n < 2f + 1.

    Example:
        >>> MeanAroundMedian(f=1)([[0.0], [1.0], [2.0], [9.0]])
        array([1.])

    Paper: Xie, Koyejo and Gupta, "Generalized Byzantine-tolerant SGD", 2018 (arXiv 1802.10116), Definition 8.
    """

    coordinate_wise = vouches = True
    f: int

    def __post_init__(self) -> None:
        check_count(self, "f")

    def min_clients(self) -> int:
        """2f + 1: the median must lie among honest values."""
        return 2 * self.f + 1

    def plan(self, rows: Rows, given: Given) -> Plan:
        """Average around the middle of each column."""
        squares = squares_of(rows)
        return Plan(
            lambda _, block: columns.mean_around_median(block, self.f, squares=squares),
            tally=lambda _, block: around_median_tally(block, self.f),
            apart=True,
        )


def weighted_mean(influence: np.ndarray[Any, Any], **rest: Any) -> Plan:
    """The plan of every rule whose value is `influence @ rows`."""
    return Plan(lambda _, block: columns.weighted_sum(block, influence), influence=influence, linear=True, **rest)


def capped_shares(weights: np.ndarray[Any, Any] | None, n: int, cap: float) -> np.ndarray[Any, Any]:
    """Reported weights as shares that sum to 1, none above `cap / n`; what a cap takes away goes to the others.

    >>> capped_shares(np.array([1.0, 1.0, 2.0, 96.0]), 4, cap=2.0)
    array([0.125, 0.125, 0.25 , 0.5  ])
    """
    if weights is None or weights.max() == 0:
        return np.full(n, 1 / n)
    shares: np.ndarray[Any, Any] = weights / weights.max()
    shares = shares / shares.sum()
    bound = min(1.0, cap / n)
    capped = np.zeros(n, dtype=bool)
    while (shares > bound).any() and not capped.all():
        capped |= shares >= bound
        free = ~capped
        left = 1.0 - bound * capped.sum()
        open_shares = shares[free]
        even = np.full(free.sum(), 1 / max(free.sum(), 1))
        shares = np.where(capped, bound, 0.0)
        shares[free] = left * (open_shares / open_shares.sum() if open_shares.sum() > 0 else even)
        if math.isclose(left, 0.0, abs_tol=1e-12):
            break
    return shares


def _window_tally(block: Block, drop: int) -> np.ndarray[Any, Any]:
    """Shares of the values that remain when `drop` are dropped on each side."""
    n = len(block)
    lo = columns.order_statistics_mean(block, drop, drop + 1)
    hi = columns.order_statistics_mean(block, n - 1 - drop, n - drop)
    return columns.kept_shares(block, lo, hi)


def around_median_tally(block: Block, f: int) -> np.ndarray[Any, Any]:
    """Shares of the n - f values of each column closest to its median."""
    far = abs(block - columns.median(block))
    kept = len(block) - f
    radius = columns.order_statistics_mean(far, kept - 1, kept)
    return columns.kept_shares(far, 0 * radius, radius)
