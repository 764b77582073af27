"""How far poisoning can move the vote over all selections: one theorem for three schemes and six attacks.

Let T(x) be the total selection weight of x items, in units in which the n original items weigh 1:

| scheme | T(x) |
|---|---|
| `without`: k of n items, no repetition | C(x, k) / C(n, k) |
| `with`: k of n items, with repetition | (x / n)^k |
| `binomial`: every item with probability p = k / n, fixed beforehand | (1 - p)^(n - x) |

Theorem. If poisoning leaves o original items among m, then T(m) (p'_y - p'_j) >= (p_y - p_j) - delta with
delta = 1 + T(m) - 2 T(o): in weight units y keeps at least p_y - (1 - T(o)), j has at most p_j + T(m) - T(o).
So y still wins whenever p_y - p_j > delta for the worst (m, o) that rho poisoned items can reach:

| poisoning by rho items | effective delta(rho) |
|---|---|
| `P1` insert | T(n + rho) - 1 |
| `P2` delete | 1 - T(n - rho) |
| `P3` modify, `P4` insert or modify, `P5` delete or modify, `P6` all three | 2 - 2 T(n - rho) |

All comparisons are in integers. References: Chen et al., A Framework of Randomized Selection Based Certified Defenses
Against Data Poisoning Attacks (Theorem 1 and Corollaries 1-3, corrected); Cao, Jia and Gong, AAAI 2021 (Theorem 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from holdfast.certification.exact import compare_power
from holdfast.certification.tally import Number, check_fraction, check_integer
from holdfast.types import ConfigError, ThreatModelError

SCHEMES = ("without", "with", "binomial")
POISONINGS = {
    "P1": "items inserted",
    "P2": "items deleted",
    "P3": "items modified",
    "P4": "items inserted or modified",
    "P5": "items deleted or modified",
    "P6": "items inserted, deleted or modified",
}
# Floats only propose; a gap this close to a threshold is decided in integers.
DOUBT = 1e-9
# Beyond this many factors C(n, k) has thousands of digits and rounding to its multiples changes nothing.
MAX_ROUNDED_K = 2000


def delta(scheme: str, poisoning: str, n: int, k: int | Fraction, rho: int) -> Fraction:
    """The gap p_y - p_j that rho poisoned items can close, exactly (see the table in the module's docstring).

    Args:
        scheme: `"without"`, `"with"` or `"binomial"`.
        poisoning: `"P1"` to `"P6"`.
        n: items before poisoning.
        k: items per selection; at most n except for `with`. For `binomial` the expected number p n, which may be a
            Fraction: p, not k, is what was fixed beforehand.
        rho: poisoned items; at most `max_rho(...)`.

    Raises:
        ConfigError: for an unknown scheme or poisoning, or a number out of range.
        ThreatModelError: if rho poisoned items could leave a data set that nothing can be selected from.

    Cost: the fraction is written out, with some min(k, rho) log2(n) bits (`with`: k, `binomial`: rho), so a tenth of a
    second for 10^5 of them. `radius` never needs it.

    Example:
        >>> delta("without", "P1", 4, 2, 1), delta("without", "P3", 1000, 10, 0)
        (Fraction(2, 3), Fraction(0, 1))
    """
    n, k = _check(scheme, poisoning, n, k)
    rho = check_integer("rho", rho, 0)
    limit = max_rho(scheme, poisoning, n, k)
    if limit is not None and rho > limit:
        raise ThreatModelError(f"rho={rho} {POISONINGS[poisoning]} exceed what n={n}, k={k} allow: at most {limit}")
    if poisoning == "P1":
        return _weight(scheme, n, k, n + rho) - 1
    share = 1 - _weight(scheme, n, k, n - rho)
    return share if poisoning == "P2" else 2 * share


def radius(scheme: str, poisoning: str, n: int, k: int | Fraction, gap: Number, *, strict: bool = True) -> int:
    """The largest rho with delta(rho) < gap (`strict`) or <= gap, decided in integers.

    delta never falls as rho grows, so any search is safe; floats only say where to begin. n up to 10^6 and k up to
    10^5 take milliseconds.

    Args:
        scheme: see `delta`; so are `poisoning`, `n` and `k`.
        poisoning: see `delta`.
        n: see `delta`.
        k: see `delta`.
        gap: p_y - p_j, at most 1; a float stands for exactly the number it holds.
        strict: keep True unless y precedes every rival in the tie order, where equality is enough.

    Returns:
        the radius, or -1 if not even rho = 0 is certified.

    Raises:
        ConfigError: for an unknown scheme or poisoning, or a number out of range.

    Example:
        >>> radius("without", "P3", 1000, 10, 1.0), radius("without", "P1", 6, 2, Fraction(2, 5))
        (66, 0)
    """
    n, k = _check(scheme, poisoning, n, k)
    exact = check_fraction("gap", gap)
    if exact > 1:
        raise ConfigError(f"gap={gap!r} must be at most 1; it is a difference of two probabilities")
    if exact < 0 or (strict and exact == 0):
        return -1
    limit = max_rho(scheme, poisoning, n, k)
    if poisoning == "P2" and exact == 1 and limit is not None:
        # delta < 1 as long as anything can be selected: the product below would have n factors and prove nothing new.
        return limit
    certified = _certifier(scheme, poisoning, n, k, exact, strict)
    return _largest(certified, _guess(scheme, poisoning, n, k, exact, limit), limit)


def _largest(certified: Callable[[int], bool], guess: int, limit: int | None) -> int:
    """The last rho of 0..limit that is certified (0 always is): outwards from a guess, then bisection."""
    low, high, step = guess, guess + 1, 1
    if guess == 0 or certified(guess):
        while (limit is None or high <= limit) and certified(high):
            low, high, step = high, high + step, 2 * step
        if limit is not None:
            high = min(high, limit + 1)
    else:
        low, high = guess - 1, guess
        while low > 0 and not certified(low):
            low, high, step = max(low - step, 0), low, 2 * step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if certified(middle) else (low, middle)
    return low


def radii(
    scheme: str,
    poisoning: str,
    n: int,
    k: int | Fraction,
    gaps: NDArray[np.float64],
    exact_gap: Callable[[int], Fraction],
    *,
    strict: bool = True,
) -> NDArray[np.int64]:
    """`radius` of many gaps at once: one table of floats proposes, integers decide wherever floats could err.

    Args:
        scheme: see `delta`; so are `poisoning`, `n` and `k`.
        poisoning: see `delta`.
        n: see `delta`.
        k: see `delta`.
        gaps: `[U]` approximate gaps, off by less than 1e-12.
        exact_gap: the exact gap of entry i.
        strict: see `radius`.

    Returns:
        `[U]` int64.
    """
    if not len(gaps):
        return np.empty(0, dtype=np.int64)
    largest = radius(scheme, poisoning, n, k, exact_gap(int(np.argmax(gaps))), strict=strict)
    table = _float_deltas(scheme, poisoning, n, k, max(largest, 0) + 1)
    found = np.searchsorted(table, gaps, side="left") - 1
    below = np.abs(table[np.clip(found, 0, None)] - gaps)
    above = np.abs(table[np.clip(found + 1, None, len(table) - 1)] - gaps)
    for i in np.flatnonzero(np.minimum(below, above) <= DOUBT):
        found[i] = radius(scheme, poisoning, n, k, exact_gap(int(i)), strict=strict)
    return np.clip(found, -1, largest).astype(np.int64)


def certified_level(
    p_low: Number, p_up: Number, n: int, k: int, *, labels: int | None = None, rounding: bool = False
) -> int:
    """Theorem 1 of ensemble federated learning: the malicious clients that bounds on two label probabilities survive.

    The largest m in 0..n-k with p_low - p_up > 2 - 2 C(n-m, k) / C(n, k). If the probability of the winner is at least
    p_low and that of every other label at most p_up, m malicious among the n clients cannot change the vote over all
    C(n, k) selections.

    Args:
        p_low: lower bound on the winner's probability, float or Fraction.
        p_up: upper bound on every rival's; replaced by 1 - p_low where that is smaller.
        n: clients.
        k: clients per selection.
        labels: number of labels, if known: the bounds are then sharpened to p_low' = max(p_low, 1 - (L-1) p_up) and
            p_up' = min(p_up, 1 - p_low'), which makes the theorem tight (as printed it is not).
        rounding: first round p_low up and p_up down to multiples of 1 / C(n, k). Only sound if training is
            deterministic given the selected clients. No effect is lost by leaving it out for large C(n, k).

    Returns:
        m, or -1 (ABSTAIN) if not even m = 0 is certified.

    Raises:
        ConfigError: if a probability is outside [0, 1], k is outside 1..n, or labels is below 2.

    Example:
        >>> certified_level(1, 0, 30, 2)
        8
        >>> certified_level(Fraction(3, 5), Fraction(1, 5), 5, 1), certified_level(0.6, 0.2, 5, 1, labels=2)
        (0, 1)

    Reference: Cao, Jia and Gong, Provably Secure Federated Learning against Malicious Clients, AAAI 2021, eq. 5.
    """
    n, k = check_integer("n", n, 1), check_integer("k", k, 1)
    _check("without", "P3", n, k)
    low, up = check_fraction("p_low", p_low), check_fraction("p_up", p_up)
    if not 0 <= low <= 1 or not 0 <= up <= 1:
        raise ConfigError(f"p_low={p_low!r} and p_up={p_up!r} must lie in 0..1; they bound probabilities")
    rivals = None if labels is None else check_integer("labels", labels, 2) - 1
    return radius("without", "P3", n, k, sharpened_gap(low, up, n, k, rivals=rivals, rounding=rounding))


def sharpened_gap(low: Fraction, up: Fraction, n: int, k: int, *, rivals: int | None, rounding: bool) -> Fraction:
    """p_low - p_up after what `certified_level` does to them."""
    up = min(up, 1 - low)
    if rounding and min(k, n - k) <= MAX_ROUNDED_K:
        selections = math.comb(n, k)
        low = Fraction(math.ceil(low * selections), selections)
        up = Fraction(math.floor(up * selections), selections)
    if rivals is not None:
        low = max(low, 1 - rivals * up)
        up = min(up, 1 - low)
    return low - up


def max_rho(scheme: str, poisoning: str, n: int, k: int | Fraction) -> int | None:
    """The most poisoned items for which the poisoned data can still be selected from; None if unlimited (P1)."""
    if poisoning == "P1":
        return None
    if poisoning in ("P3", "P4") or scheme == "binomial":
        return n
    return n - 1 if scheme == "with" else n - int(k)


def _check(scheme: str, poisoning: str, n: int, k: int | Fraction) -> tuple[int, int | Fraction]:
    if scheme not in SCHEMES:
        raise ConfigError(f"scheme={scheme!r} is not a selection scheme; choose one of {', '.join(SCHEMES)}")
    if poisoning not in POISONINGS:
        raise ConfigError(f"poisoning={poisoning!r} is not a kind of poisoning; choose one of {', '.join(POISONINGS)}")
    n = check_integer("n", n, 1)
    if scheme == "binomial" and isinstance(k, Fraction):
        if not 0 < k < n:
            raise ConfigError(f"k={k} of n={n} items with scheme 'binomial' must lie between 0 and n, both excluded")
        return n, k
    k = check_integer("k", k, 1)
    if k > n and scheme != "with":
        raise ConfigError(f"k={k} items per selection are more than the n={n} items there are")
    if k == n and scheme == "binomial":
        raise ConfigError(f"k={k} of n={n} items with scheme 'binomial' selects everything always; choose k below n")
    return n, k


def _weight(scheme: str, n: int, k: int | Fraction, x: int) -> Fraction:
    """T(x), exactly."""
    if scheme == "binomial":
        return (1 - Fraction(k) / n) ** (n - x)
    k = int(k)
    if scheme == "with":
        return Fraction(x, n) ** k
    # C(x,k)/C(n,k) with d = |n - x| has min(k, d) factors after cancelling.
    few, many = sorted((k, abs(n - x)))
    top = max(n, x)
    if x < n:
        return Fraction(math.perm(top - many, few), math.perm(top, few)) if x >= k else Fraction(0)
    return Fraction(math.perm(top, few), math.perm(top - many, few))


def _compare_weight(scheme: str, n: int, k: int | Fraction, x: int, threshold: Fraction) -> int:
    """Sign of T(x) - threshold."""
    if scheme == "binomial":
        left, whole = (1 - Fraction(k) / n).as_integer_ratio()
        return compare_power(left, whole, n - x, threshold) if x <= n else compare_power(whole, left, x - n, threshold)
    k = int(k)
    if scheme == "with":
        return compare_power(x, n, k, threshold)
    few, many = sorted((k, abs(n - x)))
    top = max(n, x)
    small, large = (math.perm(top - many, few) if top - many >= few else 0), math.perm(top, few)
    up, down = (small, large) if x < n else (large, small)
    left, right = up * threshold.denominator, down * threshold.numerator
    return (left > right) - (left < right)


def _certifier(
    scheme: str, poisoning: str, n: int, k: int | Fraction, gap: Fraction, strict: bool
) -> Callable[[int], bool]:
    """delta(rho) < gap (or <=), as a comparison of T with a fixed number."""
    if poisoning == "P1":
        return lambda rho: _compare_weight(scheme, n, k, n + rho, 1 + gap) < (0 if strict else 1)
    threshold = 1 - (gap if poisoning == "P2" else gap / 2)
    return lambda rho: _compare_weight(scheme, n, k, n - rho, threshold) > (0 if strict else -1)


def _guess(scheme: str, poisoning: str, n: int, k: int | Fraction, gap: Fraction, limit: int | None) -> int:
    """A radius in floats, for `without` alone: there every question in integers is a product of min(k, rho) factors."""
    if scheme != "without":
        return 0
    k, sign = int(k), 1 if poisoning == "P1" else -1
    threshold = 1 + sign * (gap if poisoning in ("P1", "P2") else gap / 2)
    wanted = math.log(threshold.numerator) - math.log(threshold.denominator)

    def log_choose(x: int) -> float:
        return math.lgamma(x + 1) - math.lgamma(x - k + 1)

    whole = log_choose(n)

    def certified(rho: int) -> bool:
        x = n + sign * rho
        return x >= k and sign * (log_choose(x) - whole - wanted) < 0

    return _largest(certified, 0, n - k if limit is None else min(limit, n - k)) if n > k else 0


def _float_deltas(scheme: str, poisoning: str, n: int, k: int | Fraction, largest: int) -> NDArray[np.float64]:
    """delta(0), ..., delta(largest) in floats, off by far less than `DOUBT`."""
    rho = np.arange(largest + 1, dtype=np.float64)
    sign = 1.0 if poisoning == "P1" else -1.0
    with np.errstate(divide="ignore"):
        if scheme == "with":
            log_weight = float(k) * np.log1p(np.maximum(sign * rho / n, -1.0))
        elif scheme == "binomial":
            log_weight = -sign * rho * math.log1p(-k / n)
        else:
            x = n + rho[1:] if poisoning == "P1" else n - rho[:-1]
            steps = -sign * np.log1p(np.maximum(-float(k) / np.maximum(x, 1.0), -1.0))
            log_weight = np.concatenate(([0.0], np.cumsum(steps)))
    with np.errstate(over="ignore"):
        share = sign * np.expm1(log_weight)
    table: NDArray[np.float64] = share if poisoning in ("P1", "P2") else 2 * share
    return table
