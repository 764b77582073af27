"""What a rule with sanitizing factors thinks of every participant after a round (Figure 4 of the Romoa paper)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.aggregation.romoa import FactorState
from holdfast.types import Aggregate

Array = NDArray[Any]
Shares = tuple[tuple[float, ...], ...]

FACTOR_EDGES = np.linspace(0.0, 3.0, 25)
"""Bins of factors, in equal shares 1/n; what is above falls into the last."""
SIMILARITY_EDGES = np.linspace(-1.0, 1.0, 25)
"""Bins of the layer-wise cosine."""
_DIGITS = 4


@dataclass(frozen=True)
class ParticipantVerdict:
    """The participants of a round as the rule sees them, one entry each.

    Attributes:
        clients: their numbers, ascending.
        weights: share of the result that each had.
        factors: sanitizing factor, averaged over the parameters.
        factor_shares: per participant, share of the parameters by factor; bins `FACTOR_EDGES`, in equal shares 1/n.
        similarity_shares: the same by the layer-wise cosine with the mean update; bins `SIMILARITY_EDGES`.
        suppressed: participants that earn less than half an equal share, and the local step (from 1) since when.
    """

    clients: tuple[int, ...]
    weights: tuple[float, ...]
    factors: tuple[float, ...]
    factor_shares: Shares
    similarity_shares: Shares
    suppressed: tuple[tuple[int, int], ...]

    def to_json(self) -> dict[str, Any]:
        """Plain numbers."""
        muted = [{"client": client, "since_step": step} for client, step in self.suppressed]
        return {**asdict(self), "suppressed": muted}

    @classmethod
    def from_json(cls, entries: Mapping[str, Any]) -> ParticipantVerdict:
        """A verdict as `to_json` wrote it."""
        muted = tuple((entry["client"], entry["since_step"]) for entry in entries["suppressed"])
        return cls(**{name: _tuples(value) for name, value in {**entries, "suppressed": muted}.items()})


def participant_verdict(result: Aggregate | None) -> ParticipantVerdict | None:
    """The verdict of a rule that keeps factors by participant; None of any other, or where nobody could be used."""
    state = None if result is None else result.state
    if result is None or not isinstance(state, FactorState) or state.verdict is None or result.client_weights is None:
        return None
    seen = state.verdict
    rows = np.array([state.clients.index(client) for client in seen.clients])
    sizes = np.diff(state.bounds)
    n = len(rows)
    counts = state.histogram(np.append(FACTOR_EDGES[:-1], np.inf) / n)[rows]
    cosines = [np.histogram(row, SIMILARITY_EDGES, weights=sizes)[0] for row in np.clip(seen.cosine, -1.0, 1.0)]
    muted = state.suppressed()
    return ParticipantVerdict(
        clients=tuple(int(client) for client in seen.clients),  # type: ignore[call-overload]  # numbers, in a simulation
        weights=_rounded(result.client_weights),
        factors=_rounded(state.mean_factors()[rows]),
        factor_shares=tuple(_rounded(row / max(1, state.d)) for row in counts),
        similarity_shares=tuple(_rounded(np.asarray(row) / max(1, state.d)) for row in cosines),
        suppressed=tuple((int(client), muted[client]) for client in seen.clients if client in muted),  # type: ignore[call-overload]
    )


def _rounded(values: Any) -> tuple[float, ...]:
    return tuple(round(float(value), _DIGITS) for value in values)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list | tuple) else value
