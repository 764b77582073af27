"""Prior knowledge about the training set: which examples the owner vouches for, and what that splits the data into.

Whether an example is trusted must be known from where it came from, before any attack. It must not be read off the
data afterwards: an attacker who relabels a 9 as a 3 would otherwise move it into "all examples of the trusted class 3".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from holdfast.data import Dataset, load
from holdfast.types import ConfigError, DataError

Rows = NDArray[np.int64]


def class_numbers(names: Sequence[str], dataset: Dataset, option: str) -> Rows:
    """The labels behind some class names, ascending.

    Raises:
        ConfigError: a class that does not exist.
    """
    known = {name: number for number, name in enumerate(dataset.label_names)}
    missing = [name for name in names if name not in known]
    if missing:
        raise ConfigError(
            f"{option} names the class {missing[0]!r}, but {dataset.name} has the classes "
            f"{', '.join(dataset.label_names)}"
        )
    return np.array(sorted({known[name] for name in names}), dtype=np.int64)


def only_classes(dataset: Dataset, names: Sequence[str]) -> Dataset:
    """The data set restricted to some classes, which are numbered anew; no names keep all.

    Example:
        >>> from holdfast.data import load
        >>> pair = only_classes(load("digits"), ("1", "7"))
        >>> pair.label_names, pair.n_labels, sorted(set(pair.y_train.tolist()))
        (('1', '7'), 2, [0, 1])
    """
    if not names:
        return dataset
    kept = class_numbers(names, dataset, "classes")
    if len(kept) < 2:
        raise ConfigError(f"classes names only {dataset.label_names[kept[0]]!r}; at least two must be told apart")
    number = np.full(dataset.n_labels, -1, dtype=np.int64)
    number[kept] = np.arange(len(kept))
    train, test = (np.flatnonzero(number[y] >= 0) for y in (dataset.y_train, dataset.y_test))
    return replace(
        dataset,
        name=f"{dataset.name} {'/'.join(dataset.label_names[label] for label in kept)}",
        x_train=dataset.x_train[train],
        y_train=number[dataset.y_train[train]],
        x_test=dataset.x_test[test],
        y_test=number[dataset.y_test[test]],
        n_labels=len(kept),
        label_names=tuple(dataset.label_names[label] for label in kept),
        users_train=None if dataset.users_train is None else dataset.users_train[train],
        users_test=None if dataset.users_test is None else dataset.users_test[test],
    )


def row_numbers(text: str, n: int) -> Rows:
    """Rows as a user lists them: numbers and ranges.

    Raises:
        ConfigError: no such list, or rows that do not exist.

    Example:
        >>> row_numbers("0-3,7", 10).tolist()
        [0, 1, 2, 3, 7]
    """
    found: set[int] = set()
    highest = 0
    for part in (piece.strip() for piece in text.split(",")):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or int(last or first) < int(first):
            raise ConfigError(f"trusted is {text!r}; it must list training rows such as 0-99,205")
        highest = max(highest, int(last or first))
        found.update(range(int(first), min(int(last or first), n) + 1))
    if highest >= n:
        raise ConfigError(f"trusted names row {highest}, but training rows are numbered 0 to {n - 1}")
    return np.array(sorted(found), dtype=np.int64)


def with_trusted_data(dataset: Dataset, source: str) -> tuple[Dataset, Rows]:
    """The data set with all rows of another file added to its training rows, and which rows those are.

    Raises:
        DataError: rows of another shape, or of classes that the data set does not have.
    """
    more = load(source)
    if more.x_train.shape[1:] != dataset.x_train.shape[1:]:
        raise DataError(
            f"trusted_data {source} has rows of shape {more.x_train.shape[1:]}, but {dataset.name} has rows of shape "
            f"{dataset.x_train.shape[1:]}"
        )
    number = np.array([_number(name, dataset, source) for name in more.label_names], dtype=np.int64)
    x = np.concatenate([more.x_train, more.x_test]).astype(dataset.x_train.dtype)
    y = number[np.concatenate([more.y_train, more.y_test])]
    first = len(dataset.y_train)
    joined = replace(
        dataset,
        x_train=np.concatenate([dataset.x_train, x]),
        y_train=np.concatenate([dataset.y_train, y]),
        users_train=None,
        users_test=None,
    )
    return joined, np.arange(first, first + len(y), dtype=np.int64)


def _number(name: str, dataset: Dataset, source: str) -> int:
    if name not in dataset.label_names:
        raise DataError(
            f"trusted_data {source} has the class {name!r}, but {dataset.name} has the classes "
            f"{', '.join(dataset.label_names)}"
        )
    return dataset.label_names.index(name)


def check_apart(dataset: Dataset, trusted: Rows, untrusted: Rows) -> None:
    """Refuse trusted examples of which an equal copy is in the untrusted part.

    Raises:
        DataError: names the first pair of rows.
    """
    x = np.ascontiguousarray(dataset.x_train)
    known = {(x[row].tobytes(), int(dataset.y_train[row])): int(row) for row in trusted}
    for row in untrusted:
        twin = known.get((x[row].tobytes(), int(dataset.y_train[row])))
        if twin is not None:
            raise DataError(
                f"the trusted example in row {twin} is also in the untrusted part, as row {row}; "
                "an example is either vouched for or not, so leave one of them out"
            )
