"""From what a caller holds (a list, an array, a tensor, files) to n rows that are read in blocks of columns.

A rule never sees the caller's container: it reads `Rows`, one federation at a time, in blocks `[n, columns]` of
float32 or float64. Arrays and CPU tensors that already are float32 or float64 are read in place, as one block;
everything else (lists, half precision, integers, files) is converted block by block, so no second copy of the
updates is ever made. Nothing here writes to the caller's data.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Protocol

import numpy as np

from holdfast.types import DataError

Block = Any
"""`[n, columns]`, float32 or float64: an ndarray, or a torch tensor on the device the updates live on."""

BLOCK_BYTES = 2 << 20
"""Room for one block: small enough to stay in a core's cache between being copied and being used."""


class Rows(Protocol):
    """n rows of d numbers, read from left to right in blocks of columns, as often as a rule needs."""

    @property
    def n(self) -> int:
        """Clients."""
        ...

    @property
    def d(self) -> int:
        """Parameters."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """What the blocks hold: float32 or float64."""
        ...

    def blocks(self, columns: int | None = None, *, stacked: bool = True) -> Iterator[tuple[slice, Block]]:
        """Yield `(where, block)` in order; a block may be a view of the caller's data and must not be written to.

        `columns` bounds the width of a block; by default rows that can be read in place are one single block. Without
        `stacked`, a block may also be a list of n vectors, which spares rows kept apart from being copied together.
        """
        ...


def is_tensor(value: Any) -> bool:
    """Whether this is a torch tensor, without importing torch for those who do not use it."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def block_columns(rows: Rows) -> int:
    """The width at which one block of all clients stays within a few megabytes."""
    return max(256, BLOCK_BYTES // (max(rows.n, 1) * rows.dtype.itemsize))


def spans(d: int, columns: int) -> Iterator[slice]:
    """The slices of at most `columns` that cover `range(d)` in order."""
    for start in range(0, d, columns):
        yield slice(start, min(start + columns, d))


@dataclass(frozen=True)
class MemoryRows:
    """Rows in memory: a matrix `[n, d]`, or a list of vectors in which `None` stands for a row that never came."""

    source: Any
    n: int
    d: int
    dtype: np.dtype[Any]

    def blocks(self, columns: int | None = None, *, stacked: bool = True) -> Iterator[tuple[slice, Block]]:
        """See `Rows.blocks`."""
        apart = isinstance(self.source, list)
        in_place = not (apart and stacked) and _readable_in_place(self.source, self.dtype)
        for where in spans(self.d, columns or (max(self.d, 1) if in_place else block_columns(self))):
            if not in_place:
                yield where, self.read(where)
            elif apart:
                yield where, [row[where] for row in self.source]
            else:
                yield where, self.source[:, where]

    @property
    def on_device(self) -> bool:
        """Whether blocks are tensors."""
        sample = next(row for row in self.source if row is not None) if isinstance(self.source, list) else self.source
        return is_tensor(sample) and (sample.device.type != "cpu" or _readable_in_place(self.source, self.dtype))

    def read(self, where: slice) -> Block:
        """A copy of some columns, converted to the dtype."""
        if is_tensor(self.source):
            part = self.source[:, where].to(_torch_dtype(self.dtype))
            return part.numpy() if part.device.type == "cpu" else part
        if isinstance(self.source, np.ndarray):
            return np.ascontiguousarray(self.source[:, where], dtype=self.dtype)
        sample: Any = next(row for row in self.source if row is not None)
        shape = (self.n, where.stop - where.start)
        if is_tensor(sample) and sample.device.type != "cpu":
            block = sample.new_empty(shape, dtype=_torch_dtype(self.dtype))
            _fill(block, self.source, where)
            return block
        result = np.empty(shape, dtype=self.dtype)
        target = _as_tensor(result) if is_tensor(sample) else result
        _fill(target, self.source, where)
        return result


@dataclass(frozen=True)
class Stacked:
    """The federations found in one input, and how to give results back as the caller's own kind.

    Attributes:
        federations: one `Rows` per federation, in C order of the leading axes.
        batch: the leading axes, `()` for a single federation.
        tensor: a sample tensor when the input was torch's, else None.
        value_dtype: the dtype of the result (the input's; float64 for integers and plain numbers).
    """

    federations: tuple[MemoryRows, ...]
    batch: tuple[int, ...]
    tensor: Any
    value_dtype: Any

    def give_back(self, vectors: Sequence[Block], *, dtype: Any = None) -> Any:
        """One vector per federation, as `[..., len]` of the caller's kind, device and dtype (or `dtype`)."""
        if self.tensor is None:
            stacked = np.stack([np.asarray(v) for v in vectors]) if self.batch else np.asarray(vectors[0])
            with np.errstate(over="ignore"):
                cast = stacked.astype(dtype or self.value_dtype, copy=False)
            return cast.reshape(*self.batch, stacked.shape[-1]) if self.batch else cast
        import torch

        tensors = [v if is_tensor(v) else torch.from_numpy(np.ascontiguousarray(v)) for v in vectors]
        joined = torch.stack(tensors).reshape(*self.batch, tensors[0].shape[-1]) if self.batch else tensors[0]
        wanted = self.value_dtype if dtype is None else _torch_dtype(np.dtype(dtype))
        return joined.to(device=self.tensor.device, dtype=wanted)


def stack(updates: Any) -> Stacked:
    """Read a list of vectors, an array `[..., n, d]` or a tensor `[..., n, d]` as rows per client.

    Float64 stays float64; float32 stays float32; float16 and bfloat16 are computed in float32; integers and plain
    numbers in float64. In a list, `None` stands for a client whose update never came or could not be read.

    Raises:
        DataError: no rows, rows of different lengths or devices, or values that are not real numbers. What a row
            holds (NaN, infinities) is never an error.

    >>> stacked = stack([[1.0, 2.0], [3.0, 4.0]])
    >>> stacked.federations[0].n, stacked.federations[0].d
    (2, 2)
    """
    if is_tensor(updates):
        return _stack_tensor(updates)
    if isinstance(updates, np.ndarray) and updates.dtype != object:
        return _stack_array(updates)
    if isinstance(updates, (str, bytes, dict)) or not hasattr(updates, "__iter__"):
        raise DataError(
            f"updates must be a list of vectors, an array [..., n, d] or a tensor, got {type(updates).__name__}"
        )
    return _stack_list(list(updates))


def _stack_tensor(updates: Any) -> Stacked:
    compute, value = _tensor_dtypes(updates)
    if updates.layout != sys.modules["torch"].strided:
        raise DataError(f"updates must be a dense tensor, got layout {updates.layout}; call .to_dense() first")
    source = updates.detach()
    _require_matrix(tuple(source.shape))
    *batch, n, d = source.shape
    if source.device.type == "cpu" and source.dtype == _torch_dtype(compute):
        source = source.numpy()
    matrices = [source[index] for index in np.ndindex(*batch)]
    federations = tuple(MemoryRows(matrix, n, d, compute) for matrix in matrices)
    return Stacked(federations, tuple(batch), updates, value)


def _stack_array(updates: np.ndarray[Any, Any]) -> Stacked:
    compute, value = _array_dtypes(updates.dtype)
    _require_matrix(updates.shape)
    *batch, n, d = updates.shape
    matrices = [updates[index] for index in np.ndindex(*batch)]
    federations = tuple(MemoryRows(np.asarray(matrix), n, d, compute) for matrix in matrices)
    return Stacked(federations, tuple(batch), None, value)


def _stack_list(given: list[Any]) -> Stacked:
    rows: list[Any] = [row if row is None or is_tensor(row) else _plain_row(row, i) for i, row in enumerate(given)]
    present = [(i, row) for i, row in enumerate(rows) if row is not None]
    if not present:
        raise DataError(f"updates must hold at least one row, got {'an empty list' if not rows else 'only None'}")
    first_at: int = present[0][0]
    first: Any = present[0][1]
    if any(is_tensor(row) != is_tensor(first) for _, row in present):
        raise DataError("updates must be all arrays or all tensors, got a mixture of both")
    for i, row in present:
        if row.ndim != 1:
            raise DataError(
                f"updates[{i}] must be a vector, got shape {tuple(row.shape)}; aggregate_models takes models"
            )
        if row.shape != first.shape:
            raise DataError(
                f"updates must be of one length: updates[{first_at}] has {first.shape[0]}, updates[{i}] {row.shape[0]}"
            )
    d = int(first.shape[0])
    _require_matrix((len(rows), d))
    if not is_tensor(first):
        compute, value = _array_dtypes(np.result_type(*{row.dtype for _, row in present}))
        return Stacked((MemoryRows(rows, len(rows), d, compute),), (), None, value)
    if any(row.device != first.device for _, row in present):
        raise DataError(f"updates must be on one device, got {sorted({str(row.device) for _, row in present})}")
    promote = sys.modules["torch"].promote_types
    sample = first.new_empty(0, dtype=reduce(promote, (row.dtype for _, row in present)))
    tensor_compute, tensor_value = _tensor_dtypes(sample)
    wanted = _torch_dtype(tensor_compute)
    detached: list[Any] = [None if row is None else row.detach() for row in rows]
    if first.device.type == "cpu" and all(row is None or row.dtype == wanted for row in detached):
        detached = [None if row is None else row.numpy() for row in detached]
    return Stacked((MemoryRows(detached, len(rows), d, tensor_compute),), (), sample, tensor_value)


def _plain_row(row: Any, index: int) -> np.ndarray[Any, Any]:
    try:
        array = np.asarray(row)
    except (ValueError, TypeError) as error:
        raise DataError(f"updates[{index}] must be a vector of numbers, got {type(row).__name__}") from error
    if array.dtype == object:
        raise DataError(f"updates[{index}] must be a vector of numbers, got {type(row).__name__}")
    return array


def _require_matrix(shape: tuple[int, ...]) -> None:
    if len(shape) < 2:
        raise DataError(f"updates must have one row per client, shape [..., n, d], got shape {tuple(shape)}")
    if shape[-2] == 0:
        raise DataError(f"updates must hold at least one row, got shape {tuple(shape)}")
    if shape[-1] == 0:
        raise DataError(f"updates must have at least one parameter, got shape {tuple(shape)}")


def _array_dtypes(dtype: np.dtype[Any]) -> tuple[np.dtype[Any], np.dtype[Any]]:
    """The dtype to compute in and the dtype to give back."""
    if dtype.kind == "f":
        compute = np.dtype(np.float32 if dtype.itemsize <= 4 else np.float64)
        return compute, dtype.newbyteorder("=")
    if dtype.kind in "iub":
        return np.dtype(np.float64), np.dtype(np.float64)
    raise DataError(f"updates must hold real numbers, got dtype {dtype}")


def _tensor_dtypes(tensor: Any) -> tuple[np.dtype[Any], Any]:
    import torch

    if tensor.dtype.is_complex or tensor.is_quantized:
        raise DataError(f"updates must hold real numbers, got dtype {tensor.dtype}")
    if not tensor.dtype.is_floating_point or tensor.dtype == torch.float64:
        return np.dtype(np.float64), torch.float64
    return np.dtype(np.float32), tensor.dtype


def _torch_dtype(dtype: np.dtype[Any]) -> Any:
    import torch

    names = {"float32": torch.float32, "float64": torch.float64, "bool": torch.bool}
    return names[dtype.name]


def _as_tensor(array: np.ndarray[Any, Any]) -> Any:
    import torch

    return torch.from_numpy(array)


def _fill(block: Block, rows: Sequence[Any], where: slice) -> None:
    """Copy the rows into a block, NaN for those that never came; assignment converts the dtype."""
    for i, row in enumerate(rows):
        block[i] = float("nan") if row is None else row[where]


def _readable_in_place(source: Any, dtype: np.dtype[Any]) -> bool:
    """Whether blocks can be views: of a matrix, or of every array in a list."""
    if isinstance(source, list):
        return all(isinstance(row, np.ndarray) and _readable_in_place(row, dtype) for row in source)
    if isinstance(source, np.ndarray):
        aligned = source.dtype == dtype and source.dtype.isnative and source.flags.aligned
        return bool(aligned and (source.shape[-1] <= 1 or source.strides[-1] == dtype.itemsize))
    return bool(is_tensor(source) and source.dtype == _torch_dtype(dtype) and source.stride(-1) == 1)
