"""Collective certificates: how many of the T labels can m malicious clients change at once?

A certificate per input lets the attackers pick the worst clients anew for every input. One set of m clients has to
serve for all of them, so fewer labels fall together. Largest number of changed labels:

    maximize  sum_t Y_t
    Y_t <= sum_z Z_tz                      a changed label has some rival that wins
    (lead_tz + 1) Z_tz <= sum_j w_tzj X_j  a rival wins only if its lead is made up, w in {0, 1, 2} as in deployed.py
    sum_z (lead_tz + 1) Z_tz <= sum_j max_z w_tzj X_j           one rival per input is enough
    X_j <= sum over clients c of model j of S_c,   sum_c S_c <= m,   all variables in {0, 1}

Every rival is in the program: with a shared budget a third label can win where the runner-up cannot. The value returned
is an upper bound that holds for ANY non-negative multipliers of the constraints (Lagrange); the linear program only
proposes good ones, and the bound is evaluated in integers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, sparse

from holdfast.certification.coverage import LINPROG, MILP, SCALE, Integers, top_sum
from holdfast.certification.deployed import ASSUMPTIONS, certify_deployed, check_membership
from holdfast.certification.tally import check_integer, check_votes, tally, winners
from holdfast.types import ConfigError

MILP_TOLERANCE = 0.01


@dataclass(frozen=True)
class CollectiveBound:
    """At most `changed` of `n_inputs` labels can be changed by any m clients at once.

    Attributes:
        changed: the bound; never below the truth.
        n_inputs: the inputs counted (with `labels`: those the ensemble now gets right).
        m: malicious clients.
        one_by_one: how many inputs have a certificate of their own below m: the bound without looking at all together.
        method: how it was computed.
        assumptions: what must hold.
    """

    changed: int
    n_inputs: int
    m: int
    one_by_one: int
    method: str
    assumptions: tuple[str, ...]

    @property
    def certified_share(self) -> float:
        """Share of the counted inputs that keep their label whatever m clients do."""
        return 1 - self.changed / self.n_inputs if self.n_inputs else 0.0


def certify_collective(
    votes: ArrayLike,
    membership: ArrayLike,
    n_labels: int,
    m: int,
    *,
    labels: ArrayLike | None = None,
    chunk: int = 200,
    milp_seconds: float = 0.0,
) -> CollectiveBound:
    """Bound how many labels any m clients can change at once in the deployed ensemble.

    Guarantee: no set of m malicious clients, knowing everything, changes more than `changed` of the labels at the same
    time. Failure probability: none. Assumptions: those of `certify_deployed`.

    Args:
        votes: `[N, T]` integers in 0..n_labels-1.
        membership: `[N, n]` bool.
        n_labels: L.
        m: malicious clients, 0..n.
        labels: `[T]` true labels; if given, only inputs that the ensemble now gets right are counted, so that
            `certified_share` is a share of those.
        chunk: inputs per linear program; the bounds of the chunks add up, larger chunks are tighter and slower.
        milp_seconds: if positive, give HiGHS this long per chunk to improve on the linear program in whole numbers; its
            dual bound is used, never its best attack so far, and an assumption says that it was trusted.

    Raises:
        ConfigError: if votes, membership, labels or a number do not fit.

    Example:
        >>> votes = np.array([[0, 1], [0, 1], [1, 0], [1, 0]])  # four models of one client each, two inputs
        >>> bound = certify_collective(votes, np.eye(4, dtype=bool), 2, 1, milp_seconds=5)
        >>> bound.changed, bound.one_by_one
        (1, 2)

    Reference: Chen et al., On Collective Robustness of Bagging Against Data Poisoning, ICML 2022 (the program, without
    the restriction to one rival).
    """
    table = check_votes(votes, n_labels)
    members = check_membership(membership, len(table))
    m, chunk = check_integer("m", m, 0, members.shape[1]), check_integer("chunk", chunk, 1)
    own = certify_deployed(table, members, n_labels)
    counted = np.ones(table.shape[1], dtype=bool)
    if labels is not None:
        truth = np.asarray(labels)
        if truth.shape != counted.shape or not np.issubdtype(truth.dtype, np.integer):
            raise ConfigError(
                f"labels has shape {truth.shape}; needed is one integer for each of {len(counted)} inputs"
            )
        counted = own.prediction == truth
    open_inputs = np.flatnonzero(counted & (own.radius < m))
    changed, milp = 0, milp_seconds > 0
    for start in range(0, len(open_inputs), chunk):
        part = open_inputs[start : start + chunk]
        changed += _Program(table[:, part].astype(np.int64), members, n_labels, m).bound(milp_seconds)
    told = f"the dual bound of HiGHS, a floating-point solver, is right to within {MILP_TOLERANCE}"
    return CollectiveBound(
        changed=changed,
        n_inputs=int(counted.sum()),
        m=m,
        one_by_one=len(open_inputs),
        method=f"{'mixed-integer' if milp else 'linear'} program, chunks of {chunk}",
        assumptions=(*ASSUMPTIONS, told) if milp else ASSUMPTIONS,
    )


class _Program:
    """The program for one chunk of inputs. Variables in order: Y [T], Z [pairs], X [N], S [n]."""

    def __init__(self, votes: Integers, members: NDArray[np.bool_], n_labels: int, m: int) -> None:
        label, lead = winners(tally(votes, n_labels))
        self.m, self.models, self.inputs = m, int(votes.shape[0]), int(votes.shape[1])
        self.clients: Any = sparse.csr_array(np.unique(members.T, axis=0).astype(np.int64))
        self.owner, rival = np.nonzero(np.arange(n_labels)[None, :] != label[:, None])
        self.needed = lead[self.owner, rival] + 1
        won = votes[:, self.owner] == label[self.owner]
        self.weights: Any = sparse.csr_array((1 + won - (votes[:, self.owner] == rival)).T.astype(np.int64))
        pairs = len(self.owner)
        ones = np.ones(pairs, dtype=np.int64)
        self.most: Any = sparse.csr_array((1 + (votes == label)).T.astype(np.int64))
        self.pick: Any = sparse.csr_array((ones, (self.owner, np.arange(pairs))), shape=(self.inputs, pairs))

    def bound(self, milp_seconds: float) -> int:
        """The largest number of changed labels, from above."""
        best: int = min(self.inputs, self._lagrange(*self._multipliers()))
        if milp_seconds > 0 and best > 0:
            best = min(best, self._milp(milp_seconds))
        return best

    def _constraints(self) -> Any:
        """Rows `A v <= 0`: Y - Z, needed Z - w X, the same summed over rivals, X - S."""
        float_clients = self.clients.T.astype(np.float64)
        rows: list[list[Any]] = [
            [sparse.eye_array(self.inputs), -self.pick.astype(np.float64), None, None],
            [None, sparse.diags_array(self.needed.astype(np.float64)), -self.weights.astype(np.float64), None],
            [None, (self.pick * self.needed).astype(np.float64), -self.most.astype(np.float64), None],
            [None, None, sparse.eye_array(self.models), -float_clients],
        ]
        return sparse.block_array(rows, format="csr")

    def _multipliers(self) -> list[Integers]:
        """Multipliers of the four kinds of constraints, as proposed by the solver, in units of 1 / SCALE."""
        matrix, clients = self._constraints(), self.clients.shape[0]
        budget = np.concatenate([np.zeros(matrix.shape[1] - clients), np.ones(clients)])[None]
        stacked: list[Any] = [matrix, sparse.csr_array(budget)]
        solution = LINPROG(
            np.concatenate([-np.ones(self.inputs), np.zeros(matrix.shape[1] - self.inputs)]),
            A_ub=sparse.vstack(stacked, format="csr"),
            b_ub=np.concatenate([np.zeros(matrix.shape[0]), [float(self.m)]]),
            bounds=(0, 1),
            method="highs-ipm",
        )
        found = getattr(solution.ineqlin, "marginals", None) if solution.x is not None else None
        prices = np.zeros(matrix.shape[0]) if found is None else -np.asarray(found)[:-1]
        scaled = np.rint(np.clip(np.nan_to_num(prices), 0, None) * SCALE).astype(np.int64)
        return np.split(scaled, np.cumsum([self.inputs, len(self.owner), self.inputs]))

    def _lagrange(self, change: Integers, win: Integers, once: Integers, hit: Integers) -> int:
        """What is left of the objective at these multipliers, largest over the box of the variables, rounded down."""
        total: int = int(np.clip(SCALE - change, 0, None).sum())
        total += int(np.clip(change[self.owner] - self.needed * (win + once[self.owner]), 0, None).sum())
        total += int(np.clip(win @ self.weights + once @ self.most - hit, 0, None).sum())
        total += top_sum(self.clients @ hit, self.m)
        return total // SCALE

    def _milp(self, seconds: float) -> int:
        matrix, clients = self._constraints(), self.clients.shape[0]
        budget = np.concatenate([np.zeros(matrix.shape[1] - clients), np.ones(clients)])[None]
        solution = MILP(
            np.concatenate([-np.ones(self.inputs), np.zeros(matrix.shape[1] - self.inputs)]),
            constraints=[
                optimize.LinearConstraint(matrix, -np.inf, 0),
                optimize.LinearConstraint(budget, -np.inf, self.m),
            ],
            integrality=np.ones(matrix.shape[1]),
            bounds=optimize.Bounds(0, 1),
            options={"time_limit": seconds},
        )
        bound = getattr(solution, "mip_dual_bound", None)
        if bound is None or not math.isfinite(bound):
            return self.inputs
        return math.floor(MILP_TOLERANCE - float(bound))
