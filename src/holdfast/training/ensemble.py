"""Train an ensemble so that nothing finished is ever lost: models and votes reach the disk as they come.

A run can be killed at any moment. Each finished model leaves two files, its weights and its row of votes, in that
order and each written atomically; a model counts as done when its votes are there. Models in training leave a
checkpoint about once a minute. What remains is trained again from its identity alone, so the votes of a resumed run
are those of an uninterrupted one.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from holdfast.training.trainer import Intervene, Members, Trainer
from holdfast.training.weights import read_weights, write_weights
from holdfast.types import ArtifactError

Progress = Callable[[int, int, float | None], None]
"""Called with (models done, models in all, seconds left or None while unknown)."""

SINGLE_MODEL_ID = 2**40
"""The id of the one model that all clients train, out of the way of any ensemble's."""

_SEGMENT_SECONDS = 5.0


class VoteStore(Protocol):
    """Where rows of votes go, durably; `holdfast.ensemble.VoteLog` is one."""

    @property
    def run(self) -> str:
        """What the rows belong to; see `training_fingerprint`."""
        ...

    def add(self, model_id: int, votes_row: npt.NDArray[Any], /) -> None:
        """Store one model's votes `[T]`; on return they are on the disk."""
        ...

    def missing(self, n_models: int, /) -> list[int]:
        """The ids below `n_models` without votes."""
        ...

    def collect(self, n_models: int, /) -> npt.NDArray[Any]:
        """All votes `[n_models, T]`."""
        ...


def train_ensemble(
    trainer: Trainer,
    members: Members,
    x_test: npt.NDArray[np.float32],
    votes: VoteStore,
    *,
    run_dir: Path,
    keep_models: bool = True,
    on_progress: Progress | None = None,
    intervene: Intervene | None = None,
    checkpoint_seconds: float = 60.0,
) -> npt.NDArray[Any]:
    """Train the models that have no votes yet, and give back all votes `[N, T]`.

    Writes `run_dir/models/000123.safetensors` (a module's whole state, ready for `load_state_dict`) for each model
    and `run_dir/training.safetensors` while models are in the making. Interrupting it (Ctrl-C, kill -9, a power cut)
    costs at most the last minute of training; the same call goes on where it stopped.

    Args:
        trainer: see `make_trainer`.
        members: the clients of each of the N models; model j has id j.
        x_test: the inputs to vote on `[T, ...]`.
        votes: the store; its `run` must name everything that decides the votes (`training_fingerprint`).
        run_dir: where weights go.
        keep_models: whether to write the weights of finished models.
        on_progress: called after every few seconds of training.
        intervene: attacks and robust rules; with one, models in the making start over after an interruption,
            because its memory cannot be saved.
        checkpoint_seconds: how often models in the making are saved; 0 saves them after every stretch of rounds.

    Raises:
        ArtifactError: the store or the checkpoint belongs to another run.
    """
    n_models = len(members)
    missing = set(votes.missing(n_models))
    at_once = trainer.models_at_once(max((len(group) for group in members), default=1))
    # Blocks do not depend on what is missing: an engine whose rounding depends on the company sees the same company.
    blocks = [range(first, min(first + at_once, n_models)) for first in range(0, n_models, at_once)]
    blocks = [block for block in blocks if missing.intersection(block)]
    report = _Report(on_progress, n_models, sum(map(len, blocks)), trainer.fedavg.rounds)
    checkpoint = None
    if intervene is None:
        checkpoint = _Checkpoint(run_dir / "training.safetensors", votes.run, checkpoint_seconds)
    for block in blocks:
        groups = [members[model] for model in block]
        params = _train(trainer, list(block), groups, checkpoint, report, intervene)
        rows = trainer.predict(params, x_test)
        for model, vector, row in zip(block, params, rows, strict=True):
            if model not in missing:
                continue
            if keep_models:
                facts = {"format": "holdfast model 1", "model": str(model), "run": votes.run}
                path = run_dir / "models" / f"{model:06d}.safetensors"
                write_weights(path, trainer.to_module(vector).state_dict(), facts)
            votes.add(model, row)
        if checkpoint is not None:
            checkpoint.remove()
    return votes.collect(n_models)


def train_single(
    trainer: Trainer,
    clients: npt.NDArray[np.int64],
    *,
    run_dir: Path | None = None,
    run: str = "",
    on_progress: Progress | None = None,
    intervene: Intervene | None = None,
    checkpoint_seconds: float = 60.0,
) -> npt.NDArray[np.float32]:
    """Train one model `[P]` on all these clients: plain FedAvg, which one malicious client can break.

    With `run_dir` it leaves a checkpoint `single.safetensors` there every `checkpoint_seconds`, goes on from it, and at
    the end keeps the finished weights in it; `run` says what it belongs to (`training_fingerprint`).

    Raises:
        ArtifactError: the checkpoint belongs to another run or other clients.
    """
    report = _Report(on_progress, 1, 1, trainer.fedavg.rounds)
    checkpoint = None
    if run_dir is not None and intervene is None:
        who = hashlib.sha256(np.asarray(clients, dtype="<i8").tobytes()).hexdigest()
        checkpoint = _Checkpoint(run_dir / "single.safetensors", f"{run} {who}", checkpoint_seconds)
    params = _train(trainer, [SINGLE_MODEL_ID], [clients], checkpoint, report, intervene)
    if checkpoint is not None:
        checkpoint.save([SINGLE_MODEL_ID], params, trainer.fedavg.rounds)
    return params[0]  # type: ignore[no-any-return]


