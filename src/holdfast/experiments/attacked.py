"""An attacked federation: its configuration, who holds what, who is malicious, and the rule that should stand it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast import data as data_module
from holdfast.aggregation import RULES, make
from holdfast.aggregation.romoa import Syncing
from holdfast.data import Dataset, Partition, Standard
from holdfast.experiments.naming import check_keys
from holdfast.training import FedAvg
from holdfast.training.batches import derive_seed
from holdfast.types import ConfigError, ThreatModelError

Description = str | Mapping[str, Any]
"""A rule or attack: its name, or a mapping with `name` and its parameters."""


@dataclass(frozen=True)
class SimulateConfig:
    """Everything that decides a simulated federation; equal configurations give equal results.

    Attributes:
        data: name of a data set, or a path to the user's own.
        data_dir: folder with the official files, instead of the cache.
        train_rows: use only so many training rows, drawn at random; None takes all.
        test_inputs: evaluate on the first so many test inputs; None takes all.
        standardize: models see inputs shifted and scaled to mean 0 and deviation 1 (`holdfast.data.Standard`), by
            public constants of the whole training set; attacks still poison the rows as they are.
        clients: n; None takes one per user of the data, or 20.
        partition: "iid", "label-skew", "dirichlet", "shards", "two-labels", "one-label" or "user".
        skew: q of "label-skew".
        concentration: beta of "dirichlet".
        shards: pieces per client of "shards".
        drop_label: take away clients that hold this label, ...
        drop_holders: ... so many of them.
        attackers: m, the malicious clients; those for m - 1 are among those for m.
        attack: what they do; see `holdfast.experiments.threat`.
        rule: how the server aggregates. A rule that must be told f and is not, is told the expected number.
        clients_per_round: clients drawn for a round; None takes all in every round.
        rounds: rounds of training; each ends with a syncing point.
        mode: "fedavg": a round is local training and one upload; "async" (Algorithm 1 of the Romoa paper): `tau`
            local steps, each uploaded, then a syncing point.
        tau: local steps between two syncing points; "async" only, None is 4.
        moving_rate: gamma, how far a participant moves to the synced model; "async" only, None is 1.
        local_epochs: passes over its own rows that an honest client makes per round (rounded to whole steps), or ...
        local_steps: ... SGD steps, the same for everybody. One of the two.
        batch_size: rows per step, drawn with replacement.
        lr: the honest clients' learning rate.
        optimizer: "sgd" or "adam", for everybody; see `FedAvg`.
        weighting: "uniform", or "size" to report numbers of rows to rules that use them.
        model: registry name or `package.module:factory`; None takes the data set's own.
        evaluate_every: rounds between evaluations; the last round is always evaluated.
        training_accuracy: measure the global model on the honest clients' training rows, too.
        seed: everything random follows from it.
        allow_unsound: run a rule whose theory does not cover this federation.
    """

    data: str = "digits"
    data_dir: str | None = None
    train_rows: int | None = None
    test_inputs: int | None = None
    standardize: bool = False
    clients: int | None = None
    partition: str = "iid"
    skew: float = 0.5
    concentration: float = 0.9
    shards: int = 2
    drop_label: int | None = None
    drop_holders: int = 0
    attackers: int = 0
    attack: Description = "none"
    rule: Description = "mean"
    clients_per_round: int | None = None
    rounds: int = 30
    mode: str = "fedavg"
    tau: int | None = None
    moving_rate: float | None = None
    local_epochs: float | None = None
    local_steps: int | None = None
    batch_size: int = 32
    lr: float = 0.1
    optimizer: str = "sgd"
    weighting: str = "uniform"
    model: str | None = None
    evaluate_every: int = 1
    training_accuracy: bool = False
    seed: int = 0
    allow_unsound: bool = False

    def __post_init__(self) -> None:
        for name in ("attackers", "drop_holders", "seed"):
            _check_whole(name, getattr(self, name), 0)
        for name in ("rounds", "evaluate_every", "batch_size"):
            _check_whole(name, getattr(self, name), 1)
        for name in ("clients", "clients_per_round", "train_rows", "test_inputs", "local_steps"):
            if getattr(self, name) is not None:
                _check_whole(name, getattr(self, name), 1)
        if self.local_epochs is not None and self.local_steps is not None:
            raise ConfigError("local_epochs and local_steps exclude each other; give one of them")
        if self.local_epochs is not None and not self.local_epochs > 0:
            raise ConfigError(f"local_epochs must be above 0, but is {self.local_epochs!r}")
        if self.drop_holders and self.drop_label is None:
            raise ConfigError(f"drop_holders is {self.drop_holders}, but drop_label does not say of which label")
        for name in ("standardize", "training_accuracy"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} must be true or false, but is {getattr(self, name)!r}")
        self._check_mode()
        FedAvg(
            rounds=self.rounds,
            lr=self.lr,
            batch_size=self.batch_size,
            weighting=self.weighting,  # type: ignore[arg-type]  # checked there
            optimizer=self.optimizer,  # type: ignore[arg-type]
        )

    @property
    def syncing(self) -> Syncing | None:
        """When participants sync and how far they move; None where every upload is a syncing point (FedAvg)."""
        if self.mode == "fedavg":
            return None
        moving_rate = 1.0 if self.moving_rate is None else self.moving_rate
        return Syncing(4 if self.tau is None else self.tau, moving_rate)

    def decisive(self) -> dict[str, Any]:
        """What a result depends on beside the data: every setting that is not the default, but for the data's folder.

        So a setting that a later version adds changes no name of what is there already.
        """
        defaults = {item.name: item.default for item in dataclasses.fields(self)}
        return {name: v for name, v in asdict(self).items() if name != "data_dir" and v != defaults[name]}

    def _check_mode(self) -> None:
        if self.mode not in ("fedavg", "async"):
            raise ConfigError(f"mode must be fedavg or async, but is {self.mode!r}")
        wrong = ("tau", "moving_rate") if self.mode == "fedavg" else ("local_steps", "local_epochs")
        for name in wrong:
            if getattr(self, name) is not None:
                other = "it belongs to mode async" if self.mode == "fedavg" else "tau says how many steps there are"
                raise ConfigError(f"{name} is {getattr(self, name)!r}, but mode is {self.mode}; {other}")
        if self.mode == "async" and self.optimizer != "sgd":
            raise ConfigError(f"optimizer is {self.optimizer!r}, but mode async takes single steps of sgd")
        _ = self.syncing  # refuses a wrong tau or moving rate

    def steps_of(self, size: int) -> int:
        """SGD steps before an upload of an honest client with so many rows."""
        if self.mode == "async":
            return 1
        if self.local_epochs is None:
            return self.local_steps or 5
        return max(1, round(self.local_epochs * size / self.batch_size))


@dataclass(frozen=True, eq=False)
class AttackedFederation:
    """A federation with malicious clients, before any training.

    Attributes:
        config: what it follows from.
        dataset: training and test rows, not standardized.
        partition: who holds which training rows.
        malicious: int64 `[m]`, ascending.
        rule: how the server aggregates.
        standard: what makes the inputs that models see, or None if they see the rows as they are.
        notes: what the user should know before the run.
    """

    config: SimulateConfig
    dataset: Dataset
    partition: Partition
    malicious: NDArray[np.int64]
    rule: Any
    standard: Standard | None = None
    notes: tuple[str, ...] = field(default=())

    def seen(self, x: NDArray[Any]) -> NDArray[Any]:
        """Rows as models see them."""
        return x if self.standard is None else self.standard(x)

    @property
    def n(self) -> int:
        """Clients."""
        return self.partition.n

    @property
    def per_round(self) -> int:
        """Clients of one round."""
        return self.config.clients_per_round or self.n

    def honest_rows(self) -> NDArray[np.int64]:
        """The training rows of clients that are not malicious, ascending."""
        honest = np.setdiff1d(np.arange(self.n), self.malicious)
        return np.sort(np.concatenate([[], *(self.partition.rows(int(client)) for client in honest)])).astype(np.int64)

    def sample(self, round_number: int) -> NDArray[np.int64]:
        """The clients of a round, ascending: a function of the seed and the round alone."""
        if self.per_round == self.n:
            return np.arange(self.n, dtype=np.int64)
        rng = np.random.default_rng(derive_seed(self.config.seed, "sample", round_number))
        return np.sort(rng.choice(self.n, self.per_round, replace=False)).astype(np.int64)


@lru_cache(maxsize=2)
def load_data(data: str, data_dir: str | None) -> Dataset:
    """A data set, kept for the next cell of a sweep; its test rows do not depend on the run's seed."""
    return data_module.load(data, data_dir=data_dir)


