"""Certified ensembles over a real federation: the server's half of `Trainer`, whose clients are nodes.

A round sends each node one message, with the weights of every model the node takes part in and of no other, and gets
back its update of each. The average of a group is computed as the in-process engine computes it: same shares, same
order, same bits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.serverapp import Grid, ServerApp
from torch import nn

from holdfast.flower.client import DEADLINE
from holdfast.flower.decoding import Field, Spec, decode, encode
from holdfast.flower.ensemble_client import FAILED, MODELS, ORDER, UPDATES
from holdfast.flower.grid import Outcome, SafeGrid, plain
from holdfast.flower.work import Floats, Task
from holdfast.training.fedavg import FedAvg
from holdfast.training.trainer import Intervene, Members, Trainer
from holdfast.types import ConfigError

_BLOCK_BYTES = 2**30  # weights on their way at once
_MARGIN = 15.0  # seconds the server waits beyond the client's own deadline
_NODES_POLL = 1.0


@dataclass(frozen=True)
class Absence:
    """A client's part of some models in one round that did not come, or that was refused.

    Attributes:
        round: the round, from 0.
        client: the client's number.
        models: ids of the models that went on without it.
        kind: "silent", "error" or "malformed" (the whole reply), "failed" (the client says so), "not finite".
        reason: one sentence.
    """

    round: int
    client: int
    models: tuple[int, ...]
    kind: str
    reason: str


@dataclass(frozen=True)
class Patience:
    """How long a round may take.

    Attributes:
        model_seconds: a client's time for its part of one model.
        round_seconds: a message's time beside that: travel, waiting, starting the client's process.
    """

    model_seconds: float = 60.0
    round_seconds: float = 120.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 0 < value < 10**6:
                raise ConfigError(f"{name} must be a number of seconds above 0, but is {value!r}")

    def deadline(self, models: int) -> float:
        """Seconds for a message with so many models."""
        return self.round_seconds + models * self.model_seconds


class FlowerTrainer:
    """Trains the rows of `[N, P]` on the nodes of a federation; the interface is `Trainer`.

    An honest run gives the models of the in-process engine, to the bit on machines with the same kind of processor.
    Whatever a node does reaches only the models it takes part in: each reply is pulled, checked and decoded on its
    own, models have their own rows, and the time a model may take does not depend on the others. A part that is
    missing, refused or not finite is left out, the average is that of the members who answered, and `record` hears of
    it. A model whose weights are no longer finite stays as it is and is not sent again.

    Args:
        local: makes initial weights and predicts; its own data are never trained on.
        task: what clients train; sent in every message.
        grid: how messages travel.
        nodes: the node id of each client, by client number. A reply counts for the client it was asked from.
        examples: `[n]` how much each client counts in an average; fixed at enrollment, never what a client says.
        patience: how long to wait.
        record: hears of every absence.
    """

    engine = "flower"

    def __init__(
        self,
        local: Trainer,
        task: Task,
        grid: SafeGrid,
        nodes: Sequence[int],
        examples: Sequence[int],
        *,
        patience: Patience,
        record: Callable[[Absence], None],
    ) -> None:
        if len(nodes) != len(examples) or len(set(nodes)) != len(nodes):
            raise ConfigError("nodes must name one node per client, no node twice, and examples one number per client")
        self.n_params, self.n_labels, self.seed = local.n_params, local.n_labels, local.seed
        self.layout: Mapping[str, slice] = local.layout
        self.fedavg: FedAvg = local.fedavg
        self._local, self._task, self._grid = local, task.to_json(), grid
        self._nodes = list(nodes)
        self._examples = np.asarray(examples, np.float64)
        self._patience, self._record = patience, record

    def init(self, model_ids: Sequence[int]) -> Floats:
        """The initial weights `[N, P]` of these models."""
        return self._local.init(model_ids)

    def predict(self, params: Floats, x: Floats) -> npt.NDArray[Any]:
        """The labels `[N, T]` that each model gives to inputs `x` [T, ...]; computed here."""
        return self._local.predict(params, x)

    def to_module(self, params: Floats) -> nn.Module:
        """One model `[P]` as a plain module, in evaluation mode."""
        return self._local.to_module(params)

    def models_at_once(self, k: int) -> int:
        """As many as can be on their way in 1 GiB: a message costs seconds, however much is in it."""
        return max(1, _BLOCK_BYTES // (4 * self.n_params * max(1, k)))

    def run(
        self,
        params: Floats,
        model_ids: Sequence[int],
        members: Members,
        *,
        rounds: int | None = None,
        start_round: int = 0,
        intervene: Intervene | None = None,
    ) -> Floats:
        """Train for `rounds` rounds from `start_round` on; see `Trainer.run`.

        Raises:
            ConfigError: an `intervene`, which only simulations know.
        """
        if intervene is not None:
            raise ConfigError("engine 'flower' trains real clients; attacks and rules between them need a simulation")
        rounds = max(0, self.fedavg.rounds - start_round) if rounds is None else rounds
        trained = np.array(params, np.float32)
        ids, groups = [int(model) for model in model_ids], [np.asarray(group, np.int64) for group in members]
        for number in range(start_round, start_round + rounds):
            self._round(trained, ids, groups, number)
        return trained

    def _round(self, trained: Floats, ids: Sequence[int], groups: Sequence[npt.NDArray[np.int64]], number: int) -> None:
        """One round of all models, in place."""
        held: dict[int, list[int]] = {}
        for row in np.flatnonzero(np.isfinite(trained).all(axis=1)).tolist():
            for client in groups[row].tolist():
                held.setdefault(client, []).append(row)
        if not held:
            return
        messages = [
            self._message(client, number, [ids[row] for row in rows], trained[rows]) for client, rows in held.items()
        ]
        timeout = _MARGIN + self._patience.deadline(max(map(len, held.values())))
        outcomes = self._grid.exchange(messages, timeout=timeout)
        parts: list[dict[int, Floats]] = [{} for _ in ids]
        for (client, rows), outcome in zip(held.items(), outcomes, strict=True):
            for row, update in self._parts(client, number, rows, ids, outcome):
                parts[row][client] = update
        for row, group in enumerate(groups):
            present = [client for client in group.tolist() if client in parts[row]]
            trained[row] = self._average(trained[row], present, parts[row])

    def _message(self, client: int, number: int, models: list[int], start: Floats) -> Message:
        """All of one client's models of one round."""
        order = ConfigRecord(
            {
                "task": self._task,
                "round": number,
                "client": client,
                "models": models,
                "model-seconds": self._patience.model_seconds,
                DEADLINE: self._patience.deadline(len(models)),
            }
        )
        content = RecordDict({MODELS: encode({"models": start}), ORDER: order})
        return Message(content, self._nodes[client], MessageType.TRAIN, group_id=str(number))

    def _parts(
        self, client: int, number: int, rows: Sequence[int], ids: Sequence[int], outcome: Outcome
    ) -> list[tuple[int, Floats]]:
        """The usable (row, update) of one reply; the others are recorded."""
        models = tuple(ids[row] for row in rows)
        if outcome.reply is None:
            self._record(Absence(number, client, models, outcome.kind, outcome.reason))
            return []
        spec = Spec((Field(UPDATES, (len(rows), self.n_params), np.dtype(np.float32)),))
        arrays = decode(outcome.reply.content, spec)
        if isinstance(arrays, str):
            self._record(Absence(number, client, models, "malformed", f"the reply {arrays}"))
            return []
        told, usable = _told(outcome.reply), []
        for row, update in zip(rows, arrays[UPDATES], strict=True):
            if np.isfinite(update).all():
                usable.append((row, update))
            elif ids[row] in told:
                self._record(Absence(number, client, (ids[row],), "failed", told[ids[row]]))
            else:
                self._record(Absence(number, client, (ids[row],), "not finite", "the update is not finite"))
        return usable

    def _average(self, model: Floats, present: Sequence[int], parts: Mapping[int, Floats]) -> Floats:
        """FedAvg over those who answered, added up in the engine's order and precision."""
        sizes = self._examples[list(present)]
        raw = sizes if self.fedavg.weighting == "size" else np.ones_like(sizes)
        shares = (raw / max(raw.sum(), 1.0)).astype(np.float32)
        total = np.zeros_like(model)
        with np.errstate(over="ignore", invalid="ignore"):  # a member may send anything finite
            for share, client in zip(shares, present, strict=True):
                total += share * parts[client]
            return model + total


