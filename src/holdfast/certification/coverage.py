"""Weighted maximum coverage: how much vote weight can m clients reach?

A set M of clients reaches the models it has a member in; cover(M) is their total weight. The largest cover of m
clients is hard to compute, so it is bounded from both sides, in integers:

* degree: cover(M) <= sum of the m largest client scores, score = weight of the client's models;
* marginal: for any set G, cover(M) <= cover(G) + sum of the m largest gains after G (submodularity);
* dual: for ANY numbers 0 <= u_j <= w_j, cover(M) <= sum_j (w_j - u_j) + sum of the m largest sums of u over a client's
  models. A solver proposes u, integers evaluate it: solver errors can only make the bound looser;
* greedy: take the client with the largest gain, m times. What it reaches is really reachable;
* search: branch and bound over clients with the bounds above, exact if it ends within its limit.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, sparse

Integers = NDArray[np.int64]
SCALE = 1 << 20
LINPROG: Any = optimize.linprog
MILP: Any = optimize.milp


@dataclass(frozen=True, eq=False)
class Coverage:
    """Who reaches what. Clients with the same models are merged: a second one reaches nothing new.

    Attributes:
        reach: `[clients, N]` sparse int64 matrix of zeros and ones.

    Example:
        >>> coverage = Coverage.of(np.array([[1, 1, 0], [0, 1, 1]], dtype=bool))
        >>> coverage.greedy(np.array([2, 1]), 1)[1]
        [3]
    """

    reach: Any  # scipy.sparse.csr_array; scipy may or may not come with types

    @classmethod
    def of(cls, membership: NDArray[np.bool_]) -> Coverage:
        """From a `[N, n]` membership matrix."""
        clients = np.unique(membership.T, axis=0)
        return cls(sparse.csr_array(clients.astype(np.int64)))

    @cached_property
    def reached_by(self) -> Any:
        """`[N, clients]`, the transpose."""
        return sparse.csr_array(self.reach.T)

    def models(self, client: int) -> Integers:
        """The models a client reaches."""
        found: Integers = self.reach.indices[self.reach.indptr[client] : self.reach.indptr[client + 1]]
        return found

    def gains(self, weights: Integers) -> Integers:
        """`[clients]`: the weight each client reaches."""
        found: Integers = self.reach @ weights
        return found

    def greedy(self, weights: Integers, m: int) -> tuple[list[int], list[int], list[int]]:
        """Take m clients by largest gain: who, what the first 1, 2, ... reach, the marginal bound after each."""
        left, gains = weights.copy(), self.gains(weights)
        chosen: list[int] = []
        covers: list[int] = []
        bounds: list[int] = []
        for _ in range(min(m, len(gains))):
            client = int(np.argmax(gains))
            hit = self.models(client)
            chosen.append(client)
            covers.append((covers[-1] if covers else 0) + int(left[hit].sum()))
            left[hit] = 0
            gains = self.gains(left)
            bounds.append(covers[-1] + top_sum(gains, m))
        return chosen, covers, bounds

    def dual_bound(self, weights: Integers, shares: Integers, m: int) -> int:
        """The dual bound for u = weights * shares / SCALE, rounded down to the integer that covers must stay below."""
        u = weights * shares
        return (int((weights * SCALE - u).sum()) + top_sum(self.gains(u), m)) // SCALE

    def dual_shares(self, weights: Integers, m: int) -> Integers:
        """`[N]` int64 in 0..SCALE: u / w that a linear program proposes for the smallest dual bound.

        Minimize -sum u + m * level + sum excess with sum of u over a client's models <= level + its excess.
        """
        clients, models = self.reach.shape
        blocks: list[Any] = [self.reach.astype(np.float64), -np.ones((clients, 1)), -sparse.eye_array(clients)]
        solution = LINPROG(
            np.concatenate([-np.ones(models), [float(m)], np.ones(clients)]),
            A_ub=sparse.hstack(blocks, format="csr"),
            b_ub=np.zeros(clients),
            bounds=np.stack([np.zeros(models + 1 + clients), np.r_[weights, np.full(1 + clients, np.inf)]], axis=1),
            method="highs-ds",
        )
        if solution.x is None:
            return np.full(models, SCALE, dtype=np.int64)  # the degree bound
        u = np.nan_to_num(solution.x[:models])
        shares: Integers = np.rint(np.clip(u / np.maximum(weights, 1), 0, 1) * SCALE).astype(np.int64)
        return shares

    def reaches(self, weights: Integers, m: int, target: int, *, limit: int) -> bool | None:
        """Whether some m clients cover at least `target`, by branch and bound; None if `limit` nodes did not decide."""
        nodes = 0
        stack = [(weights, 0, np.arange(self.reach.shape[0]), m)]
        while stack:
            left, covered, allowed, budget = stack.pop()
            nodes += 1
            if nodes > limit:
                return None
            gains = self.gains(left)[allowed]
            if covered + top_sum(gains, budget) < target:
                continue
            best = int(np.argmax(gains))
            if covered + int(gains[best]) >= target:
                return True
            if budget == 1:
                continue
            after = left.copy()
            after[self.models(int(allowed[best]))] = 0
            others = np.delete(allowed, best)
            stack.append((left, covered, others, budget))
            stack.append((after, covered + int(gains[best]), others, budget - 1))
        return False

    def milp_bound(self, weights: Integers, m: int, seconds: float) -> float:
        """HiGHS' upper bound on the largest cover of m clients: its dual bound, never its best attack so far."""
        clients, models = self.reach.shape
        blocks: list[Any] = [sparse.eye_array(models), -self.reached_by.astype(np.float64)]
        budget = np.concatenate([np.zeros(models), np.ones(clients)])[None]
        solution = MILP(
            -np.concatenate([weights.astype(np.float64), np.zeros(clients)]),
            constraints=[
                optimize.LinearConstraint(sparse.hstack(blocks, format="csr"), -np.inf, 0),
                optimize.LinearConstraint(budget, -np.inf, m),
            ],
            integrality=np.concatenate([np.zeros(models), np.ones(clients)]),
            bounds=optimize.Bounds(0, 1),
            options={"time_limit": seconds},
        )
        bound = getattr(solution, "mip_dual_bound", None)
        return float(weights.sum()) if bound is None or not np.isfinite(bound) else -float(bound)


def top_sum(scores: Integers, m: int) -> int:
    """The sum of the m largest scores."""
    if m >= len(scores):
        return int(scores.sum())
    return int(np.partition(scores, len(scores) - m)[len(scores) - m :].sum()) if m > 0 else 0
