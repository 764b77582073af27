"""One way to train many federated models, whatever computes it: the interface, and the choice of an engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from holdfast.training.fedavg import FedAvg
from holdfast.training.parameters import Factory, private_rng
from holdfast.types import ConfigError, DataError

Engine = Literal["auto", "compiled", "torch"]
Members = Sequence[npt.NDArray[np.int64]]


class Intervene(Protocol):
    """The door for attacks and robust rules: called once per model and round, in the order of rounds.

    `updates` [k, P] are the clients' new minus old weights, in the order of `client_ids` [k]; `start` [P] is the
    global model they began from. Give back the next global model [P], or None for FedAvg's own average. On the CPU
    arrays are NumPy, on a GPU they are tensors there. What is returned is taken as it is: a rule that lets NaN
    through has broken the model, and the votes will show it.
    """

    def __call__(
        self, model_id: int, round_number: int, client_ids: npt.NDArray[np.int64], updates: Any, start: Any, /
    ) -> Any:
        """The next global model [P], or None for the weighted mean."""
        ...


class ClientRows(Protocol):
    """Which rows each client holds: client c has `indices[offsets[c]:offsets[c + 1]]`, as in `data.Partition`."""

    @property
    def offsets(self) -> npt.NDArray[np.int64]:
        """`[n + 1]`, from 0 to the number of rows handed out."""
        ...

    @property
    def indices(self) -> npt.NDArray[np.int64]:
        """Row numbers of the training arrays, client after client."""
        ...


@runtime_checkable
class Trainer(Protocol):
    """Trains models that are rows of one matrix `[N, P]`; each a function of (seed, its id, its members' data) alone.

    So a model comes out the same whatever it is trained with, in which chunk and on how many threads: bit for bit
    on the compiled engine, up to float32 rounding on torch. P counts the module's parameters, in torch's
    `parameters()` order and each raveled, then its floating-point buffers if it has any (`layout` names them).
    """

    engine: str
    n_params: int
    n_labels: int
    layout: Mapping[str, slice]
    fedavg: FedAvg
    seed: int

    def init(self, model_ids: Sequence[int]) -> npt.NDArray[np.float32]:
        """The initial weights `[N, P]` of these models."""
        ...

    def run(
        self,
        params: npt.NDArray[np.float32],
        model_ids: Sequence[int],
        members: Members,
        *,
        rounds: int | None = None,
        start_round: int = 0,
        intervene: Intervene | None = None,
    ) -> npt.NDArray[np.float32]:
        """Train for `rounds` rounds from `start_round` on; None trains to the end. The input is not changed.

        A client without rows has weight zero: a group may hold one, and a model of none but such stays as it was.
        """
        ...

    def predict(self, params: npt.NDArray[np.float32], x: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        """The labels `[N, T]` that each model gives to inputs `x` [T, ...]: uint8, or uint16 above 256 labels."""
        ...

    def to_module(self, params: npt.NDArray[np.float32]) -> nn.Module:
        """One model `[P]` as a plain module, in evaluation mode."""
        ...

    def models_at_once(self, k: int) -> int:
        """How many models of k clients train together at best; a caller who saves progress hands out as many."""
        ...


def make_trainer(
    model: Factory,
    x: npt.NDArray[np.float32],
    y: npt.NDArray[np.int64],
    partition: ClientRows,
    fedavg: FedAvg,
    *,
    seed: int,
    engine: Engine = "auto",
    device: str = "cpu",
    threads: int | None = None,
) -> Trainer:
    """The trainer for a model and a federation.

    `"auto"` takes the compiled engine where it applies (CPU; SGD; Sequential of Conv2d, MaxPool2d, ReLU, Flatten and
    Linear), which is several times faster, and torch for everything else.

    Args:
        model: a callable without arguments that returns a fresh module; see `model_factory`.
        x: training inputs `[M, ...]`, float32.
        y: training labels `[M]`, whole numbers from 0 to L - 1.
        partition: who holds which rows.
        fedavg: the hyper-parameters.
        seed: everything random follows from it: initial weights and batches.
        engine: `"auto"`, `"compiled"` or `"torch"`.
        device: where torch computes: `"cpu"`, `"cuda"`, `"cuda:1"`.
        threads: threads to use; None leaves it to the engine.

    Raises:
        ConfigError: unknown engine or device, or the compiled engine is asked for and does not cover the model.
        DataError: lengths or labels that do not fit, or rows outside the data.

    Example:
        >>> from types import SimpleNamespace
        >>> x = np.eye(4, dtype=np.float32); y = np.array([0, 1, 0, 1])
        >>> halves = SimpleNamespace(offsets=np.array([0, 2, 4]), indices=np.arange(4))
        >>> trainer = make_trainer(lambda: nn.Linear(4, 2), x, y, halves, FedAvg(rounds=20, lr=0.5), seed=1)
        >>> weights = trainer.run(trainer.init([0]), [0], [np.array([0, 1])])
        >>> trainer.predict(weights, x).tolist()
        [[0, 1, 0, 1]]
    """
    if engine not in get_args(Engine):
        raise ConfigError(f"engine must be one of {', '.join(get_args(Engine))}, but is {engine!r}")
    on = _device(device)
    x = np.ascontiguousarray(x, dtype=np.float32)
    y = np.ascontiguousarray(y, dtype=np.int64)
    _check_rows(x, y, partition)
    with private_rng(0):
        module = model()
    n_labels = _count_labels(module, x, y)
    if engine != "torch":
        from holdfast.training.compiled import CompiledTrainer  # both engines import this module

        why_not = CompiledTrainer.supports(module) or (f"device is {device!r}" if on.type != "cpu" else None)
        if why_not is None and fedavg.optimizer != "sgd":
            why_not = f"optimizer is {fedavg.optimizer!r}"
        if why_not is None:
            return CompiledTrainer(model, x, y, partition, fedavg, seed=seed, threads=threads)
        if engine == "compiled":
            raise ConfigError(f"engine 'compiled' does not apply: {why_not}; engine 'torch' trains any module")
    from holdfast.training.torch_engine import TorchTrainer

    return TorchTrainer(model, x, y, partition, fedavg, n_labels=n_labels, seed=seed, device=on, threads=threads)


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device must be cpu, cuda or cuda:<number>, but is {name!r}") from error
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device must be cpu, cuda or cuda:<number>, but is {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device is {name!r}, but torch sees {torch.cuda.device_count()} CUDA devices here")
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device


def _check_rows(x: npt.NDArray[np.float32], y: npt.NDArray[np.int64], partition: ClientRows) -> None:
    if len(x) != len(y) or y.ndim != 1:
        raise DataError(f"x has {len(x)} rows and y has shape {list(y.shape)}; there must be one label per row")
    if not len(x):
        raise DataError("x has no rows; there is nothing to train on")
    indices = np.asarray(partition.indices)
    if len(indices) and not 0 <= indices.min() <= indices.max() < len(x):
        raise DataError(f"partition names row {indices.max()}, but x has rows 0 to {len(x) - 1}")


def _count_labels(module: nn.Module, x: npt.NDArray[np.float32], y: npt.NDArray[np.int64]) -> int:
    with private_rng(0), torch.no_grad():
        scores = module.eval()(torch.from_numpy(x[:2].copy()))
    if not isinstance(scores, torch.Tensor) or scores.ndim != 2 or scores.shape[0] != len(x[:2]):
        came = list(scores.shape) if isinstance(scores, torch.Tensor) else type(scores).__name__
        raise ConfigError(f"model must return scores [batch, labels] for a batch of {len(x[:2])}, but returned {came}")
    n_labels = int(scores.shape[1])
    if not 0 <= y.min() <= y.max() < n_labels:
        wrong = y.min() if y.min() < 0 else y.max()
        raise DataError(f"y has the label {wrong}, but the model tells apart labels 0 to {n_labels - 1}")
    return n_labels
