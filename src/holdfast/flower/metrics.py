"""What nodes report about themselves, put together so that no single one can break it or own it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from flwr.app import MetricRecord, RecordDict

from holdfast.flower.grid import LOG, plain

MetricsFunction = Callable[[list[RecordDict], str], MetricRecord]


def median_metrics(contents: Sequence[RecordDict], skip: str = "") -> dict[str, Any]:
    """Per metric the median of what the nodes report, weighted by nothing.

    Only metrics that more than half of the nodes report as a finite number (or as lists of one length) count, so a
    node cannot add names of its own; while fewer than half of them lie, every median lies between two honest values.

    >>> reports = [RecordDict({"m": MetricRecord({"loss": x})}) for x in (0.4, 0.5, 1e30)]
    >>> median_metrics(reports)
    {'loss': 0.5}
    """
    reports = [_numbers(content) for content in contents]
    names = dict.fromkeys(name for report in reports for name in report if name != skip)
    merged: dict[str, Any] = {}
    for name in names:
        values = [report[name] for report in reports if name in report]
        shapes = [np.shape(value) for value in values]
        common = max(set(shapes), key=shapes.count)
        values = [value for value, shape in zip(values, shapes, strict=True) if shape == common]
        if 2 * len(values) > len(reports):
            middle = np.median(np.array(values, dtype=np.float64), axis=0)
            merged[name] = middle.tolist() if common else float(middle)
    return merged


def aggregated(
    contents: Sequence[RecordDict], weighted_by_key: str, own: MetricsFunction | None, name: str
) -> dict[str, Any]:
    """The median, or what the user's function makes of the replies; if that raises, its problem is logged instead."""
    if own is None:
        return median_metrics(contents, weighted_by_key)
    if not contents:
        return {}
    try:
        return dict(own(list(contents), weighted_by_key))
    except Exception as problem:  # it reads what nodes wrote: that must not end the run
        LOG.warning("%s could not use the replies: %s", name, plain(problem))
        return {}


def counts(contents: Sequence[RecordDict], key: str) -> list[float]:
    """The example counts nodes report; the median of the sensible ones where a node reports none or nonsense.

    >>> counts([RecordDict({"m": MetricRecord({"n": n})}) for n in (10, 20, -5, 30)], "n")
    [10.0, 20.0, 20.0, 30.0]
    """
    found = [_numbers(content).get(key) for content in contents]
    valid = [value for value in found if isinstance(value, float) and value > 0]
    middle = float(np.median(valid)) if valid else 1.0
    return [value if isinstance(value, float) and value > 0 else middle for value in found]


def _numbers(content: RecordDict) -> dict[str, float | tuple[float, ...]]:
    """The finite metrics of a reply that has exactly one MetricRecord."""
    records = list(content.metric_records.values())
    if len(records) != 1:
        return {}
    numbers: dict[str, float | tuple[float, ...]] = {}
    for name, value in records[0].items():
        read = tuple(map(float, value)) if isinstance(value, list) else float(value)
        if all(map(math.isfinite, read if isinstance(read, tuple) else (read,))):
            numbers[name] = read
    return numbers
