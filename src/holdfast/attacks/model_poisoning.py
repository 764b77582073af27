"""Plain attacks on the model: noise, reversed signs, boosted and replaced models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from holdfast.attacks.view import Array, Knowledge, ModelAttack, View, check_knowledge
from holdfast.types import ConfigError


@dataclass(frozen=True)
class AsTrained(ModelAttack):
    """Upload what the training gave: no attack on the model.

    On honest data this is an honest client; on poisoned data it is label flipping, or the *naive backdoor* of every
    round (Bagdasaryan et al. 2018).

    Example:
        >>> import numpy as np
        >>> AsTrained()(np.zeros((2, 3)), 1, own=np.ones((1, 3)), rng=np.random.default_rng(0))
        array([[1., 1., 1.]])
    """

    knowledge: Knowledge = "own"

    def craft(self, view: View, rng: np.random.Generator) -> Array:
        """The attackers' own updates, unchanged."""
        return view.mine


@dataclass(frozen=True)
class GaussianNoise(ModelAttack):
    """Multiply every parameter of the trained model by its own factor drawn from N(1, std²).

    `upload = eps * (reference + own) - reference`, with `space="update"`: `eps * own`. A corrupted device, as in
    Fu et al. 2019 (Attack-Resistant Federated Learning with Residual-based Reweighting, §4.4 and Table 4).

    Args:
        std: standard deviation of the factor (not its square).
        space: "model" multiplies the parameters (the paper), "update" their change.
        knowledge: fixed to "own".

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> GaussianNoise(std=0.0)(np.zeros((2, 3)), 1, own=np.ones((1, 3)), rng=rng)
        array([[1., 1., 1.]])
    """

    std: float = 1.0
    space: Literal["model", "update"] = "model"
    knowledge: Knowledge = "own"

    def __post_init__(self) -> None:
        if self.std < 0:
            raise ConfigError(f"std={self.std} is not a standard deviation; it must be at least 0")
        if self.space not in ("model", "update"):
            raise ConfigError(f'space={self.space!r} is unknown; choose "model" or "update"')
        check_knowledge("gaussian-noise", self.knowledge, ("own",))

    def craft(self, view: View, rng: np.random.Generator) -> Array:
        """Noise that is independent in every parameter of every attacker."""
        factor = rng.normal(1.0, self.std, view.mine.shape).astype(view.mine.dtype)
        base = view.reference if self.space == "model" else 0.0
        # eps*(base+own)-base, without losing a small own next to a large base when eps is 1
        return np.asarray((factor - 1.0) * base + factor * view.mine)


@dataclass(frozen=True)
class RandomUpdate(ModelAttack):
    """Upload pure noise N(0, std²): the attack on averaging of Blanchard et al. 2017 (Krum), which needs no data.

    Example:
        >>> import numpy as np
        >>> RandomUpdate(std=200.0)(np.zeros((4, 3)), 2, rng=np.random.default_rng(0)).shape
        (2, 3)
    """

    std: float = 200.0
    knowledge: Knowledge = "nothing"

    def __post_init__(self) -> None:
        if self.std < 0:
            raise ConfigError(f"std={self.std} is not a standard deviation; it must be at least 0")
        check_knowledge("random-update", self.knowledge, ("nothing",))

    def craft(self, view: View, rng: np.random.Generator) -> Array:
        """Noise of the shape of the upload."""
        shape = (*view.reference.shape[:-2], view.f, view.reference.shape[-1])
        return np.asarray(rng.normal(0.0, self.std, shape).astype(view.reference.dtype))


@dataclass(frozen=True)
class SignFlip(ModelAttack):
    """Upload the negative of the own update: `-scale * own`.

    Example:
        >>> import numpy as np
        >>> SignFlip(scale=2.0)(np.zeros((2, 2)), 1, own=np.array([[1.0, -3.0]]), rng=np.random.default_rng(0))
        array([[-2.,  6.]])
    """

    scale: float = 1.0
    knowledge: Knowledge = "own"

    def __post_init__(self) -> None:
        check_knowledge("sign-flip", self.knowledge, ("own",))

    def craft(self, view: View, rng: np.random.Generator) -> Array:
        """The own updates, turned round."""
        return -self.scale * view.mine


