"""Certificates of the ideal ensemble: the vote over ALL selections of clients, estimated from the models trained.

Two steps. Confidence bounds on the winner's and the rivals' shares of that vote come from the counted votes
(bounds.py); then the selection theorem turns the gap between them into a radius (selection.py). The methods differ
only in how they spend the failure probability alpha:

| method | winner, at least | rivals, at most | winner is the true winner |
|---|---|---|---|
| `split` | level 0.9 alpha | 1 - winner's bound | coin test at 0.1 alpha |
| `half-alpha` | alpha / 2 | 1 - winner's bound | implied |
| `rank-verified` | 0.45 alpha | runner-up's bound at 0.45 alpha | sign test at 0.1 alpha |
| `bonferroni` | alpha / (2 L) | runner-up's bound at alpha / 4 | implied |
| `quarter` | alpha / 4 | runner-up's bound at alpha / 4 | implied |
| `as-published-ensemble` | alpha | 1 - winner's bound | not covered: fails with up to 2 alpha |
| `as-published-selection` | alpha / 2 | runner-up's bound at alpha / 2 | not proven: at most 2 alpha |

The runner-up's bound needs no correction for having been selected: it rises with the count, so it is at least the
bound of the true runner-up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike, NDArray

from holdfast.certification.bounds import (
    clopper_pearson_lower,
    clopper_pearson_upper,
    coin_threshold,
    hypergeometric_lower,
    hypergeometric_tail_above,
)
from holdfast.certification.certificate import ABSTAIN, Certificate
from holdfast.certification.selection import POISONINGS, radii, radius, sharpened_gap
from holdfast.certification.tally import Number, check_alpha, check_counts, winners
from holdfast.types import ConfigError, ThreatModelError

INVERSE_POISONING = {"P1": "P2", "P2": "P1", "P3": "P3", "P4": "P5", "P5": "P4", "P6": "P6"}


@dataclass(frozen=True)
class _Method:
    """How alpha is spent: shares of it for the winner's bound, the runner-up's bound and the test of the winner."""

    low: Fraction
    up: Fraction | None
    test: Fraction | None
    proven: bool = True


METHODS = {
    "split": _Method(Fraction(9, 10), None, Fraction(1, 10)),
    "half-alpha": _Method(Fraction(1, 2), None, None),
    "rank-verified": _Method(Fraction(9, 20), Fraction(9, 20), Fraction(1, 10)),
    "bonferroni": _Method(Fraction(1, 2), Fraction(1, 4), None),
    "quarter": _Method(Fraction(1, 4), Fraction(1, 4), None),
    "as-published-ensemble": _Method(Fraction(1), None, None, proven=False),
    "as-published-selection": _Method(Fraction(1, 2), Fraction(1, 2), None, proven=False),
}
DISTINCT_METHODS = ("split", "bonferroni")


def certify_ideal(
    counts: ArrayLike,
    *,
    n: int,
    k: int | Fraction,
    alpha: Number,
    simultaneous: bool = True,
    method: str = "auto",
    scheme: str = "without",
    poisoning: str = "P3",
    perspective: str = "clean",
    distinct: bool = False,
    exhaustive: bool = False,
    kind: str = "ideal",
) -> Certificate:
    """Certify the vote over all selections of k of n clients, from the votes of N models.

    Guarantee: with probability at least 1 - alpha over the draw of the N selections, for every input whose radius is
    not `ABSTAIN`, the vote over ALL selections gives the certified label and still gives it after any `radius`
    poisoned items of the given kind. It is a promise about that ideal vote, not about the N models that answer.

    Failure probability: alpha, for all inputs together (`simultaneous`) or for each input by itself; 0 if `exhaustive`.
    The two `as-published-...` methods repeat what the papers do; up to twice that is all that is proven for them.

    Assumptions: the N selections are independent draws (or distinct ones, or all); a model depends on its selection
    only; the inputs were declared before the votes were seen. Certifying more inputs later needs an alpha of its own.

    Args:
        counts: `[T, L]` integers, votes per label; the same sum N for every input.
        n: clients (or examples) that can be selected.
        k: clients per selection; for `binomial` the expected number p n, which may be a Fraction.
        alpha: failure probability, float or Fraction in (0, 1); not used if `exhaustive`.
        simultaneous: divide alpha by the T inputs (union bound).
        method: a key of `METHODS`, or `"auto"`: rank-verified for three or more labels, split for two.
        scheme: `"without"`, `"with"` or `"binomial"`: how selections are drawn (selection.py).
        poisoning: `"P1"` to `"P6"`: what attackers may do; P3 is "rho of the n clients are malicious".
        perspective: `"clean"`: the votes are from before the attack. `"observed"`: they may already be attacked, n is
            the observed number, and the promise is that the clean vote had the same winner.
        distinct: the N selections are distinct, drawn without repetition from all C(n, k): hypergeometric bounds.
        exhaustive: the N = C(n, k) selections are all there are: exact, no failure probability.
        kind: `"ideal"` for clients or `"data"` for training examples; only names the certificate.

    Returns:
        a `Certificate` whose margin is the gap between the two bounds.

    Raises:
        ConfigError: for an argument out of range or counts that are no vote counts.
        ThreatModelError: for a method that is not proven for distinct selections, or a wrong number of selections.

    Cost: every distinct pair of counts is computed once; 10,000 inputs take a fraction of a second.

    Example:
        >>> certificate = certify_ideal([[500, 0], [240, 260]], n=1000, k=10, alpha=0.001)
        >>> certificate.prediction.tolist(), certificate.radius.tolist()
        ([0, -1], [63, -1])

    Reference: Cao, Jia and Gong, AAAI 2021 (Algorithm 2); Chen et al. (Algorithm 1); Hung and Fithian 2019.
    """
    votes = check_counts(counts)
    models = int(votes[0].sum()) if len(votes) else 1
    if perspective not in ("clean", "observed"):
        raise ConfigError(f"perspective={perspective!r} must be 'clean' or 'observed'")
    if poisoning not in POISONINGS:
        raise ConfigError(f"poisoning={poisoning!r} is not a kind of poisoning; choose one of {', '.join(POISONINGS)}")
    attack = poisoning if perspective == "clean" else INVERSE_POISONING[poisoning]
    radius(scheme, attack, n, k, 0)  # refuses a scheme, n or k out of range, also where there is nothing to certify
    told = _assumptions(models, n, scheme, poisoning, perspective)
    population = None
    if exhaustive or distinct:
        if scheme != "without":
            raise ThreatModelError(
                f"scheme={scheme!r} has no finite set of selections; only 'without' can be exhausted"
            )
        population = math.comb(n, int(k))
        if models > population or (exhaustive and models != population):
            raise ThreatModelError(f"counts hold N={models} votes, but there are {population} selections of {k} of {n}")
    if exhaustive:
        return _certify_exhaustive(votes, n, int(k), attack, told, kind)
    level = check_alpha(alpha) / (max(len(votes), 1) if simultaneous else 1)
    name = _resolve(method, votes.shape[1], distinct)
    bounded = _Bounded.of(votes, METHODS[name], level, population)
    reached = _radii(bounded, name, scheme, attack, n, k)
    return Certificate(
        kind=kind,
        prediction=np.where(reached >= 0, np.argmax(votes, axis=1), ABSTAIN),
        radius=reached,
        alpha=float(alpha),
        method=_describe(name, scheme, poisoning, n, k, models, simultaneous),
        assumptions=(*told, *_sampling_assumptions(name, distinct, simultaneous)),
        margin=bounded.gaps[bounded.where],
    )


@dataclass(frozen=True, eq=False)
class _Bounded:
    """Confidence bounds, once per distinct pair of counts: `where` maps inputs `[T]` to `pairs [U, 2]`.

    A bound depends on one count: `low` on the winner's, `up` on the runner-up's (None if it is not looked at).
    """

    pairs: NDArray[np.int64]
    where: NDArray[np.intp]
    low: dict[int, Fraction]
    up: dict[int, Fraction] | None
    accepted: NDArray[np.bool_]

    @classmethod
    def of(cls, votes: NDArray[np.int64], method: _Method, level: Fraction, population: int | None) -> _Bounded:
        trials = int(votes[0].sum()) if len(votes) else 1
        top_two = -np.partition(-votes, 1, axis=1)[:, :2]
        if method.up is None:
            top_two[:, 1] = 0  # one pair per count of the winner
        codes, where = np.unique(top_two[:, 0] * (trials + 1) + top_two[:, 1], return_inverse=True)
        pairs = np.stack(np.divmod(codes, trials + 1), axis=1)
        low_level = level * method.low
        if method is METHODS["bonferroni"]:
            low_level /= votes.shape[1]
        low = _lower_bounds(pairs[:, 0], trials, low_level, population)
        up = None if method.up is None else _upper_bounds(pairs[:, 1], trials, level * method.up, population)
        accepted = np.ones(len(pairs), dtype=bool)
        if method.test is not None:
            test = level * method.test
            for i, (first, second) in enumerate(pairs.tolist()):
                accepted[i] = _winner_accepted(first, second, trials, test, method.up is not None, population)
        return cls(pairs, where.ravel(), low, up, accepted)

    def bounds(self, i: int) -> tuple[Fraction, Fraction]:
        """The winner's lower and the rivals' upper bound for one pair, exactly."""
        first, second = self.pairs[i].tolist()
        low = self.low[first]
        return low, 1 - low if self.up is None else min(self.up[second], 1 - low)

    @property
    def gaps(self) -> NDArray[np.float64]:
        """`[U]`: lower minus upper bound, in floats."""
        low = np.array([float(self.low[first]) for first in self.pairs[:, 0].tolist()])
        if self.up is None:
            return 2 * low - 1
        up = np.array([float(self.up[second]) for second in self.pairs[:, 1].tolist()])
        gaps: NDArray[np.float64] = low - np.minimum(up, 1 - low)
        return gaps


def _lower_bounds(
    counts: NDArray[np.int64], trials: int, level: Fraction, population: int | None
) -> dict[int, Fraction]:
    distinct = np.unique(counts)
    if population is None:
        found = clopper_pearson_lower(distinct, trials, level).tolist()
        return {count: Fraction(bound) for count, bound in zip(distinct.tolist(), found, strict=True)}
    return {c: Fraction(hypergeometric_lower(c, trials, population, level), population) for c in distinct.tolist()}


def _upper_bounds(
    counts: NDArray[np.int64], trials: int, level: Fraction, population: int | None
) -> dict[int, Fraction]:
    if population is None:
        distinct = np.unique(counts)
        found = clopper_pearson_upper(distinct, trials, level).tolist()
        return {count: Fraction(bound) for count, bound in zip(distinct.tolist(), found, strict=True)}
    mirrored = _lower_bounds(trials - counts, trials, level, population)
    return {trials - count: 1 - bound for count, bound in mirrored.items()}


def _winner_accepted(
    first: int, second: int, trials: int, level: Fraction, against_runner_up: bool, population: int | None
) -> bool:
    """The sign test against the runner-up, or the coin test that no label of share at most 1/2 got so many votes."""
    if population is not None:
        return not hypergeometric_tail_above(first, trials, population, population // 2, level)
    if against_runner_up:
        return first >= coin_threshold(first + second, level / 2)
    return first >= coin_threshold(trials, level)


def _radii(bounded: _Bounded, name: str, scheme: str, attack: str, n: int, k: int | Fraction) -> NDArray[np.int64]:
    def exact_gap(i: int) -> Fraction:
        low, up = bounded.bounds(i)
        return sharpened_gap(low, up, n, int(k), rivals=None, rounding=True) if rounding else low - up

    rounding = name == "as-published-ensemble" and scheme == "without" and attack in ("P3", "P4", "P5", "P6")
    gaps = bounded.gaps
    if rounding:
        gaps = np.array([float(exact_gap(i)) for i in range(len(gaps))])
    return np.where(bounded.accepted, radii(scheme, attack, n, k, gaps, exact_gap), ABSTAIN)[bounded.where]


def _certify_exhaustive(
    votes: NDArray[np.int64], n: int, k: int, attack: str, told: tuple[str, ...], kind: str
) -> Certificate:
    """All selections are known: y survives iff N_y - N_z - [z < y] >= C(n, k) delta for every rival z."""
    label, lead = winners(votes)
    margin = lead.min(axis=1)
    population = math.comb(n, k)
    values, where = np.unique(margin, return_inverse=True)
    reached = [radius("without", attack, n, k, Fraction(int(value), population), strict=False) for value in values]
    return Certificate(
        kind=kind,
        prediction=label,
        radius=np.array(reached, dtype=np.int64)[where.ravel()],
        alpha=0.0,
        method=f"exhaustive, {attack}, n={n}, k={k}, N={population}",
        assumptions=(*told, "the votes are those of all selections, so nothing is estimated"),
        margin=margin,
    )


def _resolve(method: str, n_labels: int, distinct: bool) -> str:
    if method == "auto":
        return "split" if n_labels == 2 else "bonferroni" if distinct else "rank-verified"
    if method not in METHODS:
        raise ConfigError(f"method={method!r} is unknown; choose one of auto, {', '.join(METHODS)}")
    if distinct and method not in DISTINCT_METHODS:
        raise ThreatModelError(
            f"method={method!r} is proven for independent selections only; "
            f"for distinct ones choose {' or '.join(DISTINCT_METHODS)}"
        )
    return method


def _describe(
    name: str, scheme: str, poisoning: str, n: int, k: int | Fraction, models: int, simultaneous: bool
) -> str:
    drawn = "binomial selection" if scheme == "binomial" else f"selection {scheme} replacement"
    size = f"p={float(k / n):g}" if isinstance(k, Fraction) else f"k={k}"
    scope = "for all inputs together" if simultaneous else "for each input by itself"
    return f"{name}, {drawn}, {poisoning}, n={n}, {size}, N={models}, alpha {scope}"


def _assumptions(models: int, n: int, scheme: str, poisoning: str, perspective: str) -> tuple[str, ...]:
    told = [
        "the promise is about the vote over all selections, not about the models that answer queries",
        "each model depends on its own selection only: own seed, no shared state, statistics or early stopping",
        f"attackers act through {POISONINGS[poisoning]}, among n={n}",
    ]
    if scheme == "binomial":
        told.append(
            "the probability p of a selection was fixed before the data were seen and does not follow their number"
        )
    if perspective == "observed":
        told.append("the votes may be from under attack: the promise is that the clean vote had the same winner")
    return tuple(told)


def _sampling_assumptions(name: str, distinct: bool, simultaneous: bool) -> tuple[str, ...]:
    drawn = "distinct, drawn without repetition" if distinct else "independent"
    told = [f"the selections are {drawn}, secret from the attackers and not chosen after looking at results"]
    if simultaneous:
        told.append("alpha covers the inputs certified here; further inputs need an alpha of their own")
    else:
        told.append("alpha is per input: of d inputs, alpha * d false promises are to be expected")
    if not METHODS[name].proven:
        told.append("as published: the true failure probability may reach twice alpha")
    if name == "as-published-ensemble":
        told.append("training is deterministic given the selected clients (needed for rounding)")
    return tuple(told)
