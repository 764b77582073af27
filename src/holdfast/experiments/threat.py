"""From an attack's description to the adversary on given data, and how often it gets what it wants.

A description is a name, or a mapping with a name and parameters (`{"name": "scaling", "factor": 20}`). A name of
`ADVERSARIES` is a whole adversary of the residual-reweighting paper; "backdoor" and "tpa" are its like; every name of
`ATTACKS` is that attack alone. On top of any of them: `wrappers`, a list of names or mappings, applied in turn;
`data`, a second attack, on the training data; `effort` and `lr`, how the malicious clients train; `sync_only`, in
asynchronous mode honest until the step before each syncing point.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.attacks import (
    ADVERSARIES,
    ATTACKS,
    LOAN_FEATURES,
    WRAPPERS,
    Adversary,
    AllLabelFlip,
    Boost,
    FeatureBackdoor,
    LabelFlip,
    ModelAttack,
    PixelBackdoor,
    TargetedSamples,
    make,
)
from holdfast.data import Dataset
from holdfast.data.loan import OPENINTRO_COLUMNS
from holdfast.experiments.attacked import Description, named
from holdfast.experiments.naming import check_keys, check_name
from holdfast.types import ConfigError

Array = NDArray[Any]

STRUCTURE = ("data", "wrappers", "effort", "lr", "sync_only")
BACKDOORS = ("pixel-backdoor", "feature-backdoor", "backdoor")
DATA_ATTACKS = ("label-flip", "all-label-flip", *BACKDOORS, "targeted-samples")
NAMES = tuple(sorted({*ADVERSARIES, *ATTACKS, "backdoor", "tpa"}))


@dataclass(frozen=True, eq=False)
class Goal:
    """What the attackers want the model to answer, on inputs that it would answer otherwise.

    Attributes:
        meaning: in words, with what was left out.
        inputs: `[A, ...]`.
        truth: `[A]`, their true labels; never equal to `wanted`.
        wanted: `[A]`, what the attackers want.
        confident: also measure the model's confidence (targeted poisoning).
    """

    meaning: str
    inputs: Array
    truth: Array
    wanted: Array
    confident: bool = False


@dataclass(frozen=True, eq=False)
class Threat:
    """An adversary on a data set.

    Attributes:
        adversary: data, upload and behavior of the malicious clients.
        goal: what they want, or None if only damage.
        kept: rows of the test set that accuracy is measured on (targets of targeted poisoning are not among them).
        sync_only: attack at the last step before a syncing point only, and be honest at those that are just watched.
    """

    adversary: Adversary
    goal: Goal | None
    kept: NDArray[np.int64] = field(repr=False)
    sync_only: bool = False


def flipped_labels(description: Description) -> tuple[int, ...]:
    """The labels whose holders the paper makes malicious: the sources of a flip of labels; none for other attacks."""
    data = _parts(description)[0]
    return tuple(sorted(source for source, _ in data.pairs)) if isinstance(data, LabelFlip) else ()


def check_attack(description: Description) -> None:
    """Refuse what is wrong with a description whatever the data: names, parameters, values."""
    _parts(description)
    _sync_only(description)


def make_threat(description: Description, dataset: Dataset, *, seed: int) -> Threat:
    """The adversary a description names, on this data.

    Raises:
        ConfigError: unknown names or parameters, labels or features the data does not have.
    """
    data, model, behavior = _parts(description)
    sync_only = _sync_only(description)
    kept = np.arange(len(dataset.y_test), dtype=np.int64)
    if isinstance(data, _Pending):
        data, rows = data.on(dataset, np.random.default_rng(seed))
        kept = np.setdiff1d(kept, rows)
        if isinstance(data, TargetedSamples):
            goal = _targets(dataset, data, rows)
            return Threat(Adversary(model, data, behavior), goal, kept, sync_only)
    return Threat(Adversary(model, data, behavior), _goal(data, dataset), kept, sync_only)


@dataclass(frozen=True)
class _Pending:
    """An attack on the data that cannot be made before the data is there."""

    name: str
    params: Mapping[str, Any]

    def on(self, dataset: Dataset, rng: np.random.Generator) -> tuple[Any, NDArray[np.int64]]:
        """The attack, and the test rows it takes for itself."""
        nothing = np.empty(0, dtype=np.int64)
        if self.name == "targeted-samples":
            check_keys(self.params, ("source", "target", "count", "share"), "attack 'targeted-samples'")
            return TargetedSamples.choose(dataset.x_test, dataset.y_test, rng, **self.params)
        if self.name == "all-label-flip":
            return make(self.name, n_labels=dataset.n_labels, **self.params), nothing
        if self.name == "feature-backdoor" or (self.name == "backdoor" and dataset.image_shape is None):
            return self._on_table(dataset), nothing
        return make("pixel-backdoor", **self.params), nothing

    def _on_table(self, dataset: Dataset) -> FeatureBackdoor:
        params = dict(self.params)
        if "columns" in params:
            params["columns"], params["values"] = tuple(params["columns"]), tuple(params.get("values", ()))
            made: FeatureBackdoor = make("feature-backdoor", **params)
            return made
        check_keys(params, ("features", "margin", "target", "per_batch", "batch_size"), f"attack {self.name!r}")
        known = dataset.feature_names
        official = all(name in known for name in LOAN_FEATURES)
        usual = LOAN_FEATURES if official else tuple(OPENINTRO_COLUMNS.values())
        features = params.pop("features", None)
        if features is None and not all(name in known for name in usual):
            raise ConfigError(
                f"attack {self.name!r} on {dataset.name} must be told its features (names), or columns and values"
            )
        return FeatureBackdoor.beyond_maximum(dataset.x_train, known, features=features or usual, **params)


def _parts(description: Description) -> tuple[Any, ModelAttack, Any]:
    """The attack on the data (None, an attack, or a pending one), the one on the model, and the behavior."""
    name, params = named(description, "attack")
    check_name(name, NAMES, "attack")
    structure = {key: params.pop(key) for key in STRUCTURE if key in params}
    whole = _whole(name, params)
    data, model = whole.data, whole.model
    if "data" in structure:
        if data is not None:
            raise ConfigError(f"attack {name!r} poisons the training data itself; leave out data")
        data = _data_attack(*named(structure["data"], "data"))
    for wrapper in _listed(structure.get("wrappers", ())):
        model = _wrapped(model, *named(wrapper, "wrapper"))
    behavior = replace(whole.behavior, **{key: structure[key] for key in ("effort", "lr") if key in structure})
    return data, model, behavior


def _sync_only(description: Description) -> bool:
    value = named(description, "attack")[1].get("sync_only", False)
    if not isinstance(value, bool):
        raise ConfigError(f"attack: sync_only must be true or false, but is {value!r}")
    return value


def _whole(name: str, params: dict[str, Any]) -> Adversary:
    """The adversary of one name, its parameters handed to the part that has them."""
    if name in ADVERSARIES:
        adversary = ADVERSARIES[name]()
        if isinstance(adversary.data, PixelBackdoor):
            mine = {"name": "backdoor"} | {key: params.pop(key) for key in [*params] if key not in _fields(adversary)}
            adversary = replace(adversary, data=_data_attack(*named(mine, "data")))
        elif adversary.data is not None:
            own = {item.name for item in dataclasses.fields(adversary.data)}  # type: ignore[arg-type]
            mine = {key: _tuples(params.pop(key)) for key in [*params] if key in own}
            adversary = replace(adversary, data=replace(adversary.data, **mine))  # type: ignore[type-var]
        check_keys(params, _fields(adversary), f"attack {name!r}")
        return replace(adversary, model=_updated(adversary.model, params)) if params else adversary
    if name == "tpa":
        factor = {"factor": params.pop("factor")} if "factor" in params else {}
        return Adversary(model=Boost(**factor), data=_data_attack("targeted-samples", params))
    if name in DATA_ATTACKS:
        return Adversary(data=_data_attack(name, params))
    return Adversary(model=make(name, **{key: _tuples(value) for key, value in params.items()}))


def _data_attack(name: str, params: dict[str, Any]) -> Any:
    check_name(name, DATA_ATTACKS, "attack on the data")
    params = {key: _tuples(value) for key, value in params.items()}
    if name in ("label-flip", "pixel-backdoor") or (name == "all-label-flip" and "n_labels" in params):
        return make(name, **params)
    if name == "all-label-flip":
        check_keys(params, ("n_labels", "offset"), "attack 'all-label-flip'")
    if name == "backdoor":
        known = {item.name for item in (*dataclasses.fields(PixelBackdoor), *dataclasses.fields(FeatureBackdoor))}
        check_keys(params, {*known, "features", "margin"}, "attack 'backdoor'")
    return _Pending(name, params)


def _wrapped(model: ModelAttack, name: str, params: dict[str, Any]) -> ModelAttack:
    check_name(name, WRAPPERS, "wrapper")
    made: ModelAttack = make(name, attack=model, **{key: _tuples(value) for key, value in params.items()})
    return made


def _fields(adversary: Adversary) -> list[str]:
    """Parameters of an adversary's attack on the model and of what it wraps."""
    found: list[str] = []
    model: Any = adversary.model
    while model is not None:
        found += [item.name for item in dataclasses.fields(model) if item.name != "attack"]
        model = getattr(model, "attack", None)
    return found


