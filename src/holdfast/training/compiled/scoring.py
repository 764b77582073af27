"""Labels and scores of many models for many inputs, by the forward half of the compiled engine."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.training.compiled.crew import Crew, Workspace, Workspaces, frozen
from holdfast.training.compiled.engine import programs
from holdfast.training.compiled.plan import make_plan
from holdfast.training.compiled.spec import Layer, Shape
from holdfast.training.compiled.weights import Weights
from holdfast.types import ConfigError

Floats = npt.NDArray[np.float32]

_BATCH = 32
_STRETCH = 4096  # inputs per compiled call, which cannot be interrupted


class Scorer:
    """Scores inputs with any weights of one architecture; results do not depend on threads or on company.

    Memory: one batch's activations and one weight vector per thread, beside inputs and result.

    Attributes:
        n_labels: L, the number of scores.
    """

    def __init__(self, layers: list[Layer], shape: Shape, weights: Weights, threads: int) -> None:
        self._shape, self._weights, self._threads = shape, weights, threads
        self._spaces = Workspaces(make_plan(layers, shape, weights, _BATCH), programs())
        self.n_labels = int(self._spaces.plan.net[0]["labels"])

    def labels(self, params: Floats, x: Floats) -> npt.NDArray[Any]:
        """The labels `[N, T]` that models `[N, P]` give to inputs `[T, ...]`: uint8, or uint16 above 256 labels.

        The smallest label among equal scores; a score that is NaN counts as the largest, as in `torch.argmax`.
        """
        params, inputs = np.atleast_2d(params), self._inputs(x)
        votes = np.zeros((len(params), len(inputs)), np.uint8 if self.n_labels <= 256 else np.uint16)
        parts = max(1, -(-self._threads // max(1, len(params))))
        edges = [len(inputs) * part // parts for part in range(parts + 1)]
        tasks = [(row, range(first, last)) for row in range(len(params)) for first, last in pairwise(edges)]

        def vote(space: Workspace, task: tuple[int, range]) -> None:
            row, which = task
            for part, labels, _ in self._stretches(crew, space, params[row], inputs[which.start : which.stop], False):
                votes[row, which.start + part.start : which.start + part.stop] = labels

        with Crew(self._threads, self._spaces) as crew:
            crew.map(vote, tasks)
        return votes

    def scores(self, params: Floats, x: Floats) -> Floats:
        """The scores `[T, L]` that one model `[P]` gives to inputs `[T, ...]`."""
        inputs = self._inputs(x)
        found = np.zeros((len(inputs), self.n_labels), np.float32)

        def score(space: Workspace, task: Floats) -> None:
            for part, _, scores in self._stretches(crew, space, params, task, True):
                found[part.start : part.stop] = scores

        with Crew(1, self._spaces) as crew:
            crew.map(score, [inputs])
        return found

    def _inputs(self, x: Floats) -> Floats:
        if tuple(x.shape[1:]) != self._shape:
            raise ConfigError(
                f"x has inputs of shape {list(x.shape[1:])}, but the model was trained on {list(self._shape)}"
            )
        return frozen(as_rows(x))

    def _stretches(
        self, crew: Crew, space: Workspace, params: Floats, inputs: Floats, keep: bool
    ) -> Iterator[tuple[range, npt.NDArray[np.int64], Floats]]:
        """Labels (and scores, if `keep`) of inputs, a stretch at a time."""
        model = self._weights.place(params)
        for first in range(0, len(inputs), _STRETCH):
            part = range(first, min(len(inputs), first + _STRETCH))
            labels = np.zeros(len(part), np.int64)
            scores = np.zeros((len(part) if keep else 0, self.n_labels), np.float32)
            self._spaces.programs.score(
                space.memory, space.table, space.codes, self._spaces.ops, self._spaces.net,
                inputs[part.start : part.stop], model, labels, scores,
            )  # fmt: skip
            crew.advance(0)
            yield part, labels, scores


def as_rows(x: Floats) -> Floats:
    """Inputs `[M, ...]` as float32 rows `[M, F]`."""
    return np.asarray(x, dtype=np.float32).reshape(len(x), int(np.prod(x.shape[1:])))
