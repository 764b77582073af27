"""Training in this process, a few seconds at a time; between two segments come checkpoints and progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from holdfast.training.trainer import Intervene, Members, Trainer
from holdfast.training.weights import read_weights, write_weights
from holdfast.types import ArtifactError

Progress = Callable[[int, int, float | None], None]
"""Called with (models done, models in all, seconds left or None while unknown)."""

_SEGMENT_SECONDS = 5.0


def train_in_segments(
    trainer: Trainer,
    models: Sequence[int],
    members: Members,
    checkpoint: Checkpoint | None,
    report: Report,
    intervene: Intervene | None = None,
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


class Checkpoint:
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


class Report:
    """Counts model-rounds and tells the caller how long the rest will take."""

    def __init__(self, tell: Progress | None, n_models: int, to_train: int, rounds: int) -> None:
        self._tell, self._n_models, self._rounds = tell, n_models, rounds
        self._left = to_train * rounds
        self._began: float | None = None
        self._worked = 0
        self._say(None)

    def begin(self) -> None:
        """From now on the pace counts; else from the end of the first segment, which compiles and warms up."""
        self._began = time.monotonic()

    def skip(self, model_rounds: int) -> None:
        """These were done by an earlier process."""
        self._left -= model_rounds

    def advance(self, model_rounds: int) -> None:
        """These were just trained."""
        self._left -= model_rounds
        if self._began is None:
            self.begin()
            self._say(None)
            return
        self._worked += model_rounds
        self._say(self._left * (time.monotonic() - self._began) / self._worked)

    def _say(self, seconds: float | None) -> None:
        if self._tell is not None:
            self._tell(self._n_models - -(-self._left // self._rounds), self._n_models, seconds)