def wait_for_nodes(grid: Grid, nodes: Sequence[int], *, seconds: float) -> None:
    """Wait until the node of every client is connected.

    Raises:
        ConfigError: names the clients whose nodes are not there when the time is up.
    """
    end = time.monotonic() + seconds
    while True:
        there = set(grid.get_node_ids())
        missing = [client for client, node in enumerate(nodes) if node not in there]
        if not missing:
            return
        if time.monotonic() > end:
            raise ConfigError(
                f"{len(nodes)} clients are enrolled, but only {len(nodes) - len(missing)} nodes are connected after "
                f"{seconds:g} s; start the nodes of clients {', '.join(map(str, missing))}"
            )
        time.sleep(_NODES_POLL)


def server_app(job: Callable[[SafeGrid, Mapping[str, Any]], None]) -> ServerApp:
    """A ServerApp that does one job, called with the grid, made safe, and the run's configuration."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        job(SafeGrid(grid), context.run_config)

    return app


def _told(reply: Message) -> dict[int, str]:
    """What a client says about the models it has no update for, as far as it makes sense."""
    record = reply.content.get(FAILED)
    if not isinstance(record, ConfigRecord):
        return {}
    models, reasons = record.get("models"), record.get("reasons")
    if not isinstance(models, list) or not isinstance(reasons, list) or len(models) != len(reasons):
        return {}
    return {model: plain(reason) for model, reason in zip(models, reasons, strict=True) if isinstance(model, int)}
