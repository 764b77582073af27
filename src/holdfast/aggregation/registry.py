"""The rules by name, and how to make one: unknown names and parameters are errors that suggest the nearest right one.

`RULES` is the single list: command-line choices, the docs and the contract tests are generated from it.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable
from typing import Any

from holdfast.aggregation.averaging import Mean, MeanAroundMedian, Median, TrimmedMean
from holdfast.aggregation.distance import Bulyan, Krum, MultiKrum
from holdfast.aggregation.geometric import CenteredClipping, GeometricMedian
from holdfast.aggregation.mixing import Bucketing, NearestNeighborMixing, NormClipping
from holdfast.aggregation.regression import RepeatedMedian, ResidualReweighting, TheilSen
from holdfast.aggregation.romoa import Romoa
from holdfast.aggregation.similarity import FoolsGold
from holdfast.types import ConfigError

RULES: dict[str, type[Any]] = {
    "mean": Mean,
    "median": Median,
    "trimmed-mean": TrimmedMean,
    "mean-around-median": MeanAroundMedian,
    "repeated-median": RepeatedMedian,
    "theil-sen": TheilSen,
    "residual-reweighting": ResidualReweighting,
    "krum": Krum,
    "multi-krum": MultiKrum,
    "bulyan": Bulyan,
    "geometric-median": GeometricMedian,
    "foolsgold": FoolsGold,
    "romoa": Romoa,
    "centered-clipping": CenteredClipping,
    "norm-clipping": NormClipping,
    "nearest-neighbor-mixing": NearestNeighborMixing,
    "bucketing": Bucketing,
}


def make(name: str, **params: Any) -> Any:
    """Make a rule by its registry name.

    Args:
        name: a key of `RULES`.
        params: the rule's parameters by their published names; a wrapper's `rule` may be a rule or a name. A rule
            with published variants also takes `variant`, the name of one, and other parameters then change it.

    Raises:
        ConfigError: an unknown name or parameter (with the nearest right one), a missing one, or one out of range.

    >>> make("trimmed-mean", f=2)
    TrimmedMean(f=2)
    >>> make("bucketing", rule=make("median"), s=2)
    Bucketing(rule=Median(), s=2, seed=0)
    >>> make("trimed-mean", f=2)
    Traceback (most recent call last):
    ...
    holdfast.types.ConfigError: unknown rule 'trimed-mean'; did you mean 'trimmed-mean'?
    """
    if name not in RULES:
        raise ConfigError(f"unknown rule {name!r}; {_suggestion(str(name), RULES)}")
    rule = RULES[name]
    fields = {field.name: field for field in dataclasses.fields(rule) if field.init}
    variant = params.pop("variant", None) if "variant" not in fields and hasattr(rule, "variant") else None
    for key in params:
        if key not in fields:
            known = {*fields, "variant"} if hasattr(rule, "variant") else set(fields)
            raise ConfigError(f"unknown parameter {key!r} of {name!r}; {_suggestion(key, known)}")
    if isinstance(params.get("rule"), str):
        params["rule"] = make(params["rule"])
    if variant is not None:
        return dataclasses.replace(rule.variant(variant), **params)
    for key, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and key not in params:
            raise ConfigError(f"{name!r} needs the parameter {key!r}, for example {_example(name, key)}")
    return rule(**params)


def _example(name: str, key: str) -> str:
    return f"make({name!r}, {key}={'Median()' if key == 'rule' else 1})"


def _suggestion(wrong: str, known: Iterable[str]) -> str:
    names = sorted(known)
    nearest = difflib.get_close_matches(wrong.lower().replace("_", "-"), names, n=1) or difflib.get_close_matches(
        wrong.lower(), names, n=1
    )
    if nearest:
        return f"did you mean {nearest[0]!r}?"
    return f"it has {', '.join(names)}" if names else "it has none"
