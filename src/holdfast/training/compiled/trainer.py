"""The compiled engine's trainer: FedAvg of Sequentials on the CPU, one model per thread, bit for bit reproducible."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from holdfast.training.batches import fold, stream_key
from holdfast.training.compiled.crew import Crew, Progress, Workspace, Workspaces, frozen
from holdfast.training.compiled.dual import FRESH, PLAIN, pays
from holdfast.training.compiled.engine import programs
from holdfast.training.compiled.plan import make_plan
from holdfast.training.compiled.scoring import Scorer, as_rows
from holdfast.training.compiled.spec import Flat, Layer, Linear, Shape, read_layers, why_not
from holdfast.training.compiled.weights import place_weights
from holdfast.training.fedavg import FedAvg
from holdfast.training.parameters import Factory, initial_parameters, layout, private_rng, unflatten
from holdfast.training.trainer import ClientRows, Intervene, Members
from holdfast.types import ConfigError

Floats = npt.NDArray[np.float32]

_CALL_SECONDS = 0.25  # a compiled call cannot be interrupted, so it should not take longer
_KEPT_BYTES = 2**28  # clients' updates kept at once where clients, not models, run in parallel
_NO_UPDATES = np.zeros((0, 0), np.float32)


@dataclass(frozen=True)
class _Job:
    """One model's training: its place in the result, its clients, their shares, and the key of its batches."""

    place: int
    model_id: int
    members: npt.NDArray[np.int64]
    shares: Floats
    key: np.uint64


