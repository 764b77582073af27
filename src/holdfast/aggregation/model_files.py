"""Models in files (safetensors, .npz), read from left to right without ever holding one whole, and written so.

A file is data from a stranger: nothing in it is executed, sizes are checked against what the other clients sent before
anything is allocated, and whatever is wrong with it becomes a reason to replace that client, not an exception.
"""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from holdfast.aggregation.models import Array, Entry, Layout
from holdfast.aggregation.stacking import spans
from holdfast.types import ArtifactError, ConfigError, DataError

_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "bfloat16", "BOOL": "?"} | {
    f"{sign}{8 * size}": f"<{kind}{size}" for sign, kind in (("I", "i"), ("U", "u")) for size in (1, 2, 4, 8)
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
READ_ERRORS = (OSError, ValueError, EOFError, KeyError, NotImplementedError, zlib.error, zipfile.BadZipFile)
"""What a damaged file makes the readers raise."""

_LARGEST_HEADER = 100 << 20  # the safetensors format's own limit


class ModelFile:
    """One client's file: what it holds, and readers of its entries."""

    def __init__(self, path: Path) -> None:
        """Read the file's table of contents.

        Raises:
            DataError: missing, not one of the two formats, damaged, or holding what a model does not.
        """
        self.path = path
        self._offsets: dict[str, int] = {}
        try:
            entries = self._npz_entries() if path.suffix == ".npz" else self._safetensors_entries()
        except (*READ_ERRORS, TypeError, AttributeError, RecursionError) as problem:
            raise DataError(f"{path} cannot be read as a model: {problem}") from problem
        placed, start = [], 0
        for entry in entries:
            placed.append(replace(entry, start=start))
            start = placed[-1].where.stop
        if not start:
            raise DataError(f"{path} holds no floating entry")
        self.layout = Layout(tuple(placed), mapping=True)

    def reader(self, entry: Entry, start: int = 0) -> Reader:
        """A reader of an entry's flat values from `start` on."""
        if self.path.suffix != ".npz":
            return _RawReader(self.path, entry, self._offsets[entry.name], start)
        reader = _ZipReader(self.path, entry)
        for gap in spans(start, 1 << 20):
            reader.read(gap.stop - gap.start)
        return reader

    def values(self, name: str, start: int, count: int) -> Array:
        """A stretch of one entry."""
        entry = next(entry for entry in self.layout.entries if entry.name == name)
        return self.reader(entry, start).read(count)

    def _safetensors_entries(self) -> list[Entry]:
        size = self.path.stat().st_size
        with self.path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > min(size - 8, _LARGEST_HEADER):
                raise ValueError("its header is longer than the file")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        entries = []
        for name, info in header.items():
            begin, end = info["data_offsets"]
            entry = _entry(name, tuple(info["shape"]), _DTYPES[info["dtype"]])
            width = 2 if entry.dtype == "bfloat16" else np.dtype(entry.dtype).itemsize
            if end - begin != entry.size * width or begin < 0 or 8 + length + end > size:
                raise ValueError(f"{name!r} lies outside the file")
            self._offsets[name] = 8 + length + begin
            entries.append(entry)
        return entries

    def _npz_entries(self) -> list[Entry]:
        entries = []
        with zipfile.ZipFile(self.path) as archive:
            for member in archive.namelist():
                with archive.open(member) as file:
                    shape, fortran, dtype = _npy_header(file)
                if fortran and len(shape) > 1:
                    raise ValueError(f"{member!r} is stored column by column; save it in C order")
                entries.append(_entry(member.removesuffix(".npy"), shape, dtype.str))
        return entries


class Reader(Protocol):
    """Reads one entry from left to right."""

    def read(self, count: int) -> Array:
        """The next `count` values, flat."""
        ...


class _RawReader:
    """Values that lie as they are; each read opens the file anew, so a thousand clients need no thousand open files."""

    def __init__(self, path: Path, entry: Entry, offset: int, start: int) -> None:
        self._path, self._brain = path, entry.dtype == "bfloat16"
        self._dtype = np.dtype("<u2") if self._brain else np.dtype(entry.dtype)
        self._offset = offset + start * self._dtype.itemsize

    def read(self, count: int) -> Array:
        values: Array = np.fromfile(self._path, dtype=self._dtype, count=count, offset=self._offset)
        if len(values) < count:
            raise ValueError("the file ends early")
        self._offset += count * self._dtype.itemsize
        return (values.astype(np.uint32) << 16).view(np.float32) if self._brain else values


class _ZipReader:
    """Values in an .npz, compressed or not; the archive stays open while the reader lives."""

    def __init__(self, path: Path, entry: Entry) -> None:
        self._archive = zipfile.ZipFile(path)
        self._file = self._archive.open(f"{entry.name}.npy")
        self._dtype = _npy_header(self._file)[2]

    def __del__(self) -> None:
        for opened in (getattr(self, "_file", None), getattr(self, "_archive", None)):
            if opened is not None:
                opened.close()

    def read(self, count: int) -> Array:
        content = self._file.read(count * self._dtype.itemsize)
        if len(content) < count * self._dtype.itemsize:
            raise ValueError("the file ends early")
        return np.frombuffer(content, dtype=self._dtype)


class Cursor:
    """Reads a file's floating entries, in the order of a layout, as one long vector, a stretch at a time."""

    def __init__(self, file: ModelFile, layout: Layout) -> None:
        own = {entry.name: entry for entry in file.layout.floats}
        self._file = file
        self._pending = [own[entry.name] for entry in layout.floats if entry.size]
        self._left = 0
        self._reader: Reader | None = None

    def take(self, out: Array) -> None:
        """Fill `out` with the next numbers, converted to its dtype."""
        filled = 0
        while filled < len(out):
            if self._left == 0 or self._reader is None:
                entry = self._pending.pop(0)
                self._left, self._reader = entry.size, self._file.reader(entry)
            count = min(self._left, len(out) - filled)
            out[filled : filled + count] = self._reader.read(count)
            filled += count
            self._left -= count


@contextmanager
def written(path: Path, layout: Layout) -> Iterator[BinaryIO]:
    """A safetensors file being written: the header is there, the entries' bytes follow in the layout's order.

    It takes its name only when complete and on the disk.

    Raises:
        ConfigError: the name does not end in .safetensors, or is taken: earlier results are never overwritten.
        ArtifactError: the folder cannot be written to.
    """
    if path.suffix != ".safetensors":
        raise ConfigError(f"out must end in .safetensors, got {path}")
    if path.exists():
        raise ConfigError(f"out is already there: {path}; give another name, earlier results are never overwritten")
    header, offset = {}, 0
    for entry in layout.entries:
        dtype = stored_dtype(entry)
        end = offset + entry.size * dtype.itemsize
        name = "BOOL" if dtype.kind == "b" else _NAMES[dtype.str.replace("|", "<")]
        header[entry.name] = {"dtype": name, "shape": entry.shape, "data_offsets": (offset, end)}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    except OSError as problem:
        raise ArtifactError(f"cannot write {path}: {problem.strerror or problem}") from problem
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as problem:
        raise ArtifactError(f"cannot write {path}: {problem.strerror or problem}") from problem
    finally:
        temporary.unlink(missing_ok=True)


def stored_dtype(entry: Entry) -> np.dtype[Any]:
    """The dtype an entry is written in: its own; NumPy has no bfloat16, which becomes float32."""
    return np.dtype("<f4") if entry.dtype == "bfloat16" else np.dtype(entry.dtype).newbyteorder("<")


def _entry(name: str, shape: tuple[int, ...], dtype: str) -> Entry:
    if any(not isinstance(side, int) or side < 0 for side in shape):
        raise ValueError(f"{name!r} has the shape {shape}")
    kinds = {"f": "float", "b": "float", "i": "integer", "u": "integer"}
    kind = "bool" if dtype in ("?", "|b1") else kinds.get(dtype.lstrip("<>|=")[0], "")
    if not kind or dtype.lstrip("<>|=") in ("f12", "f16"):
        raise ValueError(f"{name!r} must hold real numbers, got {dtype}")
    return Entry(name, shape, dtype, kind)


def _npy_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    reader: Mapping[tuple[int, int], Any] = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    shape, fortran, dtype = reader[version](file)
    return shape, fortran, dtype
