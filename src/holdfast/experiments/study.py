"""What a certified run is about, whichever units may be malicious: the data, the design, and what is trained.

`Federation` certifies against clients, `Examples` against training examples; everything else (stages, files, resume,
certificates, report) is one machinery that asks a `Study` these few questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from holdfast.data import Dataset, Partition
from holdfast.ensemble import Design
from holdfast.training import FedAvg, ModelFactory, Trainer, make_trainer

Holders = npt.NDArray[np.int64]

SECOND_PHASE = -1
"""In `Task.labels`: the second phase says which label it is."""


@dataclass(frozen=True)
class Workshop:
    """Where training happens; no result depends on it, up to float32 rounding between engines.

    Attributes:
        engine: "auto", "compiled" or "torch".
        device: where torch computes.
        threads: threads to use; None takes all cores.
        checkpoint_seconds: how often models in the making are saved; 0 saves them after every stretch of rounds.
    """

    engine: str = "auto"
    device: str = "cpu"
    threads: int | None = None
    checkpoint_seconds: float = 60.0

    def trainer(
        self, model: ModelFactory, x: Any, y: Any, partition: Partition, fedavg: FedAvg, *, seed: int
    ) -> Trainer:
        """A trainer on these rows."""
        return make_trainer(
            model,
            x,
            y,
            partition,
            fedavg,
            seed=seed,
            engine=self.engine,  # type: ignore[arg-type]  # checked there
            device=self.device,
            threads=self.threads,
        )


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
        trainer: trains the ensemble.
        arrays: as in `Extra`.
        members: the holders of rows that make up each of the N models of the ensemble.
        labels: `[outputs]`, the data set's label of each of a model's outputs, or `SECOND_PHASE`.
        single: the model without an ensemble; None if it is not wanted.
        trusted: the model on trusted data alone; None if there is none, or the second phase is it.
        second: the second phase: one model on trusted data alone that tells the trusted classes apart.
    """

    trainer: Trainer
    arrays: tuple[npt.NDArray[Any], ...]
    members: Sequence[Holders]
    labels: npt.NDArray[np.int64]
    single: Extra | None = None
    trusted: Extra | None = None
    second: Extra | None = None


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
