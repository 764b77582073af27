"""Attacks on the training data: wrong labels and chosen targets (`backdoors` has the triggers).

An attack takes `(x, y, rng)` and gives poisoned copies of the same length. It may be used on a client's whole data
set or batch by batch: "samples per batch" is a share, exact on a batch, met in expectation when batches are drawn
from the poisoned data set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from holdfast.types import ConfigError, DataError

Array = NDArray[Any]


@runtime_checkable
class DataAttack(Protocol):
    """Poisons examples: `(x, y, rng) -> (x, y)`, new arrays of the same length; the input is not changed."""

    def __call__(self, x: Array, y: Array, rng: np.random.Generator) -> tuple[Array, Array]:
        """The poisoned examples and labels."""
        ...


@dataclass(frozen=True)
class LabelFlip:
    """Call every example of a source label by its target label, all pairs at once.

    `((1, 2), (2, 1))` swaps the two labels: every label is looked up in the original ones, so no pair sees what
    another wrote. MNIST of the residual-reweighting paper (§4.2): `((1, 7),)`; CIFAR-10, cat to dog: `((3, 5),)`.

    Args:
        pairs: (source, target) labels; every source once.

    Raises:
        ConfigError: no pair, or a source twice.

    Example:
        >>> import numpy as np
        >>> LabelFlip(((1, 2), (2, 1)))(np.zeros((4, 1)), np.array([0, 1, 2, 3]), np.random.default_rng(0))[1]
        array([0, 2, 1, 3])
    """

    pairs: tuple[tuple[int, int], ...] = ((1, 7),)

    def __post_init__(self) -> None:
        sources = [source for source, _ in self.pairs]
        if not sources or len(set(sources)) < len(sources):
            raise ConfigError(f"pairs={self.pairs} is not a flip; name at least one pair and every source label once")

    def __call__(self, x: Array, y: Array, rng: np.random.Generator) -> tuple[Array, Array]:
        """The same examples with flipped labels."""
        flipped = y.copy()
        for source, target in self.pairs:
            flipped[y == source] = target
        return x.copy(), flipped


@dataclass(frozen=True)
class AllLabelFlip:
    """Make every label wrong: `y -> (y + offset) mod n_labels`. With two labels (reviews) it swaps them.

    Example:
        >>> import numpy as np
        >>> AllLabelFlip(n_labels=2)(np.zeros((3, 1)), np.array([0, 1, 1]), np.random.default_rng(0))[1]
        array([1, 0, 0])
    """

    n_labels: int = 2
    offset: int = 1

    def __post_init__(self) -> None:
        if self.n_labels < 2:
            raise ConfigError(f"n_labels={self.n_labels} leaves nothing to flip; it must be at least 2")
        if self.offset % self.n_labels == 0:
            raise ConfigError(f"offset={self.offset} leaves every one of {self.n_labels} labels as it is")

    def __call__(self, x: Array, y: Array, rng: np.random.Generator) -> tuple[Array, Array]:
        """The same examples with shifted labels."""
        if y.size and int(y.max()) >= self.n_labels:
            raise DataError(f"label {int(y.max())} does not fit n_labels={self.n_labels}")
        return x.copy(), ((y.astype(np.int64) + self.offset) % self.n_labels).astype(y.dtype)


@dataclass(frozen=True)
class TargetedSamples:
    """Train on a few chosen samples under the label the attacker wants for them (TPA, Romoa §2.2: sixes called 3).

    A share of the rows is replaced by the chosen samples, in turn. Take them from a pool that accuracy is not
    measured on, with `TargetedSamples.choose`.

    Args:
        samples: `[r, ...]`, the inputs the attacker wants misclassified.
        target: the label it wants for them.
        share: share of the training rows they replace.

    Example:
        >>> import numpy as np
        >>> attack = TargetedSamples(np.full((2, 1), 6.0), target=3)
        >>> x, y = attack(np.zeros((4, 1)), np.zeros(4, int), np.random.default_rng(0))
        >>> int((x == 6).sum()), int((y == 3).sum())
        (2, 2)
    """

    samples: Array
    target: int = 3
    share: float = 0.5

    def __post_init__(self) -> None:
        if len(self.samples) == 0:
            raise ConfigError("samples is empty; targeted poisoning needs at least one target")
        if not 0 < self.share <= 1:
            raise ConfigError(f"share={self.share} is not possible; it must be above 0 and at most 1")

    @classmethod
    def choose(
        cls,
        x: Array,
        y: Array,
        rng: np.random.Generator,
        *,
        source: int = 6,
        target: int = 3,
        count: int = 10,
        share: float = 0.5,
    ) -> tuple[TargetedSamples, NDArray[np.int64]]:
        """Draw `count` inputs of class `source`; also gives their rows, to leave out of the accuracy set.

        Raises:
            DataError: fewer than `count` inputs of that class.
        """
        pool = np.flatnonzero(y == source)
        if len(pool) < count:
            raise DataError(f"only {len(pool)} inputs have label {source}; count={count} targets are needed")
        rows = np.sort(rng.choice(pool, count, replace=False))
        return cls(x[rows].copy(), target, share), rows

    def __call__(self, x: Array, y: Array, rng: np.random.Generator) -> tuple[Array, Array]:
        """The data set with a share of it replaced by the chosen samples."""
        if x.shape[1:] != self.samples.shape[1:]:
            raise DataError(f"samples of shape {self.samples.shape[1:]} do not fit inputs of shape {x.shape[1:]}")
        chosen = rng.permutation(len(y))[: round(self.share * len(y))]
        poisoned, labels = x.copy(), y.copy()
        poisoned[chosen] = self.samples[np.arange(len(chosen)) % len(self.samples)]
        labels[chosen] = self.target
        return poisoned, labels
