"""`holdfast flower certify`: the certified ensemble whose clients are the enrolled nodes of a real federation.

The server holds the inputs to certify and no training row. Everything else is `certify_run`: design, votes,
certificates and report are those of a simulated federation.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from holdfast import data as data_module
from holdfast.data import Partition
from holdfast.ensemble import Design
from holdfast.experiments.federation import CertifyConfig, Federation, default_model, first_inputs
from holdfast.experiments.study import Task, Workshop
from holdfast.flower.ensemble import Absence, FlowerTrainer, Patience
from holdfast.flower.grid import SafeGrid
from holdfast.flower.work import Task as Work
from holdfast.types import ConfigError

ABSENCES = "absences.jsonl"
"""In a run's folder: every part of a model that did not come or was refused, one JSON object a line."""


@dataclass(frozen=True)
class EnrolledConfig(CertifyConfig):
    """What decides the votes of a real federation, beside the nodes' own rows.

    Attributes:
        site: the federation's folder.
        examples: per client, how much it counts in an average, fixed at enrollment; empty counts all alike.
        model_seconds: a client's time for its part of one model in one round.
        round_seconds: time of a round beside that.
    """

    partition: str = "enrolled"
    baseline: bool = False
    site: str = ""
    examples: tuple[int, ...] = ()
    model_seconds: float = Patience.model_seconds
    round_seconds: float = Patience.round_seconds

    @property
    def job(self) -> str:
        """The command."""
        return "flower certify"

    def study(self, *, seed: int) -> EnrolledFederation:
        """The federation; nothing about it is drawn."""
        if self.clients is None:
            raise ConfigError("clients is not given; it is the number of enrolled keys")
        whole = first_inputs(data_module.load(self.data, data_dir=self.data_dir), self.test_inputs)
        dataset = replace(whole, x_train=whole.x_train[:0], y_train=whole.y_train[:0], users_train=None)
        nobody = Partition(np.zeros(self.clients + 1, np.int64), np.zeros(0, np.int64))
        trusted = np.unique(np.asarray(self.trusted, dtype=np.int64))
        if len(trusted) and not 0 <= trusted[0] <= trusted[-1] < self.clients:
            raise ConfigError(f"trusted names client {trusted[-1]}, but clients are numbered 0 to {self.clients - 1}")
        untrusted = np.setdiff1d(np.arange(self.clients, dtype=np.int64), trusted)
        if not len(untrusted):
            raise ConfigError("trusted names every client; there is nobody left to certify against")
        return EnrolledFederation(self, dataset, nobody, untrusted, trusted)

    @property
    def shares(self) -> Sequence[int]:
        """How much each client counts."""
        return self.examples or (1,) * int(self.clients or 0)


@dataclass(frozen=True)
class EnrolledFederation(Federation):
    """A federation of nodes: their rows are theirs."""

    config: EnrolledConfig
    absences: list[Absence] = field(default_factory=list)

    def facts(self) -> Mapping[str, Any]:
        """What the votes must remember: who was absent from which models."""
        facts = {**super().facts(), "flwr": metadata.version("flwr")}
        return {**facts, "absences": summarize(self.absences)} if self.absences else facts

    def task(self, design: Design, workshop: Workshop, *, seed: int) -> Task:
        """The models of all groups, trained on nodes.

        Raises:
            ConfigError: the workshop has no grid.
        """
        if not isinstance(workshop, GridWorkshop):
            raise ConfigError("enrolled clients train on their own nodes; start the run with: holdfast flower certify")
        work = Work(
            self.config.model or default_model(self.config.data),
            self.dataset.x_test.shape[1:],
            self.dataset.label_names,
            self.config.fedavg(),
            seed,
            workshop.engine,
        )
        self.absences.extend(workshop.known())
        trainer = workshop.remote(work, self, self.absences.append)
        return self.models(trainer, design, self.dataset.x_test, np.asarray(self.config.shares, np.int64))


@dataclass(frozen=True)
class GridWorkshop(Workshop):
    """Where training happens: on the nodes of a grid.

    Attributes:
        grid: how messages travel.
        nodes: the node id of each client.
        out: the run's folder, where absences are written.
        note: hears of every absence.
    """

    grid: SafeGrid = field(kw_only=True)
    nodes: Sequence[int] = field(kw_only=True)
    out: Path = field(kw_only=True)
    note: Callable[[str], None] = field(kw_only=True)

    def known(self) -> list[Absence]:
        """What an interrupted run has recorded; a line that was cut off is not counted."""
        try:
            lines = (self.out / ABSENCES).read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        return [absence for line in lines if (absence := _parse(line)) is not None]

    def remote(self, work: Work, federation: EnrolledFederation, heard: Callable[[Absence], None]) -> FlowerTrainer:
        """A trainer whose clients are the nodes."""
        x, y = federation.dataset.x_test, federation.dataset.y_test
        nobody = Partition(np.zeros(2, np.int64), np.zeros(0, np.int64))
        config = federation.config

        def record(absence: Absence) -> None:
            heard(absence)
            self.out.mkdir(parents=True, exist_ok=True)
            with (self.out / ABSENCES).open("a", encoding="utf-8") as file:
                file.write("\n" + json.dumps(asdict(absence)) + "\n")  # the line before may have been cut off
            listed = ", ".join(map(str, absence.models))
            self.note(
                f"round {absence.round + 1}: client {absence.client} is left out of models {listed}: {absence.reason}"
            )

        return FlowerTrainer(
            work.trainer(x, y, nobody, threads=self.threads),
            work,
            self.grid,
            self.nodes,
            config.shares,
            patience=Patience(config.model_seconds, config.round_seconds),
            record=record,
        )


def _parse(line: str) -> Absence | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return Absence(**{**row, "models": tuple(row["models"])})


def summarize(absences: Sequence[Absence]) -> dict[str, Any]:
    """Who was absent, from which models, in how many rounds.

    Example:
        >>> summarize([Absence(0, 3, (5, 9), "silent", "no reply"), Absence(1, 3, (5,), "silent", "no reply")])
        {'clients': [3], 'models': [5, 9], 'rounds': 2}
    """
    return {
        "clients": sorted({absence.client for absence in absences}),
        "models": sorted({model for absence in absences for model in absence.models}),
        "rounds": len({absence.round for absence in absences}),
    }
