"""The game of the Romoa paper (§4): exact payoffs, equilibria by enumeration, and where its claim does not hold.

Each of n players chooses a dosage a in {0, ..., d}; `g(a) = 1 - a/d` is what the others learn from it, `h(a) = a/d`
what the attack earns. FLG pays `u_i = 1/n sum_j g(a_j) + h(a_i)` (eq. 12). G*, the paper's abstraction of the
sanitizing factors, charges a price: `u*_i = 1/n sum_j e_j g(a_j) + h(a_i)`, with `e_j = 1` if `g(a_i) >= g(a_j)`, else
`g(a_i)` (eq. 13, 14). The repeated games rFLG and rFLG* play either T times and add up the payoffs.

What holds, by enumeration for n = 2..6 and d = 1..4 (`claims`), and for all n >= 2 by a line of algebra:

- FLG: all-attack (d, ..., d) is the unique equilibrium. As claimed: dosage adds (1 - 1/n)/d to one's own payoff.
- G*: all-honest (0, ..., 0) is an equilibrium, but **not the unique one** and not a strict one. Every profile in
  which all choose the same dosage is an equilibrium, all-attack too: against others at common value g, a player with
  value x gets `1 - (n-1)/n * x * (1 - g)` for x < g and `1 - (n-1)/n * (x - g)` for x > g, and 1 for x = g.
  Smallest counterexample to the paper's "unique": n = 2, d = 1, profile (1, 1). Against honest others (g = 1) every
  dosage pays exactly 1, so a lone attacker loses nothing; full attack (x = 0) pays 1 against everybody, and
  all-attack is the only *strict* equilibrium.
- Repeating G* does not help: all-attack in every round is an equilibrium of the repeated game, too.

This is a statement about players who follow these payoffs. It certifies nothing about the aggregation rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import combinations_with_replacement, product

from holdfast.types import ConfigError

Profile = tuple[int, ...]
History = tuple[Profile, ...]
Strategy = Callable[[History], int]


@dataclass(frozen=True)
class Game:
    """FLG, or G* if `priced`: n players, dosages 0 (honest) to d (full attack).

    Example:
        >>> Game(n=2, d=1).payoffs((1, 0))
        (Fraction(3, 2), Fraction(1, 2))
        >>> Game(n=2, d=1, priced=True).payoffs((1, 0))
        (Fraction(1, 1), Fraction(1, 2))
    """

    n: int
    d: int
    priced: bool = False

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ConfigError(f"n={self.n} players is no game; it must be at least 1")
        if self.d < 1:
            raise ConfigError(f"d={self.d} leaves no dosage to choose; it must be at least 1")

    def gain(self, action: int) -> Fraction:
        """`g(a) = 1 - a/d`: what an upload of this dosage teaches."""
        return 1 - Fraction(action, self.d)

    def payoff(self, profile: Profile, player: int) -> Fraction:
        """`u_i` or `u*_i`."""
        mine = self.gain(profile[player])
        learnt = Fraction(0)
        for action in profile:
            theirs = self.gain(action)
            price = mine if self.priced and mine < theirs else Fraction(1)
            learnt += price * theirs
        return learnt / self.n + (1 - mine)

    def payoffs(self, profile: Profile) -> tuple[Fraction, ...]:
        """One payoff per player."""
        return tuple(self.payoff(profile, player) for player in range(self.n))

    def best_replies(self, profile: Profile, player: int) -> tuple[int, ...]:
        """The actions that pay this player most while the others keep theirs."""
        paid = [self.payoff(_changed(profile, player, action), player) for action in range(self.d + 1)]
        return tuple(action for action, payoff in enumerate(paid) if payoff == max(paid))

    def is_equilibrium(self, profile: Profile, *, strict: bool = False) -> bool:
        """Nobody gains by deviating alone; if `strict`, everybody loses by it."""
        replies = (self.best_replies(profile, player) for player in range(self.n))
        return all(
            action in best and (not strict or len(best) == 1) for action, best in zip(profile, replies, strict=True)
        )

    def equilibria(self) -> Iterator[Profile]:
        """All equilibria in pure actions, each with its actions ascending (the game treats all players alike).

        Example:
            >>> list(Game(n=2, d=1).equilibria()), list(Game(n=2, d=1, priced=True).equilibria())
            ([(1, 1)], [(0, 0), (1, 1)])
        """
        profiles = combinations_with_replacement(range(self.d + 1), self.n)
        return (profile for profile in profiles if self.is_equilibrium(profile))


@dataclass(frozen=True)
class RepeatedGame:
    """rFLG: the stage game `rounds` times; a strategy chooses an action for every history of profiles.

    Example:
        >>> twice = RepeatedGame(Game(n=2, d=1, priced=True), rounds=2)
        >>> attack = [lambda history: 1] * 2
        >>> twice.is_equilibrium(attack), twice.payoffs(attack)
        (True, (Fraction(2, 1), Fraction(2, 1)))
    """

    stage: Game
    rounds: int

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ConfigError(f"rounds={self.rounds} is no game; it must be at least 1")

    def play(self, strategies: list[Strategy]) -> History:
        """The profiles played, round by round."""
        history: History = ()
        for _ in range(self.rounds):
            history = (*history, tuple(strategy(history) for strategy in strategies))
        return history

    def payoffs(self, strategies: list[Strategy]) -> tuple[Fraction, ...]:
        """Payoffs added up over the rounds."""
        rounds = [self.stage.payoffs(profile) for profile in self.play(strategies)]
        return tuple(sum(column, Fraction(0)) for column in zip(*rounds, strict=True))

    def best_payoff(self, strategies: list[Strategy], player: int) -> Fraction:
        """The most this player can get against the others' strategies, by going through all it could do."""

        @cache
        def best(history: History) -> Fraction:
            if len(history) == self.rounds:
                return Fraction(0)
            others = tuple(strategy(history) for strategy in strategies)
            options = []
            for action in range(self.stage.d + 1):
                profile = _changed(others, player, action)
                options.append(self.stage.payoff(profile, player) + best((*history, profile)))
            return max(options)

        return best(())

    def is_equilibrium(self, strategies: list[Strategy]) -> bool:
        """Nobody gains by another strategy (a Nash equilibrium of the repeated game)."""
        paid = self.payoffs(strategies)
        return all(self.best_payoff(strategies, player) == paid[player] for player in range(self.stage.n))