@lru_cache(maxsize=2)
def _standard(data: str, data_dir: str | None) -> Standard:
    """Its constants, kept likewise: they take longer than many a cell."""
    return Standard.of(load_data(data, data_dir))


def load_attacked(config: SimulateConfig, *, flipped: tuple[int, ...] = ()) -> AttackedFederation:
    """Load the data, deal it out, choose who is malicious, and make the rule.

    Args:
        config: the federation.
        flipped: labels the attack needs: holders of one of them become malicious first, as in Fu et al. (2019).

    Raises:
        ConfigError: more attackers than clients, or options that do not fit together.
        DataError: data that cannot be used, or a partition that leaves a client empty.
        ThreatModelError: the rule's theory needs more clients, and `allow_unsound` is not set.
    """
    whole = load_data(config.data, config.data_dir)
    standard = _standard(config.data, config.data_dir) if config.standardize else None
    dataset = _trimmed(whole, config)
    partition = _without_holders(_partition(config, dataset), dataset, config)
    n = partition.n
    if config.attackers > n:
        raise ConfigError(f"attackers is {config.attackers}, but there are only {n} clients")
    per_round = config.clients_per_round or n
    if per_round > n:
        raise ConfigError(f"clients_per_round is {per_round}, but there are only {n} clients")
    malicious, notes = _choose_malicious(partition, dataset, config, flipped)
    expected = -(-config.attackers * per_round // n)
    rule = make_rule(config.rule, f=expected)
    rule, words = _sound(rule, per_round, config.allow_unsound)
    told = getattr(rule, "f", None)
    if told is not None and told < expected:
        words += (f"{type(rule).__name__} is told f = {told}, but about {expected} clients of a round are malicious",)
    return AttackedFederation(config, dataset, partition, malicious, rule, standard, (*notes, *words))


def make_rule(description: Description, *, f: int) -> Any:
    """The rule a description names; where it must be told f and is not, it is told `f`.

    Example:
        >>> make_rule("trimmed-mean", f=2)
        TrimmedMean(f=2)
        >>> make_rule({"name": "bucketing", "rule": "krum"}, f=1)
        Bucketing(rule=Krum(f=1, strict=True), s=2, seed=0)
    """
    name, params = named(description, "rule")
    if name in RULES:
        fields = {item.name: item for item in dataclasses.fields(RULES[name])}
        if "f" in fields and "f" not in params and fields["f"].default is dataclasses.MISSING:
            params["f"] = f
        if isinstance(params.get("rule"), str | Mapping):
            params["rule"] = make_rule(params["rule"], f=f)
    return make(name, **params)


def named(description: Description, what: str) -> tuple[str, dict[str, Any]]:
    """The name and the other entries of a description."""
    if isinstance(description, str):
        return description, {}
    params = {key: value for key, value in description.items() if key != "label"}
    name = params.pop("name", None)
    if not isinstance(name, str):
        raise ConfigError(f'{what} {dict(description)!r} has no name; write for example {{ name = "..." }}')
    return name, params


def label_of(description: Description) -> str:
    """What a description is called in tables: its `label`, or its name and parameters.

    Example:
        >>> label_of({"name": "trimmed-mean", "f": 3})
        'trimmed-mean f=3'
    """
    if isinstance(description, str):
        return description
    if "label" in description:
        return str(description["label"])
    rest = [
        f"{key}={label_of(value) if isinstance(value, Mapping) else value}"
        for key, value in description.items()
        if key != "name"
    ]
    return " ".join([str(description.get("name")), *rest])


def parse_config(entries: Mapping[str, Any], *, where: str) -> SimulateConfig:
    """A configuration from a file's entries; an unknown one is refused with the nearest known one."""
    check_keys(entries, SimulateConfig.__dataclass_fields__, where)
    try:
        return SimulateConfig(**entries)
    except TypeError as problem:  # a text where a number belongs
        raise ConfigError(f"{where}: {problem}") from problem


def _trimmed(dataset: Dataset, config: SimulateConfig) -> Dataset:
    if config.test_inputs is not None:
        dataset = replace(
            dataset, x_test=dataset.x_test[: config.test_inputs], y_test=dataset.y_test[: config.test_inputs]
        )
    if config.train_rows is None or config.train_rows >= len(dataset.y_train):
        return dataset
    rng = np.random.default_rng(derive_seed(config.seed, "rows"))
    rows = np.sort(rng.choice(len(dataset.y_train), config.train_rows, replace=False))
    users = None if dataset.users_train is None else np.unique(dataset.users_train[rows], return_inverse=True)[1]
    return replace(dataset, x_train=dataset.x_train[rows], y_train=dataset.y_train[rows], users_train=users)


def _partition(config: SimulateConfig, dataset: Dataset) -> Partition:
    extra: dict[str, dict[str, Any]] = {
        "label-skew": {"q": config.skew, "groups": dataset.n_labels},
        "dirichlet": {"beta": config.concentration},
        "shards": {"shards": config.shards},
    }
    clients = config.clients
    if clients is None and config.partition != "user":
        clients = 20
    return data_module.partition(
        config.partition,
        dataset.y_train,
        n=clients,
        seed=derive_seed(config.seed, "partition"),
        users=dataset.users_train,
        **extra.get(config.partition, {}),
    )


def _without_holders(partition: Partition, dataset: Dataset, config: SimulateConfig) -> Partition:
    """The partition without some clients that hold a label (Fu et al. 2019, A.5)."""
    if not config.drop_holders:
        return partition
    holders = _holders(partition, dataset, (config.drop_label or 0,))
    if config.drop_holders > len(holders):
        raise ConfigError(
            f"drop_holders is {config.drop_holders}, but only {len(holders)} clients hold label {config.drop_label}"
        )
    gone = np.random.default_rng(derive_seed(config.seed, "drop")).permutation(holders)[: config.drop_holders]
    return partition.select(np.setdiff1d(np.arange(partition.n), gone))


def _holders(partition: Partition, dataset: Dataset, labels: tuple[int, ...]) -> NDArray[np.int64]:
    wrong = [label for label in labels if not 0 <= label < dataset.n_labels]
    if wrong:
        raise ConfigError(f"label {wrong[0]} is not one of the data's labels, 0 to {dataset.n_labels - 1}")
    counts = partition.label_counts(dataset.y_train, dataset.n_labels)[:, list(labels)]
    return np.flatnonzero(counts.sum(axis=1)).astype(np.int64)


def _choose_malicious(
    partition: Partition, dataset: Dataset, config: SimulateConfig, flipped: tuple[int, ...]
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """The first of one random order, holders of the flipped labels before all others."""
    order = np.random.default_rng(derive_seed(config.seed, "malicious")).permutation(partition.n)
    holders = _holders(partition, dataset, flipped) if flipped else order
    first = order[np.isin(order, holders)]
    order = np.concatenate([first, order[~np.isin(order, holders)]])
    notes: tuple[str, ...] = ()
    if config.attackers > len(first):
        notes = (f"only {len(first)} clients hold a label that the attack flips; {config.attackers} are malicious",)
    return np.sort(order[: config.attackers]).astype(np.int64), notes


def _sound(rule: Any, n: int, allow_unsound: bool) -> tuple[Any, tuple[str, ...]]:
    """The rule itself if its theory covers n clients; else, if allowed, the nearest form that can be computed."""
    needed = rule.min_clients()
    if n >= needed:
        return rule, ()
    against = f" against f = {rule.f} malicious ones" if hasattr(rule, "f") else ""
    sentence = f"{type(rule).__name__} needs at least {needed} clients{against}, but a round has {n}"
    if not allow_unsound:
        raise ThreatModelError(f"{sentence}; take more clients or a smaller f, or add --allow-unsound")
    loose = _loosened(rule, n)
    return loose, (f"{sentence}: running {loose!r}, which its theory does not cover",)


def _loosened(rule: Any, n: int) -> Any:
    """The same rule with the largest f (and no strictness) that n clients can be aggregated with."""
    inner = getattr(rule, "rule", None)
    if inner is not None and inner.min_clients() > 1:
        smaller = n if not hasattr(rule, "s") else -(-n // rule.s)
        rule = replace(rule, rule=_loosened(inner, smaller))
    if hasattr(rule, "strict"):
        rule = replace(rule, strict=False)
    while rule.min_clients() > n and getattr(rule, "f", 0) > 0:
        rule = replace(rule, f=rule.f - 1)
    if rule.min_clients() > n:
        raise ThreatModelError(f"{rule!r} cannot be computed with {n} clients")
    return rule


def _check_whole(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ConfigError(f"{name} must be a whole number of at least {least}, but is {value!r}")
