"""One data set in memory, checked once on the way in, so that nothing after it needs to check again.

Every loader ends in `assemble`, which turns what a file held into a `Dataset` or raises a `DataError` that names
what is wrong and what to do about it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from holdfast.data.checking import as_features, as_labels, as_users
from holdfast.types import DataError

Array = NDArray[Any]

TEST_SHARE = 0.25
"""Share of rows held back for testing where a source has no test set of its own."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Training and test rows with their labels, and whose rows they are where the source says so.

    Attributes:
        name: the registry's name, or the file's.
        x_train: float32 `[M, ...]` (pixels in [0, 1], images as `[M, channels, height, width]`); int32 `[M, length]`
            of token ids for text.
        y_train: int64 `[M]`, labels 0..n_labels-1.
        x_test: like `x_train`, `[T, ...]`.
        y_test: int64 `[T]`.
        n_labels: L.
        label_names: L names, in label order.
        image_shape: `(channels, height, width)`, or None where rows are not images.
        users_train: int64 `[M]`, the natural client of each row as 0..n-1 (every one has a training row), or None.
        users_test: int64 `[T]`; a user without training rows has a number above all of `users_train`.
        user_names: what the source calls user 0, 1, ...
        feature_names: names of the columns of x where the source names them, else empty.
        vocabulary: the word behind each token id, for text, else empty.

    Example:
        >>> from holdfast.data import load
        >>> digits = load("digits")
        >>> digits.x_train.shape, digits.x_train.dtype.name, digits.n_labels
        ((1352, 1, 8, 8), 'float32', 10)
    """

    name: str
    x_train: Array
    y_train: Array
    x_test: Array
    y_test: Array
    n_labels: int
    label_names: tuple[str, ...]
    image_shape: tuple[int, int, int] | None = None
    users_train: Array | None = None
    users_test: Array | None = None
    user_names: tuple[str, ...] = ()
    feature_names: tuple[str, ...] = ()
    vocabulary: tuple[str, ...] = ()

    def fingerprint(self) -> str:
        """SHA-256 of every array, in hex: two runs on equal fingerprints saw equal data.

        Example:
            >>> from holdfast.data import load
            >>> load("digits").fingerprint() == load("digits", seed=1).fingerprint()
            False
        """
        digest = hashlib.sha256(f"{self.n_labels}".encode())
        for array in (self.x_train, self.y_train, self.x_test, self.y_test, self.users_train, self.users_test):
            if array is None:
                digest.update(b"none")
                continue
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def assemble(
    name: str,
    x: ArrayLike,
    y: ArrayLike,
    *,
    seed: int,
    x_test: ArrayLike | None = None,
    y_test: ArrayLike | None = None,
    users: ArrayLike | None = None,
    users_test: ArrayLike | None = None,
    label_names: Sequence[str] | None = None,
    feature_names: Sequence[str] = (),
    test_share: float = TEST_SHARE,
    tokens: bool = False,
) -> Dataset:
    """Check rows as a source gave them and make a `Dataset` of them.

    Without `x_test`, a share of the rows is held back: of each user's rows where there are users, of each label's
    rows otherwise, drawn from `seed` and rounded down, so that everyone keeps a row for training.

    Args:
        name: what error messages and results call the data.
        x: `[M, ...]` numbers; uint8 is taken as pixels and divided by 255, anything else is cast to float32.
        y: `[M]` labels: integers 0..L-1, or names.
        seed: draws the test rows where the source has none.
        x_test: `[T, ...]`, or None.
        y_test: `[T]`, given with `x_test`.
        users: `[M]` numbers or names of the natural clients, or None.
        users_test: `[T]`, or None.
        label_names: L names in label order; labels in `y` then may leave some out.
        feature_names: names of x's columns, for error messages and attacks on named features.
        test_share: share of rows held back where the source has no test rows.
        tokens: x holds token ids, kept as int32.

    Raises:
        DataError: rows that do not match, NaN or infinity, labels that are not 0..L-1, nothing to train on.
    """
    if (x_test is None) != (y_test is None):
        raise DataError(f"{name} has one of x_test and y_test but not the other; give both or neither")
    x = as_features(name, x, feature_names, tokens=tokens)
    y, names = as_labels(name, y, label_names, y_test)
    codes, codes_test, user_names = as_users(name, users, users_test)
    _same_length(name, "x", x, y=y, client=codes)
    if x_test is not None and y_test is not None:
        x_test = as_features(f"{name} (test)", x_test, feature_names, tokens=tokens)
        y_test, _ = as_labels(name, y_test, names, None)
        _same_length(name, "x_test", x_test, y_test=y_test, client_test=codes_test)
        if x_test.shape[1:] != x.shape[1:]:
            raise DataError(f"{name}: rows of x_test have shape {x_test.shape[1:]}, those of x {x.shape[1:]}")
    else:
        keep, held = split_rows(y if codes is None else codes, seed=seed, share=test_share)
        if len(held) == 0:
            raise DataError(f"{name} has {len(y)} rows, too few to hold some back; give x_test and y_test")
        x, x_test, y, y_test = x[keep], x[held], y[keep], y[held]
        codes, codes_test = (None, None) if codes is None else (codes[keep], codes[held])
    return Dataset(
        name=name,
        x_train=x,
        y_train=y,
        x_test=x_test,
        y_test=y_test,
        n_labels=len(names),
        label_names=names,
        image_shape=x.shape[1:] if x.ndim == 4 else None,
        users_train=codes,
        users_test=codes_test,
        user_names=user_names,
        feature_names=tuple(feature_names),
    )


def split_rows(groups: Array, *, seed: int, share: float = TEST_SHARE) -> tuple[Array, Array]:
    """Row numbers to train on and to test on: a share of each group, rounded down, is held back.

    Each group (a user, or a label) draws from its own stream, so what one user adds changes nobody else's split.

    Example:
        >>> train, test = split_rows(np.array([0] * 8 + [1] * 4 + [2]), seed=0)
        >>> len(train), len(test)
        (10, 3)
    """
    found, sizes = np.unique(groups, return_counts=True)
    ordered = np.split(np.argsort(groups, kind="stable"), np.cumsum(sizes)[:-1])
    held: list[Array] = []
    for group, rows in zip(found, ordered, strict=True):
        order = np.random.default_rng([seed, 0x5917, int(group)]).permutation(len(rows))
        held.append(rows[order[: int(len(rows) * share)]])
    is_held = np.zeros(len(groups), dtype=bool)
    is_held[np.concatenate(held)] = True
    return np.flatnonzero(~is_held), np.flatnonzero(is_held)


def _same_length(name: str, first: str, x: Array, **others: Array | None) -> None:
    for label, array in others.items():
        if array is not None and len(array) != len(x):
            raise DataError(f"{name}: {first} has {len(x)} rows but {label} has {len(array)}; they must match")
