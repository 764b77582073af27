r"""Base classifiers on sub-datasets: every selection of training examples is the one client of its own model.

A selection becomes a list of row numbers, so no example is copied and the engines of federated training do the rest:
one round of one client is plain SGD. What a model sees follows from its own selection, the trusted rows and a seed
derived from (seed, model) alone; class weights in particular come from the selection, never from the whole data,
because a weight that everybody's examples move would break every certificate.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from holdfast.data import Partition
from holdfast.training.batches import derive_seed, fold
from holdfast.training.fedavg import FedAvg
from holdfast.types import ConfigError

Rows = npt.NDArray[np.int64]

_MOST_STEPS_PER_ROUND = 10


def sgd(*, steps: int, batch_size: int, lr: float) -> FedAvg:
    """Plain SGD as federated averaging of one client: rounds of up to ten steps that change nothing but bookkeeping.

    Raises:
        ConfigError: a value is out of range.

    Example:
        >>> settings = sgd(steps=100, batch_size=32, lr=0.1)
        >>> settings.rounds, settings.local_steps, settings.steps
        (10, 10, 100)
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ConfigError(f"steps must be a whole number of at least 1, but is {steps!r}")
    local = next(size for size in range(min(_MOST_STEPS_PER_ROUND, steps), 0, -1) if steps % size == 0)
    return FedAvg(rounds=steps // local, local_steps=local, batch_size=batch_size, lr=lr)


def balanced_rows(rows: npt.ArrayLike, y: npt.NDArray[np.int64], *, size: int, seed: int) -> Rows:
    """Expand (or thin out) some rows to a fixed size in which every class that occurs has the same weight.

    Class by class, the slots differ by at most one, and so do the slots of the examples of one class; what is left
    over falls by a hash of (seed, place). Drawing uniformly from the result is weight-balanced sampling with
    replacement, as the paper's weighted sampler does on its expanded sub-datasets.

    Args:
        rows: row numbers, repetitions count.
        y: labels of all training rows.
        size: entries of the result, at least 1.
        seed: decides which rows get the slots left over.

    Returns:
        int64 `[size]`, ascending by class and row; empty if there are no rows.

    Raises:
        ConfigError: size below 1.

    Example:
        >>> y = np.array([0, 0, 0, 1])
        >>> np.bincount(balanced_rows([0, 1, 2, 3], y, size=12, seed=1)).tolist()
        [2, 2, 2, 6]
        >>> balanced_rows([], y, size=12, seed=1).tolist()
        []

    Reference: Chen et al., A Framework of Randomized Selection Based Certified Defenses, Algorithm 2 and "Experimental
    Setup".
    """
    if size < 1:
        raise ConfigError(f"size={size} must be at least 1")
    held = np.sort(np.asarray(rows, dtype=np.int64))
    if not len(held):
        return held
    labels = y[held]
    classes = np.unique(labels)
    parts = []
    for label, slots in zip(classes, _shares(size, len(classes), derive_seed(seed, "classes")), strict=True):
        own = held[labels == label]
        parts.append(np.repeat(own, _shares(int(slots), len(own), derive_seed(seed, "rows", int(label)))))
    return np.concatenate(parts)


def _shares(total: int, parts: int, seed: int) -> Rows:
    """`total` in `parts` shares that differ by at most one; a hash of (seed, place) decides who gets more."""
    shares = np.full(parts, total // parts, dtype=np.int64)
    words = fold.py_func(np.atleast_1d(np.uint64(seed)), np.arange(parts, dtype=np.uint64))
    shares[np.argsort(words, kind="stable")[: total % parts]] += 1
    return shares


def expanded_size(rows: npt.ArrayLike, y: npt.NDArray[np.int64], *, least: int, draws: int) -> int:
    """How many entries `balanced_rows` should have: enough that no example is lost, not more than can be drawn.

    Args:
        rows: row numbers.
        y: labels of all training rows.
        least: entries at least, so that the classes of tiny selections come out even.
        draws: rows that the whole training draws; more entries could never be seen.

    Example:
        >>> expanded_size([0, 1, 2, 3], np.array([0, 0, 0, 1]), least=4, draws=3200)
        6
    """
    held = np.asarray(rows, dtype=np.int64)
    if not len(held):
        return 1
    counts = np.bincount(y[held])
    counts = counts[counts > 0]
    return min(max(least, len(counts) * int(counts.max())), max(draws, 1))


def selection_rows(
    selections: Sequence[npt.ArrayLike],
    y: npt.NDArray[np.int64],
    *,
    trusted: npt.ArrayLike = (),
    least: int = 1024,
    draws: int = 3200,
    seed: int,
) -> Partition:
    """The rows each base classifier trains on: its selection and all trusted rows, balanced and of a fixed size.

    Args:
        selections: row numbers of each selection, with repetitions where the scheme has them; one may be empty.
        y: labels of all training rows.
        trusted: rows that join every selection (prior knowledge, case 2).
        least: entries per model at least; see `expanded_size`.
        draws: rows that one training draws: steps times batch size.
        seed: the seed of selection j is derived from (seed, j).

    Returns:
        a partition in which "client" j holds the rows of model j; without rows if there is nothing to train on.

    Cost: 8 bytes per entry; a thousand models of a thousand entries take 8 MB.

    Example:
        >>> y = np.array([0, 1, 0, 1, 1])
        >>> parts = selection_rows([[0, 1, 3], [], [4]], y, least=4, seed=7)
        >>> parts.sizes.tolist(), parts.rows(2).tolist()
        ([4, 0, 4], [4, 4, 4, 4])
    """
    kept = np.asarray(trusted, dtype=np.int64)
    parts = []
    for number, selection in enumerate(selections):
        rows = np.concatenate([np.asarray(selection, dtype=np.int64), kept])
        size = expanded_size(rows, y, least=least, draws=draws)
        parts.append(balanced_rows(rows, y, size=size, seed=derive_seed(seed, "selection", number)))
    return Partition(
        offsets=np.cumsum([0, *map(len, parts)], dtype=np.int64),
        indices=np.concatenate(parts) if parts else np.empty(0, dtype=np.int64),
    )
