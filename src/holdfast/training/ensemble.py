"""Train an ensemble so that nothing finished is ever lost: models and votes reach the disk as they come.

A run can be killed at any moment. Each finished model leaves two files, its weights and its row of votes, in that
order and each written atomically; a model counts as done when its votes are there. Models in training leave a
checkpoint about once a minute. What remains is trained again from its identity alone, so the votes of a resumed run
are those of an uninterrupted one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from holdfast.training.elsewhere import Block, Elsewhere, Trained, machine
from holdfast.training.segments import Checkpoint, Progress, Report, train_in_segments
from holdfast.training.trainer import Intervene, Members, Trainer
from holdfast.training.weights import write_weights
from holdfast.types import ConfigError

SINGLE_MODEL_ID = 2**40
"""The id of the one model that all clients train, out of the way of any ensemble's."""


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
    elsewhere: Elsewhere | None = None,
) -> npt.NDArray[Any]:
    """Train the models that have no votes yet, and give back all votes `[N, T]`.

    Writes `run_dir/models/000123.safetensors` (a module's whole state, ready for `load_state_dict`) for each model
    and `run_dir/training.safetensors` while models are in the making. Interrupting it (Ctrl-C, kill -9, a power cut)
    costs at most the last minute of training; the same call goes on where it stopped. Elsewhere it costs the blocks
    that were in training; what is finished is written here as it arrives, so nobody else needs this disk.

    Args:
        trainer: see `make_trainer`; trains here, and knows what a model is.
        members: the clients of each of the N models; model j has id j.
        x_test: the inputs to vote on `[T, ...]`.
        votes: the store; its `run` must name everything that decides the votes (`training_fingerprint`).
        run_dir: where weights go.
        keep_models: whether to write the weights of finished models.
        on_progress: called after every few seconds of training.
        intervene: attacks and robust rules; with one, models in the making start over after an interruption,
            because its memory cannot be saved.
        checkpoint_seconds: how often models in the making are saved; 0 saves them after every stretch of rounds.
        elsewhere: other processes or machines to train on; None trains here.

    Raises:
        ArtifactError: the store or the checkpoint belongs to another run.
        ConfigError: `intervene` elsewhere; its memory is here.
        EngineError: workers cannot be reached, or die again and again.
    """
    if elsewhere is not None and intervene is not None:
        raise ConfigError("intervene keeps its memory in this process, so such models cannot be trained elsewhere")
    n_models = len(members)
    missing = set(votes.missing(n_models))
    k = max((len(group) for group in members), default=1)
    at_once = trainer.models_at_once(k) if elsewhere is None else elsewhere.block_size(trainer, k)
    # Blocks do not depend on what is missing: an engine whose rounding depends on the company sees the same company.
    ranges = [range(first, min(first + at_once, n_models)) for first in range(0, n_models, at_once)]
    blocks = [Block(list(ids), [members[model] for model in ids]) for ids in ranges if missing.intersection(ids)]
    report = Report(on_progress, n_models, sum(len(block.models) for block in blocks), trainer.fedavg.rounds)
    checkpoint = None
    if intervene is None:
        checkpoint = Checkpoint(run_dir / "training.safetensors", votes.run, checkpoint_seconds)
    if elsewhere is None:
        finished = _here(trainer, blocks, x_test, checkpoint, report, intervene)
    else:
        finished = _there(elsewhere, blocks, x_test, keep_models, trainer.fedavg.rounds, report)
    with closing(finished):
        for block in finished:
            for place, model in enumerate(block.models):
                if model not in missing:
                    continue
                if keep_models and block.params is not None:
                    facts = {"format": "holdfast model 1", "model": str(model), "run": votes.run}
                    path = run_dir / "models" / f"{model:06d}.safetensors"
                    write_weights(path, trainer.to_module(block.params[place]).state_dict(), facts)
                votes.add(model, block.votes[place])
    if checkpoint is not None:
        checkpoint.remove()
    return votes.collect(n_models)


def _here(
    trainer: Trainer,
    blocks: Sequence[Block],
    x_test: npt.NDArray[np.float32],
    checkpoint: Checkpoint | None,
    report: Report,
    intervene: Intervene | None,
) -> Generator[Trained, None, None]:
    """Blocks trained in this process, one after the other, each from its checkpoint if there is one."""
    for block in blocks:
        params = train_in_segments(trainer, block.models, block.members, checkpoint, report, intervene)
        yield Trained(block.models, params, trainer.predict(params, x_test), machine())
        if checkpoint is not None:
            checkpoint.remove()


def _there(
    elsewhere: Elsewhere,
    blocks: Sequence[Block],
    x_test: npt.NDArray[np.float32],
    keep_models: bool,
    rounds: int,
    report: Report,
) -> Generator[Trained, None, None]:
    """Blocks trained elsewhere, in the order in which they are finished."""
    report.begin()
    with closing(elsewhere.train(blocks, x_test, keep_models=keep_models)) as finished:
        for block in finished:
            yield block
            report.advance(rounds * len(block.models))


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
    report = Report(on_progress, 1, 1, trainer.fedavg.rounds)
    checkpoint = None
    if run_dir is not None and intervene is None:
        who = hashlib.sha256(np.asarray(clients, dtype="<i8").tobytes()).hexdigest()
        checkpoint = Checkpoint(run_dir / "single.safetensors", f"{run} {who}", checkpoint_seconds)
    params = train_in_segments(trainer, [SINGLE_MODEL_ID], [clients], checkpoint, report, intervene)
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
