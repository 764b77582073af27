"""What a certified run is about, whichever units may be malicious: the data, the design, and what is trained.

`Federation` certifies against clients, `Examples` against training examples; everything else (stages, files, resume,
certificates, report) is one machinery that asks a `Study` these few questions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from holdfast.data import Dataset
from holdfast.ensemble import Design
from holdfast.training import Trainer
from holdfast.training.elsewhere import Elsewhere, Place, Recipe
from holdfast.types import ConfigError

Holders = npt.NDArray[np.int64]

SECOND_PHASE = -1
"""In `Task.labels`: the second phase says which label it is."""


@dataclass(frozen=True)
class Workshop:
    """Where training happens; no result depends on it, up to float32 rounding between engines.

    Attributes:
        engine: "auto", "compiled" or "torch".
        device: where torch computes.
        threads: threads to use in this process; None takes all cores.
        checkpoint_seconds: how often models in the making are saved here; 0 saves them after every stretch of rounds.
        place: where ensembles train; None is this process. Models beside an ensemble always train here.
    """

    engine: str = "auto"
    device: str = "cpu"
    threads: int | None = None
    checkpoint_seconds: float = 60.0
    place: Place | None = None

    def trainer(self, recipe: Recipe) -> Trainer:
        """A trainer in this process, on its CPU where only the workers have a GPU."""
        if self.place is not None and self.device != "cpu" and not torch.cuda.is_available():
            return recipe.trainer(engine="torch", threads=self.threads)
        return recipe.trainer(engine=self.engine, device=self.device, threads=self.threads)

    def elsewhere(self, task: Task, note: Callable[[str], None]) -> Elsewhere | None:
        """How the ensemble of a task trains in other processes; None if it does not."""
        if self.place is None:
            return None
        if task.recipe is None:
            raise ConfigError(f"clients that are nodes of a federation train there, not on {self.place}")
        return Elsewhere(self.place, task.recipe, task.trainer.engine, self.device, note)


@dataclass(frozen=True, eq=False)
class Extra:
    """One model beside the ensemble.

    Attributes:
        trainer: trains it.
        arrays: what decides the result beside the trainer's settings: inputs, labels, who holds which rows.
        holders: who it is trained on.
        labels: `[outputs]`, the data set's label of each output.
    """

    trainer: Trainer
    arrays: tuple[npt.NDArray[Any], ...]
    holders: Holders
    labels: npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Task:
    """What is trained for one run.

    Attributes:
        trainer: trains the ensemble in this process.
        arrays: as in `Extra`.
        members: the holders of rows that make up each of the N models of the ensemble.
        labels: `[outputs]`, the data set's label of each of a model's outputs, or `SECOND_PHASE`.
        single: the model without an ensemble; None if it is not wanted.
        trusted: the model on trusted data alone; None if there is none, or the second phase is it.
        second: the second phase: one model on trusted data alone that tells the trusted classes apart.
        recipe: what other processes train the ensemble with; None if none can.
    """

    trainer: Trainer
    arrays: tuple[npt.NDArray[Any], ...]
    members: Sequence[Holders]
    labels: npt.NDArray[np.int64]
    single: Extra | None = None
    trusted: Extra | None = None
    second: Extra | None = None
    recipe: Recipe | None = None


class Study(Protocol):
    """The units that may be malicious, and what is trained on them."""

    @property
    def dataset(self) -> Dataset:
        """The data, with the test inputs to certify."""
        ...

    @property
    def n(self) -> int:
        """How many units are not vouched for."""
        ...

    def facts(self) -> Mapping[str, Any]:
        """What the votes must remember about the study beside its design."""
        ...

    def design(self, seed: str) -> Design:
        """Who trains what."""
        ...

    def outlook(self, design: Design, alpha: float) -> str:
        """What could be certified at best, in words.

        Raises:
            ConfigError: nothing could, so training would be in vain.
        """
        ...

    def task(self, design: Design, workshop: Workshop, *, seed: int) -> Task:
        """What is trained."""
        ...


class StudyConfig(Protocol):
    """The configuration of a study: a frozen dataclass that JSON can hold."""

    @property
    def job(self) -> str:
        """The command whose runs it configures."""
        ...

    def study(self, *, seed: int) -> Study:
        """Load the data and hand it out."""
        ...
