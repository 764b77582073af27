"""Residual reweighting block by block: `fit_block` on every block, `shares` once, `correct_block` on every block.

Arrays in main memory go through the compiled passes (`irls_code.py`, `irls_correct.py`); tensors on a device, and what
is not compiled (Theil-Sen lines through many clients), through `residuals.py`. Nothing larger than a block is kept but
what the caller keeps: a `Fit` holds two numbers and n bits per coordinate, so that the second pass need not repeat the
first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.aggregation.kernels import emit
from holdfast.aggregation.kernels.coordinate import Floats, median, row_list
from holdfast.aggregation.kernels.gram import weighted_sum
from holdfast.aggregation.kernels.irls_code import Form, fit_kernel
from holdfast.aggregation.kernels.irls_correct import correct_kernel
from holdfast.aggregation.kernels.networks import MAX_NETWORK
from holdfast.aggregation.kernels.options import Options
from holdfast.aggregation.kernels.parallel import for_chunks


@dataclass(frozen=True)
class Lines:
    """What the second pass needs of the first, for the columns of one block (padded to whole registers)."""

    center: Floats
    slope: Floats
    masks: NDArray[np.uint16]


@dataclass(frozen=True)
class Fit:
    """What one block says about the clients.

    Attributes:
        weights: `[n]` float64, the block's part of the model weights W (sum of confidence times importance).
        rejected: `[n]` int64, how many of the block's values were replaced by the line.
        lines: for `correct_block` on the same block; None where the rule is not compiled.
    """

    weights: NDArray[np.float64]
    rejected: NDArray[np.int64]
    lines: Lines | None = None

    @property
    def nbytes(self) -> int:
        """Memory held for the second pass."""
        lines = self.lines
        return 0 if lines is None else lines.center.nbytes + lines.slope.nbytes + lines.masks.nbytes


def compiled(n: int, o: Options) -> bool:
    """Whether the compiled passes serve these options: all but Theil-Sen lines through many clients."""
    if o.line == "theil-sen" and (n * (n - 1) // 2 > MAX_NETWORK or o.intercept == "direct"):
        return False
    return 3 <= n <= MAX_NETWORK and emit.available()


def shares(weights: NDArray[np.float64], power: float) -> NDArray[np.float64]:
    """Model weights as shares of the average: `(W / max W) ** power`, normalized; equal where all W are zero.

    >>> shares(np.array([2.0, 1.0, 0.0]), 2.0)
    array([0.8, 0.2, 0. ])
    """
    largest = weights.max()
    raised = (weights / largest) ** power if largest > 0 else np.ones_like(weights)
    result: NDArray[np.float64] = raised / raised.sum()
    return result


def fit_block(rows: Any, o: Options, *, threads: int | None = None) -> Fit:
    """First pass over a block: an array `[n, b]`, a sequence of n rows, or a tensor `[n, b]` on any device."""
    if _on_device(rows):
        weights, rejected = _general().fit(rows, o)
        return Fit(weights.cpu().numpy(), rejected.cpu().numpy())
    rows = row_list(rows)
    n = len(rows)
    if compiled(n, o):
        return _fit_compiled(rows, o, threads)
    weights, rejected = _general().fit(_as_tensor(rows), o)
    return Fit(weights.numpy(), rejected.numpy())


def correct_block(
    rows: Any, share: NDArray[np.float64], o: Options, fit: Fit | None = None, *, threads: int | None = None
) -> Any:
    """Second pass over a block: the average of the corrected values, `[b]`; `fit` saves repeating the first pass."""
    if _on_device(rows):
        import torch

        return _general().correct(rows, torch.from_numpy(share).to(rows.device), o)
    rows = row_list(rows)
    n = len(rows)
    if n <= 2:
        return weighted_sum(rows, share, threads=threads)
    if compiled(n, o):
        lines = fit.lines if fit is not None and fit.lines is not None else _fit_compiled(rows, o, threads).lines
        assert lines is not None
        return _correct_compiled(rows, share, o, lines, threads)
    import torch

    return _general().correct(_as_tensor(rows), torch.from_numpy(share), o).numpy()


def line_block(rows: Any, o: Options, *, threads: int | None = None) -> Any:
    """The height of every coordinate's line at the middle rank, `[b]`: a plain robust estimate of its center."""
    if _on_device(rows):
        return _general().height(rows, o)
    rows = row_list(rows)
    if len(rows) <= 2 or o.line == "median" or o.intercept == "midrank":
        return median(rows, threads=threads)
    if compiled(len(rows), o):
        lines = _fit_compiled(rows, o, threads).lines
        assert lines is not None
        return lines.center[: len(rows[0])]
    return _general().height(_as_tensor(rows), o).numpy()


def _general() -> ModuleType:
    """The torch form, imported when first needed."""
    from holdfast.aggregation.kernels import residuals

    return residuals


def _as_tensor(rows: list[Floats]) -> Any:
    import torch

    return torch.from_numpy(np.array(rows).reshape(len(rows), len(rows[0])))


