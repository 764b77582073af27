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
    parts = [(_table(root, part, "X"), _column(root, part, "y"), _column(root, part, "subject")) for part in _PARTS]
    for part, (x, y, subject) in zip(_PARTS, parts, strict=True):
        if not len(x) == len(y) == len(subject):
            raise DataError(
                f"{root}: {part} has {len(x)} rows of features, {len(y)} labels and {len(subject)} subjects; "
                "unpack the archive again"
            )
    x, y, subject = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return assemble("har", x, y - 1, users=subject, label_names=LABELS, seed=seed)


_PARTS = ("train", "test")


def _root(folder: Path) -> Path | None:
    """Where `train/X_train.txt` is: the folder, the one inside it, or the archive."""
    for candidate in (folder, folder / FOLDER):
        if all((candidate / part / f"X_{part}.txt").is_file() for part in _PARTS):
            return candidate
    archive = folder / ARCHIVE
    return archive if archive.is_file() else None


def _read(root: Path, part: str, kind: str) -> tuple[str, io.BytesIO]:
    member = f"{part}/{kind}_{part}.txt"
    try:
        if root.is_dir():
            return str(root / member), io.BytesIO((root / member).read_bytes())
        with zipfile.ZipFile(root) as archive:
            return f"{root}:{member}", io.BytesIO(archive.read(f"{FOLDER}/{member}"))
    except (OSError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{member} in {root} cannot be read ({error}); delete it and get it again") from error


def _table(root: Path, part: str, kind: str) -> NDArray[Any]:
    source, stream = _read(root, part, kind)
    try:
        table = pd.read_csv(stream, sep=r"\s+", header=None, dtype=np.float32).to_numpy()
    except ValueError as error:
        raise DataError(f"{source} is damaged ({str(error).splitlines()[0]}); delete it and get it again") from error
    if table.shape[1] != FEATURES:
        raise DataError(
            f"{source} has {table.shape[1]} columns where UCI HAR has {FEATURES}; delete it and get it again"
        )
    return table


def _column(root: Path, part: str, kind: str) -> NDArray[Any]:
    source, stream = _read(root, part, kind)
    try:
        return np.array(stream.read().split(), dtype=np.int64)
    except ValueError as error:
        raise DataError(f"{source} is damaged ({error}); delete it and get it again") from error
