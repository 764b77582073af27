"""Decisions in integers: is a binomial tail, or a power, above or below a given number?

Numbers are kept as 256-bit integers that are rounded in a known direction, so the answers are proofs, not
floating-point opinions, and still take microseconds where the exact fractions have millions of digits.
"""

from __future__ import annotations

import math
from fractions import Fraction

BITS = 256


def compare_power(numerator: int, denominator: int, exponent: int, threshold: Fraction) -> int:
    """Sign of (numerator / denominator) ** exponent - threshold, exactly.

    Example:
        >>> compare_power(999, 1000, 693, Fraction(1, 2)), compare_power(2, 3, 2, Fraction(4, 9))
        (-1, 0)
    """
    low = (numerator << BITS) // denominator
    high = -((-numerator << BITS) // denominator)
    power_low = power_high = 1 << BITS
    for bit in bin(exponent)[2:]:
        power_low, power_high = _scale_down(power_low * power_low), _scale_up(power_high * power_high)
        if bit == "1":
            power_low, power_high = _scale_down(power_low * low), _scale_up(power_high * high)
    limit = threshold.numerator << BITS
    if power_low * threshold.denominator > limit:
        return 1
    if power_high * threshold.denominator < limit:
        return -1
    left: int = numerator**exponent * threshold.denominator
    right: int = threshold.numerator * denominator**exponent
    return (left > right) - (left < right)


def binomial_tail(count: int, trials: int, p: Fraction) -> Fraction:
    """An upper bound on Pr(Bin(trials, p) >= count), above the true value by less than a part in 2^60.

    Tail = C(N, c) p^c q^(N-c) * (1 + r_c (1 + r_(c+1) (1 + ...))), r_i = (N - i) p / ((i + 1) q); every factor is
    rounded up, and the rest of the sum is replaced by a geometric series once it no longer matters.

    Example:
        >>> float(binomial_tail(9, 10, Fraction(1, 2))) == 11 / 1024
        True
    """
    if count <= 0 or p >= 1:
        return Fraction(1)
    if p <= 0 or count > trials:
        return Fraction(0)
    hit, miss = p.numerator, p.denominator - p.numerator
    mantissa, exponent = _round_up(math.comb(trials, count), 0)
    for base, times in ((hit, count), (miss, trials - count)):
        factor, shift = _power_up(base, times)
        mantissa, exponent = _round_up(mantissa * factor, exponent + shift)
    numerator = mantissa * _tail_series(count, trials, hit, miss)
    exponent -= BITS
    bottom, shift = _power_down(p.denominator, trials)
    exponent -= shift
    return Fraction(numerator << max(exponent, 0), bottom << max(-exponent, 0))


def _tail_series(count: int, trials: int, hit: int, miss: int) -> int:
    """(1 + r_c (1 + ...)) * 2^BITS, rounded up."""
    term = total = 1 << BITS
    for i in range(count, trials):
        up, down = (trials - i) * hit, (i + 1) * miss
        scaled = term * up
        if up < down and scaled <= (down - up) << (BITS - 64):
            return total - -scaled // (down - up)
        term = -(-scaled // down)
        total += term
    return total


def _scale_down(value: int) -> int:
    return value >> BITS


def _scale_up(value: int) -> int:
    return -(-value >> BITS)


def _round_up(mantissa: int, exponent: int) -> tuple[int, int]:
    excess = mantissa.bit_length() - BITS
    return (mantissa, exponent) if excess <= 0 else (-(-mantissa >> excess), exponent + excess)


def _power_up(base: int, times: int) -> tuple[int, int]:
    """(m, x) with base^times <= m * 2^x, in BITS bits."""
    mantissa, exponent = 1, 0
    for bit in bin(times)[2:]:
        mantissa, exponent = _round_up(mantissa * mantissa, 2 * exponent)
        if bit == "1":
            mantissa, exponent = _round_up(mantissa * base, exponent)
    return mantissa, exponent


def _power_down(base: int, times: int) -> tuple[int, int]:
    """(m, x) with base^times >= m * 2^x, in BITS bits."""
    mantissa, exponent = 1, 0
    for bit in bin(times)[2:]:
        mantissa, exponent = mantissa * mantissa, 2 * exponent
        if bit == "1":
            mantissa *= base
        excess = max(mantissa.bit_length() - BITS, 0)
        mantissa, exponent = mantissa >> excess, exponent + excess
    return mantissa, exponent
