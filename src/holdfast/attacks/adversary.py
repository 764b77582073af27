"""A whole adversary: what it does to its data, how it trains, what it uploads, and when."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from holdfast.attacks.backdoors import PixelBackdoor
from holdfast.attacks.data_poisoning import DataAttack, LabelFlip
from holdfast.attacks.model_poisoning import AsTrained, GaussianNoise, ModelReplacement
from holdfast.attacks.view import ModelAttack
from holdfast.attacks.wrappers import Blend, Schedule
from holdfast.types import ConfigError


@dataclass(frozen=True)
class ClientBehavior:
    """How a malicious client trains, compared with an honest one.

    Args:
        effort: local steps (or epochs) relative to an honest client's: 2.0 is ten epochs where they train five.
        lr: its own learning rate; None: the federation's.

    Example:
        >>> ClientBehavior(effort=1.4).steps(5)
        7
    """

    effort: float = 1.0
    lr: float | None = None

    def __post_init__(self) -> None:
        if self.effort < 0:
            raise ConfigError(f"effort={self.effort} is not a share of the honest work; it must be at least 0")
        if self.lr is not None and self.lr <= 0:
            raise ConfigError(f"lr={self.lr} does not train; it must be above 0")

    def steps(self, honest: int) -> int:
        """Local steps where an honest client does `honest`."""
        return round(self.effort * honest)


@dataclass(frozen=True)
class Adversary:
    """Poisoned data, training behavior and upload of the malicious clients; each part may be innocent.

    Example:
        >>> Adversary(model=Schedule(rounds="once", at=6)).active(5)
        False
    """

    model: ModelAttack = field(default_factory=AsTrained)
    data: DataAttack | None = None
    behavior: ClientBehavior = field(default_factory=ClientBehavior)

    def active(self, round: int) -> bool:
        """Whether the clients are malicious in this round (rounds count from 0)."""
        return self.model.active(round)


#: The adversaries of the residual-reweighting paper (§4.2 to §4.4, A.6, A.7), MNIST figures.
ADVERSARIES: dict[str, Callable[[], Adversary]] = {
    "label-flip": lambda: Adversary(data=LabelFlip(((1, 7),)), behavior=ClientBehavior(effort=2.0)),
    "naive-backdoor": lambda: Adversary(data=PixelBackdoor(), behavior=ClientBehavior(effort=2.0, lr=0.1)),
    "model-replacement": lambda: Adversary(
        model=Schedule(ModelReplacement(factor=100.0), rounds="once", at=6),
        data=PixelBackdoor(),
        behavior=ClientBehavior(effort=2.0, lr=0.1),
    ),
    "gaussian-noise": lambda: Adversary(model=GaussianNoise()),
    "blended-label-flip": lambda: Adversary(
        model=Blend(mix_rate=0.5), data=LabelFlip(((0, 1), (1, 0))), behavior=ClientBehavior(effort=1.4, lr=0.1)
    ),
}


def as_adversary(attack: Adversary | ModelAttack | DataAttack) -> Adversary:
    """Any attack as an adversary: an attack on the data uploads what it trained, one on the model has clean data.

    Example:
        >>> as_adversary(LabelFlip(((1, 7),))).data
        LabelFlip(pairs=((1, 7),))
    """
    if isinstance(attack, Adversary):
        return attack
    if isinstance(attack, ModelAttack):
        return Adversary(model=attack)
    if callable(attack):
        return Adversary(data=attack)
    raise ConfigError(f"attack={attack!r} is neither an attack on the data nor one on the model")
