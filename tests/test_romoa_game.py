"""The paper's game: payoffs by its formulas, equilibria by going through everything, and its claims as they stand."""

from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.experiments.game import Game, RepeatedGame, claims
from holdfast.types import ConfigError

SIZES = [(n, d) for n in range(2, 7) for d in range(1, 5)]


def plain_payoff(profile, i, d, priced):
    """Eq. 12 and 13, 14, literally."""
    n = len(profile)
    g = [1 - Fraction(a, d) for a in profile]
    e = [(Fraction(1) if g[i] >= g[j] else g[i]) if priced else Fraction(1) for j in range(n)]
    return sum(e[j] / n * g[j] for j in range(n)) + Fraction(profile[i], d)


@given(st.integers(1, 4), st.booleans(), st.data())
def test_payoffs_are_the_formulas(d, priced, data):
    profile = tuple(data.draw(st.lists(st.integers(0, d), min_size=1, max_size=6)))
    game = Game(len(profile), d, priced)
    assert game.payoffs(profile) == tuple(plain_payoff(profile, i, d, priced) for i in range(len(profile)))


def test_figures_named_in_the_paper():
    for n, d in SIZES:
        game = Game(n, d)
        lone = (d, *(0,) * (n - 1))
        assert game.payoffs((0,) * n) == (1,) * n
        assert game.payoffs(lone) == (2 - Fraction(1, n), *(1 - Fraction(1, n),) * (n - 1))
        assert game.payoffs((d,) * n) == (1,) * n


@pytest.mark.parametrize(("n", "d"), [size for size in SIZES if (size[1] + 1) ** size[0] <= 1100])
@pytest.mark.parametrize("priced", [False, True])
def test_equilibria_by_brute_force_over_every_profile(n, d, priced):
    found = []
    for profile in product(range(d + 1), repeat=n):
        paid = [plain_payoff(profile, i, d, priced) for i in range(n)]
        gains = (
            plain_payoff((*profile[:i], a, *profile[i + 1 :]), i, d, priced) > paid[i]
            for i in range(n)
            for a in range(d + 1)
        )
        if not any(gains):
            found.append(profile)
    game = Game(n, d, priced)
    assert sorted({tuple(sorted(profile)) for profile in found}) == list(game.equilibria())
    assert all(game.is_equilibrium(profile) for profile in found)


@pytest.mark.parametrize(("n", "d"), SIZES)
def test_all_attack_is_the_one_equilibrium_without_prices(n, d):
    assert list(Game(n, d).equilibria()) == [(d,) * n]
    assert Game(n, d).is_equilibrium((d,) * n, strict=True)


@pytest.mark.parametrize(("n", "d"), SIZES)
def test_with_prices_every_common_dosage_is_an_equilibrium(n, d):
    """The paper says (0, ..., 0) is the only one."""
    game = Game(n, d, priced=True)
    assert list(game.equilibria()) == [(a,) * n for a in range(d + 1)]
    assert [a for a in range(d + 1) if game.is_equilibrium((a,) * n, strict=True)] == [d]
    assert game.best_replies((0,) * n, 0) == tuple(range(d + 1))


def test_claims_and_their_smallest_counterexamples():
    verdicts = {claim.text: claim for claim in claims()}
    assert verdicts["FLG: all-attack is the unique equilibrium"].holds
    assert verdicts["G*: all-honest is an equilibrium"].holds
    unique = verdicts["G*: all-honest is the unique equilibrium"]
    assert (unique.holds, unique.counterexample) == (False, "n=2, d=1: (1, 1) is one, too")
    loses = verdicts["G*: an attacker among honest players loses"]
    assert (loses.holds, loses.counterexample) == (False, "n=2, d=1: dosage 1 pays 1, honesty 1")


@pytest.mark.parametrize("rounds", [1, 2, 3])
@pytest.mark.parametrize(("n", "d"), [(2, 1), (2, 2), (3, 1)])
def test_repetition_does_not_select_honesty(n, d, rounds):
    repeated = RepeatedGame(Game(n, d, priced=True), rounds)
    for dosage in range(d + 1):
        assert repeated.is_equilibrium([lambda history, a=dosage: a] * n)
    free = RepeatedGame(Game(n, d), rounds)
    assert free.is_equilibrium([lambda history: d] * n)
    assert not free.is_equilibrium([lambda history: 0] * n)


def test_repeated_payoffs_follow_the_history():
    game = RepeatedGame(Game(2, 1), 3)
    grudge = [lambda history: int(any(p[1] for p in history)), lambda history: int(len(history) == 1)]
    assert game.play(grudge) == ((0, 0), (0, 1), (1, 0))
    assert game.payoffs(grudge) == (1 + Fraction(1, 2) + Fraction(3, 2), 1 + Fraction(3, 2) + Fraction(1, 2))
    # against the grudge, attacking twice pays: 1 honest round less, one free attack more
    assert game.best_payoff(grudge, 1) > game.payoffs(grudge)[1]


@pytest.mark.parametrize("wrong", [lambda: Game(0, 1), lambda: Game(1, 0), lambda: RepeatedGame(Game(2, 1), 0)])
def test_no_game(wrong):
    with pytest.raises(ConfigError):
        wrong()
