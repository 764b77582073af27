"""Models as they are: torch `state_dict`s and lists of arrays (Flower's form), with integer and boolean buffers.

Floating entries make the vector a rule sees. Everything else takes no part in the rule and is never averaged:

- integers (`num_batches_tracked`): the lower median of the clients' values in every coordinate, dtype kept;
- booleans: the majority, a tie keeps the reference's value (False without one);
- a BatchNorm `running_var` is kept at or above the smallest non-negative value any client sent, so that no
  combination of rows makes a variance negative.

A model of another shape than the rest is not an error: its client's row is replaced, as the screen does, and reported.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any

import numpy as np

from holdfast.aggregation.stacking import is_tensor
from holdfast.types import Aggregate, DataError

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Entry:
    """One named array of a model, of `kind` "float", "integer" or "bool"; floats lie in the vector from `start` on."""

    name: str
    shape: tuple[int, ...]
    dtype: Any
    kind: str
    start: int = 0

    @property
    def where(self) -> slice:
        """Where it lies in the vector (nowhere if it is not floating)."""
        return slice(self.start, self.start + (self.size if self.kind == "float" else 0))

    @property
    def size(self) -> int:
        """Numbers in it."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Layout:
    """Where a model's arrays lie in its vector, and what is not in the vector.

    Attributes:
        entries: every array, in the model's order.
        mapping: whether the model is a mapping by name (else a list).
        buffers: the entries that are not floating, as values.
    """

    entries: tuple[Entry, ...]
    mapping: bool
    buffers: Mapping[str, Any] = field(default_factory=dict)

    @property
    def d(self) -> int:
        """Length of the vector."""
        return sum(entry.size for entry in self.floats)

    @property
    def floats(self) -> tuple[Entry, ...]:
        """The entries the vector is made of."""
        return tuple(entry for entry in self.entries if entry.kind == "float")

    @property
    def signature(self) -> tuple[Any, ...]:
        """What models must share to be aggregated: names, shapes and kinds; the order of names may differ."""
        return self.mapping, tuple(sorted((entry.name, entry.shape, entry.kind) for entry in self.entries))

    def difference(self, other: Layout) -> str:
        """What makes `other` unlike this layout, in words; empty if they match."""
        if other.mapping != self.mapping:
            forms = ("list", "mapping")
            return f"is a {forms[other.mapping]} of arrays where a {forms[self.mapping]} is expected"
        mine, theirs = ({entry.name: entry for entry in layout.entries} for layout in (self, other))
        for name, entry in mine.items():
            if name not in theirs:
                return f"lacks {name!r}"
            if theirs[name].shape != entry.shape:
                return f"{name!r} has shape {theirs[name].shape} where {entry.shape} is expected"
            if theirs[name].kind != entry.kind:
                return f"{name!r} holds {theirs[name].dtype} where {entry.dtype} is expected"
        unknown = [name for name in theirs if name not in mine]
        return f"has an unexpected {unknown[0]!r}" if unknown else ""


def flatten(model: Any) -> tuple[Any, Layout]:
    """A model as one vector of its floating entries, and the layout to get it back with `unflatten`.

    The vector has the widest floating dtype in the model; a tensor if the model holds tensors.

    Raises:
        DataError: not a mapping or list of arrays of numbers, or without any floating entry.

    >>> vector, layout = flatten({"w": np.ones((2, 2), np.float32), "seen": np.array(7)})
    >>> vector.shape, layout.buffers["seen"].item()
    ((4,), 7)
    >>> unflatten(2 * vector, layout)["w"].tolist()
    [[2.0, 2.0], [2.0, 2.0]]
    """
    mapping = isinstance(model, Mapping)
    if not mapping and not isinstance(model, (list, tuple)):
        raise DataError(f"a model must be a state_dict or a list of arrays, got {type(model).__name__}")
    named = {str(k): v for k, v in (model.items() if isinstance(model, Mapping) else enumerate(model))}
    entries, buffers, parts, start = [], {}, [], 0
    for name, value in named.items():
        entry, array = _entry(name, value)
        if entry.kind == "float":
            parts.append(array.reshape(-1))
            entry = replace(entry, start=start)
            start += entry.size
        else:
            buffers[name] = array
        entries.append(entry)
    if not start:
        raise DataError("a model must have at least one floating entry")
    return _concatenated(parts), Layout(tuple(entries), mapping, buffers)


