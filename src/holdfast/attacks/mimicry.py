"""Attacks that look like an honest client: a copy of one, or poison at the honest angle and length."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from holdfast.attacks.statistical import unit
from holdfast.attacks.view import Array, Knowledge, ModelAttack, View, check_knowledge
from holdfast.types import ConfigError


@dataclass(frozen=True)
class Mimic(ModelAttack):
    """Copy one honest client, over-representing its data (Karimireddy, He, Jaggi 2022, §3): no outlier to find.

    Args:
        client: row of the honest client that is copied; None: the one farthest out along the direction in which the
            honest rows of this round vary most.
        knowledge: fixed to "all".

    Example:
        >>> import numpy as np
        >>> Mimic()(np.array([[0.0, 0.0], [0.0, 1.0], [5.0, 0.0]]), 1, rng=np.random.default_rng(0))
        array([[5., 0.]])
    """

    client: int | None = None
    knowledge: Knowledge = "all"

    def __post_init__(self) -> None:
        if self.client is not None and self.client < 0:
            raise ConfigError(f"client={self.client} is not a row; it must be at least 0")
        check_knowledge("mimic", self.knowledge, ("all",))

    def craft(self, view: View, rng: np.random.Generator) -> Array:
        """The chosen row, once per attacker."""
        rows = view.peers
        if self.client is not None:
            if self.client >= rows.shape[-2]:
                raise ConfigError(f"client={self.client} does not exist; there are {rows.shape[-2]} honest clients")
            return view.repeat(rows[..., self.client, :])
        centered = (rows - rows.mean(axis=-2, keepdims=True)).astype(np.float64)
        vectors = np.linalg.eigh(centered @ np.swapaxes(centered, -1, -2))[1]
        pick = np.abs(vectors[..., -1]).argmax(axis=-1)
        return view.repeat(np.take_along_axis(rows, pick[..., None, None], axis=-2)[..., 0, :])


@dataclass(frozen=True)
class Disguise(ModelAttack):
    """Poison at the honest angle and length: what a rule that measures angle and length sees is an honest client.

    Per layer, with h the mean honest update, rho the median honest cosine with h and t the part of the attackers'
    (poisoned) mean update that is orthogonal to h:
    `upload = stretch * median|U| * (rho * h/|h| + sqrt(1 - rho²) * t/|t|)`. Without a layout the whole model is one
    layer. A regression test for Romoa and every rule by similarity.

    Example:
        >>> import numpy as np
        >>> honest, own = np.array([[3.0, 4.0], [3.0, -4.0]]), np.array([[0.0, 7.0]])
        >>> Disguise()(honest, 1, own=own, rng=np.random.default_rng(0))
        array([[3., 4.]])
    """

    stretch: float = 1.0
    knowledge: Knowledge = "all"

    def __post_init__(self) -> None:
        if self.stretch <= 0:
            raise ConfigError(f"stretch={self.stretch} is not a length; it must be above 0")
        check_knowledge("disguise", self.knowledge, ("own", "all"))

    def craft(self, view: View, rng: np.random.Generator) -> Array:
        """Layer by layer, the same for every attacker."""
        rows, poison = view.peers, view.mine.mean(axis=-2)
        upload = np.empty_like(poison)
        for layer in view.layout or (slice(None),):
            upload[..., layer] = self.stretch * _disguised(rows[..., layer], poison[..., layer])
        return view.repeat(upload)


def _disguised(rows: Array, poison: Array) -> Array:
    heading = unit(rows.mean(axis=-2))
    lengths = np.linalg.norm(rows, axis=-1)
    rho = np.median(np.einsum("...id,...d->...i", unit(rows), heading), axis=-1)[..., None]
    aside = unit(poison - np.sum(poison * heading, axis=-1, keepdims=True) * heading)
    direction = rho * heading + np.sqrt(np.maximum(0.0, 1.0 - rho**2)) * aside
    return np.asarray(np.median(lengths, axis=-1)[..., None] * direction)
