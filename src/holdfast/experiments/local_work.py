"""What clients do at home: honest ones train on their rows, malicious ones on poisoned rows in their own way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.attacks import Adversary
from holdfast.data import Partition
from holdfast.experiments.attacked import AttackedFederation, SimulateConfig
from holdfast.training import FedAvg, ModelFactory, Trainer, make_trainer
from holdfast.training.batches import derive_seed

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Machinery:
    """What trains the clients, and where.

    Attributes:
        factory: makes the model.
        engine: "auto", "compiled" or "torch".
        device: where torch computes.
        threads: threads to use; None leaves it to the engine.
    """

    factory: ModelFactory
    engine: str = "auto"
    device: str = "cpu"
    threads: int | None = None


class LocalWork:
    """The updates that clients come to by training on some rows, each with its own number of steps.

    Clients with equally many steps share a trainer, so a client's update is a function of the seed, the round, the
    global model, its rows, its steps and its learning rate alone.
    """

    def __init__(
        self,
        machinery: Machinery,
        x: NDArray[Any],
        y: NDArray[np.int64],
        partition: Partition,
        steps: NDArray[np.int64],
        *,
        lr: float,
        config: SimulateConfig,
    ) -> None:
        self._machinery, self._x, self._y, self._partition = machinery, x, y, partition
        self._steps, self._lr, self._config = steps, lr, config
        self._trainers: dict[int, Trainer] = {}

    def trainer(self, steps: int) -> Trainer:
        """The trainer of the clients with so many steps."""
        if steps not in self._trainers:
            way = self._machinery
            self._trainers[steps] = make_trainer(
                way.factory,
                self._x,
                self._y,
                self._partition,
                FedAvg(
                    rounds=1,
                    lr=self._lr,
                    local_steps=steps,
                    batch_size=self._config.batch_size,
                    optimizer=self._config.optimizer,  # type: ignore[arg-type]  # checked there
                ),
                seed=derive_seed(self._config.seed, "training"),
                engine=way.engine,  # type: ignore[arg-type]  # checked there
                device=way.device,
                threads=way.threads,
            )
        return self._trainers[steps]

    def updates(self, model: Floats, clients: NDArray[np.int64], round_number: int) -> Floats:
        """New minus old weights of these clients, `[k, P]`, in their order; zeros from those without steps."""
        found = np.zeros((len(clients), len(model)), np.float32)
        for steps in np.unique(self._steps[clients]):
            if steps == 0:
                continue
            places = np.flatnonzero(self._steps[clients] == steps)
            found[places] = _one_round(self.trainer(int(steps)), model, clients[places], round_number)
        return found

    def walk(self, models: Floats, clients: NDArray[np.int64], step_number: int, steps: int = 1) -> Floats:
        """The own models `[k, P]` of these clients after so many more SGD steps, each from its own model."""
        if not steps or not len(clients):
            return models
        alone = [clients[place : place + 1] for place in range(len(clients))]
        trainer = self.trainer(steps)
        return trainer.run(models, [0] * len(clients), alone, rounds=1, start_round=step_number)


def honest_work(federation: AttackedFederation, machinery: Machinery) -> LocalWork:
    """Everybody on their own rows, as the server asks."""
    config, dataset = federation.config, federation.dataset
    steps = np.array([config.steps_of(int(size)) for size in federation.partition.sizes], dtype=np.int64)
    return LocalWork(
        machinery,
        federation.seen(dataset.x_train),
        dataset.y_train,
        federation.partition,
        steps,
        lr=config.lr,
        config=config,
    )


def malicious_work(federation: AttackedFederation, adversary: Adversary, machinery: Machinery) -> LocalWork:
    """The malicious clients on what they made of their rows, with their own effort and learning rate."""
    config, dataset, partition = federation.config, federation.dataset, federation.partition
    xs, ys, sizes = [], [], np.zeros(partition.n, dtype=np.int64)
    steps = np.zeros(partition.n, dtype=np.int64)
    for client in federation.malicious:
        rows = partition.rows(int(client))
        x, y = dataset.x_train[rows], dataset.y_train[rows]
        if adversary.data is not None:
            rng = np.random.default_rng(derive_seed(config.seed, "poison", int(client)))
            x, y = adversary.data(x, y, rng)
        xs.append(x)
        ys.append(y)
        sizes[client] = len(y)
        steps[client] = adversary.behavior.steps(config.steps_of(len(y)))
    held = Partition(offsets=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64), indices=np.arange(sizes.sum()))
    return LocalWork(
        machinery,
        federation.seen(np.concatenate(xs)),
        np.concatenate(ys),
        held,
        steps,
        lr=adversary.behavior.lr or config.lr,
        config=config,
    )


def _one_round(trainer: Trainer, model: Floats, clients: NDArray[np.int64], round_number: int) -> Floats:
    """What these clients would send after one round from `model`."""
    caught: list[Floats] = []

    def catch(_: int, __: int, ids: NDArray[np.int64], updates: Any, start: Any) -> Any:
        on_cpu = updates.cpu().numpy() if hasattr(updates, "cpu") else updates
        caught.append(np.array(on_cpu, dtype=np.float32))
        return start

    trainer.run(model[None], [0], [clients], rounds=1, start_round=round_number, intervene=catch)
    return caught[0]
