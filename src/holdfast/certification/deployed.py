"""Certificates of the deployed ensemble: the N trained models themselves, against attackers who know everything.

A malicious client controls the vote of every model it helped to train. Moving model j from its vote to rival z shifts
the race between the winner y and z by w_j = 2 if it voted y, 1 if it voted something else, 0 if it voted z already. So

    y survives every set M of m clients  <=>  for every z:  max over M of  sum of w_j over models M is in
                                              <=  N_y - N_z - [z < y]

(ties go to the smaller label). The left side is a weighted maximum coverage (coverage.py); any upper bound on it
gives a sound certificate, and all of them are compared as integers. There is no sampling, hence no failure
probability, and no restriction on how inputs are chosen or how many there are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from holdfast.certification.certificate import Certificate
from holdfast.certification.coverage import Coverage, Integers, top_sum
from holdfast.certification.tally import check_votes, tally, winners
from holdfast.types import ConfigError

BOUNDS = ("degree", "lp", "exact")
CHUNK_CELLS = 1 << 24
SEARCH_NODES = 2000
MILP_SECONDS = 10.0
# HiGHS is trusted to err by less than this on an integer that is at most 2 N.
MILP_TOLERANCE = 0.01

ASSUMPTIONS = (
    "malicious clients control at most the models they are members of: every model depends on its own clients only, "
    "with its own seed and nothing computed across groups",
    "the number of clients and the assignment are fixed: m of the n enrolled clients are malicious",
    "the votes are those of the models that answer queries, taken in evaluation mode; ties go to the smaller label",
)


def certify_deployed(votes: ArrayLike, membership: ArrayLike, n_labels: int, *, bound: str = "degree") -> Certificate:
    """Certify the vote of the N trained models against m malicious clients, without any failure probability.

    Guarantee: whatever `radius` clients of the attackers' choice send, chosen with full knowledge of the assignment,
    the other clients' data and the inputs, the vote of the N models gives the same label. It holds for every input,
    however many there are and however they are chosen. It also holds backwards: computed from votes under attack by
    at most `radius` malicious clients, the label is the one the clean ensemble would give.

    Failure probability: none (alpha = 0).

    Assumptions: printed with the certificate; above all, a model depends on its own clients only.

    Args:
        votes: `[N, T]` integers in 0..n_labels-1.
        membership: `[N, n]` bool, which clients trained which model. Any design.
        n_labels: L; labels that nobody voted for count as rivals too.
        bound: `"degree"`: sum of the m largest client scores; exact for disjoint groups, seconds for 10,000 inputs.
            `"lp"`: also linear-programming duals and greedy marginals, evaluated in integers; milliseconds to a second
            per input whose degree bound is not already exact. `"exact"`: also branch and bound, then HiGHS' dual
            bound; where a time limit is hit the radius stays a sound lower bound and an assumption says how often.

    Returns:
        a `Certificate` that never abstains; its margin is the smallest N_y - N_z - [z < y].

    Raises:
        ConfigError: if votes are not integers `[N, T]` in range, membership is not bool `[N, n]`, or bound is unknown.

    Cost of `"degree"`: O(T (N k + n)) time, memory bounded by working through the inputs in chunks.

    Example:
        >>> membership = np.repeat(np.eye(5, dtype=bool), 2, axis=1)  # five disjoint groups of two clients
        >>> votes = np.array([[1, 0], [1, 0], [1, 2], [1, 2], [1, 0]])
        >>> certificate = certify_deployed(votes, membership, n_labels=3)
        >>> certificate.prediction.tolist(), certificate.radius.tolist()
        ([1, 0], [2, 0])

    Reference: Levine and Feizi, Deep Partition Aggregation, ICLR 2021 (disjoint groups); the general case is a weighted
    maximum coverage.
    """
    table = check_votes(votes, n_labels)
    members = check_membership(membership, len(table))
    if bound not in BOUNDS:
        raise ConfigError(f"bound={bound!r} is unknown; choose one of {', '.join(BOUNDS)}")
    columns, where = np.unique(table, axis=1, return_inverse=True)
    label, lead = winners(tally(columns, n_labels))
    reached = _degree_radii(columns, members, label, lead)
    told: tuple[str, ...] = ASSUMPTIONS
    if bound != "degree" and columns.shape[1]:
        refiner = _Refiner(Coverage.of(members), members.shape[1], exact=bound == "exact")
        for i in range(columns.shape[1]):
            reached[i] = refiner.refine(columns[:, i].astype(np.int64), int(label[i]), lead[i], int(reached[i]))
        told = (*told, *refiner.told)
    where = where.ravel()
    return Certificate(
        kind="deployed",
        prediction=label[where],
        radius=reached[where],
        alpha=0.0,
        method=f"{bound} bound, n={members.shape[1]}, N={len(table)}",
        assumptions=told,
        margin=lead.min(axis=1)[where],
    )


def check_membership(membership: ArrayLike, n_models: int) -> NDArray[np.bool_]:
    """Membership `[N, n]` as bool, or a `ConfigError`."""
    members = np.asarray(membership)
    if members.ndim != 2 or len(members) != n_models or members.shape[1] < 1:
        raise ConfigError(f"membership has shape {members.shape}; needed is [N, n] with N={n_models} rows, as in votes")
    if members.dtype != bool and not np.isin(members, (0, 1)).all():
        raise ConfigError(f"membership has type {members.dtype} and entries other than 0 and 1; needed is bool")
    return members.astype(bool)


def _degree_radii(columns: Integers, members: NDArray[np.bool_], label: Integers, lead: Integers) -> Integers:
    """The degree bound for every input, in chunks; rivals that cannot bind are skipped."""
    n = members.shape[1]
    degrees = members.sum(axis=0)
    members = members[:, degrees > 0]  # of many training examples, few may ever be selected; the others score nothing
    small = np.int16 if 2 * degrees.max(initial=0) < 2**15 else np.int64
    reach: Any = sparse.csr_array(members.T.astype(small))
    radius = np.empty(columns.shape[1], dtype=np.int64)
    step = max(1, CHUNK_CELLS // max(members.shape))
    for start in range(0, columns.shape[1], step):
        part = slice(start, start + step)
        radius[part] = _degree_chunk(columns[:, part], reach, label[part], lead[part])
    return np.where(radius == members.shape[1], n, radius)


def _degree_chunk(columns: Integers, reach: Any, label: Integers, lead: Integers) -> Integers:
    by_lead = np.argsort(lead, axis=1, kind="stable")
    # The score against any rival is this one minus the client's models that vote for the rival.
    ceiling = reach @ (1 + (columns == label)).astype(reach.dtype)
    radius = np.full(len(label), reach.shape[0], dtype=np.int64)
    active = np.arange(len(label))
    for position in range(lead.shape[1] - 1):
        rival = by_lead[active, position]
        to_rival = reach @ (columns[:, active] == rival).astype(reach.dtype)
        allowed = lead[active, rival]
        found = _clients_within(ceiling[:, active] - to_rival, allowed)
        radius[active] = np.minimum(radius[active], found)
        if position + 2 < lead.shape[1]:
            following = lead[active, by_lead[active, position + 1]]
            binding = _top_sums(ceiling[:, active], radius[active]) > following
            active = active[binding]
    return radius


def _clients_within(scores: Integers, allowed: Integers) -> Integers:
    """Per column: the largest m such that the m largest scores add up to at most `allowed`."""
    n = len(scores)
    shown = min(n, 64)
    while True:
        top = np.partition(scores, n - shown, axis=0)[n - shown :]
        sums = np.cumsum(np.sort(top, axis=0)[::-1], axis=0, dtype=np.int64)
        within: Integers = (sums <= allowed).sum(axis=0, dtype=np.int64)
        if shown == n or (within < shown).all():
            return within
        shown = min(n, 4 * shown)


def _top_sums(scores: Integers, m: Integers) -> Integers:
    """Per column: the sum of its m largest scores, with an m of its own."""
    n, largest = len(scores), int(m.max(initial=0))
    if largest == 0:
        return np.zeros(scores.shape[1], dtype=np.int64)
    top = np.sort(np.partition(scores, n - largest, axis=0)[n - largest :], axis=0)[::-1]
    sums = np.concatenate([np.zeros((1, scores.shape[1]), dtype=np.int64), np.cumsum(top, axis=0, dtype=np.int64)])
    picked: Integers = sums[m, np.arange(scores.shape[1])]
    return picked


@dataclass
class _Refiner:
    """Raises the degree radius of one input at a time as far as the stronger bounds carry it."""

    coverage: Coverage
    n: int
    exact: bool
    solver_trusted: int = 0
    undecided: int = 0
    shares: dict[int, Integers] = field(default_factory=dict)

    @property
    def told(self) -> tuple[str, ...]:
        """What the results rest on beyond integer arithmetic."""
        notes = []
        if self.solver_trusted:
            notes.append(
                f"the dual bound of HiGHS, a floating-point solver, is right to within {MILP_TOLERANCE}: "
                f"needed for {self.solver_trusted} decisions"
            )
        if self.undecided:
            notes.append(
                f"{self.undecided} decisions hit a time limit, so those radii may be too small, never too large"
            )
        return tuple(notes)

    def refine(self, column: Integers, label: int, lead: Integers, radius: int) -> int:
        """The largest m that can be shown to hold for every rival, starting from a radius that does hold."""
        rivals = [
            (_weights(column, label, rival), int(lead[rival]))
            for rival in map(int, np.argsort(lead, kind="stable"))
            if rival != label
        ]
        beyond = radius + 1
        while beyond <= self.n and not any(self._attacked(weights, allowed, beyond) for weights, allowed in rivals):
            beyond += 1
        for m in range(beyond - 1, radius, -1):
            if all(self._bounded(weights, allowed, m) for weights, allowed in rivals):
                radius = m
                break
        if self.exact:
            while radius + 1 < beyond and all(
                self._searched(weights, allowed, radius + 1) for weights, allowed in rivals
            ):
                radius += 1
        return radius

    def _attacked(self, weights: Integers, allowed: int, m: int) -> bool:
        if top_sum(self.coverage.gains(weights), m) <= allowed:
            return False
        return self.coverage.greedy(weights, m)[1][-1] > allowed

    def _bounded(self, weights: Integers, allowed: int, m: int) -> bool:
        coverage = self.coverage
        if top_sum(coverage.gains(weights), m) <= allowed or min(coverage.greedy(weights, m)[2]) <= allowed:
            return True
        if m in self.shares and coverage.dual_bound(weights, self.shares[m], m) <= allowed:
            return True  # what was best for another input is often good enough for this one
        self.shares[m] = coverage.dual_shares(weights, m)
        return coverage.dual_bound(weights, self.shares[m], m) <= allowed

    def _searched(self, weights: Integers, allowed: int, m: int) -> bool:
        return self._bounded(weights, allowed, m) or self._search(weights, allowed, m)

    def _search(self, weights: Integers, allowed: int, m: int) -> bool:
        reached = self.coverage.reaches(weights, m, allowed + 1, limit=SEARCH_NODES)
        if reached is not None:
            return not reached
        if self.coverage.milp_bound(weights, m, MILP_SECONDS) < allowed + 1 - MILP_TOLERANCE:
            self.solver_trusted += 1
            return True
        self.undecided += 1
        return False


def _weights(column: Integers, label: int, rival: int) -> Integers:
    """How far each model can move the race between label and rival: 2, 1 or 0 votes."""
    weights: Integers = 1 + (column == label).astype(np.int64) - (column == rival).astype(np.int64)
    return weights
