"""What a source gave, as arrays of the right kind, or one sentence about what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from holdfast.types import DataError

Array = NDArray[Any]


def as_features(name: str, x: ArrayLike, feature_names: Sequence[str] = (), *, tokens: bool = False) -> Array:
    """Rows as float32 (token ids as int32), finite, images with their channels first."""
    array = np.asarray(x)
    if array.dtype.kind not in "fiub":
        raise DataError(f"{name}: x has dtype {array.dtype}, which is not numbers; encode names as numbers first")
    if array.ndim < 2 or array.shape[0] == 0 or 0 in array.shape:
        raise DataError(f"{name}: x has shape {array.shape}; at least one row and one feature per row are needed")
    if tokens:
        return np.ascontiguousarray(array, dtype=np.int32)
    if array.dtype == np.uint8:
        array = _channels_first(array) / np.float32(255)
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(array, dtype=np.float32)
    _refuse_non_finite(name, array, feature_names)
    return array


def as_labels(
    name: str, y: ArrayLike, label_names: Sequence[str] | None, also: ArrayLike | None
) -> tuple[Array, tuple[str, ...]]:
    """Labels as int64 0..L-1 and their L names; `also` are the test labels, which may hold a label `y` lacks."""
    array = _plain(y)
    if array.ndim != 1:
        raise DataError(f"{name}: y has shape {array.shape}; one label per row is needed")
    given = None if label_names is None else tuple(str(label) for label in label_names)
    everything = array if also is None else np.concatenate([array, _plain(also).ravel()])
    if everything.dtype.kind not in "biufUS":
        raise DataError(f"{name}: y has dtype {everything.dtype}; labels must be integers 0..L-1 or names")
    if everything.dtype.kind in "US":
        names = given or tuple(sorted({str(label) for label in everything}))
        codes = {label: code for code, label in enumerate(names)}
        unknown = sorted({str(label) for label in everything} - set(names))
        if unknown:
            raise DataError(f"{name}: label {unknown[0]!r} is not among the label_names {list(names)}")
        return np.array([codes[str(label)] for label in array], dtype=np.int64), names
    whole = np.isfinite(everything) & (everything == np.floor(everything))
    if not whole.all():
        raise DataError(f"{name}: label {everything[~whole][0]} is not an integer; labels must be 0..L-1 (or names)")
    found = np.unique(everything).astype(np.int64)
    n_labels = len(found) if given is None else len(given)
    if len(found) and (found[0] < 0 or found[-1] >= n_labels):
        what = f"{n_labels} label_names are given" if given else f"there are {n_labels} different ones"
        raise DataError(
            f"{name}: labels run from {found[0]} to {found[-1]} but {what}; renumber them 0..{n_labels - 1}"
            + ("" if given else " or give label_names")
        )
    return array.astype(np.int64), given or tuple(str(label) for label in range(n_labels))


def as_users(
    name: str, users: ArrayLike | None, users_test: ArrayLike | None
) -> tuple[Array | None, Array | None, tuple[str, ...]]:
    """Users as int64 codes, in the order of their names; users without training rows come last."""
    if users is None:
        if users_test is not None:
            raise DataError(f"{name} names the client of test rows but not of training rows; give both or neither")
        return None, None, ()
    array = _plain(users)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DataError(f"{name}: {int((~np.isfinite(array)).sum())} rows have no client; name one for every row")
    known, codes = np.unique(array, return_inverse=True)
    held: Array | None = None
    if users_test is not None:
        test = _plain(users_test)
        new = np.setdiff1d(np.unique(test), known)
        order = {value: code for code, value in enumerate([*known.tolist(), *new.tolist()])}
        held = np.array([order[value] for value in test.tolist()], dtype=np.int64)
        known = np.concatenate([known, new])
    return codes.astype(np.int64).ravel(), held, tuple(str(user) for user in known)


def _plain(values: ArrayLike) -> Array:
    """An array of numbers or of text; tables may hold either as Python objects."""
    array = np.asarray(values)
    return np.array(array.tolist()) if array.dtype == object else array


def _channels_first(pixels: Array) -> Array:
    """Grey `[M, H, W]` and colour-last `[M, H, W, C]` pixels as `[M, C, H, W]`."""
    if pixels.ndim == 3:
        return pixels[:, None]
    if pixels.ndim == 4 and pixels.shape[3] in (1, 3, 4) and pixels.shape[1] not in (1, 3, 4):
        return np.moveaxis(pixels, 3, 1)
    return pixels


def _refuse_non_finite(name: str, x: Array, feature_names: Sequence[str]) -> None:
    """Raise a `DataError` that names the first column with NaN or infinity and counts them all."""
    # A sum is finite only if every term is, and needs no array of its own; it may overflow, so look closer then.
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(x.sum(dtype=np.float64)):
            return
    bad = ~np.isfinite(x).reshape(len(x), -1)
    if not bad.any():
        return
    columns = np.flatnonzero(bad.any(axis=0))
    first = int(columns[0])
    column = f"column {feature_names[first]!r}" if first < len(feature_names) else f"column {first} of x"
    others = f" (and {len(columns) - 1} other columns)" if len(columns) > 1 else ""
    raise DataError(
        f"{name}: {column} has NaN, infinite or too large values in {int(bad[:, first].sum())} of {len(x)} rows"
        f"{others}; fill them in, or drop those rows or columns"
    )
