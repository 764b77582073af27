"""Wrappers: how an attack is sent (hidden, blended, boosted, now and then, in collusion). They nest."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from holdfast.attacks.model_poisoning import AsTrained
from holdfast.attacks.view import _LEVELS, Array, Knowledge, ModelAttack, View
from holdfast.types import ConfigError


@dataclass(frozen=True)
class _Wrapper(ModelAttack):
    """An attack around an attack: knows what either of them needs."""

    attack: ModelAttack = field(default_factory=AsTrained)

    def __post_init__(self) -> None:
        if not isinstance(self.attack, ModelAttack):
            raise ConfigError(f"attack={self.attack!r} cannot be wrapped; it must be an attack on the model")

    @property
    def needs(self) -> Knowledge:
        """What the wrapper itself must see."""
        return "own"

    @property
    def knowledge(self) -> Knowledge:
        """The larger of what the wrapper and the wrapped attack know."""
        return max(self.needs, self.attack.knowledge, key=_LEVELS.index)

    def active(self, round: int) -> bool:
        """As the wrapped attack."""
        return self.attack.active(round)

    def inner(self, view: View, rng: np.random.Generator) -> Array:
        """What the wrapped attack would upload."""
        return self.attack.craft(view.seen_by(self.attack.knowledge), rng)


@dataclass(frozen=True)
class Stealth(_Wrapper):
    """Move only part of the way: `(1 - alpha) * start + alpha * attack` (Romoa's stealth factor alpha_t, §2.2).

    `start` is the attackers' own update before the attack, so alpha=0 is an honest client (the printed formula, with
    the model of the step before, would be an upload without progress), or the global model: `around="reference"`,
    the form used with targeted poisoning.

    Args:
        attack: what is toned down.
        alpha: in [0, 1]; a tuple gives one value per round, the last one stays.
        around: "own" or "reference".

    Example:
        >>> import numpy as np
        >>> from holdfast.attacks import SignFlip
        >>> Stealth(SignFlip(), alpha=0.25)(np.zeros((2, 1)), 1, own=np.ones((1, 1)), rng=np.random.default_rng(0))
        array([[0.5]])
    """

    alpha: float | tuple[float, ...] = 1.0
    around: Literal["own", "reference"] = "own"

    def __post_init__(self) -> None:
        super().__post_init__()
        values = self.alpha if isinstance(self.alpha, tuple) else (self.alpha,)
        if not values or not all(0 <= value <= 1 for value in values):
            raise ConfigError(f"alpha={self.alpha} is not possible; every stealth factor must be between 0 and 1")
        if self.around not in ("own", "reference"):
            raise ConfigError(f'around={self.around!r} is unknown; choose "own" or "reference"')

    def craft(self, view: View, rng: np.random.Generator) -> Array:
        """A point on the line from the start to the attack."""
        alpha = self.alpha[min(view.round, len(self.alpha) - 1)] if isinstance(self.alpha, tuple) else self.alpha
        crafted = self.inner(view, rng)
        return alpha * crafted if self.around == "reference" else (1.0 - alpha) * view.mine + alpha * crafted


@dataclass(frozen=True)
class Blend(_Wrapper):
    """Keep each parameter malicious with probability `mix_rate`, else take an honest model's (Fu et al. 2019, Table 8).

    Every attacker hides behind one honest model of the round, drawn at random (`counterpart="observed"`), or behind
    its own update (`counterpart="own"`, useful when the wrapped attack changes it). mix_rate=1 is the attack itself.

    Example:
        >>> import numpy as np
        >>> from holdfast.attacks import SignFlip
        >>> rng = np.random.default_rng(0)
        >>> Blend(SignFlip(), mix_rate=0.5)(np.ones((2, 6)), 1, own=np.ones((1, 6)), rng=rng)
        array([[ 1., -1., -1., -1.,  1.,  1.]])
    """

    mix_rate: float = 0.1
    counterpart: Literal["observed", "own"] = "observed"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.mix_rate <= 1:
            raise ConfigError(f"mix_rate={self.mix_rate} is not a probability; it must be between 0 and 1")
        if self.counterpart not in ("observed", "own"):
            raise ConfigError(f'counterpart={self.counterpart!r} is unknown; choose "observed" or "own"')

    @property
    def needs(self) -> Knowledge:
        """Honest models must be seen before one can hide behind them."""
        return "all" if self.counterpart == "observed" else "own"

    def craft(self, view: View, rng: np.random.Generator) -> Array:
        """An independent coin per attacker and parameter."""
        crafted = self.inner(view, rng)
        # one draw for the coins and the hiding place, so that a batch draws like a loop over its federations
        coins = rng.random((*crafted.shape[:-1], crafted.shape[-1] + 1))
        cover = view.mine
        if self.counterpart == "observed":
            picks = (coins[..., -1:] * view.peers.shape[-2]).astype(int)
            cover = np.take_along_axis(view.peers, picks, axis=-2)
        return np.where(coins[..., :-1] < self.mix_rate, crafted, cover)


@dataclass(frozen=True)
class Boost(_Wrapper):
    """Multiply the update by `factor`, so that averaging over n clients does not wash it out; None: n/f.

    Around `AsTrained` on target samples this is the targeted poisoning (TPA) of Bhagoji et al. 2019 and Romoa §2.2.

    Example:
        >>> import numpy as np
        >>> Boost()(np.zeros((9, 1)), 1, own=np.ones((1, 1)), rng=np.random.default_rng(0))
        array([[10.]])
    """

    factor: float | None = None

    def craft(self, view: View, rng: np.random.Generator) -> Array:
        """The wrapped attack, stretched."""
        return (view.n / view.f if self.factor is None else self.factor) * self.inner(view, rng)


@dataclass(frozen=True)
class Schedule(_Wrapper):
    """Attack in some rounds only: `rounds="every"`, `"once"` (in round `at`) or `"from"` (round `at` and later).

    Rounds count from 0. In the other rounds the attackers upload what they trained; `active(round)` tells the
    federation in which rounds they train on poisoned data.

    Example:
        >>> [Schedule(rounds="from", at=2).active(r) for r in range(4)]
        [False, False, True, True]
    """

    rounds: Literal["every", "once", "from"] = "every"
    at: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rounds not in ("every", "once", "from"):
            raise ConfigError(f'rounds={self.rounds!r} is unknown; choose "every", "once" or "from"')
        if self.at < 0:
            raise ConfigError(f"at={self.at} is not a round; rounds count from 0")

    def active(self, round: int) -> bool:
        """Whether this round is one of the schedule's and the wrapped attack's."""
        due = {"every": True, "once": round == self.at, "from": round >= self.at}[self.rounds]
        return due and self.attack.active(round)

    def craft(self, view: View, rng: np.random.Generator) -> Array:
        """The wrapped attack when it is due, else the own updates."""
        return self.inner(view, rng) if self.active(view.round) else view.mine


@dataclass(frozen=True)
class Collusion(_Wrapper):
    """All attackers upload one vector: the first one's (`vector="first"`) or the mean of all (`vector="mean"`).

    Without it, attacks that draw at random or start from the own update give every attacker a different upload.

    Example:
        >>> import numpy as np
        >>> own = np.array([[1.0], [3.0]])
        >>> Collusion(vector="mean")(np.zeros((3, 1)), 2, own=own, rng=np.random.default_rng(0))
        array([[2.],
               [2.]])
    """

    vector: Literal["first", "mean"] = "first"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.vector not in ("first", "mean"):
            raise ConfigError(f'vector={self.vector!r} is unknown; choose "first" or "mean"')

    def craft(self, view: View, rng: np.random.Generator) -> Array:
        """One shared upload."""
        crafted = self.inner(view, rng)
        return view.repeat(crafted[..., 0, :] if self.vector == "first" else crafted.mean(axis=-2))
