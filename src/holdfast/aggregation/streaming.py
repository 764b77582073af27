"""Aggregate updates that lie in files, for models larger than memory: O(n x block) memory for every rule.

The files are read from left to right once for the screen and once or twice for the rule (see each rule's cost); the
result is written as it is computed. FoolsGold judges this round alone here: its history would be as large as the files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.aggregation.calling import checked_weights, require_clients
from holdfast.aggregation.model_files import READ_ERRORS, Cursor, ModelFile, stored_dtype, written
from holdfast.aggregation.models import Array, Entry, Layout, is_variance, merge_buffers, variance_floor
from holdfast.aggregation.plans import Given, influence_of
from holdfast.aggregation.screening import screen
from holdfast.aggregation.stacking import block_columns, spans
from holdfast.types import Aggregate, DataError

_READ_BYTES = 64 << 20
"""Room for one block of all clients, where the rule does not need it smaller: long reads suit disks."""


@dataclass(frozen=True)
class FileRows:
    """Rows that lie in files; a file that cannot be read to its end is NaN from there on, for the screen to find."""

    files: Sequence[ModelFile | None]
    layout: Layout
    dtype: np.dtype[Any]
    broken: dict[int, str] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """Files."""
        return len(self.files)

    @property
    def d(self) -> int:
        """Floating numbers in each."""
        return self.layout.d

    def blocks(self, columns: int | None = None, *, stacked: bool = True) -> Iterator[tuple[slice, Array]]:
        """See `Rows.blocks`; the block is reused for the next one."""
        cursors = [None if file is None else Cursor(file, self.layout) for file in self.files]
        width = min(self.d, columns or max(256, _READ_BYTES // (self.n * self.dtype.itemsize)))
        room = np.empty((self.n, width), dtype=self.dtype)
        for where in spans(self.d, width):
            block = room[:, : where.stop - where.start]
            for i, cursor in enumerate(cursors):
                try:
                    if cursor is None:
                        block[i] = np.nan
                    else:
                        cursor.take(block[i])
                except READ_ERRORS as problem:
                    self.broken[i] = f"cannot be read to its end: {problem}"
                    cursors[i] = None
                    block[i] = np.nan
            yield where, block


@dataclass(frozen=True)
class FileVector:
    """One file's vector, sliced from left to right: the reference."""

    file: ModelFile
    layout: Layout
    dtype: np.dtype[Any]

    def __getitem__(self, where: slice) -> Array:
        """The numbers at `where`, gathered from the entries it touches."""
        parts = []
        for entry in self.layout.floats:
            begin, end = max(where.start, entry.where.start), min(where.stop, entry.where.stop)
            if begin < end:
                parts.append(self.file.values(entry.name, begin - entry.where.start, end - begin))
        return np.concatenate(parts).astype(self.dtype)


def aggregate_files(
    rule: Any,
    paths: Sequence[Path | str],
    out: Path | str,
    *,
    reference: Path | str | None = None,
    weights: Any = None,
) -> Aggregate:
    """Aggregate one file per client (safetensors or .npz) into a new safetensors file.

    Args:
        rule: a rule of `holdfast.aggregation`.
        paths: one file per client; their order gives the clients' positions.
        out: where the result goes; must not exist.
        reference: the last global model, in a file of the same form.
        weights: `[n]` reported weights.

    Returns:
        The verdict; `value` is the path of the result.

    Raises:
        DataError: a file is not there, none can be read, or the reference cannot.
        ConfigError: `out` is taken, or not a .safetensors name.
        ThreatModelError: fewer files than the rule's theory needs.
    """
    require_clients(rule, len(paths))
    missing = next((path for path in paths if not Path(path).is_file()), None)
    if missing is not None:
        raise DataError(f"there is no file {missing}")
    opened = [_opened(Path(path)) for path in paths]
    trusted = None if reference is None else ModelFile(Path(reference))
    layout = trusted.layout if trusted else _most_common([item.layout for item in opened if not isinstance(item, str)])
    faults = {i: item if isinstance(item, str) else layout.difference(item.layout) for i, item in enumerate(opened)}
    faults = {i: reason for i, reason in faults.items() if reason}
    files = [item if isinstance(item, ModelFile) and i not in faults else None for i, item in enumerate(opened)]
    wide = any(stored_dtype(entry) == np.float64 for entry in layout.floats)
    rows = FileRows(files, layout, np.dtype(np.float64 if wide else np.float32))
    vector = None if trusted is None else FileVector(trusted, layout, rows.dtype)
    shares = None if weights is None else checked_weights(weights, (rows.n,))
    ordered = replace(layout, entries=tuple(sorted(layout.entries, key=lambda entry: entry.kind != "float")))
    with np.errstate(over="ignore", under="ignore"), written(Path(out), ordered) as target:
        screened = screen(rows, reference=vector, faults=faults)
        reasons = {i: rows.broken.get(i, reason) for i, reason in screened.reasons.items()}
        ids = tuple(range(rows.n))
        slices = [entry.where for entry in layout.floats if entry.size]
        plan = rule.plan(screened, Given(None, shares, vector, ids, slices, keep_state=False))
        good = [file for i, file in enumerate(files) if file is not None and i not in reasons]
        floors = {entry.name: _floor(good, entry) for entry in filter(is_variance, layout.floats)}
        narrow = block_columns(screened) if plan.narrow else None
        for where, block in screened.blocks(narrow, stacked=not plan.apart):
            _write_block(target, layout, where, plan.columns(where, block), floors)
        for entry in ordered.entries[len(layout.floats) :]:
            _write_buffer(target, entry, good, trusted)
        influence = influence_of(plan, screened)
    diagnostics = {**plan.diagnostics, "replaced": reasons}
    return Aggregate(Path(out), influence, screened.bad, None, diagnostics)


def _write_block(target: Any, layout: Layout, where: slice, value: Array, floors: dict[str, Array]) -> None:
    """Write one block of the result, each entry's part in the entry's own dtype."""
    for entry in layout.floats:
        begin, end = max(where.start, entry.where.start), min(where.stop, entry.where.stop)
        if begin < end:
            part = value[begin - where.start : end - where.start]
            if entry.name in floors:
                part = np.maximum(part, floors[entry.name][begin - entry.where.start : end - entry.where.start])
            target.write(part.astype(stored_dtype(entry)).tobytes())


def _write_buffer(target: Any, entry: Entry, good: Sequence[ModelFile], trusted: ModelFile | None) -> None:
    """Merge one integer or boolean entry in blocks and write it."""
    dtype = stored_dtype(entry)
    for where in spans(entry.size, max(256, _READ_BYTES // (8 * max(len(good), 1)))):
        count = where.stop - where.start
        values = [file.values(entry.name, where.start, count) for file in good]
        old = None if trusted is None else trusted.values(entry.name, where.start, count)
        target.write(merge_buffers(values, old, np.zeros(count, dtype=dtype)).tobytes())


def _floor(good: Sequence[ModelFile], entry: Entry) -> Array:
    values = [file.values(entry.name, 0, entry.size) for file in good]
    return variance_floor(np.stack(values)) if values else np.zeros(entry.size)


def _opened(path: Path) -> ModelFile | str:
    try:
        return ModelFile(path)
    except DataError as problem:
        return str(problem)


def _most_common(layouts: Sequence[Layout]) -> Layout:
    if not layouts:
        raise DataError("none of the files can be read as a model (safetensors or .npz with at least one float array)")
    signature = Counter(layout.signature for layout in layouts).most_common(1)[0][0]
    return next(layout for layout in layouts if layout.signature == signature)
