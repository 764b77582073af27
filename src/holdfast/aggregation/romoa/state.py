"""Romoa's memory between steps: factors per client and layer, and a sparse correction for single parameters."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.types import ConfigError

Array = NDArray[Any]


@dataclass(frozen=True)
class Verdict:
    """What the last step measured, one row per participant of that step.

    Attributes:
        clients: their ids.
        cosine: `[n, G]`, layer-wise cosine with the mean update.
        pearson: `[n, G]`, layer-wise correlation with it.
        weights: `[n, G]`, W: the shares this step alone would give (parameters outside the selection).
        selected: number of parameters in the merged selection (0 without the element-wise term).
    """

    clients: tuple[Hashable, ...]
    cosine: Array
    pearson: Array
    weights: Array
    selected: int


@dataclass(frozen=True)
class FactorState:
    """The sanitizing factors F of every client ever seen.

    A parameter's factors are those of its layer, except for the few that were selected in the last steps.

    Attributes:
        clients: ids, in the order of their first appearance.
        bounds: edges of the layers, `(0, ..., d)`.
        layers: `[clients, G]`, factors per layer.
        indices: `[k]`, parameters with factors of their own, ascending.
        elements: `[clients, k]`, those factors.
        ages: `[k]`, steps since each was last selected.
        steps: lookahead steps so far.
        quiet: `[clients]`, for how many steps in a row the client earned less than half an equal share.
        verdict: what the last step measured.
    """

    clients: tuple[Hashable, ...]
    bounds: tuple[int, ...]
    layers: Array
    indices: Array
    elements: Array
    ages: Array
    steps: int = 0
    quiet: Array = field(default_factory=lambda: np.zeros(0, np.int64))
    verdict: Verdict | None = None

    @property
    def d(self) -> int:
        """Parameters."""
        return self.bounds[-1]

    def factors(self, client: Hashable) -> Array:
        """F of one client for every parameter, `[d]`."""
        row = self._row(client)
        dense = np.repeat(self.layers[row], np.diff(self.bounds))
        dense[self.indices] = self.elements[row]
        return np.asarray(dense)

    def mean_factors(self) -> Array:
        """F averaged over all parameters, `[clients]`."""
        own = np.bincount(layer_of(self.indices, self.bounds), minlength=self.layers.shape[1])
        return np.asarray((self.layers @ (np.diff(self.bounds) - own) + self.elements.sum(axis=1)) / max(self.d, 1))

    def histogram(self, edges: Sequence[float] | Array) -> Array:
        """How many parameters have a factor in each bin, `[clients, bins]` (the right half of the paper's Figure 4)."""
        own = np.bincount(layer_of(self.indices, self.bounds), minlength=self.layers.shape[1])
        counts = np.concatenate([np.diff(self.bounds) - own, np.ones(len(self.indices), np.int64)])
        values = np.concatenate([self.layers, self.elements], axis=1)
        return np.array([np.histogram(row, edges, weights=counts)[0] for row in values])

    def suppressed(self) -> dict[Hashable, int]:
        """Clients that earn less than half an equal share now, and the step (from 1) since when without a break."""
        since = self.steps - self.quiet + 1
        return {c: int(since[i]) for i, c in enumerate(self.clients) if self.quiet[i] > 0}

    def _row(self, client: Hashable) -> int:
        if client not in self.clients:
            raise ConfigError(f"client {client!r} has no factors; {len(self.clients)} clients are known")
        return self.clients.index(client)


def layer_of(indices: Array, bounds: Sequence[int] | Array) -> Array:
    """The layer of each parameter."""
    return np.searchsorted(np.asarray(bounds), indices, side="right") - 1


def layer_bounds(layout: Sequence[slice] | None, d: int, least: int) -> tuple[int, ...]:
    """Edges of the layers; layers under `least` parameters join the one before (the first ones: the one after).

    A layer of one parameter has a cosine of +1 or -1 and would suppress half of the honest clients on noise.

    Raises:
        ConfigError: slices that do not cover the d parameters one after the other.

    Example:
        >>> layer_bounds([slice(0, 10), slice(10, 11), slice(11, 20)], 20, least=8)
        (0, 11, 20)
    """
    if layout is None:
        return (0, d)
    edges = [0]
    for part in layout:
        if part.step not in (None, 1) or (part.start or 0) != edges[-1] or part.stop is None or part.stop <= edges[-1]:
            raise ConfigError(
                f"layout must cover the {d} parameters one layer after the other; {part} cannot follow {edges[-1]}"
            )
        edges.append(int(part.stop))
    if edges[-1] != d:
        raise ConfigError(f"layout covers {edges[-1]} parameters, but the model has {d}")
    merged = [0]
    for edge in edges[1:]:
        if edge - merged[-1] >= least:
            merged.append(edge)
        elif len(merged) > 1:
            merged[-1] = edge
    return (*merged, d) if merged[-1] != d else tuple(merged)


def recall(state: FactorState | None, clients: Sequence[Hashable], bounds: tuple[int, ...]) -> FactorState:
    """The memory with every client of this step in it; a new one starts at an equal share.

    Raises:
        ConfigError: a state of another federation (other layers, or not a state of Romoa at all).
    """
    equal = 1.0 / len(clients)
    if state is None:
        state = FactorState(
            (), bounds, np.zeros((0, len(bounds) - 1)), np.zeros(0, np.int64), np.zeros((0, 0)), np.zeros(0, np.int64)
        )
    if not isinstance(state, FactorState):
        raise ConfigError(f"state must be what this rule returned for the last step, got {type(state).__name__}")
    if state.bounds != bounds:
        raise ConfigError(
            f"state is of another federation: it has {len(state.bounds) - 1} layers and {state.d} parameters, "
            f"these uploads {len(bounds) - 1} and {bounds[-1]}, or the layers end elsewhere"
        )
    known = set(state.clients)
    new = tuple(client for client in clients if client not in known)
    if not new:
        return state
    return FactorState(
        (*state.clients, *new),
        bounds,
        np.concatenate([state.layers, np.full((len(new), len(bounds) - 1), equal)]),
        state.indices,
        np.concatenate([state.elements, np.full((len(new), len(state.indices)), equal, state.elements.dtype)]),
        state.ages,
        state.steps,
        np.concatenate([state.quiet, np.zeros(len(new), np.int64)]),
        state.verdict,
    )