class CompiledTrainer:
    """Trains Sequentials of Conv2d, MaxPool2d, ReLU, Flatten and Linear; the interface is `Trainer`.

    A model's weights depend on (seed, model id, its members' data) alone, to the bit, on one kind of CPU: not on the
    number of threads, nor on which models are trained with it or in how many pieces. Softmax cross-entropy, mean
    over the batch, plain SGD. A client without rows has weight zero.

    A first linear layer is trained in dual form (`compiled.dual`) for the clients for whom that is less work, which
    depends on their number of rows alone.

    Memory per thread: about four weight vectors and one batch's activations, and for the dual form a client's rows and
    the first layer once more; beside it the result `[N, P]`, and Gram matrices of at most the data's size. With
    `intervene`, k weight vectors more. The first use in a new installation compiles for some seconds; numba keeps the
    result.

    Attributes:
        engine: `"compiled"`.
        n_params: P, the number of weights.
        n_labels: L, the number of scores.
        layout: where each parameter lies in a flat vector, by name.
        fedavg: the hyper-parameters.
        seed: the seed all batches and initial weights follow from.
        threads: how many threads work.
    """

    engine = "compiled"

    def __init__(
        self,
        model: Factory,
        x: Floats,
        y: npt.NDArray[np.int64],
        partition: ClientRows,
        fedavg: FedAvg,
        *,
        seed: int,
        threads: int | None = None,
    ) -> None:
        with private_rng(0):
            module = model()
        reason = why_not(module)
        if reason is not None:
            raise ConfigError(f"engine 'compiled' does not cover this model: {reason}; engine 'torch' does")
        if threads is not None and threads < 1:
            raise ConfigError(f"threads must be at least 1, but is {threads}")
        self.fedavg, self.seed = fedavg, seed
        self.threads = threads or len(
            os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
        )
        self.layout: Mapping[str, slice] = layout(module)
        self._factory, layers = model, read_layers(module)
        self._weights = place_weights(layers)
        self.n_params = self._weights.n_params
        shape = tuple(x.shape[1:])
        self._scorer = Scorer(layers, shape, self._weights, self.threads)
        self.n_labels = self._scorer.n_labels
        self._x = frozen(as_rows(x))
        self._y = frozen(np.asarray(y, dtype=np.int64))
        self._offsets = frozen(np.asarray(partition.offsets, dtype=np.int64))
        self._indices = frozen(np.asarray(partition.indices, dtype=np.int64))
        self._prepare(layers, shape)

    def _prepare(self, layers: list[Layer], shape: Shape) -> None:
        """The plan, and the Gram matrices of the clients whose first layer is trained in dual form.

        They are kept if they need no more memory than the training data, else computed when they are needed.
        """
        sizes, fedavg = np.diff(self._offsets), self.fedavg
        first = next(layer for layer in layers if not isinstance(layer, Flat))
        dual = np.zeros(len(sizes), bool)
        if isinstance(first, Linear):
            numbers = (first.features, first.features_out, fedavg.local_steps, fedavg.batch_size)
            dual = np.isin(sizes, [size for size in np.unique(sizes) if pays(int(size), *numbers)])
        plan = make_plan(layers, shape, self._weights, fedavg.batch_size, rows=int(sizes[dual].max(initial=0)))
        self._spaces = Workspaces(plan, programs())
        squares = np.where(dual, sizes**2, 0)
        kept = squares.sum() <= self._x.size
        grams = np.zeros(squares.sum() if kept else 0, np.float32)
        self._grams_at = frozen(np.where(dual, np.cumsum(squares) - squares if kept else FRESH, PLAIN))
        if len(grams):
            with self._spaces.one() as space:
                self._spaces.programs.grams(
                    space.memory, space.table, self._spaces.dual, self._x, self._offsets, self._indices, grams,
                    self._grams_at,
                )  # fmt: skip
        self._grams = grams  # compiled code may write to what it sees as Gram matrices, but not to these

    @staticmethod
    def supports(module: nn.Module) -> str | None:
        """None if the engine can train this module, else the reason in words.

        Example:
            >>> CompiledTrainer.supports(nn.Sequential(nn.Linear(4, 2))) is None
            True
            >>> CompiledTrainer.supports(nn.Sequential(nn.Linear(4, 2), nn.Tanh()))
            'layer 1 (Tanh) is not among Conv2d, MaxPool2d, ReLU, Flatten, Linear'
        """
        return why_not(module)

    def init(self, model_ids: Sequence[int]) -> Floats:
        """The initial weights `[N, P]` of these models."""
        return initial_parameters(self._factory, seed=self.seed, model_ids=model_ids)

    def to_module(self, params: Floats) -> nn.Module:
        """One model `[P]` as a plain module, in evaluation mode."""
        with private_rng(0):
            module = self._factory()
        return unflatten(params, module).eval()

    def models_at_once(self, k: int) -> int:
        """How many models train together: one per thread."""
        return self.threads

    def run(
        self,
        params: Floats,
        model_ids: Sequence[int],
        members: Members,
        *,
        rounds: int | None = None,
        start_round: int = 0,
        intervene: Intervene | None = None,
        on_progress: Progress | None = None,
    ) -> Floats:
        """Train for `rounds` rounds from `start_round` on; see `Trainer.run`.

        Args:
            params: `[N, P]` the models' weights; may be a memory map.
            model_ids: `[N]` their ids, at least 0.
            members: `[N]` arrays of client numbers, in the order in which `intervene` gets their updates.
            rounds: how many rounds; None trains to the end.
            start_round: the number of the first round.
            intervene: decides each round's outcome, in this thread; None is FedAvg's weighted mean.
            on_progress: called in this thread with (clients trained so far, clients to train in all).

        Returns:
            The trained weights `[N, P]`, a new array.

        Raises:
            ConfigError: lengths, shapes or client numbers that do not fit.
        """
        rounds = max(0, self.fedavg.rounds - start_round) if rounds is None else rounds
        jobs = self._jobs(params, model_ids, members)
        trained = np.array(params, dtype=np.float32)
        total = rounds * sum(len(job.members) for job in jobs)
        span = range(start_round, start_round + rounds)
        with Crew(self.threads, self._spaces, total, on_progress) as crew:
            if intervene is None and len(jobs) >= crew.threads:
                crew.map(lambda space, job: self._train_model(crew, space, job, trained, span), jobs)
            else:
                for job in jobs:
                    self._train_together(crew, job, trained, span, intervene)
        return trained

    def predict(self, params: Floats, x: Floats) -> npt.NDArray[Any]:
        """The labels `[N, T]` that each model gives to inputs `x` [T, ...]; see `Scorer.labels`."""
        return self._scorer.labels(params, x)

    def scores(self, params: Floats, x: Floats) -> Floats:
        """The scores (logits) `[T, L]` that one model `[P]` gives to inputs `x` [T, ...]."""
        return self._scorer.scores(params, x)

    def _jobs(self, params: Floats, model_ids: Sequence[int], members: Members) -> list[_Job]:
        if len(model_ids) != len(members):
            raise ConfigError(f"model_ids has {len(model_ids)} entries, but members has {len(members)}")
        if np.shape(params) != (len(members), self.n_params):
            raise ConfigError(
                f"params has shape {list(np.shape(params))}, but {len(members)} models of {self.n_params} values each "
                f"are to be trained"
            )
        key = np.atleast_1d(stream_key(self.seed))
        jobs = []
        for place, (model_id, group) in enumerate(zip(model_ids, members, strict=True)):
            clients = np.asarray(group, dtype=np.int64)
            n = len(self._offsets) - 1
            if not len(clients):
                raise ConfigError(f"members of model {model_id} is empty; a model needs a client")
            if not 0 <= clients.min() <= clients.max() < n:
                wrong = clients.min() if clients.min() < 0 else clients.max()
                raise ConfigError(f"members names client {wrong}, but clients are numbered 0 to {n - 1}")
            of_model = fold.py_func(key, np.atleast_1d(np.uint64(model_id)))[0]
            jobs.append(_Job(place, int(model_id), frozen(clients), frozen(self._shares(clients)), of_model))
        return jobs

    def _shares(self, clients: npt.NDArray[np.int64]) -> Floats:
        """The clients' weights in the average: they sum to one, unless nobody holds a row."""
        sizes = np.diff(self._offsets)[clients]
        raw = sizes.astype(np.float64) if self.fedavg.weighting == "size" else (sizes > 0).astype(np.float64)
        shares: Floats = (raw / max(raw.sum(), 1.0)).astype(np.float32)
        return shares

    def _clients(
        self, space: Workspace, job: _Job, first: int, last: int, model: Floats, updates: Floats = _NO_UPDATES
    ) -> None:
        """Visits `first` to `last` of a model's clients, in one compiled call."""
        self._spaces.programs.train(
            space.memory, space.table, space.codes, self._spaces.ops, self._spaces.net, self._spaces.dual,
            self._x, self._y, self._offsets, self._indices, self._grams, self._grams_at, job.members, job.shares,
            job.key, first, last, self.fedavg.local_steps, self.fedavg.lr, model, updates,
        )  # fmt: skip

    def _train_model(self, crew: Crew, space: Workspace, job: _Job, trained: Floats, span: range) -> None:
        """All rounds of one model in one thread."""
        model, k = self._weights.place(trained[job.place]), len(job.members)
        visit, end, stretch = span.start * k, span.stop * k, 1
        while visit < end:
            last = min(end, visit + stretch)
            began = time.perf_counter()
            self._clients(space, job, visit, last, model)
            stretch = _next_stretch(last - visit, time.perf_counter() - began)
            crew.advance(last - visit)
            visit = last
        trained[job.place] = self._weights.flat(model)

    def _train_together(self, crew: Crew, job: _Job, trained: Floats, span: range, intervene: Intervene | None) -> None:
        """All rounds of one model, its clients in parallel; their sum is taken in their order."""
        model, k = self._weights.place(trained[job.place]), len(job.members)
        wave = k if intervene else max(1, min(k, max(crew.threads, _KEPT_BYTES // model.nbytes)))
        updates = np.zeros((wave, len(model)), np.float32)
        for number in span:
            total = np.zeros_like(model)
            for start in range(0, k, wave):
                stop = min(k, start + wave)
                self._updates(crew, job, number, range(start, stop), model, updates)
                for share, update in zip(job.shares[start:stop], updates, strict=False):
                    total += share * update
            answer = None
            if intervene is not None:
                flat = self._weights.flat
                answer = intervene(job.model_id, number, job.members, flat(updates), flat(model))
            model = model + total if answer is None else self._weights.place(self._checked(answer))
        trained[job.place] = self._weights.flat(model)

    def _updates(self, crew: Crew, job: _Job, number: int, clients: range, model: Floats, updates: Floats) -> None:
        """Fill `updates` with those of some clients of one round."""
        edges = np.linspace(0, len(clients), min(len(clients), 4 * crew.threads) + 1).astype(int)
        visit = number * len(job.members) + clients.start

        def train(space: Workspace, part: tuple[int, int]) -> None:
            first, last = part
            self._clients(space, job, visit + first, visit + last, model, updates[first:last])
            crew.advance(last - first)

        crew.map(train, [(int(first), int(last)) for first, last in pairwise(edges)])

    def _checked(self, answer: Any) -> Floats:
        vector = np.asarray(answer, dtype=np.float32)
        if vector.shape != (self.n_params,):
            raise ConfigError(
                f"intervene must return the next global model [{self.n_params}] or None, "
                f"but returned shape {list(vector.shape)}"
            )
        return vector


def _next_stretch(visits: int, seconds: float) -> int:
    """How many visits the next compiled call should make, from how long the last took; no result depends on it."""
    return max(1, min(4 * visits, int(visits * _CALL_SECONDS / max(seconds, 1e-6))))
