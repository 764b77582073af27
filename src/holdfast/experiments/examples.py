"""Certificates against poisoned training data: the configuration of a `certify-data` run, and what follows from it.

Three cases of prior knowledge. Case 1: nothing is trusted. Case 2: trusted examples join every selection, and n counts
the others. Case 3: whole classes are trusted; the base classifiers tell apart "some trusted class" and the others, and
one second phase, trained on trusted data alone, says which trusted class it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast import data as data_module
from holdfast.data import Dataset, Partition
from holdfast.ensemble import Design, make_design
from holdfast.experiments.certificates import EXAMPLES
from holdfast.experiments.federation import first_inputs
from holdfast.experiments.outlook import outlook
from holdfast.experiments.study import SECOND_PHASE, Extra, Task, Workshop
from holdfast.experiments.trusted import check_apart, class_numbers, only_classes, row_numbers, with_trusted_data
from holdfast.training import FedAvg, model_factory
from holdfast.training.batches import derive_seed
from holdfast.training.elsewhere import Recipe
from holdfast.training.selection import balanced_rows, expanded_size, selection_rows, sgd
from holdfast.types import ConfigError

DESIGN_OF_SCHEME = {
    "without": "random",
    "with": "replacement",
    "binomial": "binomial",
    "disjoint": "disjoint",
    "partitions": "partitions",
    "spread": "spread",
    "exhaustive": "exhaustive",
}
INDEPENDENT = ("without", "with", "binomial")
DEFAULT_SIZE, DEFAULT_MODELS = 10, 1000
_FOREVER = 2**62  # more draws than any training makes


@dataclass(frozen=True)
class ExamplesConfig:
    """Everything that decides the votes; equal configurations and seeds give equal votes.

    Attributes:
        data: name of a data set, or a path to a file.
        data_dir: folder with the official files, instead of the cache.
        classes: only these classes of the data ("1", "7" for MNIST 1/7); empty takes all.
        scheme: how selections are drawn: a key of `DESIGN_OF_SCHEME`.
        size: n_s, examples per selection; None takes 10. Not for "binomial".
        p: probability of "binomial", a constant fixed before the data were seen.
        models: T, base classifiers; None takes 1,000, or as many as the scheme has.
        model: registry name or `package.module:factory`; None takes the data set's own.
        steps: SGD steps of each base classifier.
        batch_size: examples per step, drawn with replacement and class by class with equal weight.
        lr: learning rate.
        expand: entries to which a tiny selection is expanded at least, so that its classes weigh the same.
        long_steps: SGD steps of the models beside the ensemble: second phase, trusted-only, all examples.
        trusted: training rows that are vouched for, such as "0-99,205" (case 2).
        trusted_data: a file whose rows are vouched for and added to the training rows (case 2).
        trusted_classes: classes whose training rows are all vouched for (case 3).
        baseline: also train one model on all examples.
        test_inputs: certify only the first so many test inputs; None takes all.
    """

    data: str = "digits"
    data_dir: str | None = None
    classes: tuple[str, ...] = ()
    scheme: str = "without"
    size: int | None = None
    p: float | None = None
    models: int | None = None
    model: str | None = None
    steps: int = 100
    batch_size: int = 32
    lr: float = 0.1
    expand: int = 1024
    long_steps: int = 1000
    trusted: str = ""
    trusted_data: str | None = None
    trusted_classes: tuple[str, ...] = ()
    baseline: bool = True
    test_inputs: int | None = None

    @property
    def job(self) -> str:
        """The command."""
        return "certify-data"

    def __post_init__(self) -> None:
        if self.scheme not in DESIGN_OF_SCHEME:
            raise ConfigError(f"scheme {self.scheme!r} is not one of {', '.join(DESIGN_OF_SCHEME)}")
        if (self.scheme == "binomial") != (self.p is not None):
            raise ConfigError(
                "scheme binomial needs p, a constant fixed before the data were seen"
                if self.p is None
                else f"p = {self.p} is for scheme binomial only; scheme {self.scheme} takes size"
            )
        if self.p is not None and not 0 < self.p < 1:
            raise ConfigError(
                f"p = {self.p} must lie strictly between 0 and 1: 0 selects nothing, 1 everything, always"
            )
        if self.p is not None and self.size is not None:
            raise ConfigError(f"size = {self.size} does not go with scheme binomial, whose sizes follow from p")
        for name in ("size", "models", "expand"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ConfigError(f"{name} = {value!r} must be a whole number of at least 1")
        if self.trusted_classes and (self.trusted or self.trusted_data):
            raise ConfigError("trusted_classes cannot be combined with trusted or trusted_data; vouch in one way")

    def study(self, *, seed: int) -> Examples:
        """The examples that follow from this configuration; nothing is drawn here, so the seed has no effect."""
        return load_examples(self)

    def training(self) -> FedAvg:
        """Plain SGD on one selection."""
        return sgd(steps=self.steps, batch_size=self.batch_size, lr=self.lr)

    def long_training(self) -> FedAvg:
        """Plain SGD of a model beside the ensemble."""
        return sgd(steps=self.long_steps, batch_size=self.batch_size, lr=self.lr)


@dataclass(frozen=True, eq=False)
class Examples:
    """Training examples, some of which may be poisoned.

    Attributes:
        config: where they come from.
        dataset: the data.
        untrusted: rows of D^p, which selections are drawn from.
        trusted: rows of D^c, which belong to every selection.
        trusted_labels: the trusted classes of case 3, else empty.
    """

    config: ExamplesConfig
    dataset: Dataset
    untrusted: NDArray[np.int64]
    trusted: NDArray[np.int64]
    trusted_labels: NDArray[np.int64]

    @property
    def n(self) -> int:
        """Examples that are not vouched for."""
        return len(self.untrusted)

    @property
    def case(self) -> int:
        """The case of prior knowledge, 1 to 3."""
        return 3 if len(self.trusted_labels) else 2 if len(self.trusted) else 1

    @property
    def outputs(self) -> NDArray[np.int64]:
        """The label behind each output of a base classifier; in case 3 the trusted classes share the first one."""
        if self.case != 3:
            return np.arange(self.dataset.n_labels)
        others = np.setdiff1d(np.arange(self.dataset.n_labels), self.trusted_labels)
        return np.concatenate([[SECOND_PHASE], others])

    def facts(self) -> Mapping[str, Any]:
        """What certificates and report need to know beside the design."""
        return {"data": self.dataset.name, "unit": EXAMPLES, "outputs": len(self.outputs), "case": self.case}

    def design(self, seed: str) -> Design:
        """Who is in which selection."""
        config = self.config
        kind = DESIGN_OF_SCHEME[config.scheme]
        models = config.models
        if models is None and config.scheme in INDEPENDENT:
            models = DEFAULT_MODELS
        if config.p is not None:
            return make_design(kind, n=self.n, n_models=models, seed=seed, p=Fraction(str(config.p)))
        size = DEFAULT_SIZE if config.size is None else config.size
        if size > self.n:
            kept = " that are not trusted" if self.case > 1 else ""
            raise ConfigError(f"size = {size} examples per selection are more than the n = {self.n}{kept}")
        return make_design(kind, n=self.n, k=size, n_models=models, seed=seed)

    def outlook(self, design: Design, alpha: float) -> str:
        """What these selections could certify at best."""
        return outlook(design, alpha=alpha, n_inputs=len(self.dataset.y_test), n_labels=len(self.outputs))

    def task(self, design: Design, workshop: Workshop, *, seed: int) -> Task:
        """One model per selection, and those beside them."""
        config, dataset = self.config, self.dataset
        number = np.zeros(dataset.n_labels, dtype=np.int64)  # a trusted class is output 0
        known = self.outputs >= 0
        number[self.outputs[known]] = np.flatnonzero(known)
        y = number[dataset.y_train]
        settings = config.training()
        rows = selection_rows(
            [self.untrusted[design.draws(model)] for model in range(design.n_models)],
            y,
            trusted=self.trusted,
            least=config.expand,
            draws=settings.steps * settings.batch_size,
            seed=derive_seed(seed, "expansion"),
        )
        recipe = self._recipe(y, rows, settings, len(self.outputs), seed)
        everything = np.arange(len(dataset.y_train))
        return Task(
            workshop.trainer(recipe),
            self._arrays(y, rows),
            [np.array([model]) for model in range(design.n_models)],
            self.outputs,
            single=self._beside(workshop, everything, seed) if config.baseline else None,
            trusted=self._beside(workshop, self.trusted, seed) if self.case == 2 else None,
            second=self._second_phase(workshop, seed) if self.case == 3 else None,
            recipe=recipe,
        )

    def _recipe(self, y: NDArray[np.int64], rows: Partition, settings: FedAvg, outputs: int, seed: int) -> Recipe:
        dataset = self.dataset
        name = self.config.model or default_model(self.config.data)
        factory = model_factory(name, dataset.x_train.shape[1:], outputs)
        return Recipe(factory, dataset.x_train, y, rows, settings, seed)

    def _arrays(self, y: NDArray[np.int64], rows: Partition) -> tuple[NDArray[Any], ...]:
        return (self.dataset.x_train, y, self.dataset.x_test, rows.offsets, rows.indices)

    def _beside(self, workshop: Workshop, rows: NDArray[np.int64], seed: int) -> Extra:
        """One ordinary classifier on some rows."""
        return self._extra(workshop, rows, self.dataset.y_train, np.arange(self.dataset.n_labels), seed)

    def _second_phase(self, workshop: Workshop, seed: int) -> Extra:
        """The classifier of trusted classes on trusted rows; a single class still has two outputs, both its own."""
        labels = np.resize(self.trusted_labels, max(2, len(self.trusted_labels)))
        y = np.searchsorted(self.trusted_labels, self.dataset.y_train)
        y[~np.isin(self.dataset.y_train, self.trusted_labels)] = 0  # rows it never sees
        return self._extra(workshop, self.trusted, y, labels, seed)

    def _extra(
        self, workshop: Workshop, rows: NDArray[np.int64], y: NDArray[np.int64], labels: NDArray[np.int64], seed: int
    ) -> Extra:
        settings = self.config.long_training()
        size = expanded_size(rows, y, least=self.config.expand, draws=settings.steps * settings.batch_size)
        held = balanced_rows(rows, y, size=size, seed=derive_seed(seed, "beside"))
        holder = Partition(np.array([0, len(held)], dtype=np.int64), held)
        trainer = workshop.trainer(self._recipe(y, holder, settings, len(labels), seed))
        return Extra(trainer, self._arrays(y, holder), np.zeros(1, dtype=np.int64), labels)


def default_model(data: str) -> str:
    """The model a data set is trained with unless another is asked for: the paper's."""
    return {"mnist": "lenet", "cifar10": "resnet18-bn", "har": "har"}.get(data, "mlp")