def unflatten(vector: Any, layout: Layout, buffers: Mapping[str, Any] | None = None) -> Any:
    """The model a vector stands for: shapes and dtypes of the layout, `buffers` (or the layout's) as they are."""
    others = layout.buffers if buffers is None else buffers
    if len(vector) != layout.d:
        raise DataError(f"vector must have {layout.d} numbers for this layout, got {len(vector)}")
    values = []
    for entry in layout.entries:
        if entry.kind != "float":
            values.append(others[entry.name])
            continue
        part = vector[entry.where].reshape(entry.shape)
        values.append(part.to(entry.dtype) if is_tensor(part) else part.astype(entry.dtype))
    return dict(zip((e.name for e in layout.entries), values, strict=True)) if layout.mapping else values


def aggregate_models(
    rule: Any,
    models: Sequence[Any],
    *,
    reference: Any = None,
    state: Any = None,
    weights: Any = None,
    clients: Sequence[Hashable] | None = None,
    faults: Mapping[int, str] | None = None,
) -> Aggregate:
    """Aggregate whole models with any rule.

    Args:
        rule: a rule of `holdfast.aggregation`.
        models: one `state_dict` or list of arrays per client; anything else counts as a malformed reply.
        reference: the last global model. It says what a model must look like; without one the most common form does.
        state: the last result's state.
        weights: `[n]` reported weights.
        clients: `[n]` ids.
        faults: clients whose model is known to be unusable, by position, and why; they are replaced.

    Returns:
        As `rule.aggregate`, with a model as `value`; malformed replies are among `replaced`, with the reason.

    Raises:
        DataError: no client sent a model at all and there is no reference.
        ThreatModelError: fewer clients than the rule's theory needs.

    >>> from holdfast.aggregation import Median
    >>> models = [{"w": np.array([1.0, 2.0])}, {"w": np.array([1.0, 4.0])}, {"w": np.array([9.0])}]
    >>> result = aggregate_models(Median(), models)
    >>> result.value["w"].tolist(), result.diagnostics["replaced"]
    ([1.0, 3.0], {2: "'w' has shape (1,) where (2,) is expected"})
    """
    read = _read(models, reference, faults)
    layout, trusted = read.layout, read.trusted
    result: Aggregate = rule.aggregate(
        read.rows,
        state=state,
        weights=weights,
        clients=clients,
        faults=read.faults,
        reference=trusted[0] if trusted else None,
        layout=read.slices,
    )
    bad = result.diagnostics["replaced"]
    kept = [item for i, item in enumerate(read.flat) if i not in bad]
    value = _with_sane_variances(result.value, layout, [vector for vector, _ in kept])
    buffers = {
        name: merge_buffers(
            [theirs.buffers[name] for _, theirs in kept], trusted and trusted[1].buffers[name], template
        )
        for name, template in layout.buffers.items()
    }
    return replace(result, value=unflatten(value, layout, buffers))


def lookahead_models(
    rule: Any,
    models: Sequence[Any],
    *,
    reference: Any = None,
    state: Any = None,
    clients: Sequence[Hashable] | None = None,
    faults: Mapping[int, str] | None = None,
) -> Any:
    """Let a rule with lookahead (Romoa) watch a local step of whole models: its memory after it.

    Arguments as for `aggregate_models`.
    """
    read = _read(models, reference, faults)
    return rule.lookahead(
        read.rows,
        state=state,
        clients=clients,
        faults=read.faults,
        reference=read.trusted[0] if read.trusted else None,
        layout=read.slices,
    )


@dataclass(frozen=True)
class _Read:
    """Models as rows: `None` where one is malformed (but never all of them), and the reasons."""

    rows: list[Any]
    faults: dict[int, str]
    flat: list[Any]
    layout: Layout
    trusted: Any

    @property
    def slices(self) -> list[slice]:
        return [entry.where for entry in self.layout.floats if entry.size]


def _read(models: Sequence[Any], reference: Any, known: Mapping[int, str] | None) -> _Read:
    flat: list[Any] = [(known or {}).get(i) or _attempt(model) for i, model in enumerate(models)]
    trusted = None if reference is None else flatten(reference)
    layout = trusted[1] if trusted else _most_common([item[1] for item in flat if not isinstance(item, str)])
    faults = {i: _fault(item, layout) for i, item in enumerate(flat)}
    faults = {i: reason for i, reason in faults.items() if reason}
    flat = [item if i in faults else _in_order(item, models[i], layout) for i, item in enumerate(flat)]
    rows = [None if i in faults else item[0] for i, item in enumerate(flat)]
    if len(faults) == len(rows):
        rows[:1] = [trusted[0]] if trusted else rows[:1]
    return _Read(rows, faults, flat, layout, trusted)


