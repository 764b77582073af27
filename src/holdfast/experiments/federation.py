"""What a certify run is made of: its configuration, and the simulated federation that follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast import data as data_module
from holdfast.data import Dataset, Partition
from holdfast.ensemble import DESIGNS, SELECTIONS, Design, make_design
from holdfast.experiments.plan import plan_table
from holdfast.experiments.study import Extra, Task, Workshop
from holdfast.training import FedAvg, Trainer, model_factory, preset
from holdfast.training.elsewhere import Recipe
from holdfast.types import ConfigError


@dataclass(frozen=True)
class CertifyConfig:
    """Everything that decides the votes; equal configurations and seeds give equal votes.

    Attributes:
        data: name of a data set, or a path to an .npz or Parquet file.
        data_dir: folder with the official files, instead of the cache.
        clients: n, the enrolled clients; None takes one client per user of the data.
        partition: how training rows reach clients: "label-skew", "iid", "dirichlet", "user".
        skew: the paper's q for "label-skew".
        concentration: beta for "dirichlet".
        design: who trains what: "partitions", "disjoint", "random", "exhaustive", "spread".
        k: clients per group.
        models: N; None takes as many as the design needs at least.
        model: registry name or `package.module:factory`; None takes the data set's own.
        preset: "fast" or "paper"; `rounds`, `local_steps`, `batch_size`, `lr` override it one by one.
        trusted: clients (by number) that the operator vouches for; they join every group and n counts the others.
        baseline: also train the single FedAvg model over all clients.
        test_inputs: certify only the first so many test inputs; None takes all.
    """

    data: str = "digits"
    data_dir: str | None = None
    clients: int | None = None
    partition: str = "label-skew"
    skew: float = 0.5
    concentration: float = 0.5
    design: str = "partitions"
    k: int = 10
    models: int | None = None
    model: str | None = None
    preset: str = "fast"
    rounds: int | None = None
    local_steps: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    trusted: tuple[int, ...] = ()
    baseline: bool = True
    test_inputs: int | None = None

    @property
    def job(self) -> str:
        """The command."""
        return "certify"

    def study(self, *, seed: int) -> Federation:
        """The federation that follows from this configuration."""
        return load_federation(self, seed=seed)

    def fedavg(self) -> FedAvg:
        """The training hyper-parameters: the preset, with what was overridden."""
        given = {name: getattr(self, name) for name in ("rounds", "local_steps", "batch_size", "lr")}
        return replace(preset(self.preset, self.data), **{k: v for k, v in given.items() if v is not None})


@dataclass(frozen=True)
class Federation:
    """The simulated federation: data, who holds which rows, and which clients are not vouched for."""

    config: CertifyConfig
    dataset: Dataset
    partition: Partition
    untrusted: NDArray[np.int64]
    trusted: NDArray[np.int64]

    @property
    def n(self) -> int:
        """Clients that are not vouched for."""
        return len(self.untrusted)

    def facts(self) -> Mapping[str, Any]:
        """Votes of clients need nothing beside their design."""
        return {"data": self.dataset.name}

    def design(self, seed: str) -> Design:
        """Who trains what."""
        if self.config.design in SELECTIONS:
            raise ConfigError(
                f"design {self.config.design!r} selects training examples, not clients; choose one of "
                f"{', '.join(DESIGNS)}"
            )
        return make_design(self.config.design, n=self.n, k=self.config.k, n_models=self.config.models, seed=seed)

    def outlook(self, design: Design, alpha: float) -> str:
        """What the design could certify at best.

        Raises:
            ConfigError: not even one malicious client, whatever the votes.
        """
        table = plan_table(
            n=design.n,
            k=design.k,
            n_models=design.n_models,
            n_inputs=len(self.dataset.y_test),
            n_labels=self.dataset.n_labels,
            alpha=alpha,
            design=design.kind,
        )
        if table.hopeless is not None:
            raise ConfigError(table.hopeless)
        return table.text()

    def task(self, design: Design, workshop: Workshop, *, seed: int) -> Task:
        """The models of all groups, and those beside them."""
        dataset, partition = self.dataset, self.partition
        name = self.config.model or default_model(self.config.data)
        factory = model_factory(name, dataset.x_train.shape[1:], dataset.n_labels)
        recipe = Recipe(factory, dataset.x_train, dataset.y_train, partition, self.config.fedavg(), seed)
        arrays = (dataset.x_train, dataset.y_train, dataset.x_test, partition.offsets, partition.indices)
        return replace(self.models(workshop.trainer(recipe), design, *arrays), recipe=recipe)

    def models(self, trainer: Trainer, design: Design, *arrays: NDArray[Any]) -> Task:
        """The task of this trainer: the models of all groups, and those beside them."""
        labels = np.arange(self.dataset.n_labels)
        everyone = np.arange(self.partition.n, dtype=np.int64)
        return Task(
            trainer,
            arrays,
            self.members(design),
            labels,
            single=Extra(trainer, arrays, everyone, labels) if self.config.baseline else None,
            trusted=Extra(trainer, arrays, self.trusted, labels) if len(self.trusted) else None,
        )

    def members(self, design: Design) -> list[NDArray[np.int64]]:
        """The clients of every group, by their number in the partition; trusted ones belong to each group."""
        return [
            np.sort(np.concatenate([self.untrusted[np.flatnonzero(row)], self.trusted])) for row in design.membership
        ]


def default_model(data: str) -> str:
    """The model a data set is trained with unless another is asked for."""
    return {"mnist": "cnn", "har": "har"}.get(data, "mlp")


def first_inputs(dataset: Dataset, count: int | None) -> Dataset:
    """The data set with only its first so many test inputs; None keeps all."""
    if count is None:
        return dataset
    if not 1 <= count <= len(dataset.y_test):
        raise ConfigError(f"test_inputs = {count} must be between 1 and the {len(dataset.y_test)} there are")
    return replace(dataset, x_test=dataset.x_test[:count], y_test=dataset.y_test[:count])


def load_federation(config: CertifyConfig, *, seed: int) -> Federation:
    """Load the data and hand its rows to clients, as the configuration says."""
    dataset = first_inputs(data_module.load(config.data, data_dir=config.data_dir), config.test_inputs)
    n = config.clients
    if config.partition == "user" and dataset.users_train is not None:
        n = len(np.unique(dataset.users_train)) if n is None else n
    if n is None:
        raise ConfigError("clients is not given; only data with a client column tells how many there are")
    params: dict[str, float] = {}
    if config.partition == "label-skew":
        params |= {"q": config.skew, "groups": dataset.n_labels}
    elif config.partition == "dirichlet":
        params["beta"] = config.concentration
    partition = data_module.partition(
        config.partition, dataset.y_train, n=n, seed=seed, users=dataset.users_train, **params
    )
    trusted = np.unique(np.asarray(config.trusted, dtype=np.int64))
    if len(trusted) and not 0 <= trusted[0] <= trusted[-1] < partition.n:
        raise ConfigError(f"trusted names client {trusted[-1]}, but clients are numbered 0 to {partition.n - 1}")
    untrusted = np.setdiff1d(np.arange(partition.n, dtype=np.int64), trusted)
    if not len(untrusted):
        raise ConfigError("trusted names every client; there is nobody left to certify against")
    return Federation(config, dataset, partition, untrusted, trusted)
