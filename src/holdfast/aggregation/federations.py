"""From the rows of federations to their results: one after the other, or many small ones at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np

from holdfast.aggregation import columns
from holdfast.aggregation.plans import Given, gather, influence_of
from holdfast.aggregation.screening import on_trial, screen, surely_clean, vouched
from holdfast.aggregation.stacking import BLOCK_BYTES, MemoryRows
from holdfast.types import Aggregate


def aggregate_each(
    rule: Any,
    federations: Sequence[MemoryRows],
    givens: Sequence[Given],
    *,
    faults: Mapping[int, str] | None = None,
    verdict: bool,
) -> list[Aggregate]:
    """The result of every federation; `client_weights` only with `verdict`.

    Args:
        rule: see `holdfast.aggregation.calling.Rule`.
        federations: of one shape.
        givens: what comes with each.
        faults: clients known to be unusable, in every federation, and why.
        verdict: whether influence is wanted.
    """
    once = columns.one_blas_thread() if len(federations) > 1 else nullcontext()  # asking for it takes its time
    with once, np.errstate(over="ignore", under="ignore"):
        found = {} if faults or not rule.coordinate_wise else _together(rule, federations, verdict)
        return [
            found[i] if i in found else _one(rule, rows, given, faults, verdict)
            for i, (rows, given) in enumerate(zip(federations, givens, strict=True))
        ]


def _one(rule: Any, rows: MemoryRows, given: Given, faults: Mapping[int, str] | None, verdict: bool) -> Aggregate:
    """One federation, from rows to result."""
    missing = {}
    if isinstance(rows.source, list):
        missing = {i: "no update came" for i, row in enumerate(rows.source) if row is None}
    unusable = {**missing, **(faults or {})}
    trial = on_trial(rows) if rule.vouches and not unusable else None
    if trial is not None:
        plan = rule.plan(trial, given)
        value = gather(plan, trial)
    if trial is not None and vouched(trial):
        screened = trial
    else:
        screened = screen(rows, reference=given.reference, faults=unusable)
        if trial is None or screened.bad.any() or screened.dtype != trial.dtype:
            plan = rule.plan(screened, given)
            value = gather(plan, screened)
    influence = influence_of(plan, screened) if verdict else None
    diagnostics = {**plan.diagnostics, "replaced": dict(screened.reasons)}
    return Aggregate(value, influence, screened.bad, plan.state, diagnostics)


def _together(rule: Any, federations: Sequence[MemoryRows], verdict: bool) -> dict[int, Aggregate]:
    """The results of small federations, by position, computed side by side as the columns of one.

    Federations about which the screen might have something to say are left out.
    """
    first = federations[0] if federations else None
    if first is None or first.on_device:
        return {}
    n, d = first.n, first.d
    abreast = BLOCK_BYTES // (n * d * first.dtype.itemsize)
    if min(abreast, len(federations)) < 2:
        return {}
    found = {}
    for begin in range(0, len(federations), abreast):
        group = federations[begin : begin + abreast]
        block = np.empty((n, len(group), d), dtype=first.dtype)
        for i, rows in enumerate(group):
            block[:, i] = rows.read(slice(0, d))
        with np.errstate(all="ignore"):
            clean = surely_clean(np.einsum("nid,nid->in", block, block), first.dtype)
        joined = block.reshape(n, -1)
        plan = rule.plan(MemoryRows(joined, *joined.shape, first.dtype), Given(keep_state=False))
        values = gather(plan, MemoryRows(joined, *joined.shape, first.dtype)).reshape(len(group), d)
        for i in np.flatnonzero(clean).tolist():
            alone = MemoryRows(block[:, i], n, d, first.dtype)
            influence = influence_of(plan, alone) if verdict else None
            diagnostics = {**plan.diagnostics, "replaced": {}}
            nobody = np.zeros(n, dtype=bool)
            found[begin + i] = Aggregate(values[i], influence, nobody, plan.state, diagnostics)
    return found
