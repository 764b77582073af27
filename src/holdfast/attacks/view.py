"""What an attack on the model is: a value that turns what the attackers may see into what they upload.

Rows are *updates* (new minus old weights), as for the aggregation rules. `View` carries exactly what the declared
`knowledge` allows, so an attack cannot use more than it says: the other fields are None.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from holdfast.types import ConfigError

Array = NDArray[Any]
Rule = Callable[[Array], Array]
Knowledge = Literal["nothing", "own", "all", "rule"]
_LEVELS: tuple[Knowledge, ...] = get_args(Knowledge)


@dataclass(frozen=True)
class View:
    """What the attackers see in one round; leading axes are independent federations.

    Attributes:
        n: clients in the round.
        f: attackers among them.
        reference: `[..., 1, d]`, the global model of the round's start (everybody has it).
        own: `[..., f, d]`, the updates that the attackers' own training gave; None to one who knows nothing.
        honest: `[..., n-f, d]`, the honest uploads; None below knowledge "all".
        rule: the server's rule as a function of `[..., n, d]`; None below knowledge "rule".
        weights: `[..., n]`, the weights of plain averaging, honest clients first; None: all equal.
        layout: the slices of `d` that are layers.
        round: number of the round, from 0.
    """

    n: int
    f: int
    reference: Array
    own: Array | None
    honest: Array | None
    rule: Rule | None = None
    weights: Array | None = None
    layout: Sequence[slice] | None = None
    round: int = 0

    def seen_by(self, knowledge: Knowledge) -> View:
        """The same round through the eyes of somebody who knows only so much."""
        level = _LEVELS.index(knowledge)
        return replace(
            self,
            own=self.own if level >= 1 else None,
            honest=self.honest if level >= 2 else None,
            weights=self.weights if level >= 2 else None,
            rule=self.rule if level >= 3 else None,
        )

    @property
    def mine(self) -> Array:
        """`own`, for attacks that need it."""
        if self.own is None:
            raise ConfigError('knowledge="nothing" hides the attackers\' own updates; this attack needs at least "own"')
        return self.own

    @property
    def peers(self) -> Array:
        """The rows the attackers take for the honest ones: the honest where seen, else their own."""
        return self.mine if self.honest is None or self.honest.shape[-2] == 0 else self.honest

    @property
    def before(self) -> Array:
        """`[..., seen, d]`: every row the attackers see as it was before they attacked."""
        return self.mine if self.honest is None else np.concatenate([self.honest, self.mine], axis=-2)

    def repeat(self, vector: Array) -> Array:
        """`[..., d]` -> `[..., f, d]`: the same upload for every attacker."""
        return np.repeat(vector[..., None, :], self.f, axis=-2)


class ModelAttack(ABC):
    """An attack on the model: a frozen dataclass that is called once a round.

    `attack(honest, f, reference=..., rng=...)` takes the honest updates `[..., n-f, d]` (array or tensor) and gives
    the f malicious ones `[..., f, d]`, same kind, dtype and device. Honest rows are never changed.
    """

    @property
    @abstractmethod
    def knowledge(self) -> Knowledge:
        """What the attackers know: "nothing", their "own" rows, "all" rows, or all rows and the "rule"."""

    @abstractmethod
    def craft(self, view: View, rng: np.random.Generator) -> Array:
        """The malicious updates `[..., f, d]` for what `view` shows."""

    def active(self, round: int) -> bool:
        """Whether the attackers attack in this round; if not, they train and upload like everybody."""
        return True

    def __call__(
        self,
        honest: Any,
        f: int,
        *,
        rng: np.random.Generator,
        reference: Any = None,
        rule: Rule | None = None,
        own: Any = None,
        weights: Any = None,
        layout: Sequence[slice] | None = None,
        round: int = 0,
    ) -> Any:
        """The malicious updates of one round.

        Args:
            honest: `[..., n-f, d]`, the honest updates.
            f: number of attackers.
            rng: the only source of randomness.
            reference: `[..., d]`, the global model of the round's start; None: zero.
            rule: the server's rule, a function of `[..., n, d]` (an `Aggregator` is one).
            own: `[..., f, d]`, what the attackers' training gave (on poisoned data, if they have some). None: their
                data is like that of the first f honest clients, whose rows stand in.
            weights: `[..., n]`, weights of plain averaging, honest clients first.
            layout: the slices of `d` that are layers.
            round: number of the round, from 0.

        Returns:
            `[..., f, d]`, same kind, dtype and device as `honest`.

        Raises:
            ConfigError: shapes that do not fit, or an attack that needs the rule without one.
        """
        view = make_view(
            honest, f, reference=reference, rule=rule, own=own, weights=weights, layout=layout, round=round
        )
        crafted = view.mine if f == 0 else self.craft(view.seen_by(self.knowledge), rng)
        return _like(honest, crafted)


def make_view(
    honest: Any,
    f: int,
    *,
    reference: Any = None,
    rule: Rule | None = None,
    own: Any = None,
    weights: Any = None,
    layout: Sequence[slice] | None = None,
    round: int = 0,
) -> View:
    """Everything there is to see in a round, as NumPy arrays of at least float32 (arguments as `ModelAttack`)."""
    rows = _numpy(honest)
    if rows.ndim < 2:
        raise ConfigError(f"honest has shape {rows.shape}; one row per client is needed: [..., clients, parameters]")
    if f < 0:
        raise ConfigError(f"f={f} attackers is not possible; f must be at least 0")
    lead, count, d = rows.shape[:-2], rows.shape[-2], rows.shape[-1]
    if own is None:
        if count == 0 and f > 0:
            raise ConfigError("own is needed when there is no honest client to stand in for the attackers' training")
        mine = rows[..., np.arange(f) % max(count, 1), :]
    else:
        mine = _numpy(own).astype(rows.dtype)
        if mine.shape != (*lead, f, d):
            raise ConfigError(f"own has shape {mine.shape}; with f={f} attackers it must be {(*lead, f, d)}")
    base = np.zeros(d, rows.dtype) if reference is None else _numpy(reference).astype(rows.dtype)
    if base.shape[-1:] != (d,):
        raise ConfigError(f"reference has shape {base.shape}; its last axis must hold the {d} parameters")
    return View(
        n=count + f,
        f=f,
        reference=np.broadcast_to(base, (*lead, d))[..., None, :],
        own=mine,
        honest=rows,
        rule=rule,
        weights=None if weights is None else _numpy(weights).astype(np.float64),
        layout=layout,
        round=round,
    )


def check_knowledge(attack: str, knowledge: str, allowed: tuple[Knowledge, ...]) -> None:
    """Refuse a level of knowledge that the attack is not defined for."""
    if knowledge not in allowed:
        raise ConfigError(f"knowledge={knowledge!r} is not possible for {attack}; choose one of {', '.join(allowed)}")


def _numpy(values: Any) -> Array:
    """An array of float32 or float64 with the same numbers, wherever they lie."""
    if hasattr(values, "detach"):  # a tensor; torch itself is not imported for NumPy users
        tensor = values.detach().cpu()
        values = (tensor if tensor.element_size() >= 4 else tensor.float()).numpy()
    array = np.asarray(values)
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float32)


def _like(model: Any, values: Array) -> Any:
    """`values` as the kind, dtype and device of `model`."""
    if hasattr(model, "new_tensor"):
        return model.new_tensor(np.ascontiguousarray(values))
    dtype = getattr(model, "dtype", values.dtype)
    return np.array(values, dtype=dtype if np.issubdtype(dtype, np.floating) else values.dtype)
