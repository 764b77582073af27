"""What a rule decides about one federation, and how the decision is carried out over blocks of columns."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from holdfast.aggregation.stacking import Block, Rows, block_columns, is_tensor

Columns = Callable[[slice, Block], Block]
"""`(where, block [n, c]) -> [c]`: the value of the columns `where`."""


@dataclass(frozen=True)
class Given:
    """What comes with the rows of one federation.

    Attributes:
        state: what the rule returned last round.
        weights: `[n]` reported weights (sample counts), finite and non-negative, or None.
        reference: `[d]`, the last global model or update, or None; read in slices, never copied whole.
        clients: `[n]` ids that stay with a client between rounds.
        layout: slices of `d` that are layers.
        keep_state: whether the state for the next round is wanted (it may be as large as the updates).
    """

    state: Any = None
    weights: np.ndarray[Any, Any] | None = None
    reference: Any = None
    clients: Sequence[Hashable] = ()
    layout: Sequence[slice] | None = None
    keep_state: bool = True


@dataclass(frozen=True)
class Plan:
    """How one federation becomes one vector.

    Attributes:
        columns: the value of a block of columns.
        influence: `[n]`, each client's share in the value, where planning already knows it.
        linear: the value is exactly `influence @ rows`, so a wrapper may fold its own weights in.
        tally: `(where, block) -> [n]`, each row's share summed over the block's columns, for rules whose influence
            takes another look at the data; the mean over the d columns is the influence.
        apart: `columns` also takes a list of n vectors for its block.
        narrow: `columns` copies its block, so it is handed blocks of a few megabytes only.
        state: what the rule needs next round.
        diagnostics: what else it measured.
    """

    columns: Columns
    influence: np.ndarray[Any, Any] | None = None
    linear: bool = False
    tally: Callable[[slice, Block], np.ndarray[Any, Any]] | None = None
    apart: bool = False
    narrow: bool = False
    state: Any = None
    diagnostics: Mapping[str, Any] = field(default_factory=dict)


def gather(plan: Plan, rows: Rows) -> Block:
    """Run a plan over all blocks: `[d]`."""
    value: Any = None
    for where, block in rows.blocks(block_columns(rows) if plan.narrow else None, stacked=not plan.apart):
        part = plan.columns(where, block)
        if where.start == 0:
            if where.stop == rows.d:
                return part
            value = part.new_empty(rows.d) if is_tensor(part) else np.empty(rows.d, dtype=part.dtype)
        value[where] = part
    return np.empty(0, dtype=rows.dtype) if value is None else value


def influence_of(plan: Plan, rows: Rows) -> np.ndarray[Any, Any] | None:
    """Each client's share in the value, `[n]`, if the rule can say."""
    if plan.influence is not None or plan.tally is None:
        return plan.influence
    total = np.zeros(rows.n)
    for where, block in rows.blocks(block_columns(rows)):
        total += plan.tally(where, block)
    return total / max(rows.d, 1)
