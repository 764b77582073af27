"""Rules that minimize distances to all rows at once: the geometric median (RFA), and centered clipping.

Both move a point that is a weighted sum of the rows (and of the starting point). So they iterate on n weights: with
the Gram matrix about the starting point at hand, a step costs O(n^2) whatever d is, and the data is read twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from holdfast.aggregation import columns
from holdfast.aggregation.averaging import capped_shares, weighted_mean
from holdfast.aggregation.calling import Rule, reference_block
from holdfast.aggregation.distance import Matrix, median_gram, reference_gram
from holdfast.aggregation.parameters import check_choice, check_count, check_flag, check_number
from holdfast.aggregation.plans import Given, Plan
from holdfast.aggregation.stacking import Block, Rows


def distances_to(gram: Matrix, weights: Matrix) -> Matrix:
    """Distance of every row to the point `weights @ rows`, all about the origin of the Gram matrix: `[n]`."""
    toward = gram @ weights
    squares: Matrix = np.diagonal(gram) - 2 * toward + weights @ toward
    return np.sqrt(np.maximum(squares, 0.0))


def lower_median(values: Matrix) -> float:
    """The middle value, the smaller of the two middle ones for an even count."""
    return float(np.sort(values)[(len(values) - 1) // 2])


@dataclass(frozen=True)
class GeometricMedian(Rule):
    r"""The point with the smallest sum of distances to all rows, whole models at once (RFA).

    Formula: $v = \arg\min_v \sum_i \alpha_i \lVert v - x_i \rVert$, by smoothed Weiszfeld steps
    $v \leftarrow \sum_i \beta_i x_i / \sum_i \beta_i$, $\beta_i = \alpha_i / \max(\nu \rho, \lVert v - x_i \rVert)$,
    with $\rho$ the median distance to the starting point, until a step lowers the sum by less than `tolerance` of it.

    Shapes: `[..., n, d]` to `[..., d]`; `client_weights` are the final $\beta_i / \sum \beta$;
    `diagnostics["iterations"]` and `diagnostics["objective"]` say how it went.

    Tolerates: any f < n/2 (by weight, if weights are used): the result stays within a multiple of the honest spread.
    It moves with translation, rotation and scale.

    Fails: attackers just inside the honest spread pull it; clients that honestly lie far out count less.

    Cost: two passes; O(n^2 d) multiplications, then O(n^2) per step; O(n^2 + d) memory.

    Args:
        nu: smoothing. The published constant (1e-6) is a length; here it is in units of $\rho$, so that tiny updates
            are treated like large ones.
        tolerance: relative decrease of the objective at which to stop; 0 runs all `max_iter` steps.
        max_iter: steps at most.
        start: "median" (coordinate-wise; few steps even with huge outliers) or "mean" (as published).
        weighted: let reported weights be the $\alpha_i$, capped as in `Mean`; else all are equal.
        cap: the largest share a reported weight can earn, in units of 1/n.

    Raises:
        ConfigError: a parameter out of range.

    Example:
        >>> GeometricMedian()([[0.0, 0.0], [2.0, 0.0], [1.0, 0.0], [1.0, 1e6]]).round(3)
        array([1., 0.])

    Paper: Pillutla, Kakade and Harchaoui, "Robust Aggregation for Federated Learning", IEEE TSP 2022
    (arXiv 1912.13445), Algorithm 2; Weiszfeld's iteration of 1937.
    """

    nu: float = 1e-6
    tolerance: float = 1e-12
    max_iter: int = 1000
    start: str = "median"
    weighted: bool = False
    cap: float = 2.0

    def __post_init__(self) -> None:
        check_number(self, "nu", above=True)
        check_number(self, "tolerance")
        check_count(self, "max_iter", least=1)
        check_choice(self, "start", ("median", "mean"))
        check_flag(self, "weighted")
        check_number(self, "cap", least=1.0, infinite=True)

    def min_clients(self) -> int:
        """One."""
        return 1

    def plan(self, rows: Rows, given: Given) -> Plan:
        """Find the weights of the rows in the geometric median."""
        alpha = capped_shares(given.weights if self.weighted else None, rows.n, self.cap)
        gram = median_gram(rows)
        steps, objective = 0, np.inf
        weights = alpha
        distances = distances_to(gram, weights if self.start == "mean" else np.zeros(rows.n))
        scale = lower_median(distances)
        if scale == 0.0:  # at least half of the rows lie on the starting point: no point has a smaller sum
            here = np.where(distances == 0.0, alpha, 0.0)
            if here.sum() >= 0.5:
                found = {"iterations": 0, "objective": float(alpha @ distances)}
                return weighted_mean(here / here.sum(), diagnostics=found)
            scale = float(distances.max())
        while steps < self.max_iter:
            weights = alpha / np.maximum(self.nu * scale, distances)
            weights = weights / weights.sum()
            distances = distances_to(gram, weights)
            steps += 1
            before, objective = objective, float(alpha @ distances)
            if before - objective < self.tolerance * objective:
                break
        return weighted_mean(weights, diagnostics={"iterations": steps, "objective": objective})


@dataclass(frozen=True)
class CenteredClipping(Rule):
    r"""Average the rows after pulling each back to within a radius of a trusted center.

    Formula: $v \leftarrow v + \frac{1}{n} \sum_i (x_i - v) \min(1, \tau / \lVert x_i - v \rVert)$, repeated.

    Shapes: `[..., n, d]` to `[..., d]`. The center starts at `reference` (the last aggregate, as published), or at the
    coordinate-wise median when none is given. `client_weights` are the rows' coefficients in the result; what they
    lack to 1 is the center's. `diagnostics["tau"]` is the radius used.

    Tolerates: any f < n/2 as far as the center is good: one step moves the result by at most f/n of the radius.

    Fails: with a radius far above the honest spread it is the mean; far below, it hardly moves. Colluders can shift
    it by a bounded amount every round.

    Cost: two passes; O(n^2 d) multiplications, O(n^2 + d) memory.

    Args:
        tau: the radius; if None, the median distance of the rows to the starting center, so no scale has to be known.
        iterations: steps.

    Raises:
        ConfigError: a parameter out of range.

    Example:
        >>> CenteredClipping(tau=1.0).aggregate([[1.0], [-1.0], [0.5], [1e9]], reference=[0.0]).value
        array([0.375])

    Paper: Karimireddy, He and Jaggi, "Learning from History for Byzantine Robust Optimization", ICML 2021,
    Algorithm 2 (the published form of the step).
    """

    tau: float | None = None
    iterations: int = 1

    def __post_init__(self) -> None:
        check_number(self, "tau", above=True, optional=True)
        check_count(self, "iterations", least=1)

    def min_clients(self) -> int:
        """One."""
        return 1

    def plan(self, rows: Rows, given: Given) -> Plan:
        """Find the coefficients of the rows, and what is left to the starting center."""
        reference = given.reference
        gram = median_gram(rows) if reference is None else reference_gram(rows, reference)
        weights = np.zeros(rows.n)
        tau = self.tau
        for _ in range(self.iterations):
            distances = distances_to(gram, weights)
            tau = lower_median(distances) if tau is None else tau
            pull = tau / np.maximum(distances, max(tau, np.finfo(float).tiny))
            weights = weights + (pull - weights * pull.sum()) / rows.n
        rest = 1.0 - float(weights.sum())

        def columns_of(where: slice, block: Block) -> Any:
            center = columns.median(block) if reference is None else reference_block(reference, where, block)
            return center + (columns.weighted_sum(block, weights) - (1.0 - rest) * center)

        return Plan(columns_of, influence=weights, diagnostics={"tau": tau, "center_weight": rest})
