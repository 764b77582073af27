"""The torch engine: FedAvg for any module, on the CPU or a GPU, many clients of many models at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from holdfast.training.batches import batch_rows, derive_seed
from holdfast.training.fedavg import FedAvg
from holdfast.training.local_training import choose
from holdfast.training.parameters import Factory, initial_parameters, layout, private_rng, unflatten
from holdfast.training.trainer import ClientRows, Intervene, Members
from holdfast.types import ConfigError

_PREDICT_BATCH = 1024


@dataclass(frozen=True)
class _Pairs:
    """The (model, client) pairs of some models that train together, model after model.

    Attributes:
        models: `[G]` the models' ids.
        counts: `[G]` clients per model; the pairs of model g follow those of model g - 1.
        owner: `[K]` each pair's place in `models`.
        clients: `[K]` each pair's client.
        weights: `[K]` each client's weight in its model's average.
    """

    models: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    owner: npt.NDArray[np.int64]
    clients: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float32]

    def take(self, places: npt.NDArray[np.int64] | slice) -> _Pairs:
        """Some of the pairs, with counts for the same models."""
        owner = self.owner[places]
        counts = np.bincount(owner, minlength=len(self.models))
        return _Pairs(self.models, counts, owner, self.clients[places], self.weights[places])


class TorchTrainer:
    """Trains any `torch.nn.Module` by FedAvg; the interface is `Trainer`, the way to make one is `make_trainer`.

    Clients are stacked and take their steps together where that pays (`local_training.choose`). On a GPU, precision
    is the process's own choice and torch's defaults hold: TF32 in convolutions (`torch.backends.cudnn.allow_tf32`),
    full float32 in matrix products unless `torch.set_float32_matmul_precision("high")` was called. Certificates hold
    for either; two GPUs need not give the same last bits.

    Batch normalization: running statistics are part of a model's state, clients update them and the server averages
    them like weights. Dropout: each client's step has its own seed, derived from (model, client, round, step).
    Memory: one stack of clients (`models_at_once` tells how many models that is) beside N x P weights.
    """

    engine = "torch"

    def __init__(
        self,
        model: Factory,
        x: npt.NDArray[np.float32],
        y: npt.NDArray[np.int64],
        partition: ClientRows,
        fedavg: FedAvg,
        *,
        n_labels: int,
        seed: int,
        device: torch.device | str = "cpu",
        threads: int | None = None,
        stack_size: int | None = None,
    ) -> None:
        self.fedavg, self.seed, self.n_labels = fedavg, seed, n_labels
        self._factory, self._threads, self._device = model, threads, torch.device(device)
        self._offsets = np.asarray(partition.offsets, dtype=np.int64)
        self._indices = np.asarray(partition.indices, dtype=np.int64)
        with private_rng(0):
            template = model()
        _check_supported(template)
        self.layout: Mapping[str, slice] = layout(template)
        self.n_params = max((part.stop for part in self.layout.values()), default=0)
        with _threads(threads):
            self._local = choose(
                template.to(self._device),
                _owned(x).to(self._device),
                _owned(y).to(self._device),
                lr=fedavg.lr,
                batch_size=fedavg.batch_size,
                clients=stack_size,
                optimizer=fedavg.optimizer,
            )

    def init(self, model_ids: Sequence[int]) -> npt.NDArray[np.float32]:
        """The initial weights `[N, P]` of these models."""
        return initial_parameters(self._factory, seed=self.seed, model_ids=model_ids)

    def to_module(self, params: npt.NDArray[np.float32]) -> nn.Module:
        """One model `[P]` as a plain module on the CPU, in evaluation mode."""
        with private_rng(0):
            module = self._factory()
        return unflatten(params, module).eval()

    def models_at_once(self, k: int) -> int:
        """How many models of k clients fill one stack."""
        return max(1, self._local.stack_size // max(1, k))

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
        """Train for `rounds` rounds from `start_round` on; see `Trainer.run`."""
        rounds = self.fedavg.rounds - start_round if rounds is None else rounds
        pairs = self._pairs(model_ids, members)
        trained = np.array(params, dtype=np.float32)
        if trained.shape != (len(pairs.models), self.n_params):
            raise ConfigError(
                f"params has shape {list(trained.shape)}, but {len(pairs.models)} models of "
                f"{self.n_params} values each are to be trained"
            )
        with _threads(self._threads):
            for models, group in self._groups(pairs):
                current = torch.from_numpy(trained[models]).to(self._device, copy=True)
                for number in range(start_round, start_round + rounds):
                    current = self._round(current, group, number, intervene)
                trained[models] = current.cpu().numpy()
        return trained

    def predict(self, params: npt.NDArray[np.float32], x: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        """The labels `[N, T]` that each model gives to inputs `x` [T, ...], in evaluation mode."""
        params = np.atleast_2d(params)
        votes = np.empty((len(params), len(x)), dtype=np.uint8 if self.n_labels <= 256 else np.uint16)
        inputs = _owned(np.asarray(x, dtype=np.float32)).to(self._device)
        with private_rng(0):
            module = self._factory().to(self._device).eval()
        with torch.inference_mode(), _threads(self._threads):
            for row, vector in enumerate(params):
                unflatten(torch.tensor(vector, device=self._device), module)
                parts = [module(part).argmax(dim=1) for part in torch.split(inputs, _PREDICT_BATCH)]
                votes[row] = torch.cat(parts).cpu().numpy() if parts else 0
        return votes

    def _round(self, current: torch.Tensor, group: _Pairs, number: int, intervene: Intervene | None) -> torch.Tensor:
        """One round of a group of models: `current` [G, P] to the next."""
        change = torch.zeros_like(current)
        kept: list[torch.Tensor] = []
        for start in range(0, len(group.clients), self._local.stack_size):
            pairs = group.take(slice(start, start + self._local.stack_size))
            update = self._local_updates(current, pairs, number)
            if intervene is not None:
                kept.append(update)
                continue
            weights, lengths = self._send(pairs.weights), self._send(pairs.counts)
            change += torch.segment_reduce(update.mul_(weights[:, None]), "sum", lengths=lengths, axis=0, initial=0)
        if intervene is None:
            return current + change
        return self._intervened(current, group, torch.cat(kept), number, intervene)

    def _local_updates(self, current: torch.Tensor, pairs: _Pairs, number: int) -> torch.Tensor:
        """What the clients of these pairs send: new minus old weights `[S, P]`, zeros from those without rows."""
        busy = np.flatnonzero(np.diff(self._offsets)[pairs.clients])
        if len(busy) < len(pairs.clients):
            sent = torch.zeros(len(pairs.clients), self.n_params, device=self._device)
            if len(busy):
                sent[self._send(busy)] = self._local_updates(current, pairs.take(busy), number)
            return sent
        owner = self._send(pairs.owner)
        stack = current[owner]
        models = pairs.models[pairs.owner]
        steps, batch = self.fedavg.local_steps, self.fedavg.batch_size
        rows = batch_rows(self.seed, models, pairs.clients, number, self._offsets, self._indices, steps, batch)
        seeds = None
        if self._local.needs_seeds:
            seeds = [
                [derive_seed(self.seed, "noise", int(model), int(client), number, step) for step in range(steps)]
                for model, client in zip(models, pairs.clients, strict=True)
            ]
        self._local(stack, self._send(rows), seeds)
        return stack.sub_(current[owner])

    def _intervened(
        self, current: torch.Tensor, group: _Pairs, updates: torch.Tensor, number: int, intervene: Intervene
    ) -> torch.Tensor:
        """The next weights of each model as the caller decides; None is the weighted mean."""
        following = torch.empty_like(current)
        ends = np.cumsum(group.counts)
        for place, (start, stop) in enumerate(zip(ends - group.counts, ends, strict=True)):
            clients, mine, old = group.clients[start:stop], updates[start:stop], current[place]
            on_cpu = self._device.type == "cpu"
            answer = intervene(
                int(group.models[place]),
                number,
                clients,
                mine.numpy() if on_cpu else mine,
                old.numpy() if on_cpu else old,
            )
            if answer is None:
                weights = self._send(group.weights[start:stop])
                following[place] = old + weights @ mine
                continue
            new = torch.as_tensor(answer, dtype=torch.float32, device=self._device)
            if new.shape != old.shape:
                raise ConfigError(
                    f"intervene must return the next global model [{self.n_params}] or None, "
                    f"but returned shape {list(new.shape)}"
                )
            following[place] = new
        return following

    def _send(self, array: npt.NDArray[Any]) -> torch.Tensor:
        """The array on the device; a GPU goes on computing meanwhile, which pageable memory would not allow."""
        tensor = torch.from_numpy(array)
        return tensor.pin_memory().to(self._device, non_blocking=True) if self._device.type == "cuda" else tensor

    def _pairs(self, model_ids: Sequence[int], members: Members) -> _Pairs:
        """Lay out who trains what, and refuse clients that are not there; one without rows has weight zero."""
        if len(model_ids) != len(members):
            raise ConfigError(f"model_ids has {len(model_ids)} entries, but members has {len(members)}")
        counts = np.array([len(group) for group in members], dtype=np.int64)
        if (counts == 0).any():
            raise ConfigError(f"members of model {model_ids[int(np.argmin(counts))]} is empty; a model needs a client")
        clients = np.concatenate([np.asarray(group, dtype=np.int64) for group in members] or [np.zeros(0, np.int64)])
        n = len(self._offsets) - 1
        if len(clients) and not 0 <= clients.min() <= clients.max() < n:
            wrong = clients.min() if clients.min() < 0 else clients.max()
            raise ConfigError(f"members names client {wrong}, but clients are numbered 0 to {n - 1}")
        sizes = np.diff(self._offsets)[clients]
        owner = np.repeat(np.arange(len(counts)), counts)
        shares = (sizes if self.fedavg.weighting == "size" else sizes > 0).astype(np.float64)
        weights = shares / np.maximum(np.bincount(owner, shares, len(counts)), 1)[owner]
        return _Pairs(np.asarray(model_ids, dtype=np.int64), counts, owner, clients, weights.astype(np.float32))

    def _groups(self, pairs: _Pairs) -> Iterator[tuple[slice, _Pairs]]:
        """Whole models that fill a stack together; a model of more clients than a stack holds is its own group."""
        ends = np.cumsum(pairs.counts)
        first = 0
        while first < len(ends):
            start = int(ends[first] - pairs.counts[first])
            last = max(first + 1, int(np.searchsorted(ends, start + self._local.stack_size, side="right")))
            span = slice(start, int(ends[last - 1]))
            models = slice(first, last)
            yield (
                models,
                _Pairs(
                    pairs.models[models],
                    pairs.counts[models],
                    pairs.owner[span] - first,
                    pairs.clients[span],
                    pairs.weights[span],
                ),
            )
            first = last


def _check_supported(module: nn.Module) -> None:
    for name, part in module.named_modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.track_running_stats and part.momentum is None:
            raise ConfigError(
                f"model layer {name!r} has momentum=None, a running mean over all batches ever seen, which does not "
                f"average over clients; set a momentum such as 0.1, or use torch.nn.GroupNorm"
            )
    if any(nn.parameter.is_lazy(parameter) for parameter in module.parameters()):
        raise ConfigError("model has lazy layers, whose sizes are not known yet; give the layers their sizes")
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise ConfigError("model has no parameters to train")


def _owned(array: npt.NDArray[Any]) -> torch.Tensor:
    """A tensor on the array's memory; torch wants to be able to write, so a read-only array is copied."""
    return torch.from_numpy(array if array.flags.writeable else array.copy())


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    """Torch's threads within one operation; None leaves them as the process has them."""
    before = torch.get_num_threads()
    if number is not None:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
