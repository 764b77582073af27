"""The shared vocabulary: errors a user can act on, and what an aggregation rule takes and gives.

Letters used everywhere: n clients, f malicious clients a rule is told to expect, m malicious clients a
certificate survives, k clients (or examples) per selection, N models, T test inputs, L labels, d parameters.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable


class HoldfastError(Exception):
    """A problem the user can fix: one sentence with the parameter, its value and what would be right.

    The command line prints the sentence and exits with code 2; a traceback means a bug in holdfast.
    """


class ConfigError(HoldfastError, ValueError):
    """A parameter is missing, unknown, of the wrong kind or out of range."""


class DataError(HoldfastError, ValueError):
    """A data set is missing, damaged or unusable."""


class ThreatModelError(HoldfastError, ValueError):
    """The theory behind a rule or certificate does not cover this n and f (or m)."""


class ArtifactError(HoldfastError):
    """A run's file is truncated, edited, foreign or of another run."""


class EngineError(HoldfastError):
    """Workers elsewhere cannot be reached, do not fit, or die again and again; what they finished is kept."""


@dataclass(frozen=True)
class Aggregate:
    """What a rule gives back for one round.

    Attributes:
        value: `[..., d]`, of the kind, dtype and device of the input.
        client_weights: `[..., n]`, the influence each client got, where the rule gives such a verdict.
        replaced: `[..., n]` bool, rows the screen replaced before the rule saw them.
        state: what the rule needs next round (FoolsGold's history, Romoa's factors); None for most.
        diagnostics: what else the rule measured, by name (for example `"rejected"`: share of coordinates).
    """

    value: Any
    client_weights: Any | None
    replaced: Any
    state: Any = None
    diagnostics: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Aggregator(Protocol):
    """A rule: one immutable value whose fields are its hyper-parameters, and a pure function of stacked rows.

    `updates` is a list of arrays, an array `[n, d]` or a tensor `[..., n, d]`: one row per client, leading axes
    independent federations. The input is never changed; the same kind, dtype and device come back.
    """

    def min_clients(self) -> int:
        """The fewest clients the rule's theory allows; with fewer, `aggregate` raises `ThreatModelError`."""
        ...

    def aggregate(
        self,
        updates: Any,
        *,
        state: Any = None,
        weights: Any = None,
        layout: Sequence[slice] | None = None,
        reference: Any = None,
    ) -> Aggregate:
        """Aggregate with the verdict: influence per client, who was replaced, the state for the next round."""
        ...

    def __call__(self, updates: Any) -> Any:
        """`aggregate(updates).value`."""
        ...


@runtime_checkable
class LookaheadRule(Protocol):
    """A rule that also watches the local steps between two syncing points, where nothing is aggregated.

    A server that sees every local step calls `lookahead` for each of them and `aggregate` for the last one before a
    syncing point, passing the state on from call to call:

        state = rule.lookahead(uploads, state=state, reference=base, clients=ids)   # tau - 1 times
        result = rule.aggregate(uploads, state=state, reference=base, clients=ids)  # the syncing point
        base, state = result.value, result.state

    Rows are the participants' models when `reference` is the last synced model, else their updates of it.
    """

    def aggregate(
        self,
        updates: Any,
        *,
        state: Any = None,
        weights: Any = None,
        layout: Sequence[slice] | None = None,
        reference: Any = None,
        clients: Sequence[Hashable] | None = None,
        faults: Mapping[int, str] | None = None,
    ) -> Aggregate:
        """The syncing point: take the step, then aggregate."""
        ...

    def lookahead(
        self,
        uploads: Any,
        *,
        state: Any = None,
        layout: Sequence[slice] | None = None,
        reference: Any = None,
        clients: Sequence[Hashable] | None = None,
        faults: Mapping[int, str] | None = None,
    ) -> Any:
        """Watch one local step: the memory after it, to be passed on."""
        ...
