"""The one screen before every rule: rows that are not finite, or absurd, are replaced, never dropped, and reported.

Dropping a row would change n and could push a sound (n, f) below a rule's bound: one client could switch the
defense off. So n never changes; a replaced row counts among the f. What stands in for it is, in every coordinate,
the median of the rows that passed: a value inside the hull of the others, which moves with them under translation,
agrees where they agree, and gives whoever sent the bad row no say. With no row left, the reference stands in, or
zeros where there is none.

A row is *absurd* if its Euclidean norm exceeds `limit(dtype)`, 2^-10 times the square root of the largest number
the dtype holds (1.8e16 in float32, 1.3e151 in float64): beyond it, sums of squared distances could overflow.
Below, every rule's arithmetic is finite, and an outlier is the rule's own business. The limit is relative to the
clients' own scale in this sense: where the typical (lower median) norm of float32 rows lies outside 2^-40 .. 2^40
(1e-12 .. 1e12), nothing about a row of 1e30 (or 1e-30) is unusual, so the whole federation is computed in float64.

Reading all rows for this costs as much as a median does. So a rule whose compiled code reads every value anyway and
adds up the squares is given the rows on trial: if the one sum proves that no row can be bad, its result stands. If
not, for whatever reason, the result is thrown away and the screen looks at every row; it alone decides.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from holdfast.aggregation import columns as column_wise
from holdfast.aggregation.kernels import Squares
from holdfast.aggregation.stacking import Block, MemoryRows, Rows, block_columns, is_tensor

ORDINARY = (2.0**-40, 2.0**40)
"""Typical norms that float32 arithmetic serves well; outside, float64 does the work."""

VANISHING = 1e-30
"""Sums of float32 squares below it may have lost terms to underflow."""

MARGIN = 4.0
"""A sum of squares this many times within the limits is within them, however it was rounded."""

SAMPLE = 256
"""Columns at either end of the rows that show whether their scale is an ordinary one."""


@dataclass(frozen=True)
class Screened:
    """Rows that are safe to compute with.

    Attributes:
        rows: the rows as they came.
        bad: `[n]` bool, the rows that were replaced.
        reasons: why, per replaced row.
        dtype: float32 or float64, what the blocks hold.
        reference: `[d]` (anything that can be sliced), which stands in when no row is left; None means zeros.
        squares: of rows on trial, where the rule adds up the squares of all it reads.
    """

    rows: Rows
    bad: np.ndarray[Any, Any]
    reasons: Mapping[int, str]
    dtype: np.dtype[Any]
    reference: Any = None
    squares: Squares | None = None

    @property
    def n(self) -> int:
        """Clients, replaced ones included."""
        return self.rows.n

    @property
    def d(self) -> int:
        """Parameters."""
        return self.rows.d

    def blocks(self, columns: int | None = None, *, stacked: bool = True) -> Iterator[tuple[slice, Block]]:
        """See `Rows.blocks`: the rows themselves where none was replaced, repaired copies otherwise."""
        if not self.bad.any() and self.dtype == self.rows.dtype:
            yield from self.rows.blocks(columns, stacked=stacked)
            return
        for where, block in self.rows.blocks(columns or block_columns(self)):
            yield where, self._repaired(block, where)

    def _repaired(self, block: Block, where: slice) -> Block:
        good: Any = ~self.bad
        if is_tensor(block):
            import torch

            good = torch.from_numpy(good).to(block.device)
            fresh = block.to(torch.float64, copy=True) if self.dtype == np.float64 else block.clone()
        else:
            fresh = np.array(block, dtype=self.dtype, order="C")
        if self.bad.all():
            fresh[:] = 0 if self.reference is None else like(self.reference[where], fresh)
        elif self.bad.any():
            fresh[~good] = column_wise.median(fresh[good])
        return fresh


def limit(dtype: np.dtype[Any]) -> float:
    """The largest Euclidean norm a row may have.

    >>> f"{limit(np.dtype(np.float32)):.1e}"
    '1.8e+16'
    """
    return math.sqrt(float(np.finfo(dtype).max)) * 2.0**-10


def like(vector: Any, block: Block) -> Any:
    """A vector as the kind, dtype and device of a block."""
    if is_tensor(block):
        import torch

        return torch.as_tensor(vector).detach().to(device=block.device, dtype=block.dtype)
    if is_tensor(vector):
        vector = vector.detach().float().cpu().numpy() if vector.element_size() < 4 else vector.detach().cpu().numpy()
    return np.asarray(vector, dtype=block.dtype)


def screen(rows: Rows, *, reference: Any = None, faults: Mapping[int, str] | None = None) -> Screened:
    """Find the rows no arithmetic can use. Reads the data once, never raises because of what it holds.

    Args:
        rows: one federation.
        reference: `[d]`, stands in when no row passes.
        faults: clients already known to be unusable, and why (a malformed reply, say).
    """
    with column_wise.one_blas_thread():
        squares, finite = _norms(rows)
    norms = np.sqrt(squares)
    reasons = {int(i): "holds a value that is not finite" for i in np.flatnonzero(~finite)}
    reasons |= dict(faults or {})
    usable = np.array([i not in reasons for i in range(rows.n)], dtype=bool)
    dtype = rows.dtype
    if dtype == np.float32 and usable.any():
        ordered = np.sort(norms[usable])
        typical = ordered[(ordered.size - 1) // 2]
        if typical > 0 and not ORDINARY[0] <= typical <= ORDINARY[1]:
            dtype = np.dtype(np.float64)
    bound = limit(dtype)
    for i in np.flatnonzero(usable & (norms > bound)):
        reasons[int(i)] = f"its norm {norms[i]:.1e} is beyond {bound:.1e}, the largest that {dtype} can square and sum"
    bad = np.zeros(rows.n, dtype=bool)
    bad[list(reasons)] = True
    return Screened(rows, bad, dict(sorted(reasons.items())), dtype, reference)


def on_trial(rows: Rows) -> Screened | None:
    """The rows as if none were bad, for a rule that vouches; None where that is of no use.

    It is of no use for short rows and off the host, and where a sample shows a bad row already or does not show that
    the typical row is of an ordinary size: the sum of all squares bounds the largest norm, not the smallest.
    """
    if not isinstance(rows, MemoryRows) or rows.d < 8 * SAMPLE or rows.on_device:
        return None
    with np.errstate(all="ignore"):
        sums = square_sums(rows.read(slice(0, SAMPLE))) + square_sums(rows.read(slice(rows.d - SAMPLE, rows.d)))
    if not surely_clean(sums, rows.dtype):
        return None
    return Screened(rows, np.zeros(rows.n, dtype=bool), {}, rows.dtype, squares=Squares())


def vouched(trial: Screened) -> bool:
    """Whether the sum of the squares of all values proves that the screen would find nothing wrong.

    No row's norm exceeds the root of the sum; that it is finite says that every value is.
    """
    squares = trial.squares
    return squares is not None and squares.values >= trial.n * trial.d and squares.total <= _largest_sum(trial.dtype)


def surely_clean(squares: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Whether the screen passes rows of these squared norms `[..., n]` as they are, however they were rounded: `[...]`.

    >>> surely_clean(np.array([[1.0, 2.0], [1.0, np.nan], [1e-30, 1e-30]]), np.dtype(np.float32))
    array([ True, False, False])
    """
    clean: np.ndarray[Any, Any] = squares.sum(axis=-1, dtype=np.float64) <= _largest_sum(dtype)
    if dtype == np.float32:
        typical = np.sort(squares, axis=-1)[..., (squares.shape[-1] - 1) // 2]
        clean = clean & (typical >= MARGIN * ORDINARY[0] ** 2)
    return clean


def _largest_sum(dtype: np.dtype[Any]) -> float:
    norm = ORDINARY[1] if dtype == np.float32 else limit(dtype)
    return norm * norm / MARGIN


def squares_of(rows: Rows) -> Squares | None:
    """Where a rule that vouches adds up the squares of all it reads: rows on trial want to know, others do not."""
    return rows.squares if isinstance(rows, Screened) else None


def _norms(rows: Rows) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Squared norm of every row, and whether all of it is finite.

    The sum of squares itself is the test: it is finite only where every value is. The rare sum that is not, or that
    may have underflowed, is taken again in float64.
    """
    squares = np.zeros(rows.n, dtype=np.float64)
    finite = np.ones(rows.n, dtype=bool)
    for _, block in rows.blocks(stacked=False):
        with np.errstate(all="ignore"):
            sums = square_sums(block)
            for i in np.flatnonzero(~(np.isfinite(sums) & (sums > VANISHING))):
                values: Any = block[int(i)].double() if is_tensor(block) else block[i].astype(np.float64)
                finite[i] &= bool(abs(values).max() < np.inf)
                sums[i] = float(values @ values)
            squares += sums
    return squares, finite


def square_sums(block: Block) -> np.ndarray[Any, Any]:
    """The squared norm of every row of a block, `[n]`, summed in the block's own precision."""
    if is_tensor(block):
        sums: np.ndarray[Any, Any] = (block * block).sum(dim=1).double().cpu().numpy()
        return sums
    return np.array([np.dot(row, row) for row in block], dtype=np.float64)
