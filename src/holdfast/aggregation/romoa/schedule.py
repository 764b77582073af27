"""Asynchronous updating (Algorithm 1): when participants sync, and how far they move."""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import Any

from holdfast.types import ConfigError


@dataclass(frozen=True)
class Syncing:
    """Participants upload after every local step and sync after every `tau`.

    Args:
        tau: local steps between two syncing points (the paper's Figure 3 has 4).
        moving_rate: gamma of Algorithm 1, how far a participant moves to the synced model; 1 is FedAvg's, the value
            under which all paths start at the last synced model.

    Raises:
        ConfigError: tau below 1, or a moving rate outside (0, 1].

    Example:
        >>> syncing = Syncing(tau=4)
        >>> [t for t in range(1, 13) if syncing.due(t)]
        [4, 8, 12]
        >>> Syncing(moving_rate=0.5).moved(4.0, 2.0)
        3.0
    """

    tau: int = 4
    moving_rate: float = 1.0

    def __post_init__(self) -> None:
        if isinstance(self.tau, bool) or not isinstance(self.tau, numbers.Integral) or self.tau < 1:
            raise ConfigError(f"tau must be a whole number of at least 1, got {self.tau!r}")
        rate = self.moving_rate
        if isinstance(rate, bool) or not isinstance(rate, numbers.Real) or not 0 < rate <= 1:
            raise ConfigError(f"moving_rate (gamma) must be above 0 and at most 1, got {rate!r}")

    def due(self, step: int) -> bool:
        """Whether the server aggregates after this local step (the first is 1)."""
        return step % self.tau == 0

    def moved(self, local: Any, synced: Any) -> Any:
        """A participant's model after syncing: `local - gamma * (local - synced)`."""
        return synced if self.moving_rate == 1 else local - self.moving_rate * (local - synced)
