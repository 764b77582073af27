"""What a report says, as plain values: counts per certificate, baselines, examples, and the run's manifest.

Nothing here draws or prints. Everything is kept as integer counts, so that every renderer (terminal, JSON, figures,
HTML page) derives the same shares and none of them can overstate a certificate by rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from holdfast.types import ConfigError, DataError

KINDS = ("deployed", "secret", "ideal", "data")
NICE = tuple(digit * 10**power for power in range(19) for digit in (1, 2, 5))  # steps people read without effort


class CertificateLike(Protocol):
    """The fields of `holdfast.certification.certificate.Certificate` that a report reads."""

    @property
    def kind(self) -> str: ...  # noqa: D102
    @property
    def prediction(self) -> Any: ...  # noqa: D102
    @property
    def radius(self) -> Any: ...  # noqa: D102
    @property
    def alpha(self) -> float: ...  # noqa: D102
    @property
    def method(self) -> str: ...  # noqa: D102
    @property
    def assumptions(self) -> tuple[str, ...]: ...  # noqa: D102


@dataclass(frozen=True)
class CertificateSummary:
    """One certificate over a test set: how many inputs have each radius, and how many of those are right.

    The certified rate at m is the share of inputs with radius >= m; it needs no labels. The certified accuracy at m
    counts only those whose prediction is also the true label. An abstention counts in neither, at no m.

    Attributes:
        kind: "deployed", "secret", "ideal" or "data" (what is certified, and against whom).
        design: which clients train which models, in words ("5 partitions, groups of 10").
        method: how the radius was found ("degree bound", "rank-verified", ...).
        alpha: failure probability of the statement; 0 for a deterministic one.
        assumptions: what must hold for the statement to be true, one sentence each.
        radius_counts: entry r is the number of inputs whose radius is exactly r.
        correct_counts: of those, how many predictions equal the true label; None without labels.
        abstained: number of inputs without any certificate.
        n_models: number of models that vote; None where it does not apply.
        n_labeled: number of inputs whose true label is known; None = all. Accuracies are shares of these.

    Raises:
        ConfigError: unknown kind, alpha outside [0, 1), or counts that contradict each other.

    Example:
        >>> s = CertificateSummary("deployed", "10 groups", "degree", 0.0, (), (1, 2, 4), (0, 2, 4), abstained=1)
        >>> s.n_inputs, s.max_radius
        (8, 2)
        >>> s.certified_rate(1), s.certified_accuracy(1), s.certified_accuracy(3)
        (0.75, 0.75, 0.0)
    """

    kind: str
    design: str
    method: str
    alpha: float
    assumptions: tuple[str, ...]
    radius_counts: tuple[int, ...]
    correct_counts: tuple[int, ...] | None
    abstained: int
    n_models: int | None = None
    n_labeled: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"kind={self.kind!r} is not one of {', '.join(KINDS)}")
        if not 0 <= self.alpha < 1:
            raise ConfigError(f"alpha={self.alpha} must be 0 (no failure probability) or inside (0, 1)")
        if self.abstained < 0 or min(self.radius_counts, default=0) < 0 or self.n_inputs == 0:
            raise ConfigError("radius_counts and abstained must count at least one input, none negative")
        correct = self.correct_counts
        if correct is not None and (
            len(correct) != len(self.radius_counts)
            or any(not 0 <= c <= r for c, r in zip(correct, self.radius_counts, strict=True))
        ):
            raise ConfigError("correct_counts must have one entry per radius, none above radius_counts")
        if self.n_labeled is not None and not max(sum(correct or ()), 1) <= self.n_labeled <= self.n_inputs:
            raise ConfigError(
                f"n_labeled={self.n_labeled} must cover the correct inputs and at most all {self.n_inputs}"
            )

    @property
    def n_inputs(self) -> int:
        """Number of test inputs, abstentions included."""
        return sum(self.radius_counts) + self.abstained

    @property
    def max_radius(self) -> int:
        """The largest radius of any input; -1 when every input abstained."""
        return max((r for r, count in enumerate(self.radius_counts) if count), default=-1)

    @property
    def labeled(self) -> bool:
        """Whether true labels were given, so that accuracy is defined."""
        return self.correct_counts is not None

    def certified(self, m: int) -> int:
        """Number of inputs whose prediction provably survives m malicious participants."""
        return sum(self.radius_counts[m:])

    def correct(self, m: int) -> int:
        """Number of inputs whose *correct* prediction provably survives m malicious participants."""
        if self.correct_counts is None:
            raise DataError("certified accuracy needs the true labels of the test inputs, and none were given")
        return sum(self.correct_counts[m:])

    @property
    def accuracy_base(self) -> int:
        """What accuracies are shares of: the inputs whose true label is known."""
        return self.n_inputs if self.n_labeled is None else self.n_labeled

    @property
    def guaranteed_base(self) -> int:
        """What `guaranteed(m)` is a share of."""
        return self.accuracy_base if self.labeled else self.n_inputs

    def certified_rate(self, m: int) -> float:
        """Share of inputs certified at m."""
        return self.certified(m) / self.n_inputs

    def certified_accuracy(self, m: int) -> float:
        """Share of the labeled inputs that are certified at m with the correct label."""
        return self.correct(m) / self.accuracy_base

    def guaranteed(self, m: int) -> int:
        """What the report shows first: `correct(m)` with labels, `certified(m)` without."""
        return self.correct(m) if self.labeled else self.certified(m)


def summarize(
    certificate: CertificateLike,
    labels: ArrayLike | None = None,
    *,
    design: str = "",
    n_models: int | None = None,
) -> CertificateSummary:
    """Count a certificate's radii, and with labels its correct predictions.

    Args:
        certificate: any value with `kind`, `prediction [T]`, `radius [T]` (-1 = abstain), `alpha`, `method` and
            `assumptions`, such as `holdfast.certification.Certificate`.
        labels: true labels `[T]`, or None; below 0 = unknown, left out of accuracies.
        design: who trains what, in words.
        n_models: number of models that vote.

    Raises:
        DataError: labels or predictions whose length is not that of the radii.

    Example:
        >>> from types import SimpleNamespace
        >>> c = SimpleNamespace(kind="ideal", prediction=[1, 0, -1], radius=[3, 0, -1], alpha=0.001,
        ...                     method="split", assumptions=())
        >>> s = summarize(c, [1, 1, 1])
        >>> s.radius_counts, s.correct_counts, s.abstained
        ((1, 0, 0, 1), (0, 0, 0, 1), 1)
    """
    radius = np.asarray(certificate.radius, dtype=np.int64)
    prediction = np.asarray(certificate.prediction)
    if radius.ndim != 1 or prediction.shape != radius.shape:
        raise DataError(f"prediction has shape {prediction.shape} and radius {radius.shape}; both must be [T]")
    held = radius >= 0
    size = int(radius.max(initial=0)) + 1
    correct: tuple[int, ...] | None = None
    truth = np.full_like(radius, -1) if labels is None else np.asarray(labels)
    if truth.shape != radius.shape:
        raise DataError(f"labels has shape {truth.shape}, but the certificate covers {radius.size} inputs")
    known = int((truth >= 0).sum())
    if known:
        correct = tuple(np.bincount(radius[held & (prediction == truth)], minlength=size).tolist())
    return CertificateSummary(
        kind=certificate.kind,
        design=design,
        method=certificate.method,
        alpha=float(certificate.alpha),
        assumptions=tuple(certificate.assumptions),
        radius_counts=tuple(np.bincount(radius[held], minlength=size).tolist()),
        correct_counts=correct,
        abstained=int((~held).sum()),
        n_models=n_models,
        n_labeled=known or None,
    )


@dataclass(frozen=True)
class Example:
    """One test input to show: its picture if it has one, its prediction, radius and votes.

    Attributes:
        index: position in the test set.
        prediction: label name the vote chose; None when it abstained.
        label: true label name; None without labels.
        radius: how many malicious participants the prediction survives; -1 = abstained.
        image: `[H, W]` gray or `[H, W, 3]` color, any real dtype (scaled to its own range), or None.
        votes: (label name, votes) of the labels that got most votes, largest first.
    """

    index: int
    prediction: str | None
    label: str | None
    radius: int
    image: NDArray[Any] | None = None
    votes: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class CertifyReport:
    """Everything the report of one run shows.

    Attributes:
        title: heading of the page.
        dataset: name of the data set.
        n_clients: number n of enrolled participants.
        n_models: number N of trained models.
        kinds: one summary per certificate kind and design; the first of the strongest kind makes the headline.
        clean_accuracy_single_fedavg: accuracy in [0, 1] of one model trained on all clients with no attack.
        trusted_only_accuracy: accuracy of a model trained on the trusted data alone, which no client can change.
        examples: inputs to show, any order.
        not_covered: further limits of this run in plain words, beside those every certificate of a kind has.
        config: the run's settings; hashes: of its files; versions: of the software; timings: seconds per stage.
        seed_commitment: SHA-256 of the secret seed that drew the groups.
        run: the folder of the run as the user typed it, shown in the commands that check it again.
        command: the command line that made the run.
        unit: what m counts, in the plural: "clients" or "training examples".

    Raises:
        ConfigError: no certificate, or summaries that cover different numbers of inputs.
    """

    title: str
    dataset: str
    n_clients: int
    n_models: int
    kinds: tuple[CertificateSummary, ...]
    clean_accuracy_single_fedavg: float | None = None
    trusted_only_accuracy: float | None = None
    examples: tuple[Example, ...] = ()
    not_covered: tuple[str, ...] = ()
    config: Mapping[str, object] = field(default_factory=dict)
    hashes: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    timings: Mapping[str, float] = field(default_factory=dict)
    seed_commitment: str | None = None
    run: str = "RUN"
    command: str | None = None
    unit: str = "clients"

    def __post_init__(self) -> None:
        if not self.kinds:
            raise ConfigError("kinds is empty; a report needs at least one certificate")
        if len({(s.n_inputs, s.labeled, s.accuracy_base) for s in self.kinds}) > 1:
            raise ConfigError("kinds mixes certificates of different test sets; they must cover the same inputs")
        for name in ("clean_accuracy_single_fedavg", "trusted_only_accuracy"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ConfigError(f"{name}={value} must be a share between 0 and 1")

    @property
    def n_inputs(self) -> int:
        """Number of test inputs."""
        return self.kinds[0].n_inputs

    @property
    def labeled(self) -> bool:
        """Whether true labels are known, so that accuracies are shown."""
        return self.kinds[0].labeled

    @property
    def max_radius(self) -> int:
        """The largest radius of any input under any certificate; -1 when all abstained."""
        return max(s.max_radius for s in self.kinds)

    @property
    def headline(self) -> CertificateSummary:
        """The certificate of the first sentence: deployed before secret before ideal, then the first given."""
        return min(self.kinds, key=lambda s: KINDS.index(s.kind))

    def headline_m(self) -> int:
        """The m of the first sentence: the largest round m that keeps 80% of what is guaranteed at m = 0."""
        s = self.headline
        enough = [m for m in levels(s.max_radius) if 10 * s.guaranteed(m) >= 8 * s.guaranteed(0) > 0]
        return max(enough, default=0)

    def name_of(self, summary: CertificateSummary) -> str:
        """The shortest name that tells this certificate from the others of the report."""
        name = summary.kind
        if len({s.design for s in self.kinds}) > 1:
            name += f", {summary.design}"
        if sum((s.kind, s.design) == (summary.kind, summary.design) for s in self.kinds) > 1:
            name += f", {summary.method}"
        return name


def levels(max_radius: int, limit: int = 10) -> tuple[int, ...]:
    """Values of m worth a column: 0, 1, 2, 5, then even steps, and the largest radius, at most `limit` of them.

    Example:
        >>> levels(60)
        (0, 1, 2, 5, 10, 20, 30, 40, 50, 60)
        >>> levels(8)
        (0, 1, 2, 3, 4, 5, 6, 7, 8)
        >>> levels(249)
        (0, 1, 5, 10, 20, 50, 100, 150, 200, 249)
        >>> levels(-1)
        (0,)
    """
    if max_radius < limit:
        return tuple(range(max(max_radius, 0) + 1))
    step = next(s for s in NICE if (max_radius - 1) // s <= limit // 2)
    even = range(step, max_radius, step)
    rising = [m for m in NICE if 1 < m < step]
    room = limit - 3 - len(even)
    return tuple(sorted({0, 1, *rising[max(len(rising) - room, 0) :], *even, max_radius}))
