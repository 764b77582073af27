"""CIFAR-10, from the official binary files (never from the pickled ones) or a Parquet copy."""

from __future__ import annotations

import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.data.dataset import Dataset, assemble
from holdfast.data.files import find_parquet, read_table
from holdfast.types import DataError

ARCHIVE = "cifar-10-binary.tar.gz"
ARCHIVE_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
FOLDER = "cifar-10-batches-bin"
LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_TRAIN = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
_TEST = "test_batch.bin"
_RECORD = 1 + 3 * 32 * 32


def find_cifar(folder: Path) -> bool:
    """Whether the folder holds the binary batches, their archive, or train and test Parquet files."""
    return _binary(folder) is not None or find_parquet(folder) is not None


def read_cifar(folder: Path, *, seed: int) -> Dataset:
    """CIFAR-10 as `[M, 3, 32, 32]` pixels; the whole set takes 740 MB.

    Raises:
        DataError: a file missing, cut off or damaged.
    """
    source = _binary(folder)
    if source is not None:
        batches = _batches(source)
        train = [_records(f"{source}: {name}", batches[name]) for name in _TRAIN]
        x, y = (np.concatenate(arrays) for arrays in zip(*train, strict=True))
        x_test, y_test = _records(f"{source}: {_TEST}", batches[_TEST])
        return assemble("cifar10", x, y, x_test=x_test, y_test=y_test, label_names=LABELS, seed=seed)
    tables = find_parquet(folder)
    if tables is None:
        raise DataError(f"{folder} has neither {ARCHIVE} nor {FOLDER} nor train and test Parquet files")
    return read_table(tables[0], test=tables[1], seed=seed, name="cifar10", label_names=LABELS)


def _binary(folder: Path) -> Path | None:
    for candidate in (folder, folder / FOLDER):
        if all((candidate / name).is_file() for name in (*_TRAIN, _TEST)):
            return candidate
    return folder / ARCHIVE if (folder / ARCHIVE).is_file() else None


def _batches(source: Path) -> dict[str, bytes]:
    """The six batches by name, read straight from the archive where it is not unpacked."""
    if source.is_dir():
        return {name: (source / name).read_bytes() for name in (*_TRAIN, _TEST)}
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(source, "r:gz") as archive:
            for member in archive:
                name = Path(member.name).name
                stream = archive.extractfile(member)
                if stream is not None and name in (*_TRAIN, _TEST):
                    found[name] = stream.read()
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise DataError(f"{source} is damaged ({error}); delete it and get it again") from error
    missing = [name for name in (*_TRAIN, _TEST) if name not in found]
    if missing:
        raise DataError(f"{source} lacks {missing[0]}; delete it and get it again")
    return found


def _records(source: str, content: bytes) -> tuple[NDArray[Any], NDArray[Any]]:
    """One batch: records of a label byte and 3,072 bytes of pixels, red then green then blue."""
    if not content or len(content) % _RECORD:
        raise DataError(f"{source} is cut off: {len(content)} bytes are not whole records of {_RECORD}; get it again")
    records = np.frombuffer(content, dtype=np.uint8).reshape(-1, _RECORD)
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0].astype(np.int64)
