"""One lookahead step: uploads and memory in, new memory out."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.aggregation.romoa.factors import Scoring, remember, shares, softmax
from holdfast.aggregation.romoa.measures import Moments, element_cosine, gathered, lengths_of, measure, select
from holdfast.aggregation.romoa.state import FactorState, Verdict, layer_of, recall
from holdfast.aggregation.stacking import Rows

Array = NDArray[Any]
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
        norms: `[n]`, lengths of the updates.
        singles: W at single parameters; None where nobody's upload counted.
    """

    state: FactorState
    rows: Array
    usable: Array
    weights: Array
    norms: Array
    singles: Singles | None = None


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
    singles = Singles(uploads, usable, reference, selected, layer_scores, weights, scoring)
    elements = np.empty((len(memory.clients), len(tracked)), uploads.dtype)
    for part, updates in gathered(uploads, reference, tracked):
        of = layer_of(tracked[part], edges)
        before_own = _before(memory, tracked[part], of)
        before_own[rows] = remember(singles.weights(tracked[part], of, updates), shares(before_own[rows]), beta)
        elements[:, part] = before_own
    layers = memory.layers.copy()
    layers[rows] = remember(weights, before, beta)
    quiet = memory.quiet.copy()
    earned = (weights @ np.diff(edges)) / max(1, bounds[-1])
    quiet[rows] = np.where(earned < 0.5 / len(rows), quiet[rows] + 1, 0)
    verdict = Verdict(tuple(clients), moments.cosine(), moments.pearson(), weights, len(selected))
    after = FactorState(memory.clients, bounds, layers, tracked, elements, ages, memory.steps + 1, quiet, verdict)
    return Step(after, rows, usable, weights, moments.norms(), singles)


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


class Singles:
    """W at single parameters: softmax of the least of the element-wise and the layer's scores."""

    def __init__(
        self, uploads: Rows, usable: Array, reference: Any, selected: Array, scores: Array, layers: Array, by: Scoring
    ) -> None:
        self.usable, self.selected, self.scores, self.layers, self.by = usable, selected, scores, layers, by
        total = np.zeros(len(usable) + 1)
        for _, updates in gathered(uploads, reference, selected):
            total += lengths_of(updates, usable)
        self.norms = np.sqrt(total[:-1]) * np.sqrt(total[-1])

    def weights(self, tracked: Array, of: Array, updates: Array) -> Array:
        """`[n, k]` at ascending parameters of the layers `of`; the layer's W where a parameter is not selected."""
        weights = self.layers[:, of]
        begin, end = np.searchsorted(self.selected, [tracked[0], tracked[-1] + 1])
        if end > begin:
            spots = np.searchsorted(tracked, self.selected[begin:end])
            cosine = element_cosine(updates[:, spots], self.usable, self.norms)
            least = np.minimum(self.by.elements(cosine[self.usable]), self.scores[:, of[spots]])
            weights[np.ix_(self.usable, spots)] = softmax(least, self.by.sharpness)
        return weights


def _before(memory: FactorState, tracked: Array, of: Array) -> Array:
    """F before the step at ascending parameters, for every client: its own where it had one, else the layer's."""
    before = memory.layers[:, of]
    begin, end = np.searchsorted(memory.indices, [tracked[0], tracked[-1] + 1])
    if end > begin:
        known = memory.indices[begin:end]
        spots = np.searchsorted(tracked, known)
        kept = tracked[spots] == known
        before[:, spots[kept]] = memory.elements[:, begin:end][:, kept]
    return before


def _unchanged(memory: FactorState, rows: Array, usable: Array) -> Step:
    """Nobody's upload could be used: the memory stays."""
    n = len(rows)
    weights = np.zeros((n, memory.layers.shape[1]))
    return Step(memory, rows, usable, weights, np.zeros(n))
