"""What one client does in a round of a certified ensemble: its own part of every model it takes part in.

The part of a client is a function of (model, own rows, model id, round, client) alone, so an ensemble over a real
federation is the one that `holdfast certify` trains in one process: to the bit, where the machines have the same kind
of processor. Every model has its own time and its own errors: one that a malicious member has poisoned cannot take the
others of an honest client with it.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.data.checking import as_features, as_labels
from holdfast.training import FedAvg, Trainer, make_trainer, model_factory
from holdfast.types import ConfigError, DataError

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Task:
    """What all clients train, as the server says it in every message.

    Attributes:
        model: name of the model, or `package.module:factory`.
        input_shape: shape of one input.
        label_names: the labels, in order.
        fedavg: the hyper-parameters.
        seed: where batches follow from; it does not tell who trains what.
        engine: "auto", "compiled" or "torch".
    """

    model: str
    input_shape: tuple[int, ...]
    label_names: tuple[str, ...]
    fedavg: FedAvg
    seed: int
    engine: str = "auto"

    def to_json(self) -> str:
        """As text.

        Example:
            >>> task = Task("mlp", (1, 8, 8), ("a", "b"), FedAvg(rounds=3, lr=0.1), seed=2**63)
            >>> Task.from_json(task.to_json()) == task
            True
        """
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Task:
        """From text."""
        facts = json.loads(text)
        lists = {name: tuple(facts[name]) for name in ("input_shape", "label_names")}
        return cls(**facts | lists | {"fedavg": FedAvg(**facts["fedavg"])})

    def trainer(self, x: Floats, y: npt.NDArray[np.int64], partition: Any, *, threads: int | None = None) -> Trainer:
        """A trainer on these rows."""
        factory = model_factory(self.model, self.input_shape, len(self.label_names))
        engine: Any = self.engine
        return make_trainer(factory, x, y, partition, self.fedavg, seed=self.seed, engine=engine, threads=threads)


def rows_for(task: Task, x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[Floats, npt.NDArray[np.int64]]:
    """A client's own rows as the task needs them.

    Raises:
        DataError: inputs of another shape, labels the task does not know, NaN.
    """
    inputs = as_features("own data", x)
    if inputs.shape[1:] != task.input_shape:
        raise DataError(f"own data: inputs have shape {inputs.shape[1:]}, but the model takes {task.input_shape}")
    labels, _ = as_labels("own data", y, task.label_names, None)
    if len(labels) != len(inputs):
        raise DataError(f"own data: {len(inputs)} inputs but {len(labels)} labels")
    return inputs, labels


class LocalWork:
    """One client's training: `updates` gives its new minus old weights for several models.

    Args:
        task: what is trained.
        client: the client's number, as the server counts.
        x: its inputs.
        y: their labels.
    """

    def __init__(self, task: Task, client: int, x: npt.ArrayLike, y: npt.ArrayLike) -> None:
        if client < 0:
            raise ConfigError(f"client = {client} must be at least 0")
        self.task, self.client = task, client
        self._rows = rows_for(task, x, y)
        self._trainer = self._fresh()

    def _fresh(self) -> Trainer:
        n = len(self._rows[0])
        offsets = np.zeros(self.client + 2, np.int64)  # clients before this one hold nothing here
        offsets[-1] = n
        return self.task.trainer(*self._rows, SimpleNamespace(offsets=offsets, indices=np.arange(n)), threads=1)

    def updates(
        self, models: Sequence[int], round_number: int, start: Floats, *, seconds: float
    ) -> tuple[Floats, dict[int, str]]:
        """The updates `[G, P]` of these models from `start` `[G, P]`, and why some are missing (their rows are NaN).

        Each model gets `seconds`; one that takes longer is left behind, the others go on.
        """
        found = np.full(np.shape(start), np.nan, np.float32)
        failed: dict[int, str] = {}
        for row, model in enumerate(models):
            answer = self._in_time(int(model), round_number, start[row], seconds)
            if isinstance(answer, str):
                failed[int(model)] = answer
            else:
                found[row] = answer
        return found, failed

    def _in_time(self, model: int, round_number: int, start: Floats, seconds: float) -> Floats | str:
        """One model's update, or why there is none."""
        box: list[Floats | str] = []
        trainer = self._trainer

        def work() -> None:
            try:
                box.append(one_update(trainer, model, round_number, self.client, start))
            except Exception as problem:  # of this model alone
                box.append(f"{type(problem).__name__}: {problem}")

        thread = threading.Thread(target=work, name=f"model-{model}", daemon=True)
        began = time.monotonic()
        thread.start()
        thread.join(seconds)
        if box:
            return box[0]
        self._trainer = self._fresh()  # the old one is in use by what was left behind
        return f"not finished after {time.monotonic() - began:.0f} s"


def one_update(trainer: Trainer, model: int, round_number: int, client: int, start: Floats) -> Floats:
    """What one client adds to one model in one round, `[P]`."""
    seen: list[Floats] = []

    def take(_: int, __: int, ___: Any, updates: Any, at: Any, /) -> Any:
        seen.append(np.array(updates[0], np.float32))
        return at

    trainer.run(
        start[None], [model], [np.array([client], np.int64)], rounds=1, start_round=round_number, intervene=take
    )
    return seen[0]
