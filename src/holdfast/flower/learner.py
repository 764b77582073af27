"""The global model of a run and the rule's memory: what one round's replies make of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, RecordDict

from holdfast.aggregation.models import flatten
from holdfast.flower.decoding import NDArray, Spec, decode, encode
from holdfast.flower.metrics import counts
from holdfast.flower.trajectory import Steps, aggregate_path, watch
from holdfast.flower.verdicts import RoundVerdict, Sorted, Verdict
from holdfast.types import Aggregate, DataError

Model = Mapping[str, NDArray]


@dataclass
class Learner:
    """One federation's model, moved on by a rule.

    Attributes:
        rule: the rule.
        steps: how local steps come in.
        quorum: share of the asked nodes whose reply must be usable.
        counts_key: the metric to weigh by, or None for equal weights.
        arrays: the model as Flower sends it.
    """

    rule: Any
    steps: Steps
    quorum: float
    counts_key: str | None
    arrays: ArrayRecord = field(default_factory=ArrayRecord)
    _model: Model = field(default_factory=dict)
    _state: Any = None

    def read(self, arrays: ArrayRecord) -> None:
        """Start from this model (nothing to do for our own last result).

        Raises:
            DataError: it holds something else than finite real numbers, or no floating array at all.
        """
        if arrays is self.arrays:
            return
        model = {name: value.numpy() for name, value in arrays.items()}
        self._spec = Spec.of(model)
        if not np.isfinite(flatten(model)[0]).all():
            raise DataError("the global model must be finite, got NaN or infinite values")
        self.arrays, self._model = arrays, model

    def advance(self, number: int, nodes: list[int], came: Sorted) -> RoundVerdict:
        """Move the model on by what came from the nodes that were asked in this round; never raises for a reply.

        A node from which nothing came is left out as long as the rule has rows enough, else it is replaced; a node
        whose reply is unusable always is.
        """
        sent = self._decode(came)
        faults = {node: reply for node, reply in sent.items() if isinstance(reply, str)}
        silent = {node: came.silent.get(node, "not connected") for node in nodes if node not in sent}
        kept = list(silent)[: max(0, self.rule.min_clients() - len(sent))]
        rows = sorted([*sent, *kept])  # sums do not depend on who answered first
        faults |= {node: silent[node] for node in kept}
        needed = max(1, math.ceil(self.quorum * len(nodes)))
        usable = len(rows) - len(faults)
        if usable < needed:
            result, skipped = None, f"{usable} usable replies, {needed} are needed"
        else:
            models = [None if node in faults else sent[node] for node in rows]
            result, skipped = self._move(number, rows, models, faults, came)
        screened = {} if result is None else {rows[i]: why for i, why in result.diagnostics["replaced"].items()}
        bad = {**faults, **screened}
        shares = None if result is None or result.client_weights is None else result.client_weights
        influence = {} if shares is None else dict(zip(rows, map(float, shares), strict=True))
        verdicts = [
            Verdict(node, "replaced", bad[node], influence.get(node))
            if node in bad
            else Verdict(node, "used", "", influence.get(node))
            if node in sent
            else Verdict(node, "missing", silent[node])
            for node in nodes
        ]
        told = expected(self.rule)
        return RoundVerdict(number, "train", tuple(verdicts), skipped, told is not None and len(bad) > told)

    def _decode(self, came: Sorted) -> dict[int, dict[str, NDArray] | str]:
        """What each node sent: arrays, or what is wrong with them."""
        spec = self.steps.spec(self._spec)
        sent: dict[int, dict[str, NDArray] | str] = dict(came.faults)
        for node, reply in came.answers.items():
            arrays = decode(reply.content, spec)
            if self.steps.tau > 1 and not isinstance(arrays, str) and not _all_finite(arrays):
                arrays = "a local step holds a value that is not finite"
            sent[node] = arrays
        return sent

    def _move(
        self, number: int, rows: list[int], models: list[Any], faults: Mapping[int, str], came: Sorted
    ) -> tuple[Aggregate | None, str]:
        """The rule's result, model and memory moved on; or why the model stays as it was."""
        given: dict[str, Any] = {
            "reference": self._model,
            "state": self._state,
            "clients": rows,
            "faults": {i: faults[node] for i, node in enumerate(rows) if node in faults},
        }
        if not self.steps.due(number):
            self._state = watch(self.rule, models, **given)
            return None, ""
        if self.counts_key is not None:
            contents = [came.answers[node].content if node in came.answers else RecordDict() for node in rows]
            given["weights"] = counts(contents, self.counts_key)
        result = aggregate_path(self.rule, models, self.steps, **given)
        if not _all_finite(result.value):
            return None, "the rule's result is not finite"
        self._state, self._model = result.state, result.value
        self.arrays = encode(result.value)
        return result, ""


def expected(rule: Any) -> int | None:
    """The malicious clients a rule, or the rule it wraps, is told to expect; None where it is not told.

    >>> from holdfast.aggregation import make
    >>> expected(make("bucketing", rule=make("krum", f=2))), expected(make("median"))
    (2, None)
    """
    f = getattr(rule, "f", None)
    return expected(rule.rule) if f is None and hasattr(rule, "rule") else f


def _all_finite(model: Model) -> bool:
    return all(np.isfinite(value).all() for value in model.values() if value.dtype.kind == "f")
