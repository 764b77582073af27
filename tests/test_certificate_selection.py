"""The selection theorem against enumeration of poisoned data sets, its own laws, and the published errors."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.certification import certified_level, certify_ideal, delta, radius, selection
from holdfast.certification.exact import binomial_tail, compare_power
from holdfast.certification.selection import POISONINGS, SCHEMES, max_rho, radii
from holdfast.types import ConfigError, ThreatModelError

schemes, poisonings = st.sampled_from(SCHEMES), st.sampled_from(sorted(POISONINGS))
gaps = st.fractions(0, 1, max_denominator=1000)


@st.composite
def sizes(draw: st.DrawFn, most: int = 60) -> tuple[int, int]:
    n = draw(st.integers(2, most))
    return n, draw(st.integers(1, n - 1))


def weight(scheme: str, n: int, k: int, x: int) -> Fraction:
    """T(x), written independently of the library."""
    if scheme == "without":
        return Fraction(math.comb(x, k), math.comb(n, k))
    return Fraction(x, n) ** k if scheme == "with" else (1 - Fraction(k, n)) ** (n - x)


def worst_delta(scheme: str, poisoning: str, n: int, k: int, rho: int) -> Fraction:
    """The largest delta over every reachable pair (items left, items in all)."""
    most = {"P1": (1, 0, 0), "P2": (0, 1, 0), "P3": (0, 0, 1), "P4": (1, 0, 1), "P5": (0, 1, 1), "P6": (1, 1, 1)}
    found = []
    for inserted, deleted, modified in itertools.product(*(range(rho * allowed + 1) for allowed in most[poisoning])):
        size, left = n + inserted - deleted, n - deleted - modified
        least = {"without": k, "with": 1, "binomial": 0}[scheme]
        if inserted + deleted + modified <= rho and left >= 0 and size >= least:
            found.append(1 + weight(scheme, n, k, size) - 2 * weight(scheme, n, k, left))
    return max(found)


@given(schemes, poisonings, sizes(most=7), gaps, st.booleans())
def test_radius_decides_as_the_worst_reachable_poisoning(
    scheme: str, poisoning: str, size: tuple[int, int], gap: Fraction, strict: bool
) -> None:
    n, k = size
    limit = max_rho(scheme, poisoning, n, k)
    expected = -1
    for rho in range((2 * n if limit is None else limit) + 1):
        worst = worst_delta(scheme, poisoning, n, k, rho)
        if not (worst < gap if strict else worst <= gap):
            break
        expected = rho
    assert radius(scheme, poisoning, n, k, gap, strict=strict) == expected


def attacked_winner(counts: list[int], fresh: int) -> set[int]:
    """The labels that can win once `fresh` selections vote as the attacker likes."""
    return {int(np.argmax([c + fresh * (j == z) for j, c in enumerate(counts)])) for z in range(len(counts))}


@pytest.mark.parametrize(
    ("n", "k", "n_labels"),
    [(4, 1, 3), (4, 2, 2), (5, 2, 2), (4, 3, 3), (5, 1, 3), (6, 2, 3), (7, 1, 2), (8, 1, 2), (8, 2, 2), (8, 3, 2)],
)
def test_exact_certificate_of_all_selections_is_sound_and_tight(n: int, k: int, n_labels: int) -> None:
    # Every base classifier, every set of modified clients: the exhaustive certificate must hold, and for the votes
    # with the same counts that suit the attacker best it must fail one client later.
    selections = list(itertools.combinations(range(n), k))
    broken_at: dict[tuple[int, ...], int] = {}
    rng = np.random.default_rng(0)
    whole = n_labels ** len(selections) <= 1100
    every = itertools.product(range(n_labels), repeat=len(selections))
    sure = rng.random((400, 1)) ** 0.5  # so that winners with a large lead, which certify something, are among them
    some = np.where(rng.random((400, len(selections))) < sure, rng.integers(0, n_labels, (400, 1)), 0).tolist()
    for votes in every if whole else [tuple(row) for row in some]:
        counts = tuple(votes.count(label) for label in range(n_labels))
        now = int(np.argmax(counts))
        for m in range(1, n - k + 2):
            fresh = sum(1 for s in selections if 0 in s) if m == 1 else None
            fails = False
            for modified in itertools.combinations(range(n), m):
                kept = [vote for s, vote in zip(selections, votes, strict=True) if not set(s) & set(modified)]
                fresh = len(selections) - len(kept)
                fails |= attacked_winner([kept.count(label) for label in range(n_labels)], fresh) != {now}
            if fails:
                broken_at[counts] = min(broken_at.get(counts, n), m)
                break
    found = certify_ideal(list(broken_at), n=n, k=k, alpha=0.1, exhaustive=True)
    truth = np.array(list(broken_at.values())) - 1
    assert (found.radius <= truth).all()
    assert found.max_radius > 0 or n < 8, "nothing was certified, so nothing was tried"
    if whole:
        assert np.array_equal(found.radius, truth)


@given(schemes, sizes(), gaps)
def test_six_poisonings_give_three_radii_in_order(scheme: str, size: tuple[int, int], gap: Fraction) -> None:
    r = {poisoning: radius(scheme, poisoning, *size, gap) for poisoning in POISONINGS}
    if gap < 1:
        assert r["P3"] == r["P4"] == r["P5"] == r["P6"]
        limit = max_rho(scheme, "P2", *size)
        assert limit is not None
        assert min(r["P2"], limit) >= min(r["P1"], limit) >= r["P3"]


@given(schemes, poisonings, sizes(), gaps, gaps)
def test_radius_rises_with_the_gap_and_delta_with_rho(
    scheme: str, poisoning: str, size: tuple[int, int], one: Fraction, other: Fraction
) -> None:
    low, high = sorted((one, other))
    assert radius(scheme, poisoning, *size, low) <= radius(scheme, poisoning, *size, high)
    assert delta(scheme, poisoning, *size, 0) == 0
    limit = max_rho(scheme, poisoning, *size)
    deltas = [delta(scheme, poisoning, *size, rho) for rho in range(min(10, 10 if limit is None else limit) + 1)]
    assert deltas == sorted(deltas)
    at = deltas[-1]
    if 0 < at <= 1:
        assert (
            radius(scheme, poisoning, *size, at, strict=True)
            < len(deltas) - 1
            <= radius(scheme, poisoning, *size, at, strict=False)
        )


@given(schemes, poisonings, sizes(most=400), st.lists(gaps, min_size=1, max_size=30), st.booleans())
def test_many_radii_at_once_equal_one_by_one(
    scheme: str, poisoning: str, size: tuple[int, int], many: list[Fraction], strict: bool
) -> None:
    exact = [gap - Fraction(1, 100) for gap in many]
    if size[0] < 40:
        exact += [d for d in (delta(scheme, poisoning, *size, rho) for rho in (0, 1)) if d <= 1]
    found = radii(scheme, poisoning, *size, np.array([float(gap) for gap in exact]), exact.__getitem__, strict=strict)
    assert found.tolist() == [radius(scheme, poisoning, *size, gap, strict=strict) for gap in exact]


@given(st.integers(1, 400), st.integers(1, 400), st.integers(0, 60), st.fractions(0, 3, max_denominator=10**6))
def test_powers_compare_as_fractions(numerator: int, denominator: int, exponent: int, threshold: Fraction) -> None:
    power = Fraction(numerator, denominator) ** exponent
    assert compare_power(numerator, denominator, exponent, threshold) == (power > threshold) - (power < threshold)
    assert compare_power(numerator, denominator, exponent, power) == 0


@given(st.integers(1, 60), st.data())
def test_binomial_tail_is_a_close_upper_bound(trials: int, data: st.DataObject) -> None:
    count, p = data.draw(st.integers(0, trials)), data.draw(st.fractions(0, 1, max_denominator=10**9))
    exact = sum(math.comb(trials, i) * p**i * (1 - p) ** (trials - i) for i in range(count, trials + 1))
    assert exact <= binomial_tail(count, trials, p) <= exact * (1 + Fraction(1, 2**60))


@pytest.mark.parametrize("k", [1, 1000, 6000, 100_000])
@pytest.mark.parametrize("poisoning", sorted(POISONINGS))
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_million_items_take_a_few_small_questions(
    scheme: str, poisoning: str, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Work, not time: how often integers are compared, and (without replacement) the factors of each product.
    factors: list[int] = []

    def counted(scheme: str, n: int, k: int, x: int, threshold: Fraction) -> int:
        factors.append(min(k, abs(n - x)) if scheme == "without" else 0)
        return compare(scheme, n, k, x, threshold)

    compare = selection._compare_weight
    monkeypatch.setattr(selection, "_compare_weight", counted)
    n, before = 10**6, -1
    for gap in (Fraction(1, 10**9), 0.01, Fraction(1, 3), 0.97, 1 - 2**-53):
        factors.clear()
        found = radius(scheme, poisoning, n, k, gap)
        assert len(factors) <= (4 if scheme == "without" else 2 * n.bit_length())
        assert max(factors) <= 10_000
        assert found >= before
        before = found
        if k <= 1000 and found < 10_000:
            assert delta(scheme, poisoning, n, k, found) < gap <= delta(scheme, poisoning, n, k, found + 1)


def test_the_ends_of_the_range_at_a_million_items() -> None:
    assert radius("without", "P2", 10**6, 100_000, 1.0) == 900_000
    for poisoning in POISONINGS:
        assert radius("without", poisoning, 10**6, 10**6, 1.0) == 0  # every selection is everything
        assert radius("with", poisoning, 10**6, 10**6, 0.5) == 0


def test_published_insertion_threshold_would_be_broken() -> None:
    # Corollary 1 as printed certifies one insertion at n=4, k=2 with votes 4/1/1: delta printed 6/25 < 1/2.
    old, new = Fraction(math.comb(4, 2)), Fraction(math.comb(5, 2))
    u = old / new
    assert u - u * u == Fraction(6, 25)
    assert new - old == 4, "the new pairs"
    assert 1 + 4 > 4, "a rival with one vote wins with the four new selections"
    assert delta("without", "P1", 4, 2, 1) == Fraction(2, 3)
    assert certify_ideal([[4, 1, 1]], n=4, k=2, alpha=0.1, exhaustive=True, poisoning="P1").radius[0] == 0
    assert radius("without", "P1", 10**4, 10, 0.9) < 10**4, "and never infinitely many"


def test_equality_is_not_enough_against_a_smaller_label() -> None:
    # n=4, k=1, three votes for label 1 and one for label 0: one modified client makes 2 to 2 and label 0 wins.
    assert delta("without", "P3", 4, 1, 1) == Fraction(1, 2)
    assert radius("without", "P3", 4, 1, Fraction(1, 2)) == 0
    assert certify_ideal([[1, 3]], n=4, k=1, alpha=0.1, exhaustive=True).radius[0] == 0
    assert certify_ideal([[3, 1]], n=4, k=1, alpha=0.1, exhaustive=True).radius[0] == 1


@pytest.mark.parametrize(
    ("n", "k", "labels", "low", "up", "printed", "true"),
    [(5, 1, 2, "3/5", "1/5", 0, 1), (6, 1, 3, "1/2", "1/6", 0, 1), (7, 2, 3, "3/5", "1/10", 0, 1)],
)
def test_published_tightness_fails_with_few_labels(
    n: int, k: int, labels: int, low: str, up: str, printed: int, true: int
) -> None:
    assert certified_level(Fraction(low), Fraction(up), n, k, rounding=True) == printed
    assert certified_level(Fraction(low), Fraction(up), n, k, rounding=True, labels=labels) == true


def test_theorem_one_may_have_no_level() -> None:
    assert certified_level(Fraction(1, 2), Fraction(1, 2), 4, 1) == -1


def test_observed_perspective_inverts_the_operation() -> None:
    counts = [[700, 300]]
    for poisoning, inverse in {"P1": "P2", "P2": "P1", "P3": "P3", "P4": "P5", "P5": "P4", "P6": "P6"}.items():
        observed = certify_ideal(counts, n=500, k=5, alpha=0.01, poisoning=poisoning, perspective="observed")
        clean = certify_ideal(counts, n=500, k=5, alpha=0.01, poisoning=inverse)
        assert np.array_equal(observed.radius, clean.radius)
        assert any("under attack" in assumption for assumption in observed.assumptions)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("bagging", "P3", 10, 2, 0.5), "scheme"),
        (("without", "P7", 10, 2, 0.5), "poisoning"),
        (("without", "P3", 0, 1, 0.5), "n=0"),
        (("without", "P3", 10, 0, 0.5), "k=0"),
        (("without", "P3", 10, 11, 0.5), "k=11"),
        (("binomial", "P3", 10, 10, 0.5), "k=10"),
        (("without", "P3", 10.0, 2, 0.5), "n=10.0"),
        (("without", "P3", True, 1, 0.5), "n=True"),
        (("without", "P3", 10, 2, 1.5), "gap"),
        (("without", "P3", 10, 2, math.nan), "gap"),
        (("without", "P3", 10, 2, "much"), "gap"),
    ],
)
def test_bad_arguments_are_named(arguments: tuple[object, ...], name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        radius(*arguments)  # type: ignore[arg-type]


def test_rho_beyond_what_leaves_anything_to_select_is_refused() -> None:
    assert delta("without", "P2", 10, 4, 6) == 1 - Fraction(1, 210)
    with pytest.raises(ThreatModelError, match="at most 6"):
        delta("without", "P2", 10, 4, 7)
    with pytest.raises(ConfigError, match="rho=-1"):
        delta("without", "P3", 10, 4, -1)
    for bad in ((1.2, 0.1), (0.9, -0.1)):
        with pytest.raises(ConfigError, match="must lie in 0"):
            certified_level(*bad, 10, 2)
    with pytest.raises(ConfigError, match="labels"):
        certified_level(0.9, 0.1, 10, 2, labels=1)
