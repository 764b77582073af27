"""IDX files, the format of MNIST: a magic number, the dimensions, then the bytes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.data.dataset import Dataset, assemble
from holdfast.data.sources import check_md5, read_bytes
from holdfast.types import DataError

MNIST_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
"""MD5 of the four decompressed originals: .gz copies differ by compressor, what is inside does not."""


def parse_idx(content: bytes, source: str, *, dims: int) -> NDArray[np.uint8]:
    """The array in an IDX file of unsigned bytes.

    The header is two zero bytes, the type code (8: unsigned byte), the number of dimensions, then each dimension as
    a big-endian 32-bit integer.

    Args:
        content: the whole file, decompressed.
        source: what error messages call it.
        dims: how many dimensions it must have (3: images, 1: labels).

    Raises:
        DataError: another magic number, or more or fewer bytes than the dimensions say.

    Example:
        >>> parse_idx(bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 3]), "labels", dims=1)
        array([7, 3], dtype=uint8)
    """
    magic = bytes([0, 0, 8, dims])
    if content[:4] != magic:
        raise DataError(f"{source} starts with {content[:4].hex() or 'nothing'}, not with IDX's magic {magic.hex()}")
    header = 4 + 4 * dims
    if len(content) < header:
        raise DataError(f"{source} is cut off inside its header ({len(content)} of {header} bytes); get it again")
    shape = [int(size) for size in np.frombuffer(content, dtype=">u4", count=dims, offset=4)]
    expected = header + math.prod(shape)
    if len(content) != expected:
        kind = "cut off" if len(content) < expected else "too long"
        raise DataError(
            f"{source} is {kind}: {len(content)} bytes, but its dimensions {tuple(shape)} need {expected}; get it again"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=header).reshape(shape)


def find_idx(folder: Path) -> dict[str, Path] | None:
    """The four IDX files of a folder by their official names, gzipped or not, or None unless all are there."""
    found = {}
    for name in MNIST_MD5:
        candidates = [folder / name, folder / f"{name}.gz"]
        path = next((candidate for candidate in candidates if candidate.is_file()), None)
        if path is None:
            return None
        found[name] = path
    return found


def read_idx(folder: Path, *, name: str, official: bool) -> Dataset:
    """A folder of four IDX files in MNIST's naming (also Fashion-MNIST and the like) as a data set.

    Args:
        folder: holds the files, gzipped or not.
        name: what the data set is called.
        official: check that they are MNIST's, byte for byte after decompression.

    Raises:
        DataError: a file is missing, damaged, of other dimensions or, if `official`, not the original.
    """
    files = find_idx(folder)
    if files is None:
        raise DataError(
            f"{folder} lacks some of the files {', '.join(MNIST_MD5)} (with or without .gz); put them there"
        )
    arrays: dict[str, NDArray[Any]] = {}
    for file, path in files.items():
        content = read_bytes(path)
        arrays[file] = parse_idx(content, str(path), dims=3 if "images" in file else 1)
        if official:
            check_md5(path, content, MNIST_MD5[file])
    x, y, x_test, y_test = (arrays[file] for file in MNIST_MD5)
    return assemble(name, x, y, x_test=x_test, y_test=y_test, seed=0)
