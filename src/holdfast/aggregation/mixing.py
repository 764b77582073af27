"""Wrappers: replace the rows by mixtures of rows, then let any rule have them. They compose freely.

Every mixture here is a small matrix times the rows, so nothing of size n x d is ever built: a rule that is itself a
weighted sum has the matrix folded into its weights, any other rule gets its blocks mixed as they come.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from holdfast.aggregation import columns
from holdfast.aggregation.averaging import weighted_mean
from holdfast.aggregation.calling import Rule, reference_block
from holdfast.aggregation.distance import Matrix, reference_norms, row_distances
from holdfast.aggregation.geometric import lower_median
from holdfast.aggregation.parameters import check_count, check_number, check_rule
from holdfast.aggregation.plans import Given, Plan
from holdfast.aggregation.stacking import Block, Rows, block_columns, is_tensor


@dataclass(frozen=True)
class Mixed:
    """Rows that are `matrix @ rows`, or, for a vector of factors, the rows pulled toward a reference."""

    rows: Rows
    matrix: Matrix
    reference: Any = None

    @property
    def n(self) -> int:
        """Mixtures."""
        return len(self.matrix)

    @property
    def d(self) -> int:
        """Parameters."""
        return self.rows.d

    @property
    def dtype(self) -> np.dtype[Any]:
        """As the rows."""
        return self.rows.dtype

    def blocks(self, columns: int | None = None, *, stacked: bool = True) -> Iterator[tuple[slice, Block]]:
        """See `Rows.blocks`; always blocks of a few megabytes, since each is a new matrix."""
        for where, block in self.rows.blocks(columns or block_columns(self.rows)):
            yield where, self.mix(where, block)

    def mix(self, where: slice, block: Block) -> Block:
        """Mix one block of the rows."""
        if self.matrix.ndim == 2:
            return columns.mix(self.matrix, block)
        factors: Any = self.matrix.astype(self.dtype)[:, None]
        if is_tensor(block):
            import torch

            factors = torch.from_numpy(factors).to(block.device)
        if self.reference is None:
            return block * factors
        center = reference_block(self.reference, where, block)
        return center + (block - center) * factors

    def back(self, shares: Matrix) -> Matrix:
        """Shares of the mixtures as shares of the rows."""
        return shares @ self.matrix if self.matrix.ndim == 2 else shares * self.matrix

    def plan(self, inner: Plan) -> Plan:
        """The plan of the rule that wraps `inner`, in terms of the rows."""
        if inner.linear and self.reference is None and inner.influence is not None:
            return weighted_mean(self.back(inner.influence), state=inner.state, diagnostics=inner.diagnostics)
        tally = inner.tally
        return Plan(
            lambda where, block: inner.columns(where, self.mix(where, block)),
            influence=None if inner.influence is None else self.back(inner.influence),
            tally=None if tally is None else lambda where, block: self.back(tally(where, self.mix(where, block))),
            narrow=True,
            state=inner.state,
            diagnostics=inner.diagnostics,
        )


@dataclass(frozen=True)
class NearestNeighborMixing(Rule):
    r"""Replace every row by the average of its n - f nearest rows (itself included), then apply a rule.

    Formula: $y_i = \frac{1}{n - f} \sum_{j \in N_i} x_j$, where $N_i$ are the n - f rows nearest to row i; $v$ is the
    wrapped rule's value for $y$.

    Shapes: `[..., n, d]` to `[..., d]`; influence is traced back to the rows.

    Tolerates: f malicious clients of n >= 2f + 1 (and what the wrapped rule needs); with it, the rules that only stay
    near the honest mean come within the best possible order of the spread on skewed data.

    Fails: with more than f malicious clients; averaging smooths away honest minorities.

    Cost: two more passes; O(n^2 d) multiplications; O(n^2) memory beside a block, since mixing is a matrix product.

    Args:
        rule: the rule that gets the mixed rows.
        f: malicious clients to tolerate.

    Raises:
        ThreatModelError: n < 2f + 1, or fewer than the wrapped rule needs.

    Example:
        >>> from holdfast.aggregation.averaging import Median
        >>> NearestNeighborMixing(Median(), f=1)([[1.0], [2.0], [3.0], [1e6]])
        array([2.])

    Paper: Allouah et al., "Fixing by Mixing: A Recipe for Optimal Byzantine ML under Heterogeneity", AISTATS 2023,
    Algorithm 2.
    """

    rule: Any
    f: int

    def __post_init__(self) -> None:
        check_rule(self)
        check_count(self, "f")

    def min_clients(self) -> int:
        """2f + 1, and what the wrapped rule needs."""
        return max(2 * self.f + 1, int(self.rule.min_clients()))

    def plan(self, rows: Rows, given: Given) -> Plan:
        """Mix the neighbors, then plan with the wrapped rule."""
        distances = row_distances(rows)
        np.fill_diagonal(distances, -1.0)
        kept = rows.n - self.f
        nearest = np.argsort(distances, axis=1, kind="stable")[:, :kept]
        matrix = np.zeros((rows.n, rows.n))
        np.put_along_axis(matrix, nearest, 1 / kept, axis=1)
        mixed = Mixed(rows, matrix)
        return mixed.plan(self.rule.plan(mixed, given))


@dataclass(frozen=True)
class Bucketing(Rule):
    r"""Average random buckets of s rows, then apply a rule to the averages.

    Formula: a permutation $\pi$ is drawn; $y_b$ is the mean of the b-th run of s rows in its order (the last bucket
    may be smaller); $v$ is the wrapped rule's value for the $\lceil n / s \rceil$ rows $y$.

    Shapes: `[..., n, d]` to `[..., d]`; influence is traced back to the rows. The permutation depends on `seed` and the
    round alone; `state` counts rounds (and carries the wrapped rule's state).

    Tolerates: what the wrapped rule tolerates among the buckets: f malicious clients spoil up to f buckets, so give
    the wrapped rule the same f.

    Fails: with few clients, where f spoiled buckets are most of them. The result depends on the draw.

    Cost: the wrapped rule's on n / s rows, after one matrix product per block.

    Args:
        rule: the rule that gets the averages.
        s: rows per bucket.
        seed: where the permutations come from.

    Raises:
        ThreatModelError: fewer buckets than the wrapped rule needs.

    Example:
        >>> from holdfast.aggregation.averaging import Median
        >>> Bucketing(Median(), s=2)([[2.0], [2.0], [2.0], [2.0], [2.0], [1e6]])
        array([2.])

    Paper: Karimireddy, He and Jaggi, "Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing", ICLR 2022,
    Algorithm 1.
    """

    rule: Any
    s: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        check_rule(self)
        check_count(self, "s", least=1)
        check_count(self, "seed")

    def min_clients(self) -> int:
        """As many as make the buckets that the wrapped rule needs."""
        return (int(self.rule.min_clients()) - 1) * self.s + 1

    def plan(self, rows: Rows, given: Given) -> Plan:
        """Draw the buckets, then plan with the wrapped rule."""
        done, inner_state = given.state or (0, None)
        order = np.random.default_rng([self.seed, done]).permutation(rows.n)
        matrix = np.zeros((-(-rows.n // self.s), rows.n))
        for position, row in enumerate(order):
            matrix[position // self.s, row] = 1.0
        weights = None if given.weights is None else matrix @ given.weights
        matrix /= matrix.sum(axis=1, keepdims=True)
        mixed = Mixed(rows, matrix)
        for_buckets = replace(given, state=inner_state, weights=weights, clients=tuple(range(mixed.n)))
        plan = mixed.plan(self.rule.plan(mixed, for_buckets))
        return replace(plan, state=(done + 1, plan.state))


@dataclass(frozen=True)
class NormClipping(Rule):
    r"""Shorten every row to a largest norm, then apply a rule.

    Formula: $y_i = r + (x_i - r) \min(1, C / \lVert x_i - r \rVert)$ with the reference $r$ (zero if none is given);
    $C$ is `bound`, or `multiple` times the median norm; $v$ is the wrapped rule's value for $y$.

    Shapes: `[..., n, d]` to `[..., d]`. Rows are updates; give `reference` where they are whole models.
    `diagnostics["bound"]` and `diagnostics["norms"]` hold what was used and seen.

    Tolerates: what the wrapped rule tolerates; around a mean, f malicious clients move the result by at most
    (f / n) C whatever they send (f < n/2 for the median norm to be an honest one).

    Fails: it bounds length, not direction: many clients pushing together within the bound still win.

    Cost: one more pass, O(n d); O(n) memory beside a block.

    Args:
        rule: the rule that gets the shortened rows.
        bound: the largest norm; if None, `multiple` of the median norm.
        multiple: the bound in units of the median norm, where `bound` is None.

    Raises:
        ThreatModelError: fewer clients than the wrapped rule needs.

    Example:
        >>> from holdfast.aggregation.averaging import Mean
        >>> NormClipping(Mean(), bound=1.0)([[0.5], [-0.5], [1.0], [1e9]])
        array([0.5])

    Paper: Sun et al., "Can You Really Backdoor Federated Learning?", 2019 (arXiv 1911.07963), Section 4.
    """

    rule: Any
    bound: float | None = None
    multiple: float = 1.0

    def __post_init__(self) -> None:
        check_rule(self)
        check_number(self, "bound", above=True, optional=True)
        check_number(self, "multiple", above=True)

    def min_clients(self) -> int:
        """What the wrapped rule needs."""
        return int(self.rule.min_clients())

    def plan(self, rows: Rows, given: Given) -> Plan:
        """Measure the norms, then plan with the wrapped rule on the shortened rows."""
        norms = reference_norms(rows, given.reference)
        bound = self.multiple * lower_median(norms) if self.bound is None else self.bound
        factors = np.minimum(1.0, np.divide(bound, norms, out=np.ones(rows.n), where=norms > 0))
        shortened = Mixed(rows, factors, given.reference)
        plan = shortened.plan(self.rule.plan(shortened, given))
        return replace(plan, diagnostics={**plan.diagnostics, "bound": bound, "norms": norms})
