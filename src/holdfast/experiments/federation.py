"""What a certify run is made of: its configuration, and the simulated federation that follows from it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from holdfast import data as data_module
from holdfast.data import Dataset, Partition
from holdfast.ensemble import Design
from holdfast.training import FedAvg, preset
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

    def fedavg(self) -> FedAvg:
        """The training hyper-parameters: the preset, with what was overridden."""
        given = {name: getattr(self, name) for name in ("rounds", "local_steps", "batch_size", "lr")}
        return replace(preset(self.preset, self.data), **{k: v for k, v in given.items() if v is not None})


@dataclass(frozen=True)
class Federation:
    """The simulated federation: data, who holds which rows, and which clients are not vouched for."""

    dataset: Dataset
    partition: Partition
    untrusted: NDArray[np.int64]
    trusted: NDArray[np.int64]

    def members(self, design: Design) -> list[NDArray[np.int64]]:
        """The clients of every group, by their number in the partition; trusted ones belong to each group."""
        return [
            np.sort(np.concatenate([self.untrusted[np.flatnonzero(row)], self.trusted])) for row in design.membership
        ]


def load_federation(config: CertifyConfig, *, seed: int) -> Federation:
    """Load the data and hand its rows to clients, as the configuration says."""
    dataset = data_module.load(config.data, data_dir=config.data_dir)
    if config.test_inputs is not None:
        if not 1 <= config.test_inputs <= len(dataset.y_test):
            raise ConfigError(
                f"test_inputs = {config.test_inputs} must be between 1 and the {len(dataset.y_test)} there are"
            )
        dataset = replace(
            dataset, x_test=dataset.x_test[: config.test_inputs], y_test=dataset.y_test[: config.test_inputs]
        )
    n = config.clients
    if config.partition == "user" and dataset.users_train is not None:
        n = len(np.unique(dataset.users_train)) if n is None else n
    if n is None:
        raise ConfigError("clients is not given; only data with a client column tells how many there are")
    params: dict[str, float] = {}
    if config.partition == "label-skew":
        params["q"] = config.skew
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
    return Federation(dataset, partition, untrusted, trusted)
