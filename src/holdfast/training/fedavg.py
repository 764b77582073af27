"""Federated averaging: its numbers, and what one round does."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

from holdfast.types import ConfigError

Weighting = Literal["size", "uniform"]
Optimizer = Literal["sgd", "adam"]


@dataclass(frozen=True, kw_only=True)
class FedAvg:
    r"""The base algorithm of an ensemble: FedAvg with full participation of a model's own clients.

    One round of a model with weights $w$ and clients $C$:

    $$w_c \leftarrow w, \qquad w_c \leftarrow w_c - \eta \nabla \mathrm{loss}(\mathrm{batch}; w_c)
      \quad (\text{local\_steps times}), \qquad g_c = w_c - w, \qquad w \leftarrow w + \sum_{c \in C} p_c\, g_c$$

    with $p_c \propto$ the client's number of examples (`weighting="size"`) or $p_c = 1/|C|$ (`"uniform"`).

    **The two minus signs of the published algorithm.** Cao et al. (2021), Algorithm 1, has the clients send
    $g_i = w_i - w$ (line 14), which already points downhill, and the server then compute $w - \eta\, g$
    (line 18). Taken literally the server would walk back uphill, and $\eta$ would be applied twice. FedAvg
    (McMahan et al., 2017) averages the clients' models, which is $w + \mathrm{mean}(g_i)$: a plus sign and a
    server learning rate of 1. That is what is computed here; $\eta$ is the clients' learning rate only.

    Attributes:
        rounds: global rounds (`globalIter`), at least 1.
        lr: the clients' learning rate $\eta$, above 0.
        local_steps: steps of each client per round (`localIter`), at least 1.
        batch_size: examples per step, drawn with replacement from the client's own examples, at least 1.
        weighting: `"size"` or `"uniform"`.
        optimizer: `"sgd"`, the step written above, or `"adam"` (Kingma and Ba 2015, with its usual decays; its moments
            start at zero in every round, so that clients keep nothing between rounds). Adam is torch's alone.

    Raises:
        ConfigError: a value is out of range.

    Example:
        >>> FedAvg(rounds=60, lr=0.1).steps
        300
        >>> FedAvg(rounds=0, lr=0.1)
        Traceback (most recent call last):
            ...
        holdfast.types.ConfigError: rounds must be a whole number of at least 1, but is 0
    """

    rounds: int
    lr: float
    local_steps: int = 5
    batch_size: int = 32
    weighting: Weighting = "size"
    optimizer: Optimizer = "sgd"

    def __post_init__(self) -> None:
        for name in ("rounds", "local_steps", "batch_size"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name} must be a whole number of at least 1, but is {value!r}")
        if isinstance(self.lr, bool) or not isinstance(self.lr, (int, float)):
            raise ConfigError(f"lr must be a number above 0, but is {self.lr!r}")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise ConfigError(f"lr must be a finite number above 0, but is {self.lr!r}")
        for name, known in (("weighting", get_args(Weighting)), ("optimizer", get_args(Optimizer))):
            if getattr(self, name) not in known:
                raise ConfigError(f"{name} must be one of {', '.join(known)}, but is {getattr(self, name)!r}")

    @property
    def steps(self) -> int:
        """SGD steps that each client of a model takes over the whole training."""
        return self.rounds * self.local_steps


PRESETS: Mapping[str, Mapping[str, FedAvg]] = MappingProxyType(
    {
        # Cao et al. (2021), Table 1.
        "paper": MappingProxyType(
            {
                "mnist": FedAvg(rounds=3000, lr=0.001),
                "har": FedAvg(rounds=5000, lr=0.001),
                "other": FedAvg(rounds=3000, lr=0.001),
            }
        ),
        # Accuracy follows learning rate x steps, so the same distance is walked in fewer, longer steps.
        "fast": MappingProxyType(
            {
                "mnist": FedAvg(rounds=60, lr=0.1),
                "har": FedAvg(rounds=50, lr=0.1),
                "other": FedAvg(rounds=60, lr=0.1),
            }
        ),
    }
)


def preset(name: str, dataset: str = "other") -> FedAvg:
    """The hyper-parameters of a preset for a data set: `"paper"` (Table 1) or `"fast"` (same accuracy, 1/50 the work).

    Args:
        name: a key of `PRESETS`.
        dataset: the data set's name; names without own numbers use the entry `"other"`.

    Raises:
        ConfigError: there is no such preset.

    Example:
        >>> preset("paper", "har").rounds
        5000
        >>> preset("fast", "my-own-data").lr
        0.1
    """
    if name not in PRESETS:
        raise ConfigError(f"preset must be one of {', '.join(PRESETS)}, but is {name!r}")
    table = PRESETS[name]
    return table.get(dataset, table["other"])