def _on_device(rows: Any) -> bool:
    return hasattr(rows, "detach") and not isinstance(rows, list | tuple)


# ---- the compiled passes over chunks -------------------------------------------------------------------------------


def _chunk(n: int) -> int:
    return 8192 if n <= 32 else 2048


@lru_cache(maxsize=64)
def _reciprocals(n: int, dtype: str) -> Floats:
    """1 / (j - i) for the neighbors j of i in order, i itself left out: a window of this table for every i."""
    steps = np.arange(-(n - 1), n - 1)
    return np.asarray(1.0 / (steps + (steps >= 0)), dtype=dtype)


class _Registers:
    """The rows as a kernel reads them from any column on, and a zero-padded copy of the last, partial register.

    Zeros are harmless there: a coordinate in which everybody agrees has importance zero.
    """

    def __init__(self, rows: list[Floats]) -> None:
        self.rows = rows
        self.itemsize = rows[0].itemsize
        self.lanes = emit.lanes(rows[0].dtype.name)
        self.columns = len(rows[0])
        self.padded = -(-self.columns // self.lanes) * self.lanes
        self._whole = self.columns - self.columns % self.lanes
        self._addresses = np.array([r.ctypes.data for r in rows], dtype=np.uint64)
        self._tail = np.zeros((len(rows), self.lanes), rows[0].dtype)
        for k, row in enumerate(rows):
            self._tail[k, : self.columns - self._whole] = row[self._whole :]
        self._tail_addresses = np.array([t.ctypes.data for t in self._tail], dtype=np.uint64)

    def pieces(self, begin: int, end: int) -> list[tuple[int, int, NDArray[np.uint64]]]:
        """`(first column, number of columns, addresses of that column)`, all whole registers, covering begin..end."""
        parts = []
        whole = min(end, self._whole)
        if whole > begin:
            parts.append((begin, whole - begin, self._addresses + np.uint64(begin * self.itemsize)))
        if end > self._whole:
            parts.append((self._whole, self.lanes, self._tail_addresses))
        return parts


def _fit_compiled(rows: list[Floats], o: Options, threads: int | None) -> Fit:
    n, dtype = len(rows), rows[0].dtype
    kernel = fit_kernel(
        Form(n, dtype.name, o.line, o.weighting, o.ties, o.rank_base, o.intercept, o.drop_smallest, o.leverage,
             o.keep_equal, o.zero_rejected, o.std_before)
    )  # fmt: skip
    registers = _Registers(rows)
    lanes, chunk = registers.lanes, _chunk(n)
    bend = o.lam * math.sqrt(2 / n) if o.weighting == "huber" else o.lam
    parameters = np.array([o.gamma * (1 + 5 / (n - 1)), o.floor_abs, o.floor_rel, bend, o.delta], dtype)
    reciprocals = _reciprocals(n, dtype.name)
    lines = Lines(
        np.empty(registers.padded, dtype),
        np.empty(registers.padded, dtype),
        np.empty((registers.padded // lanes, n), np.uint16),
    )
    chunks = -(-registers.columns // chunk)
    weights = np.zeros((chunks, n, lanes // 2))
    rejected = np.zeros((chunks, n), np.int64)

    def task(index: int, begin: int, end: int) -> None:
        for at, columns, addresses in registers.pieces(begin, end):
            kernel(
                columns, addresses.ctypes.data, parameters.ctypes.data, reciprocals.ctypes.data,
                weights[index].ctypes.data, rejected[index].ctypes.data, lines.center[at:].ctypes.data,
                lines.slope[at:].ctypes.data, lines.masks[at // lanes :].ctypes.data,
            )  # fmt: skip

    for_chunks(task, registers.columns, chunk, ns=0.2 * n * n * registers.columns, threads=threads)
    # summed in a fixed order, so that the number of threads cannot matter
    return Fit(weights.sum(axis=2).sum(axis=0), rejected.sum(axis=0), lines)


def _correct_compiled(
    rows: list[Floats], share: NDArray[np.float64], o: Options, lines: Lines, threads: int | None
) -> Floats:
    n, dtype = len(rows), rows[0].dtype
    kernel = correct_kernel(n, dtype.name, o.ties)
    registers = _Registers(rows)
    lanes = registers.lanes
    share = np.ascontiguousarray(share, dtype=np.float64)
    out = np.empty(registers.padded, dtype)

    def task(_: int, begin: int, end: int) -> None:
        for at, columns, addresses in registers.pieces(begin, end):
            kernel(
                columns, addresses.ctypes.data, share.ctypes.data, lines.center[at:].ctypes.data,
                lines.slope[at:].ctypes.data, lines.masks[at // lanes :].ctypes.data, out[at:].ctypes.data,
            )  # fmt: skip

    for_chunks(task, registers.columns, _chunk(n), ns=1.0 * n * registers.columns, threads=threads)
    return out[: registers.columns]