def load_examples(config: ExamplesConfig) -> Examples:
    """Load the data and split it into the trusted and the untrusted part.

    Raises:
        ConfigError: options that name classes or rows that do not exist, or leave nothing to certify against.
        DataError: data that cannot be used, or trusted examples that are also in the untrusted part.
    """
    dataset = data_module.load(config.data, data_dir=config.data_dir)
    dataset = first_inputs(only_classes(dataset, config.classes), config.test_inputs)
    labels = np.empty(0, dtype=np.int64)
    trusted = np.empty(0, dtype=np.int64)
    if config.trusted_classes:
        labels = class_numbers(config.trusted_classes, dataset, "trusted_classes")
        if len(labels) == dataset.n_labels:
            raise ConfigError("trusted_classes names every class; nothing is left to certify against")
        trusted = np.flatnonzero(np.isin(dataset.y_train, labels))
    if config.trusted:
        trusted = row_numbers(config.trusted, len(dataset.y_train))
    if config.trusted_data is not None:
        dataset, added = with_trusted_data(dataset, config.trusted_data)
        trusted = np.concatenate([trusted, added])
    untrusted = np.setdiff1d(np.arange(len(dataset.y_train)), trusted)
    if not len(untrusted):
        raise ConfigError("every training example is trusted; nothing is left to certify against")
    if not len(labels):
        check_apart(dataset, trusted, untrusted)
    return Examples(config, dataset, untrusted, trusted, labels)