def merge_buffers(values: Sequence[Any], trusted: Any, template: Any) -> Any:
    """One integer or boolean entry out of the clients': the lower median, or the majority; as the template's kind."""
    if not values:
        return template if trusted is None else trusted
    host = np.stack([np.asarray(v.detach().cpu() if is_tensor(v) else v) for v in values])
    if host.dtype == bool:
        votes = 2 * host.sum(axis=0)
        fallback = False if trusted is None else np.asarray(trusted.cpu() if is_tensor(trusted) else trusted)
        merged = np.where(votes == len(host), fallback, votes > len(host))
    else:
        merged = np.sort(host, axis=0)[(len(host) - 1) // 2]
    if is_tensor(template):
        import torch

        return torch.as_tensor(merged).to(dtype=template.dtype, device=template.device).reshape(template.shape)
    return np.asarray(merged).astype(template.dtype).reshape(template.shape)


def is_variance(entry: Entry) -> bool:
    """Whether an entry is a BatchNorm variance, by torch's name for it."""
    return entry.name.rsplit(".", 1)[-1] == "running_var"


def variance_floor(values: Array) -> Array:
    """The smallest non-negative value any row holds, per coordinate; zero where no row holds one."""
    floor: Array = np.where(values >= 0, values, np.inf).min(axis=0, initial=np.inf)
    return np.where(np.isfinite(floor), floor, 0.0)


def _with_sane_variances(value: Any, layout: Layout, vectors: Sequence[Any]) -> Any:
    for entry in filter(is_variance, layout.floats):
        theirs = [v[entry.where].double().cpu().numpy() if is_tensor(v) else v[entry.where] for v in vectors]
        floor = variance_floor(np.stack(theirs)) if theirs else np.zeros(entry.size)
        if is_tensor(value):
            import torch

            value[entry.where] = value[entry.where].clamp(min=torch.from_numpy(floor).to(value))
        else:
            value[entry.where] = np.maximum(value[entry.where], floor.astype(value.dtype))
    return value


def _entry(name: str, value: Any) -> tuple[Entry, Any]:
    if is_tensor(value):
        kind = "float" if value.is_floating_point() else "bool" if str(value.dtype) == "torch.bool" else "integer"
        if value.is_complex():
            raise DataError(f"{name!r} must hold real numbers, got {value.dtype}")
        return Entry(name, tuple(value.shape), value.dtype, kind), value.detach()
    array = np.asarray(value)
    kinds = {"f": "float", "i": "integer", "u": "integer", "b": "bool"}
    if array.dtype.kind not in kinds:
        raise DataError(f"{name!r} must hold real numbers, got {array.dtype}")
    return Entry(name, array.shape, array.dtype, kinds[array.dtype.kind]), array


def _concatenated(parts: list[Any]) -> Any:
    if not is_tensor(parts[0]):
        return np.concatenate(parts)
    import torch

    dtype = reduce(torch.promote_types, (part.dtype for part in parts))
    return torch.cat([part.to(dtype=dtype, device=parts[0].device) for part in parts])


def _attempt(model: Any) -> Any:
    """The flattened model, or what is wrong with it."""
    try:
        return flatten(model)
    except (DataError, ValueError, TypeError, AttributeError) as problem:
        return str(problem)


def _in_order(item: Any, model: Any, layout: Layout) -> Any:
    """The flattened model with its entries in the layout's order."""
    names = [entry.name for entry in layout.entries]
    if [entry.name for entry in item[1].entries] == names:
        return item
    return flatten({name: model[name] for name in names})


def _fault(item: Any, layout: Layout) -> str:
    return item if isinstance(item, str) else layout.difference(item[1])


def _most_common(layouts: Sequence[Layout]) -> Layout:
    if not layouts:
        raise DataError("models must hold at least one state_dict or list of arrays, or a reference must be given")
    signature = Counter(layout.signature for layout in layouts).most_common(1)[0][0]
    return next(layout for layout in layouts if layout.signature == signature)