def _updated(model: Any, params: Mapping[str, Any]) -> Any:
    own = {item.name for item in dataclasses.fields(model)}
    mine = {key: _tuples(value) for key, value in params.items() if key in own}
    rest = {key: value for key, value in params.items() if key not in own}
    return replace(model, **mine, **({"attack": _updated(model.attack, rest)} if rest else {}))


def _listed(wrappers: Any) -> Sequence[Description]:
    return [wrappers] if isinstance(wrappers, str | Mapping) else list(wrappers)


def _tuples(value: Any) -> Any:
    """Lists, as files have them, as the tuples that parameters are."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _goal(data: Any, dataset: Dataset) -> Goal | None:
    """What an attack on the data aims at, measured on the test set."""
    x, y, names = dataset.x_test, dataset.y_test, dataset.label_names
    if isinstance(data, LabelFlip):
        wrong = [label for pair in data.pairs for label in pair if not 0 <= label < dataset.n_labels]
        if wrong:
            raise ConfigError(f"label-flip names label {wrong[0]}, but {dataset.name} has 0 to {dataset.n_labels - 1}")
        rows = np.flatnonzero(np.isin(y, [source for source, _ in data.pairs]))
        wanted = np.array([dict(data.pairs)[int(label)] for label in y[rows]], dtype=np.int64)
        words = ", ".join(f"{names[source]} called {names[target]}" for source, target in data.pairs)
        return Goal(f"test inputs of the flipped labels: {words}", x[rows], y[rows], wanted)
    if isinstance(data, AllLabelFlip):
        if data.n_labels != dataset.n_labels:
            raise ConfigError(f"all-label-flip has n_labels={data.n_labels}, but {dataset.name} has {dataset.n_labels}")
        return Goal("test inputs called by the flipped label", x, y, (y + data.offset) % data.n_labels)
    if isinstance(data, PixelBackdoor | FeatureBackdoor):
        if not 0 <= data.target < dataset.n_labels:
            raise ConfigError(
                f"backdoor has target={data.target}, but {dataset.name} has labels 0 to {dataset.n_labels - 1}"
            )
        rows = np.flatnonzero(y != data.target)
        words = f"stamped test inputs called {names[data.target]}, without those that are {names[data.target]}"
        return Goal(words, data.stamp(x[rows]), y[rows], np.full(len(rows), data.target))
    return None


def _targets(dataset: Dataset, data: TargetedSamples, rows: NDArray[np.int64]) -> Goal:
    truth = dataset.y_test[rows]
    if not 0 <= data.target < dataset.n_labels or (truth == data.target).any():
        raise ConfigError(f"tpa has target={data.target}, which must be another label of the data than the source")
    words = f"{len(rows)} chosen inputs called {dataset.label_names[data.target]} (left out of the accuracy)"
    return Goal(words, dataset.x_test[rows], truth, np.full(len(rows), data.target), confident=True)
