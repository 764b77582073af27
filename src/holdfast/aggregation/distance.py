"""Robust pairwise distances, and the rules that choose clients by them: Krum, multi-Krum and Bulyan.

Distances come from one Gram matrix of the rows centered on their coordinate-wise median. The center matters: model
updates are a few percent of the weights, so products of raw float32 rows lose the distances in cancellation, and a
center that one client can move (the mean, say) hands that client the precision of everybody else's distances.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from holdfast.aggregation import columns
from holdfast.aggregation.averaging import around_median_tally, weighted_mean
from holdfast.aggregation.calling import Rule, reference_block
from holdfast.aggregation.parameters import check_count, check_flag
from holdfast.aggregation.plans import Given, Plan
from holdfast.aggregation.screening import square_sums
from holdfast.aggregation.stacking import Block, Rows, block_columns

Matrix = np.ndarray[Any, Any]


def median_gram(rows: Rows) -> Matrix:
    """Inner products of the rows about their coordinate-wise median: float64 `[n, n]`."""
    total = np.zeros((rows.n, rows.n))
    for _, block in rows.blocks():
        total += columns.gram(block, columns.median(block))
    return total


def reference_gram(rows: Rows, reference: Any) -> Matrix:
    """Inner products of the rows about a reference (zero if None): float64 `[n, n]`."""
    total = np.zeros((rows.n, rows.n))
    for where, block in rows.blocks():
        total += columns.gram(block, reference_block(reference, where, block))
    return total


def reference_norms(rows: Rows, reference: Any) -> Matrix:
    """Euclidean norm of every row about a reference (zero if None): float64 `[n]`."""
    total = np.zeros(rows.n)
    with columns.one_blas_thread():
        for where, block in rows.blocks(block_columns(rows)):
            total += square_sums(block if reference is None else block - reference_block(reference, where, block))
    return np.sqrt(total)


def squared_distances(gram: Matrix) -> Matrix:
    """Squared Euclidean distances between the rows behind a Gram matrix: `[n, n]`, zero on the diagonal.

    >>> squared_distances(np.array([[1.0, 0.0], [0.0, 4.0]]))
    array([[0., 5.],
           [5., 0.]])
    """
    squares = np.diagonal(gram)
    distances: Matrix = np.maximum(squares[:, None] + squares[None, :] - (gram + gram.T), 0.0)
    np.fill_diagonal(distances, 0.0)
    return distances


def row_distances(rows: Rows) -> Matrix:
    """Squared distances between rows; those within rounding of zero are zero, so that equal rows tie exactly."""
    gram = median_gram(rows)
    distances = squared_distances(gram)
    squares = np.diagonal(gram)
    distances[distances < 16 * float(np.finfo(rows.dtype).eps) * (squares[:, None] + squares[None, :])] = 0.0
    return distances


def krum_order(distances: Matrix, f: int) -> tuple[Matrix, Matrix]:
    """Rows from the best Krum score to the worst, and the scores: `[n]` each.

    A score is the sum of a row's n - f - 2 (at least one) smallest squared distances to other rows. With one neighbor
    the two closest rows always tie; then the next nearest neighbor decides, and so on, so that the order in which
    clients happen to stand decides nothing. Only between equal rows the first goes first.
    """
    n = len(distances)
    others = np.sort(distances[~np.eye(n, dtype=bool)].reshape(n, n - 1), axis=1)
    neighbors = max(1, n - f - 2)
    scores: Matrix = others[:, :neighbors].sum(axis=1)
    return np.lexsort((*others[:, neighbors:].T[::-1], scores)), scores


@dataclass(frozen=True)
class Krum(Rule):
    r"""The one row that is closest to its neighbors.

    Formula: $s_i = \sum_{j \in N_i} \lVert x_i - x_j \rVert^2$, where $N_i$ are the n - f - 2 rows nearest to row i;
    $v = x_{i^*}$ with $i^* = \arg\min_i s_i$. Of rows with equal scores (with n = 3 the two closest always tie) the one
    whose next neighbor is nearer is taken.

    Shapes: `[..., n, d]` to `[..., d]`; `client_weights` is one-hot, `diagnostics["scores"]` holds $s$ `[n]`.

    Tolerates: f malicious clients of n >= 2f + 3, in the sense that the result stays within a multiple of the honest
    spread of the honest mean.

    Fails: on skewed data it follows one client and learns little; that multiple grows with sqrt(d), room enough for
    an attacker who hides just inside the honest spread.

    Cost: two passes; O(n^2 d) multiplications, O(n^2 + d) memory.

    Args:
        f: malicious clients to tolerate.
        strict: refuse n < 2f + 3; with False, 2f + 1 clients are enough to run, without the guarantee.

    Raises:
        ThreatModelError: fewer clients than that.

    Example:
        >>> Krum(f=1)([[1.0, 1.0], [1.2, 1.0], [0.9, 1.1], [1.1, 0.8], [50.0, 50.0]])
        array([1., 1.])

    Paper: Blanchard et al., "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent", NeurIPS 2017,
    Section 4.
    """

    f: int
    strict: bool = True

    def __post_init__(self) -> None:
        check_count(self, "f")
        check_flag(self, "strict")

    def min_clients(self) -> int:
        """2f + 3, as the theory has it; 2f + 1 if not strict."""
        return 2 * self.f + (3 if self.strict else 1)

    def plan(self, rows: Rows, given: Given) -> Plan:
        """Find the row with the smallest score."""
        order, scores = krum_order(row_distances(rows), self.f)
        return _mean_of(order[:1], scores)


@dataclass(frozen=True)
class MultiKrum(Rule):
    r"""The mean of the m rows with the smallest Krum scores.

    Formula: $v = \frac{1}{m} \sum_{i \in S} x_i$, where S are the m rows with the smallest $s_i$ (see `Krum`).

    Shapes: `[..., n, d]` to `[..., d]`; `client_weights` is 1/m for the chosen, `diagnostics["scores"]` holds $s$.

    Tolerates: f malicious clients of n >= 2f + 3.

    Fails: as Krum does, and every malicious row among the chosen counts 1/m; smaller m is safer, larger m averages
    out more noise.

    Cost: two passes; O(n^2 d) multiplications, O(n^2 + d) memory.

    Args:
        f: malicious clients to tolerate.
        m: rows to average, at most n - f; n - f if None.
        strict: refuse n < 2f + 3; with False, 2f + 1 clients are enough to run, without the guarantee.

    Raises:
        ThreatModelError: fewer clients than that, or fewer than m + f.

    Example:
        >>> MultiKrum(f=1, m=2)([[1.0], [1.5], [1.2], [3.0], [50.0]])
        array([1.1])

    Paper: Blanchard et al., "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent", NeurIPS 2017,
    Section 6 (Multi-Krum).
    """

    f: int
    m: int | None = None
    strict: bool = True

    def __post_init__(self) -> None:
        check_count(self, "f")
        if self.m is not None:
            check_count(self, "m", least=1)
        check_flag(self, "strict")

    def min_clients(self) -> int:
        """2f + 3 (2f + 1 if not strict), and m + f."""
        return max(2 * self.f + (3 if self.strict else 1), (self.m or 0) + self.f)

    def plan(self, rows: Rows, given: Given) -> Plan:
        """Average the rows with the smallest scores."""
        order, scores = krum_order(row_distances(rows), self.f)
        return _mean_of(order[: self.m or rows.n - self.f], scores)


@dataclass(frozen=True)
class Bulyan(Rule):
    r"""Choose rows one by one with Krum, then average around the median in every coordinate.

    Formula: $\theta = n - 2f$ rows are chosen, each the Krum choice among the rows that are left; in every coordinate
    the $\beta = \theta - 2f$ chosen values closest to their median are averaged.

    Shapes: `[..., n, d]` to `[..., d]`; `diagnostics["selected"]` lists the chosen rows.

    Tolerates: f malicious clients of n >= 4f + 3; no coordinate can be pushed far beyond the honest spread, which
    Krum alone does not promise in high dimension.

    Fails: with fewer clients than that it does not run at all; on skewed data it follows the densest group.

    Cost: two passes; O(n^2 d) multiplications and O(n^3 log n) for the choices, O(n^2 + d) memory.

    Args:
        f: malicious clients to tolerate.

    Raises:
        ThreatModelError: n < 4f + 3.

    Example:
        >>> Bulyan(f=1)([[1.0], [1.5], [1.25], [1.9], [0.8], [1.3], [50.0]])
        array([1.35])

    Paper: El Mhamdi, Guerraoui and Rouault, "The Hidden Vulnerability of Distributed Learning in Byzantium",
    ICML 2018, Section 4.
    """

    f: int

    def __post_init__(self) -> None:
        check_count(self, "f")

    def min_clients(self) -> int:
        """4f + 3."""
        return 4 * self.f + 3

    def plan(self, rows: Rows, given: Given) -> Plan:
        """Choose the rows, then average around the median of the chosen."""
        distances = row_distances(rows)
        left = np.arange(rows.n)
        selected: list[int] = []
        while len(selected) < rows.n - 2 * self.f:
            best = krum_order(distances[np.ix_(left, left)], self.f)[0][0]
            selected.append(int(left[best]))
            left = np.delete(left, best)
        chosen = np.sort(selected)

        def tally(_: slice, block: Block) -> Matrix:
            shares = np.zeros(rows.n)
            shares[chosen] = around_median_tally(block[chosen], 2 * self.f)
            return shares

        return Plan(
            lambda _, block: columns.mean_around_median(block[chosen], 2 * self.f),
            tally=tally,
            narrow=True,
            diagnostics={"selected": tuple(selected)},
        )


def _mean_of(chosen: Matrix, scores: Matrix) -> Plan:
    influence = np.zeros(len(scores))
    influence[chosen] = 1 / len(chosen)
    return weighted_mean(influence, diagnostics={"scores": scores})