@dataclass(frozen=True)
class Claim:
    """One sentence of the paper, whether enumeration agrees, and the smallest counterexample if not."""

    text: str
    holds: bool
    counterexample: str = ""


def claims(*, max_n: int = 6, max_d: int = 4) -> tuple[Claim, ...]:
    """The paper's statements about FLG and G*, checked by enumeration for 2 <= n <= max_n and 1 <= d <= max_d.

    Example:
        >>> [claim.holds for claim in claims(max_n=3, max_d=2)]
        [True, True, False, False]
    """
    sizes = sorted(product(range(2, max_n + 1), range(1, max_d + 1)), key=lambda size: (sum(size), size))
    tests: tuple[tuple[str, Callable[[int, int], str]], ...] = (
        ("FLG: all-attack is the unique equilibrium", _only_attack),
        ("G*: all-honest is an equilibrium", _honest),
        ("G*: all-honest is the unique equilibrium", _only_honest),
        ("G*: an attacker among honest players loses", _strict),
    )
    return tuple(_checked(text, test, sizes) for text, test in tests)


def _checked(text: str, test: Callable[[int, int], str], sizes: list[tuple[int, int]]) -> Claim:
    for n, d in sizes:
        found = test(n, d)
        if found:
            return Claim(text, False, f"n={n}, d={d}: {found}")
    return Claim(text, True)


def _only_attack(n: int, d: int) -> str:
    found = list(Game(n, d).equilibria())
    return "" if found == [(d,) * n] else f"equilibria {found}"


def _honest(n: int, d: int) -> str:
    return "" if Game(n, d, priced=True).is_equilibrium((0,) * n) else "(0, ..., 0) is none"


def _only_honest(n: int, d: int) -> str:
    others = [profile for profile in Game(n, d, priced=True).equilibria() if any(profile)]
    return f"{others[0]} is one, too" if others else ""


def _strict(n: int, d: int) -> str:
    game, lone = Game(n, d, priced=True), (1, *(0,) * (n - 1))
    paid, honest = game.payoff(lone, 0), game.payoff((0,) * n, 0)
    return "" if paid < honest else f"dosage 1 pays {paid}, honesty {honest}"


def _changed(profile: Profile, player: int, action: int) -> Profile:
    return (*profile[:player], action, *profile[player + 1 :])
