"""One reply's arrays, checked against what was asked for before a byte of them is decoded.

Flower's `Array` carries a NumPy file and claims about it. Here the claims, the size and the file's own header must all
be what the spec says; then the numbers are read in place, without a copy and without pickle. What is wrong comes back
as a sentence, never as an exception. Whether the numbers are finite is left to the screen in front of every rule.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, RecordDict

from holdfast.flower.grid import plain
from holdfast.types import DataError

STYPE = "numpy.ndarray"
"""Flower's name for NumPy's file format."""

HEADER_ROOM = 4096
"""Bytes a NumPy header may take beside the numbers."""

NDArray = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Field:
    """One array that is asked for: its name, shape and dtype."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        """Bytes of the numbers."""
        return math.prod(self.shape) * self.dtype.itemsize

    @cached_property
    def header(self) -> bytes:
        """The header NumPy writes for it, where the numbers lie in C order."""
        buffer = io.BytesIO()
        description = {"shape": self.shape, "fortran_order": False, "descr": np.lib.format.dtype_to_descr(self.dtype)}
        np.lib.format.write_array_header_1_0(buffer, description)
        return buffer.getvalue()


@dataclass(frozen=True)
class Spec:
    """The arrays a reply must hold: exactly these, in any order.

    Example:
        >>> spec = Spec.of({"w": np.zeros((2, 2), np.float32), "b": np.zeros(2, np.float32)})
        >>> decode(RecordDict({"arrays": encode({"w": np.ones((2, 2)), "b": np.ones(2)})}), spec)
        "'w' is float64 where float32 is expected"
        >>> decode(RecordDict({"arrays": encode({"w": np.ones((2, 2), np.float32), "bias": np.ones(2)})}), spec)
        "lacks 'b'"
    """

    fields: tuple[Field, ...]

    @classmethod
    def of(cls, arrays: Mapping[str, Any] | ArrayRecord) -> Spec:
        """The spec of what the server itself sends: arrays of numbers by name, or an ArrayRecord of its own.

        Raises:
            DataError: an array that does not hold numbers.
        """
        named = {k: v.numpy() if isinstance(v, Array) else np.asarray(v) for k, v in arrays.items()}
        for name, value in named.items():
            if value.dtype.kind not in "fiub":
                raise DataError(f"{name!r} must hold real numbers, got {value.dtype}")
        return cls(tuple(Field(name, value.shape, value.dtype) for name, value in named.items()))

    @cached_property
    def by_name(self) -> Mapping[str, Field]:
        """The fields by name."""
        return {field.name: field for field in self.fields}


def decode(content: RecordDict, spec: Spec) -> dict[str, NDArray] | str:
    """A reply's arrays by name, in the spec's order, or one sentence on what is wrong with it.

    The reply must hold exactly one ArrayRecord, of any name, with exactly the spec's arrays. Sizes are checked before
    anything is decoded. The arrays are read-only views of the reply's own bytes: nothing is copied.
    """
    records = list(content.array_records.values())
    if len(records) != 1:
        return f"holds {len(records)} ArrayRecords where exactly one is expected"
    record = records[0]
    missing = next((name for name in spec.by_name if name not in record), None)
    if missing is not None:
        return f"lacks {missing!r}"
    if len(record) != len(spec.fields):
        unknown = next(name for name in record if name not in spec.by_name)
        return f"has an unexpected array {plain(repr(unknown), 60)}"
    for field in spec.fields:
        size = len(record[field.name].data)
        if size > field.nbytes + HEADER_ROOM:
            return f"{field.name!r} has {size} bytes where at most {field.nbytes + HEADER_ROOM} are expected"
    arrays: dict[str, NDArray] = {}
    for field in spec.fields:
        value = _decode_array(record[field.name], field)
        if isinstance(value, str):
            return value
        arrays[field.name] = value
    return arrays


def encode(arrays: Mapping[str, Any]) -> ArrayRecord:
    """Arrays by name as Flower sends them, each copied once."""
    return ArrayRecord({name: encode_array(np.asarray(value)) for name, value in arrays.items()})


def encode_array(value: NDArray) -> Array:
    """One array of numbers as Flower sends it.

    >>> encode_array(np.arange(3)).numpy()
    array([0, 1, 2])
    """
    value = np.asarray(value, order="C")
    header = Field("", value.shape, value.dtype).header
    return Array(str(value.dtype), tuple(value.shape), STYPE, b"".join((header, value.reshape(-1).view(np.uint8).data)))


def _decode_array(array: Array, field: Field) -> NDArray | str:
    """One array, or what is wrong with it."""
    if array.stype != STYPE:
        return f"{field.name!r} is serialized as {plain(repr(array.stype), 60)} where {STYPE!r} is expected"
    if array.dtype != str(field.dtype):
        return f"{field.name!r} is {plain(array.dtype, 60)} where {field.dtype} is expected"
    if tuple(array.shape) != field.shape:
        return f"{field.name!r} has shape {plain(tuple(array.shape), 60)} where {field.shape} is expected"
    start, fortran = len(field.header), False
    if not array.data.startswith(field.header):
        found = _header(array.data)
        if found is None:
            return f"{field.name!r} is not a NumPy file"
        start, shape, fortran, dtype = found
        if shape != field.shape or dtype != field.dtype:
            return f"{field.name!r} holds {plain(dtype, 60)} {plain(shape, 60)} and not what it says"
    if len(array.data) != start + field.nbytes:
        return f"{field.name!r} has {len(array.data) - start} bytes of numbers where {field.nbytes} are expected"
    return np.frombuffer(array.data, field.dtype, offset=start).reshape(field.shape, order="F" if fortran else "C")


def _header(data: bytes) -> tuple[int, tuple[int, ...], bool, np.dtype[Any]] | None:
    """Where the numbers of a NumPy file start, their shape, order and dtype; None if it is not one."""
    file = io.BytesIO(data[:HEADER_ROOM])
    try:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, fortran, dtype = read(file, max_header_size=HEADER_ROOM)
    except Exception:  # the parser meets hostile bytes: whatever it raises, this is no NumPy file
        return None
    return file.tell(), shape, fortran, dtype