@dataclass(frozen=True)
class Scaling(ModelAttack):
    """Upload the honest direction, much too long: `factor * ((1 - own_share) * mean + own_share * own)`.

    The direction is innocent, so rules that look at angles only (literal Romoa) let it pass; the length destroys the
    average. `own_share=0.3` with poisoned training mixes a targeted part in.

    Args:
        factor: how much too long.
        own_share: share of the attackers' own (poisoned) update, in [0, 1].
        knowledge: "all": mean of the honest rows; "own": mean of the attackers' own rows.

    Example:
        >>> import numpy as np
        >>> Scaling(factor=20.0)(np.ones((3, 2)), 1, rng=np.random.default_rng(0))
        array([[20., 20.]])
    """

    factor: float = 20.0
    own_share: float = 0.0
    knowledge: Knowledge = "all"

    def __post_init__(self) -> None:
        if not 0 <= self.own_share <= 1:
            raise ConfigError(f"own_share={self.own_share} is not a share; it must be between 0 and 1")
        check_knowledge("scaling", self.knowledge, ("own", "all"))

    def craft(self, view: View, rng: np.random.Generator) -> Array:
        """The mean of the peers and the own update, mixed and stretched."""
        mean = view.peers.mean(axis=-2, keepdims=True)
        return np.asarray(self.factor * ((1.0 - self.own_share) * mean + self.own_share * view.mine))


@dataclass(frozen=True)
class ModelReplacement(ModelAttack):
    """Make plain averaging return the attackers' model.

    The server computes `G + server_lr * sum_i w_i U_i / sum_i w_i`. The attackers want `G + T`, where T is the mean
    of their own updates, and share the work by their weight W_a:

    - knowledge "own": the honest updates are taken to cancel, `U_a = T * W / (server_lr * W_a)`: the boost n/(eta*f)
      of Bagdasaryan et al. 2018 (eq. 3);
    - knowledge "all": `U_a = (T * W / server_lr - sum_honest w_i U_i) / W_a`, exact up to rounding.

    `factor` replaces the computed boost by a constant (Fu et al. 2019 scale by 100). Wrap in
    `Schedule(..., rounds="once", at=r)` for the papers' single shot.

    Example:
        >>> import numpy as np
        >>> honest, target = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[9.0, 9.0]])
        >>> attack = ModelReplacement(knowledge="all")
        >>> malicious = attack(honest, 1, own=target, rng=np.random.default_rng(0))
        >>> np.concatenate([honest, malicious]).mean(axis=0)
        array([9., 9.])
    """

    server_lr: float = 1.0
    factor: float | None = None
    knowledge: Knowledge = "own"

    def __post_init__(self) -> None:
        if self.server_lr <= 0:
            raise ConfigError(f"server_lr={self.server_lr} moves nothing forward; it must be above 0")
        if self.factor is not None and self.knowledge == "all":
            raise ConfigError('factor and knowledge="all" exclude each other: the exact attack computes its own factor')
        check_knowledge("model-replacement", self.knowledge, ("own", "all"))

    def craft(self, view: View, rng: np.random.Generator) -> Array:
        """The boosted update, the same for every attacker."""
        target = view.mine.mean(axis=-2)
        if self.factor is not None:
            return view.repeat(self.factor * target)
        if view.honest is None:
            return view.repeat(target * (view.n / (self.server_lr * view.f)))
        weights = np.ones(view.n) if view.weights is None else view.weights
        weights = np.broadcast_to(weights, (*target.shape[:-1], view.n))
        honest_part = np.einsum("...i,...id->...d", weights[..., : view.n - view.f], view.honest)
        total, ours = weights.sum(axis=-1)[..., None], weights[..., view.n - view.f :].sum(axis=-1)[..., None]
        if np.any(ours <= 0):
            raise ConfigError("weights give the attackers no weight at all; no upload of theirs can replace the model")
        return view.repeat(((target * total / self.server_lr - honest_part) / ours).astype(target.dtype))
