"""One lookahead step: uploads and memory in, new memory out."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.aggregation.romoa.factors import Scoring, remember, shares, softmax
from holdfast.aggregation.romoa.measures import Moments, element_cosine, gather, measure, select
from holdfast.aggregation.romoa.state import FactorState, Verdict, layer_of, recall
from holdfast.aggregation.stacking import Rows

Array = NDArray[Any]
SLICE = 1 << 14
"""Single parameters whose scores are computed at a time."""
HALVINGS = 24
"""A parameter keeps factors of its own until its memory has faded to 2^-24 of what it was."""


@dataclass(frozen=True)
class Step:
    """What one step leaves, one row per participant; an unusable upload has weight 0.

    Attributes:
        state: the memory afterwards.
        rows: positions of the participants in the state.
        usable: `[n]` bool, whose upload counted.
        weights: `[n, G]`, W per layer.
        elements: `[n, k]`, W at `state.indices`.
        norms: `[n]`, lengths of the updates.
    """

    state: FactorState
    rows: Array
    usable: Array
    weights: Array
    elements: Array
    norms: Array


def advance(
    uploads: Rows,
    usable: Array,
    *,
    reference: Any,
    clients: Sequence[Hashable],
    state: FactorState | None,
    bounds: tuple[int, ...],
    scoring: Scoring,
    beta: float,
    select_count: int,
) -> Step:
    """Measure the uploads, score them, and blend the shares into the memory (select_count 0: no element-wise term)."""
    memory = recall(state, clients, bounds)
    place = {client: row for row, client in enumerate(memory.clients)}
    rows = np.array([place[client] for client in clients], dtype=np.int64)
    edges = np.array(bounds)
    if not usable.any():
        return _unchanged(memory, rows, usable)
    moments = measure(uploads, usable, reference, edges)
    layer_scores = scoring.layers(_only(moments, usable))
    weights = _spread(softmax(scoring.outside(layer_scores), scoring.sharpness), usable)
    before = shares(memory.layers[rows])
    selected = select(uploads, usable, select_count) if select_count else np.zeros(0, np.int64)
    tracked, ages = _tracked(memory, selected, beta)
    of = layer_of(tracked, edges)
    own_before, own_weights = _previous(memory, tracked, of), weights[:, of]
    if len(selected):
        spots = np.searchsorted(tracked, selected)
        own_weights[:, spots] = _element_weights(uploads, usable, reference, selected, layer_scores, edges, scoring)
    own_after = remember(own_weights, shares(own_before[rows]), beta)
    layers, elements = memory.layers.copy(), own_before
    layers[rows], elements[rows] = remember(weights, before, beta), own_after
    quiet = memory.quiet.copy()
    earned = (weights @ np.diff(edges)) / max(1, bounds[-1])
    quiet[rows] = np.where(earned < 0.5 / len(rows), quiet[rows] + 1, 0)
    verdict = Verdict(tuple(clients), moments.cosine(), moments.pearson(), weights, len(selected))
    after = FactorState(
        memory.clients, bounds, layers, tracked, elements.astype(uploads.dtype), ages, memory.steps + 1, quiet, verdict
    )
    return Step(after, rows, usable, weights, own_weights, moments.norms())


def _only(moments: Moments, usable: Array) -> Moments:
    """The moments of the usable rows."""
    if usable.all():
        return moments
    return Moments(
        moments.along[usable],
        moments.square[usable],
        moments.total[usable],
        moments.mean_square,
        moments.mean_total,
        moments.sizes,
    )


def _spread(values: Array, usable: Array) -> Array:
    """Rows for all participants, 0 for the unusable."""
    if usable.all():
        return values
    full = np.zeros((len(usable), values.shape[1]))
    full[usable] = values
    return full


def _tracked(memory: FactorState, selected: Array, beta: float) -> tuple[Array, Array]:
    """Which parameters have factors of their own after this step, and how long ago each was selected."""
    lasting = np.inf if beta == 0 else HALVINGS / max(1e-12, -np.log2(max(1.0 - beta, 1e-300)))
    ages = memory.ages + 1
    kept = ages <= lasting
    both = np.sort(np.concatenate([memory.indices[kept], selected]), kind="stable")  # two ascending runs: one merge
    tracked = both[np.diff(both, prepend=-1) > 0]
    result = np.zeros(len(tracked), ages.dtype)
    result[np.searchsorted(tracked, memory.indices[kept])] = ages[kept]
    result[np.searchsorted(tracked, selected)] = 0
    return tracked, result


def _previous(memory: FactorState, tracked: Array, of: Array) -> Array:
    """F before this step at the tracked parameters, for every client: its own where it had one, else the layer's."""
    before = memory.layers[:, of]
    if len(tracked):
        spots = np.minimum(np.searchsorted(tracked, memory.indices), len(tracked) - 1)
        kept = tracked[spots] == memory.indices
        before[:, spots[kept]] = memory.elements[:, kept]
    return before


def _element_weights(
    uploads: Rows, usable: Array, reference: Any, selected: Array, layers: Array, edges: Array, scoring: Scoring
) -> Array:
    """W at the selected parameters, `[n, k]`: softmax of the least of the element-wise and the layer's scores."""
    updates = gather(uploads, reference, selected)
    cosine = element_cosine(updates, usable)
    of = layer_of(selected, edges)
    for start in range(0, len(selected), SLICE):
        part = slice(start, start + SLICE)
        least = np.minimum(scoring.elements(cosine[usable, part]), layers[:, of[part]])
        cosine[usable, part] = softmax(least, scoring.sharpness)
    cosine[~usable] = 0.0
    return cosine


def _unchanged(memory: FactorState, rows: Array, usable: Array) -> Step:
    """Nobody's upload could be used: the memory stays."""
    n = len(rows)
    weights = np.zeros((n, memory.layers.shape[1]))
    return Step(memory, rows, usable, weights, np.zeros((n, len(memory.indices))), np.zeros(n))