def training_fingerprint(trainer: Trainer, members: Members, *arrays: npt.NDArray[Any]) -> str:
    """A SHA-256 of everything that decides the votes: settings, seed, initial weights, groups and the data.

    Store it with the votes; a run may only be resumed under the same fingerprint.

    Args:
        trainer: its engine, hyper-parameters, seed, and how it initializes model 0 (which tells one architecture
            from another).
        members: the clients of each model.
        *arrays: the data: training and test inputs, labels, and which rows each client holds.
    """
    digest = hashlib.sha256()
    settings = {
        "engine": trainer.engine,
        "fedavg": asdict(trainer.fedavg),
        "seed": trainer.seed,
        "layout": {name: [part.start, part.stop] for name, part in trainer.layout.items()},
    }
    digest.update(json.dumps(settings, sort_keys=True).encode())
    everything: list[npt.NDArray[Any]] = [trainer.init([0]), *map(np.asarray, members), *arrays]
    for array in everything:
        digest.update(f"{array.dtype.str} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _train(
    trainer: Trainer,
    models: Sequence[int],
    members: Members,
    checkpoint: _Checkpoint | None,
    report: _Report,
    intervene: Intervene | None,
) -> npt.NDArray[np.float32]:
    """Train some models to the end, a few seconds at a time, from their checkpoint if there is one."""
    done, params = checkpoint.load(models) if checkpoint is not None else (0, None)
    if params is None:
        params = trainer.init(models)
    report.skip(done * len(models))
    for rounds, start in _segments(done, trainer.fedavg.rounds):
        try:
            params = trainer.run(params, models, members, rounds=rounds, start_round=start, intervene=intervene)
        except KeyboardInterrupt:
            if checkpoint is not None:
                checkpoint.save(models, params, start)
            raise
        report.advance(rounds * len(models))
        if checkpoint is not None and start + rounds < trainer.fedavg.rounds:
            checkpoint.save_if_due(models, params, start + rounds)
    return params


def _segments(done: int, rounds: int) -> Iterator[tuple[int, int]]:
    """(rounds, first round) of segments that take about `_SEGMENT_SECONDS`, as the last one lets expect."""
    length = 1
    while done < rounds:
        length = min(length, rounds - done)
        began = time.monotonic()
        yield length, done
        done += length
        pace = (time.monotonic() - began) / length
        length = max(1, min(8 * length, int(_SEGMENT_SECONDS / max(pace, 1e-9))))


class _Checkpoint:
    """The weights of models in the making, in one file."""

    def __init__(self, path: Path, run: str, every: float = 60.0) -> None:
        self.path, self.run, self._every = path, run, every
        self._saved = time.monotonic()

    def load(self, models: Sequence[int]) -> tuple[int, npt.NDArray[np.float32] | None]:
        """(rounds done, weights) of these models, or (0, None)."""
        if not self.path.exists():
            return 0, None
        tensors, facts = read_weights(self.path)
        if facts.get("run") != self.run:
            raise ArtifactError(f"{self.path} belongs to another run; use a new folder or move it away")
        if facts.get("models") != _listed(models):
            return 0, None
        return int(facts["rounds"]), tensors["params"].numpy()

    def save_if_due(self, models: Sequence[int], params: npt.NDArray[np.float32], rounds: int) -> None:
        """Save, unless the last time was only just."""
        if time.monotonic() - self._saved >= self._every:
            self.save(models, params, rounds)

    def save(self, models: Sequence[int], params: npt.NDArray[np.float32], rounds: int) -> None:
        """Save the weights that these models have after so many rounds."""
        facts = {"format": "holdfast training 1", "run": self.run, "models": _listed(models), "rounds": str(rounds)}
        write_weights(self.path, {"params": torch.from_numpy(params)}, facts)
        self._saved = time.monotonic()

    def remove(self) -> None:
        """The models are finished."""
        self.path.unlink(missing_ok=True)


def _listed(models: Sequence[int]) -> str:
    return ",".join(map(str, models))


class _Report:
    """Counts model-rounds and tells the caller how long the rest will take."""

    def __init__(self, tell: Progress | None, n_models: int, to_train: int, rounds: int) -> None:
        self._tell, self._n_models, self._rounds = tell, n_models, rounds
        self._left = to_train * rounds
        self._began: float | None = None
        self._worked = 0
        self._say(None)

    def skip(self, model_rounds: int) -> None:
        """These were done by an earlier process."""
        self._left -= model_rounds

    def advance(self, model_rounds: int) -> None:
        """These were just trained."""
        self._left -= model_rounds
        if self._began is None:  # the first segment compiles and warms up; it says nothing about the pace
            self._began = time.monotonic()
            self._say(None)
            return
        self._worked += model_rounds
        self._say(self._left * (time.monotonic() - self._began) / self._worked)

    def _say(self, seconds: float | None) -> None:
        if self._tell is not None:
            self._tell(self._n_models - -(-self._left // self._rounds), self._n_models, seconds)
