"""Before training on selections: what they could certify if all base classifiers agreed, or why they never can."""

from __future__ import annotations

import numpy as np

from holdfast.certification import Certificate
from holdfast.ensemble import Design, Votes
from holdfast.experiments.certificates import EXAMPLES, certify_counts, certify_votes, kinds_for
from holdfast.report import Table
from holdfast.types import ConfigError

_MOST_MODELS = 1 << 20


def outlook(design: Design, *, alpha: float, n_inputs: int, n_labels: int) -> str:
    """The largest number of poisoned examples that each certificate could survive, as a table.

    Args:
        design: who is in which selection.
        alpha: failure probability of `secret` and `data`.
        n_inputs: inputs that share alpha in `data`.
        n_labels: outputs of a base classifier.

    Raises:
        ConfigError: not even one poisoned example could be certified; says how many models would be needed.
    """
    rows: list[tuple[str, str, str]] = []
    values: list[tuple[object, ...]] = []
    for kind in kinds_for(design, EXAMPLES):
        reached = _best(design, design.n_models, kind, alpha, n_inputs, n_labels)
        if kind == "data" and reached < 1 and design.kind != "exhaustive":
            raise ConfigError(_too_few(design, alpha, n_inputs, n_labels))
        rows.append((kind, str(design.n_models), "never" if reached < 0 else str(reached)))
        values.append((kind, design.n_models, reached))
    if all(int(str(value[2])) < 1 for value in values):
        raise ConfigError(
            f"{design.n_models} models of {design.k} examples each can never certify even one poisoned example; "
            "choose a smaller size"
        )
    title = "Before training: the most poisoned examples that could be survived, if all models agreed"
    size = f"p = {design.p}" if design.p is not None else f"n_s = {design.k}"
    note = f"of n = {design.n} examples; {size}, {n_inputs} inputs, alpha = {alpha:g}, modification (P3)"
    return Table(title, ("certificate", "models", "largest m"), tuple(rows), tuple(values), (note,)).to_plain()


def _best(design: Design, models: int, kind: str, alpha: float, n_inputs: int, n_labels: int) -> int:
    """The radius of a unanimous vote for the label that loses ties."""
    if kind == "data":
        return int(_unanimous(design, models, alpha / n_inputs, n_labels).radius[0])
    votes = Votes(np.full((models, 1), n_labels - 1, dtype=np.uint16), design, n_labels, facts={"unit": EXAMPLES})
    return int(certify_votes(votes, alpha=alpha, kinds=[kind])[0].radius[0])


def _unanimous(design: Design, models: int, alpha: float, n_labels: int) -> Certificate:
    counts = np.zeros((1, n_labels), dtype=np.int64)
    counts[0, -1] = models
    return certify_counts(counts, design, alpha=alpha)


def _too_few(design: Design, alpha: float, n_inputs: int, n_labels: int) -> str:
    head = f"models = {design.n_models} can never certify a poisoned example at alpha = {alpha:g} and {n_inputs} inputs"
    low, high = 0, 1
    while _unanimous(design, high, alpha / n_inputs, n_labels).radius[0] < 1:
        low, high = high, 2 * high
        if high > _MOST_MODELS:
            return f"{head}, nor can any other number of models; choose smaller selections"
    while high - low > 1:
        middle = (low + high) // 2
        enough = _unanimous(design, middle, alpha / n_inputs, n_labels).radius[0] >= 1
        low, high = (low, middle) if enough else (middle, high)
    return f"{head}; at least {high} are needed"
