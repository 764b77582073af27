"""The round loop of one attacked federation: who trains on what, what attackers upload, what the rule makes of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.aggregation.calling import Rule
from holdfast.experiments import checkpoint as checkpoints
from holdfast.experiments.attacked import AttackedFederation, SimulateConfig, load_attacked
from holdfast.experiments.events import Events, Silent
from holdfast.experiments.local_work import LocalWork, Machinery, honest_work, malicious_work
from holdfast.experiments.measures import Labeled, RoundRecord, measure
from holdfast.experiments.run import fingerprint
from holdfast.experiments.threat import Threat, flipped_labels, make_threat
from holdfast.training import model_factory
from holdfast.training.batches import derive_seed
from holdfast.types import Aggregate, ConfigError

Floats = NDArray[np.float32]

_CHECKPOINT_SECONDS = 10.0


@dataclass(frozen=True, eq=False)
class Simulation:
    """A finished federation.

    Attributes:
        config: what it follows from.
        records: the evaluated rounds; the last is the last round.
        malicious: the malicious clients.
        goal: what the attackers wanted, in words; None if only damage.
        model: the global model `[P]` after the last round.
        engine: what trained the clients.
        seconds: wall-clock seconds of this session, by what they went into, and "all".
    """

    config: SimulateConfig
    records: tuple[RoundRecord, ...]
    malicious: tuple[int, ...]
    goal: str | None
    model: Floats
    engine: str
    seconds: dict[str, float]

    @property
    def last(self) -> RoundRecord:
        """The last round."""
        return self.records[-1]


def simulate(
    config: SimulateConfig,
    *,
    checkpoint: Path | None = None,
    engine: str = "auto",
    device: str = "cpu",
    threads: int | None = None,
    events: Events | None = None,
) -> Simulation:
    """Train one federation with malicious clients, and measure every round.

    Everything random follows from `config.seed` and the identity of what is drawn: equal configurations give equal
    results, whatever ran before, interrupted or not.

    Args:
        config: the federation, the attack and the rule.
        checkpoint: a file that survives an interruption; the same call goes on from it. None: start over.
        engine: "auto", "compiled" or "torch".
        device: where torch computes.
        threads: threads to train with.
        events: hears what happens; also `on_round(record)`, if it has that.

    Raises:
        ConfigError: options that do not fit together.
        DataError: data that cannot be used, or a partition that leaves a client empty.
        ThreatModelError: the rule's theory needs more clients; `allow_unsound` runs it nevertheless.
        ArtifactError: the checkpoint is damaged or of another run.

    Example:
        >>> run = simulate(SimulateConfig(clients=4, rounds=2, attackers=1, attack="sign-flip", rule="median"))
        >>> [record.round for record in run.records], run.last.accuracy > 0.1
        ([1, 2], True)
    """
    events = events or Silent()
    federation = load_attacked(config, flipped=flipped_labels(config.attack))
    for note in federation.notes:
        events.note(note)
    threat = make_threat(config.attack, federation.dataset, seed=derive_seed(config.seed, "targets"))
    dataset = federation.dataset
    name = config.model or default_model(federation)
    factory = model_factory(name, dataset.x_train.shape[1:], dataset.n_labels)
    machinery = Machinery(factory, engine, device, threads)
    if config.mode == "async":
        from holdfast.experiments.asynchronous import AsynchronousLoop  # it builds on this module

        return AsynchronousLoop(federation, threat, machinery).run(checkpoint, events)
    return RoundLoop(federation, threat, machinery).run(checkpoint, events)


def default_model(federation: AttackedFederation) -> str:
    """The model a data set is trained with unless another is asked for."""
    if federation.dataset.vocabulary:
        return "fasttext"
    return {"mnist": "small-cnn", "cifar10": "resnet18", "har": "har", "loan": "loan"}.get(
        federation.dataset.name, "mlp"
    )


class RoundLoop:
    """One federation in the making: `run` does all rounds, `round` one.

    Attributes:
        tested: the data set with its test rows as the model sees them.
        trained: the honest clients' training rows as the model sees them, and their labels; None if not measured.
        local: `[n, P]`, the clients' own models where they differ from the global one; None under FedAvg.
        seconds: wall-clock seconds so far, by what they went into.
    """

    def __init__(self, federation: AttackedFederation, threat: Threat, machinery: Machinery) -> None:
        self.federation, self.config = federation, federation.config
        goal = threat.goal and replace(threat.goal, inputs=federation.seen(threat.goal.inputs))
        self.threat = replace(threat, goal=goal)
        self.tested = replace(federation.dataset, x_test=federation.seen(federation.dataset.x_test))
        self.trained = self._trained() if self.config.training_accuracy else None
        self.local: Floats | None = None
        self.honest = honest_work(federation, machinery)
        self.malicious: LocalWork | None = None
        if len(federation.malicious):
            self.malicious = malicious_work(federation, threat.adversary, machinery)
        self.trainer = self.honest.trainer(self.config.steps_of(int(federation.partition.sizes[0])))
        self.layout = layers(self.trainer.layout)
        self.seconds = dict.fromkeys(("training", "attack", "rule", "evaluation"), 0.0)

    def run(self, checkpoint: Path | None, events: Events) -> Simulation:
        """All rounds that are not done yet."""
        began, identity = time.monotonic(), self.identity()
        done, state, records = 0, None, list[RoundRecord]()
        params: Floats = self.trainer.init([0])[0]
        stored = checkpoints.load_checkpoint(checkpoint, identity) if checkpoint else None
        if stored is not None:
            done, params, state, records, self.local = stored
        hear = getattr(events, "on_round", None)
        saved, start = time.monotonic(), done
        for number in range(done, self.config.rounds):
            params, state, result, malicious = self.round(params, state, number)
            last = number + 1 == self.config.rounds
            if last or (number + 1) % self.config.evaluate_every == 0:
                records.append(self.evaluated(number + 1, params, result, malicious))
                if hear:
                    hear(records[-1])
            pace = (time.monotonic() - began) / (number + 1 - start)
            events.progress("rounds", number + 1, self.config.rounds, pace * (self.config.rounds - number - 1))
            if checkpoint and (last or time.monotonic() - saved >= _CHECKPOINT_SECONDS):
                checkpoints.save_checkpoint(checkpoint, identity, number + 1, params, state, records, self.local)
                saved = time.monotonic()
        goal = None if self.threat.goal is None else self.threat.goal.meaning
        malicious_ids = tuple(int(client) for client in self.federation.malicious)
        seconds = {**self.seconds, "all": time.monotonic() - began}
        return Simulation(self.config, tuple(records), malicious_ids, goal, params, self.trainer.engine, seconds)

    def round(self, params: Floats, state: Any, number: int) -> tuple[Floats, Any, Aggregate, NDArray[np.bool_]]:
        """One round: (the next global model, the rule's memory, its verdict, which rows were malicious)."""
        clients = self.federation.sample(number)
        malicious = np.isin(clients, self.federation.malicious)
        attacks = self.malicious is not None and malicious.any() and self.threat.adversary.active(number)
        began = time.perf_counter()
        updates = np.empty((len(clients), len(params)), np.float32)
        trained = ~malicious if attacks else np.ones_like(malicious)
        if trained.any():
            updates[trained] = self.honest.updates(params, clients[trained], number)
        if attacks and self.malicious is not None:
            own = self.malicious.updates(params, clients[malicious], number)
            self._took("training", began)
            began = time.perf_counter()
            updates[malicious] = self._crafted(params, state, number, clients, malicious, updates[~malicious], own)
            self._took("attack", began)
        else:
            self._took("training", began)
        began = time.perf_counter()
        result = self._aggregate(params, updates, clients, state)
        self._took("rule", began)
        value = np.asarray(result.value, dtype=np.float32)
        return params + value, result.state, result, malicious

    def _crafted(
        self,
        params: Floats,
        state: Any,
        number: int,
        clients: NDArray[np.int64],
        malicious: NDArray[np.bool_],
        honest: Floats,
        own: Floats,
        *draws: int,
    ) -> Floats:
        """What the malicious clients upload; to the attack, rows come honest first. `draws`: what else seeds it."""
        order = np.concatenate([clients[~malicious], clients[malicious]])

        def rule(rows: Any) -> Any:
            if np.ndim(rows) != 2:
                return np.stack([rule(part) for part in rows])
            return self._aggregate(params, rows, order, state).value

        with np.errstate(over="ignore", invalid="ignore"):
            crafted = self.threat.adversary.model(
                honest,
                int(malicious.sum()),
                rng=np.random.default_rng(derive_seed(self.config.seed, "craft", number, *draws)),
                reference=params,
                rule=rule,
                own=own,
                weights=self._weights(order),
                layout=self.layout,
                round=number,
            )
        return np.asarray(crafted, dtype=np.float32)

    def _aggregate(self, params: Floats, updates: Any, clients: NDArray[np.int64], state: Any) -> Aggregate:
        """The rule's verdict on updates `[k, P]` of the global model `params`."""
        rule: Rule = self.federation.rule
        return rule.aggregate(
            updates,
            state=state,
            weights=self._weights(clients),
            layout=self.layout,
            clients=[int(client) for client in clients],
        )

    def _weights(self, clients: NDArray[np.int64]) -> NDArray[np.int64] | None:
        return self.federation.partition.sizes[clients] if self.config.weighting == "size" else None

    def evaluated(self, rounds: int, params: Floats, result: Aggregate, malicious: NDArray[np.bool_]) -> RoundRecord:
        """Measure the global model."""
        began = time.perf_counter()
        if not np.isfinite(params).all():
            params = np.nan_to_num(params, nan=0.0, posinf=0.0, neginf=0.0)  # such a model knows nothing
        record = measure(rounds, params, self.trainer, self.tested, self.threat, result, malicious, self.trained)
        self._took("evaluation", began)
        return record

    def _trained(self) -> Labeled:
        dataset, rows = self.federation.dataset, self.federation.honest_rows()
        return self.federation.seen(dataset.x_train[rows]), dataset.y_train[rows]

    def identity(self) -> str:
        """What a checkpoint belongs to: configuration, data and engine."""
        data = self.federation.dataset.fingerprint()
        return fingerprint({"config": self.config.decisive(), "data": data, "engine": self.trainer.engine})

    def _took(self, what: str, began: float) -> None:
        self.seconds[what] += time.perf_counter() - began


def layers(layout: Any) -> Sequence[slice]:
    """The layers of a model, weight and bias of a module together.

    Example:
        >>> layers({"0.weight": slice(0, 6), "0.bias": slice(6, 8), "2.weight": slice(8, 9)})
        [slice(0, 8, None), slice(8, 9, None)]
    """
    found: list[tuple[str, slice]] = []
    for name, part in layout.items():
        module = name.rpartition(".")[0]
        if found and found[-1][0] == module and found[-1][1].stop == part.start:
            found[-1] = (module, slice(found[-1][1].start, part.stop))
        else:
            found.append((module, part))
    if not found:
        raise ConfigError("the model has no parameters")
    return [part for _, part in found]
