"""Confidence bounds on a vote share, exact and rounded to the safe side.

Only bounds with a finite-sample guarantee live here: Clopper-Pearson for independent draws, its hypergeometric
twin for draws without repetition, and the sign test that the winner is the true winner. SciPy finds the number,
integers prove it: a bound is returned only after its binomial tail was shown to be small enough.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache
from typing import overload

import numpy as np
from numpy.typing import NDArray
from scipy import special

from holdfast.certification.exact import binomial_tail
from holdfast.certification.tally import Number, check_alpha, check_integer
from holdfast.types import ConfigError

SMALLEST_LEVEL = Fraction(1, 10**300)
EXACT_VOTES = 10_000
HALF = Fraction(1, 2)


@overload
def clopper_pearson_lower(count: int, trials: int, alpha: Number) -> float: ...
@overload
def clopper_pearson_lower(count: NDArray[np.integer], trials: int, alpha: Number) -> NDArray[np.float64]: ...
def clopper_pearson_lower(count: int | NDArray[np.integer], trials: int, alpha: Number) -> float | NDArray[np.float64]:
    """Lower confidence bound on a probability from `count` successes in `trials` independent trials.

    The largest p with Pr(Bin(trials, p) >= count) <= alpha; 0 for count = 0. With probability at least 1 - alpha the
    true probability is not below it.

    Args:
        count: successes, one integer or an array of any shape.
        trials: N >= 1.
        alpha: failure probability, float or Fraction, in (0, 1).

    Returns:
        float64 of the shape of `count`; never above the exact bound, below it by a few units in the last place.

    Raises:
        ConfigError: if a count is no integer in 0..trials, or alpha is outside (0, 1).

    Example:
        >>> round(clopper_pearson_lower(500, 500, 1e-7), 15)
        0.968277856261249
        >>> clopper_pearson_lower(np.array([0, 60]), 100, 0.001).round(4).tolist()
        [0.0, 0.441]

    Reference: Clopper and Pearson, Biometrika 1934.
    """
    counts, level = _checked(count, trials, alpha)
    values, where = np.unique(counts, return_inverse=True)
    bounds = np.array([_lower(int(value), int(trials), level) for value in values], dtype=np.float64)
    result: NDArray[np.float64] = bounds[where.reshape(counts.shape)]
    return float(result) if result.ndim == 0 else result


@overload
def clopper_pearson_upper(count: int, trials: int, alpha: Number) -> float: ...
@overload
def clopper_pearson_upper(count: NDArray[np.integer], trials: int, alpha: Number) -> NDArray[np.float64]: ...
def clopper_pearson_upper(count: int | NDArray[np.integer], trials: int, alpha: Number) -> float | NDArray[np.float64]:
    """Upper confidence bound on a probability: the smallest p with Pr(Bin(trials, p) <= count) <= alpha.

    It is 1 - the lower bound for `trials - count`, rounded up; 1 for count = trials. Arguments, errors and reference
    as for `clopper_pearson_lower`; never below the exact bound.

    Example:
        >>> round(clopper_pearson_upper(3, 1000, 0.001), 12)
        0.012996697148
    """
    counts, level = _checked(count, trials, alpha)
    mirrored: NDArray[np.float64] = np.asarray(clopper_pearson_lower(int(trials) - counts, trials, level))
    # 1 - p is exact for p >= 1/2 and otherwise off by at most half a unit in the last place, which the step covers.
    result = np.where(mirrored == 0, 1.0, np.minimum(np.nextafter(1 - mirrored, 2), 1.0))
    return float(result) if result.ndim == 0 else result


def hypergeometric_lower(count: int, draws: int, population: int, alpha: Number) -> int:
    """Lower confidence bound on how many of `population` items are marked, from draws without repetition.

    The smallest K with Pr(Hyp(population, K, draws) >= count) > alpha, in integers. With probability at least
    1 - alpha at least K items are marked. Equals `count` when everything was drawn.

    Raises:
        ConfigError: if count > draws, draws > population, or alpha is outside (0, 1).

    Example:
        >>> hypergeometric_lower(200, 200, 435, Fraction(1, 1000))
        424
    """
    population = check_integer("population", population, 1)
    draws = check_integer("draws", draws, 1, population)
    count = check_integer("count", count, 0, draws)
    level = check_alpha(alpha)
    low, high = count, population - (draws - count)
    while low < high:
        middle = (low + high) // 2
        if hypergeometric_tail_above(count, draws, population, middle, level):
            high = middle
        else:
            low = middle + 1
    return low


def hypergeometric_tail_above(count: int, draws: int, population: int, marked: int, level: Fraction) -> bool:
    """Whether Pr(Hyp(population, marked, draws) >= count) > level, in integers."""
    first = max(count, draws - (population - marked))
    if first > min(draws, marked):
        return False
    ways = math.comb(marked, first) * math.comb(population - marked, draws - first)
    total, limit = 0, level.numerator * math.comb(population, draws)
    for hits in range(first, min(draws, marked) + 1):
        total += ways
        if total * level.denominator > limit:
            return True
        ways = ways * (marked - hits) * (draws - hits) // ((hits + 1) * (population - marked - draws + hits + 1))
    return False


def winner_pvalue(n1: int, n2: int) -> float:
    """Two-sided sign test that the label with n1 votes is truly ahead of the one with n2 <= n1 votes.

    p = min(1, 2 Pr(Bin(n1 + n2, 1/2) >= n1)). A winner accepted at p <= gamma is the wrong one with probability at most
    gamma, whatever the number of labels, with no correction for having been selected.

    Returns:
        the exact value rounded to the nearest float, or for more than 10,000 votes to one of its two neighbors; 0.0
        where it is below the smallest float.

    Raises:
        ConfigError: if a count is negative.

    Example:
        >>> winner_pvalue(5, 0), winner_pvalue(5, 5)
        (0.0625, 1.0)

    Reference: Hung and Fithian, Rank verification for exponential families, Annals of Statistics 2019.
    """
    n1, n2 = check_integer("n1", n1, 0), check_integer("n2", n2, 0)
    first, votes = max(n1, n2), n1 + n2
    if votes > EXACT_VOTES:
        return min(1.0, float(2 * binomial_tail(first, votes, HALF)))
    ways = total = math.comb(votes, first)
    for count in range(first, votes):
        ways = ways * (votes - count) // (count + 1)
        total += ways
    return min(1.0, float(Fraction(2 * total, 1 << votes)))


@lru_cache(maxsize=1 << 16)
def coin_threshold(trials: int, level: Fraction) -> int:
    """The smallest count with Pr(Bin(trials, 1/2) >= count) <= level, proven; trials + 1 if there is none."""

    def rare(count: int) -> bool:
        return binomial_tail(count, trials, HALF) <= level

    # Pr(>= count) = Pr(<= trials - count), and the lower quantile is accurate however small the level is.
    guess = float(special.bdtrik(float(level), trials, 0.5))
    count = trials - math.floor(guess) if 0 <= guess <= trials else trials + 1
    if not 1e-6 < guess % 1 < 1 - 1e-6:
        while count > 0 and rare(count - 1):
            count -= 1
    while not rare(count):
        count += 1
    return count


def _checked(count: object, trials: int, alpha: Number) -> tuple[NDArray[np.int64], Fraction]:
    trials = check_integer("trials", trials, 1)
    counts = np.asarray(count)
    if not np.issubdtype(counts.dtype, np.integer):
        raise ConfigError(f"count has type {counts.dtype}; it must be an integer or an array of integers")
    if counts.size and (counts.min() < 0 or counts.max() > trials):
        raise ConfigError(f"count lies in {counts.min()}..{counts.max()}; it must lie in 0..trials={trials}")
    level = check_alpha(alpha)
    if level < SMALLEST_LEVEL:
        raise ConfigError(f"alpha={float(alpha)!r} (per bound) is below 1e-300, where floating point ends")
    return counts.astype(np.int64), level


@lru_cache(maxsize=1 << 16)
def _lower(count: int, trials: int, level: Fraction) -> float:
    if count == 0:
        return 0.0
    guess = float(special.betaincinv(count, trials - count + 1, float(level)))
    step = 2.0**-52
    while step < 1:
        p = guess * (1 - step)
        if p < 1 and binomial_tail(count, trials, Fraction(p)) <= level:
            return p
        step *= 2
    return 0.0
