"""UCI HAR: activities of 30 people from the sensors of a phone at the waist; each person is a client."""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from holdfast.data.dataset import Dataset, assemble
from holdfast.types import DataError

ARCHIVE = "UCI HAR Dataset.zip"
OUTER_ARCHIVE = "human+activity+recognition+using+smartphones.zip"  # what UCI serves today: ARCHIVE inside
FOLDER = "UCI HAR Dataset"
LABELS = ("WALKING", "WALKING_UPSTAIRS", "WALKING_DOWNSTAIRS", "SITTING", "STANDING", "LAYING")
FEATURES = 561


def find_har(folder: Path) -> bool:
    """Whether the folder holds the official archive, or the folders `train` and `test` it unpacks to."""
    return _root(folder) is not None


def read_har(folder: Path, *, seed: int) -> Dataset:
    """The official files, unpacked or still in their archive, as one data set with 30 users.

    The publisher's train and test files hold different people. Clients need both kinds of rows, so, as in "Ensemble
    federated learning" (Experiments), all rows are pooled and a quarter of each person's rows, drawn from `seed`, is
    held back.

    Raises:
        DataError: a file missing or damaged, or files whose rows do not match.
    """
    root = _root(folder)
    if root is None:
        raise DataError(f"{folder} has neither {ARCHIVE} nor the folders train and test that it unpacks to")
    files = _files(root)
    parts = [tuple(_numbers(root, files, f"{part}/{kind}_{part}.txt") for kind in _KINDS) for part in _PARTS]
    for part, (x, y, subject) in zip(_PARTS, parts, strict=True):
        if not len(x) == len(y) == len(subject):
            raise DataError(
                f"{root}: {part} has {len(x)} rows of features, {len(y)} labels and {len(subject)} subjects; "
                "unpack the archive again"
            )
    x, y, subject = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return assemble("har", x, y - 1, users=subject, label_names=LABELS, seed=seed)


_PARTS = ("train", "test")
_KINDS = ("X", "y", "subject")
_MEMBERS = tuple(f"{part}/{kind}_{part}.txt" for part in _PARTS for kind in _KINDS)


def _root(folder: Path) -> Path | None:
    """Where `train/X_train.txt` is: the folder, the one inside it, or an archive."""
    for candidate in (folder, folder / FOLDER):
        if all((candidate / part / f"X_{part}.txt").is_file() for part in _PARTS):
            return candidate
    return next((folder / name for name in (ARCHIVE, OUTER_ARCHIVE) if (folder / name).is_file()), None)


def _files(root: Path) -> dict[str, bytes]:
    """The six files that count, by name."""
    try:
        if root.is_dir():
            return {member: (root / member).read_bytes() for member in _MEMBERS}
        with zipfile.ZipFile(root) as outer:
            inner = io.BytesIO(outer.read(ARCHIVE)) if ARCHIVE in outer.namelist() else root
            with zipfile.ZipFile(inner) as archive:
                return {member: archive.read(f"{FOLDER}/{member}") for member in _MEMBERS}
    except (OSError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{root} cannot be read ({error}); delete it and get it again") from error


def _numbers(root: Path, files: dict[str, bytes], member: str) -> NDArray[Any]:
    """One file: float32 `[rows, 561]` for features, int64 `[rows]` for labels and subjects."""
    is_features = "/X_" in member
    try:
        table = pd.read_csv(
            io.BytesIO(files[member]), sep=r"\s+", header=None, dtype=np.float32 if is_features else np.int64
        ).to_numpy()
    except ValueError as error:
        raise DataError(f"{member} of {root} is damaged ({str(error).splitlines()[0]}); get it again") from error
    columns = FEATURES if is_features else 1
    if table.shape[1] != columns:
        raise DataError(f"{member} of {root} has {table.shape[1]} columns where UCI HAR has {columns}; get it again")
    return table if is_features else table[:, 0]
