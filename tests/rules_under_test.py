"""Every rule of the registry, made with small parameters, and compositions of them: what the contract tests run on."""

import dataclasses
from typing import Any

from hypothesis import strategies as st

from holdfast.aggregation import RULES, make

# Wrappers around rules of every kind: linear in the rows, coordinate-wise, two-pass, with state.
COMPOSITIONS = (
    ("norm-clipping", "krum"),
    ("norm-clipping", "mean"),
    ("nearest-neighbor-mixing", "trimmed-mean"),
    ("nearest-neighbor-mixing", "geometric-median"),
    ("nearest-neighbor-mixing", "krum"),
    ("bucketing", "foolsgold"),
    ("bucketing", "median"),
    ("norm-clipping", "nearest-neighbor-mixing"),
    ("bucketing", "krum"),
)
ORDER_DEPENDENT = ("Bucketing",)
"""Rules that draw lots over positions: equivariant in distribution only."""

NEEDS_AN_ORIGIN = ("FoolsGold", "NormClipping", "Romoa")
"""Rules that look at directions and lengths from an origin or reference."""

READS_MODELS = ("Romoa",)
"""Rules that look at the size of parameters themselves: no translation leaves them unmoved."""

MEAN_LIKE = ("Mean", "FoolsGold")
"""Rules that bound no outlier."""

INSIDE_HONEST_RANGE = ("Median", "TrimmedMean")
"""Rules whose every coordinate lies between two honest values."""


def build(name: str, f: int, inner: str = "median") -> Any:
    """A rule by its registry name, told to expect f."""
    fields = {field.name for field in dataclasses.fields(RULES[name])}
    params: dict[str, Any] = {}
    if "f" in fields:
        params["f"] = f
    if "rule" in fields:
        params["rule"] = build(inner, f) if inner != name else build("median", f)
    return make(name, **params)


def rules(f: int) -> list[Any]:
    """All of them for one f."""
    return [build(name, f) for name in RULES] + [build(outer, f, inner) for outer, inner in COMPOSITIONS]


def any_rule(f: int) -> st.SearchStrategy[Any]:
    """One of them, for Hypothesis."""
    return st.sampled_from(rules(f))


def involves(rule: Any, names: tuple[str, ...]) -> bool:
    """Whether the rule, or one it wraps, is of these classes."""
    return type(rule).__name__ in names or (hasattr(rule, "rule") and involves(rule.rule, names))


def outermost_bound(rule: Any) -> bool:
    """Whether huge finite rows are bounded by this rule (everything but means of raw rows)."""
    if type(rule).__name__ == "NormClipping":
        return True
    if type(rule).__name__ == "Bucketing":
        return outermost_bound(rule.rule)
    if type(rule).__name__ == "NearestNeighborMixing":
        return not involves(rule.rule, MEAN_LIKE)
    return type(rule).__name__ not in MEAN_LIKE


def ident(rule: Any) -> str:
    """A short test id."""
    return type(rule).__name__ + (f"-{ident(rule.rule)}" if hasattr(rule, "rule") else "")
