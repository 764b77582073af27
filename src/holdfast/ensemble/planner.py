"""What could be certified, before anything is trained.

The best case for every certificate is that all N models agree. If that case certifies too few malicious clients, no
amount of training helps: the design has to change.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from holdfast.certification import certify_deployed, certify_ideal, certify_secret
from holdfast.certification.tally import Number, check_alpha, check_integer
from holdfast.ensemble.design import CERTIFICATES, DESIGNS, Design, make_design, model_count
from holdfast.types import ConfigError

MOST_MODELS = 4096


@dataclass(frozen=True)
class Plan:
    """What one kind of certificate can reach with one design, if all models agree.

    Attributes:
        design: a key of `DESIGNS`.
        certificate: `"deployed"`, `"secret"` or `"ideal"`.
        n_models: N.
        m: the most malicious clients that could be certified, -1 if nothing ever can.
        models_needed: the fewest models with which one malicious client could be certified; None if no number up to
            `MOST_MODELS` would do.
        pairs: training cost in model-client pairs, the sum of the group sizes.
    """

    design: str
    certificate: str
    n_models: int
    m: int
    models_needed: int | None
    pairs: int

    def __str__(self) -> str:
        models = "1 model" if self.n_models == 1 else f"{self.n_models} models"
        head = f"{self.design}, {self.certificate}: {models} ({self.pairs} model-client pairs)"
        if self.m >= 1:
            return f"{head} certify at most {self.m} malicious clients"
        cause = "can never certify anything" if self.m < 0 else "can never certify a malicious client"
        if self.models_needed is None:
            return f"{head} {cause}, nor can any number up to {MOST_MODELS}; choose a smaller k"
        return f"{head} {cause}; {self.models_needed} models are needed"


def plan(
    design_kind: str | None,
    n: int,
    k: int,
    n_models: int | None = None,
    alpha: Number = 0.001,
    n_inputs: int = 1,
    n_labels: int = 2,
    *,
    method: str = "auto",
) -> list[Plan]:
    """The largest m that each certificate of a design could certify, if all models gave every input the same label.

    `deployed` and `secret` are computed for the least favorable label in ties. A `random` design is drawn once to learn
    how uneven it gets; the other designs need no luck.

    Args:
        design_kind: a key of `DESIGNS`; None for all that n, k and n_models allow.
        n: clients.
        k: clients per model.
        n_models: N, where the kind does not fix it; see `make_design`.
        alpha: failure probability of `secret` and `ideal`.
        n_inputs: inputs that share alpha in `ideal`.
        n_labels: L.
        method: of `certify_ideal`.

    Raises:
        ConfigError: for arguments that make no design.

    Example:
        >>> for row in plan("random", 1000, 10, 10, alpha=0.001, n_inputs=10_000, n_labels=10):
        ...     print(row)
        random, deployed: 10 models (100 model-client pairs) certify at most 2 malicious clients
        random, secret: 10 models (100 model-client pairs) certify at most 9 malicious clients
        random, ideal: 10 models (100 model-client pairs) can never certify anything; 28 models are needed
    """
    level = check_alpha(alpha)
    check_integer("n_inputs", n_inputs, 1)
    check_integer("n_labels", n_labels, 2)
    if design_kind is None:
        return [
            row for kind in DESIGNS for row in _if_possible(kind, n, k, n_models, level, n_inputs, n_labels, method)
        ]
    design = make_design(design_kind, n=n, k=k, n_models=n_models, seed=0)
    rows = []
    for certificate in CERTIFICATES[design_kind]:
        reach = _reach(certificate, design, level, n_inputs, n_labels, method)
        needed = _fewest(reach, design_kind, n, k)
        pairs = int(design.models_per_client.sum())
        rows.append(Plan(design_kind, certificate, design.n_models, reach(design.n_models), needed, pairs))
    return rows


def _if_possible(
    kind: str, n: int, k: int, n_models: int | None, alpha: Fraction, n_inputs: int, n_labels: int, method: str
) -> list[Plan]:
    try:
        model_count(kind, n, k, n_models if kind not in ("disjoint", "exhaustive") else None)
    except ConfigError:
        return []
    models = None if kind in ("disjoint", "exhaustive") else n_models
    return plan(kind, n, k, models, alpha, n_inputs, n_labels, method=method)


def _reach(
    certificate: str, design: Design, alpha: Fraction, n_inputs: int, n_labels: int, method: str
) -> Callable[[int], int]:
    """The radius of a unanimous vote as a function of the number of models."""

    def deployed(models: int) -> int:
        drawn = design if models == design.n_models else _redraw(design, models)
        votes = np.ones((models, 1), dtype=np.uint8)
        return int(certify_deployed(votes, drawn.membership, n_labels).radius[0])

    def secret(models: int) -> int:
        votes = np.ones((models, 1), dtype=np.uint8)
        repeats = models // len(design.group_sizes)
        return int(certify_secret(votes, design.group_sizes, repeats, n_labels, alpha=alpha, n=design.n).radius[0])

    def ideal(models: int) -> int:
        counts = np.zeros((1, n_labels), dtype=np.int64)
        counts[0, 0] = models
        exhaustive = design.kind == "exhaustive"
        level = alpha / n_inputs
        found = certify_ideal(counts, n=design.n, k=design.k, alpha=level, method=method, exhaustive=exhaustive)
        return int(found.radius[0])

    return {"deployed": deployed, "secret": secret, "ideal": ideal}[certificate]


def _redraw(design: Design, models: int) -> Design:
    return make_design(design.kind, n=design.n, k=design.k, n_models=models, seed=0)


def _fewest(reach: Callable[[int], int], kind: str, n: int, k: int) -> int | None:
    """The fewest models of a kind with a radius of at least 1, by doubling and bisection where N is free."""
    if kind == "random":
        low, high = 0, 1
        while reach(high) < 1:
            low, high = high, 2 * high
            if high > MOST_MODELS:
                return None
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if reach(middle) >= 1 else (middle, high)
        return high
    return next((models for models in _possible_counts(kind, n, k) if reach(models) >= 1), None)


def _possible_counts(kind: str, n: int, k: int) -> Iterator[int]:
    if kind == "spread":
        yield from range(n // math.gcd(n, k), n + 1, n // math.gcd(n, k))
    else:
        # More partitions raise lead and damage alike: if one does not reach a malicious client, few more do.
        steps = range(1, 4) if kind == "partitions" else (1,)
        groups = math.comb(n, k) if kind == "exhaustive" else n // k
        yield from (step * groups for step in steps)
