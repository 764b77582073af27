"""Training in other processes: what is sent there, what is done there, and what comes back.

Every worker gets the order once: the data, the settings and the test inputs. Blocks of models follow, which are a
few numbers each, and come back as votes and weights. Where the workers are is the business of a `Place`.
"""

from __future__ import annotations

import platform
import threading
import weakref
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numba
import numpy as np
import numpy.typing as npt
import torch
from llvmlite import binding

import holdfast
from holdfast.training.fedavg import FedAvg
from holdfast.training.parameters import Factory
from holdfast.training.trainer import ClientRows, Members, Trainer, make_trainer
from holdfast.types import EngineError

Shared = TypeVar("Shared")
Chunk = TypeVar("Chunk")
Result = TypeVar("Result")

_CLIENTS_PER_CARD = 256
"""Clients in one block of a GPU: enough to fill the card, few enough that all cards finish at about one time."""


class Place(Protocol):
    """Where chunks of work are done; `holdfast.engine` has the places there are."""

    @property
    def threads(self) -> int:
        """The threads each chunk may use."""
        ...

    def map_chunks(
        self, work: Callable[[Shared, Chunk], Result], shared: Shared, chunks: Sequence[Chunk]
    ) -> Generator[Result, None, None]:
        """`work(shared, chunk)` of every chunk, in the order in which they finish, whoever dies meanwhile.

        `work` is a module's function, `shared` reaches every worker once. Closing the iterator stops the work.
        """
        ...


@dataclass(frozen=True, eq=False)
class Recipe:
    """What is trained, wherever it is: the arguments of `make_trainer` that decide the models.

    Attributes:
        model: a picklable callable that returns a fresh module; see `model_factory`.
        x: training inputs `[M, ...]`.
        y: training labels `[M]`.
        partition: who holds which rows.
        fedavg: the hyper-parameters.
        seed: everything random follows from it.
    """

    model: Factory
    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.int64]
    partition: ClientRows
    fedavg: FedAvg
    seed: int

    def trainer(self, *, engine: str = "auto", device: str = "cpu", threads: int | None = None) -> Trainer:
        """A trainer in this process; see `make_trainer`."""
        return make_trainer(
            self.model,
            self.x,
            self.y,
            self.partition,
            self.fedavg,
            seed=self.seed,
            engine=engine,  # type: ignore[arg-type]  # checked there
            device=device,
            threads=threads,
        )


@dataclass(frozen=True, eq=False)
class Block:
    """Models that train together.

    Attributes:
        models: their ids.
        members: the clients of each.
    """

    models: Sequence[int]
    members: Members


@dataclass(frozen=True, eq=False)
class Trained:
    """A block that is finished.

    Attributes:
        models: the ids.
        params: `[n, P]` weights; None where nobody wants them.
        votes: `[n, T]`.
        machine: what they were computed with; see `machine`.
    """

    models: Sequence[int]
    params: npt.NDArray[np.float32] | None
    votes: npt.NDArray[Any]
    machine: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class Order:
    """What every worker gets once."""

    recipe: Recipe
    engine: str
    device: str
    threads: int
    x_test: npt.NDArray[np.float32]
    keep_models: bool


@dataclass(frozen=True, eq=False)
class Elsewhere:
    """The choice to train an ensemble in other processes.

    Attributes:
        place: where.
        recipe: what.
        engine: "compiled" or "torch", not "auto": all workers must take the same.
        device: "cpu" or "cuda", as a worker sees it.
        note: hears a line when workers differ in what decides the last bits of a model.
    """

    place: Place
    recipe: Recipe
    engine: str
    device: str
    note: Callable[[str], None]

    def block_size(self, trainer: Trainer, k: int) -> int:
        """Models of k clients per block: as many as train together there, and no more, so that little is lost."""
        if self.device != "cpu":
            return max(1, _CLIENTS_PER_CARD // max(1, k))
        return self.place.threads if self.engine == "compiled" else trainer.models_at_once(k)

    def train(
        self, blocks: Sequence[Block], x_test: npt.NDArray[np.float32], *, keep_models: bool
    ) -> Generator[Trained, None, None]:
        """Blocks in the order in which they are finished.

        Raises:
            EngineError: a worker has another version of holdfast, or the place gives up.
        """
        order = Order(self.recipe, self.engine, self.device, self.place.threads, x_test, keep_models)
        seen: list[Mapping[str, str]] = []
        with closing(self.place.map_chunks(train_block, order, blocks)) as results:
            for trained in results:
                if trained.machine not in seen:
                    self._compare(seen, trained.machine)
                    seen.append(trained.machine)
                yield trained

    def _compare(self, seen: Sequence[Mapping[str, str]], found: Mapping[str, str]) -> None:
        if found["holdfast"] != holdfast.__version__:
            raise EngineError(
                f"a worker has holdfast {found['holdfast']}, but this is {holdfast.__version__}; install one version"
            )
        if seen:
            other = [f"{name} {found[name]} and {seen[0][name]}" for name in found if found[name] != seen[0][name]]
            self.note(f"warning: workers differ, so the last bits of models may: {', '.join(other)}")


def train_block(order: Order, block: Block) -> Trained:
    """Train a block from beginning to end in this thread, and vote."""
    trainer = _trainer(order)
    params = trainer.run(trainer.init(block.models), block.models, block.members)
    votes = trainer.predict(params, order.x_test)
    return Trained(block.models, params if order.keep_models else None, votes, machine())


_local = threading.local()


def _trainer(order: Order) -> Trainer:
    """This thread's trainer for an order; it lives as long as the order does."""
    if not hasattr(_local, "trainers"):
        _local.trainers = weakref.WeakKeyDictionary()
    if order not in _local.trainers:
        made = order.recipe.trainer(engine=order.engine, device=order.device, threads=order.threads)
        _local.trainers[order] = made
    trainer: Trainer = _local.trainers[order]
    return trainer


def machine() -> Mapping[str, str]:
    """What decides the last bits of a model beside its data: versions, and the kind of processor and card.

    Example:
        >>> sorted(machine())
        ['card', 'holdfast', 'numba', 'numpy', 'processor', 'python', 'torch']
    """
    return {
        "holdfast": holdfast.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numba": numba.__version__,
        "torch": torch.__version__,
        "processor": binding.get_host_cpu_name(),
        "card": torch.cuda.get_device_name() if torch.cuda.is_initialized() else "none",  # type: ignore[no-untyped-call]
    }
