"""The result of every certificate: what is promised, for which inputs, under which assumptions.

Four kinds exist and are never mixed in one table without their name: `deployed`, `secret`, `ideal` and `data`
(docs/certificates.md says what each promises). A certificate that cannot promise anything for an input abstains:
prediction and radius are both `ABSTAIN`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from holdfast.types import ConfigError

ABSTAIN = -1
"""Prediction and radius of an input for which nothing is promised."""

KINDS = {
    "deployed": "the vote of the trained models, against attackers who know and choose everything",
    "secret": "the vote of the trained models, against attackers chosen without knowing the assignment",
    "ideal": "the vote over all possible selections of clients, estimated from the trained models",
    "data": "the vote over all possible selections of training examples, estimated from the trained models",
}


@dataclass(frozen=True, eq=False)
class Certificate:
    """How many malicious clients (or examples) each prediction survives.

    Attributes:
        kind: one of `KINDS`; it decides what `radius` means.
        prediction: `[T]` int64, the certified label, or `ABSTAIN`.
        radius: `[T]` int64, the largest number of malicious clients the prediction survives, or `ABSTAIN`.
        alpha: the probability that the promise fails; 0 for a deterministic certificate.
        method: how it was computed, with its parameters, in one line.
        assumptions: what must hold for the promise to hold; printed with the certificate.
        margin: `[T]`, what the radius was decided from: the vote margin (deployed, secret) or the gap between the
            probability bounds (ideal, data), before any abstention.
        source: hash of the votes it was computed from, where the caller knows it.

    Example:
        >>> import numpy as np
        >>> certificate = Certificate(
        ...     kind="deployed", prediction=np.array([3, 1, -1]), radius=np.array([4, 0, -1]), alpha=0.0,
        ...     method="degree bound", assumptions=("the votes are those of the trained models",),
        ... )
        >>> certificate.certified_accuracy([3, 2, 5], m=0)
        0.3333333333333333
        >>> certificate.certified_rate(4)
        0.3333333333333333
        >>> print(certificate)
        deployed certificate (degree bound): 2 of 3 inputs certified, failure probability 0
        It speaks about the vote of the trained models, against attackers who know and choose everything.
        Median radius of the certified inputs 2, largest 4.
        Assumptions:
          - the votes are those of the trained models
    """

    kind: str
    prediction: NDArray[np.int64]
    radius: NDArray[np.int64]
    alpha: float
    method: str
    assumptions: tuple[str, ...]
    margin: NDArray[Any] | None = None
    source: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"kind={self.kind!r} is not a kind of certificate; choose one of {', '.join(KINDS)}")
        for name in ("prediction", "radius"):
            column = np.array(getattr(self, name), dtype=np.int64)
            column.setflags(write=False)
            object.__setattr__(self, name, column)
        if self.prediction.ndim != 1 or self.prediction.shape != self.radius.shape:
            raise ConfigError(
                f"prediction has shape {self.prediction.shape} and radius {self.radius.shape}; both must be [T]"
            )

    @property
    def n_inputs(self) -> int:
        """T, the number of inputs."""
        return len(self.radius)

    @property
    def max_radius(self) -> int:
        """The largest radius of any input, `ABSTAIN` if nothing is certified."""
        return int(self.radius.max(initial=ABSTAIN))

    def certified_accuracy(self, labels: ArrayLike, m: int) -> float:
        """Share of inputs whose certified prediction is the given label with radius at least m, in [0, 1].

        Abstentions count as wrong, also at m = 0. Labels below 0 mean "unknown": those inputs are left out.

        Raises:
            ConfigError: if `labels` is not `[T]` integers, none is known, or m is negative.
        """
        return float(self._share(self._correct(labels), m))

    def curve(self, labels: ArrayLike) -> NDArray[np.float64]:
        """Certified accuracy at m = 0, 1, ..., up to and including the first m where it is zero for every label.

        Returns:
            `[max_radius + 2]` float64, non-increasing, ending in 0.
        """
        correct = self._correct(labels)
        return np.array([self._share(correct, m) for m in range(self.max_radius + 2)])

    def certified_rate(self, m: int) -> float:
        """Share of inputs with radius at least m, in [0, 1]: what can be reported without knowing any label."""
        return float(self._share(lambda radius: radius, m))

    def _correct(self, labels: ArrayLike) -> Callable[[NDArray[np.int64]], NDArray[np.int64]]:
        expected = np.asarray(labels)
        if expected.shape != self.radius.shape or not np.issubdtype(expected.dtype, np.integer):
            raise ConfigError(
                f"labels has shape {expected.shape} and type {expected.dtype}; "
                f"needed is one integer for each of the {self.n_inputs} inputs"
            )
        known = expected >= 0
        if not known.any():
            raise ConfigError("labels are unknown for every input, so no accuracy can be given; use certified_rate(m)")
        correct = self.prediction == expected
        return lambda radius: np.where(correct, radius, ABSTAIN)[known]

    def _share(self, select: Callable[[NDArray[np.int64]], NDArray[np.int64]], m: int) -> float:
        if isinstance(m, bool) or not isinstance(m, int | np.integer) or m < 0:
            raise ConfigError(f"m={m!r} must be an integer of at least 0")
        radius = select(self.radius)
        return float(np.mean(radius >= m)) if len(radius) else 0.0

    def __str__(self) -> str:
        certified = self.radius[self.radius >= 0]
        lines = [
            f"{self.kind} certificate ({self.method}): {len(certified)} of {self.n_inputs} inputs certified, "
            f"failure probability {self.alpha:g}",
            f"It speaks about {KINDS[self.kind]}.",
        ]
        if len(certified):
            lines.append(f"Median radius of the certified inputs {np.median(certified):g}, largest {self.max_radius}.")
        lines += ["Assumptions:", *(f"  - {assumption}" for assumption in self.assumptions)]
        return "\n".join(lines)
