"""Checks of a rule's own parameters when it is made: one sentence that names the rule, the field and its value."""

from __future__ import annotations

import math
import operator
from numbers import Real
from typing import Any

from holdfast.types import ConfigError


def check_count(rule: Any, name: str, *, least: int = 0) -> None:
    """The field must be a whole number; NumPy's integers are made plain ones."""
    value = getattr(rule, name)
    try:
        whole = operator.index(value)
    except TypeError:
        whole = None
    if whole is None or isinstance(value, bool) or whole < least:
        raise ConfigError(f"{type(rule).__name__}: {name} must be a whole number of at least {least}, got {value!r}")
    object.__setattr__(rule, name, whole)


def check_number(
    rule: Any, name: str, *, least: float = 0.0, above: bool = False, infinite: bool = False, optional: bool = False
) -> None:
    """The field must be a real number of at least `least` (more than it if `above`); stored as a float."""
    value = getattr(rule, name)
    if value is None and optional:
        return
    real = isinstance(value, Real) and not isinstance(value, bool)
    number = float(value) if real else math.nan
    if not (number > least if above else number >= least) or (math.isinf(number) and not infinite):
        bound = f"a number above {least:g}" if above else f"a number of at least {least:g}"
        raise ConfigError(f"{type(rule).__name__}: {name} must be {bound}, got {value!r}")
    object.__setattr__(rule, name, number)


def check_choice(rule: Any, name: str, choices: tuple[str, ...]) -> None:
    """The field must be one of a few words."""
    value = getattr(rule, name)
    if value not in choices:
        raise ConfigError(f"{type(rule).__name__}: {name} must be one of {', '.join(choices)}, got {value!r}")


def check_rule(rule: Any, name: str = "rule") -> None:
    """The field must be a rule to wrap."""
    value = getattr(rule, name)
    if not (hasattr(value, "plan") and hasattr(value, "min_clients")) or isinstance(value, type):
        raise ConfigError(f"{type(rule).__name__}: {name} must be a rule such as Median(), got {value!r}")


def check_flag(rule: Any, name: str) -> None:
    """The field must be True or False."""
    value = getattr(rule, name)
    if not isinstance(value, bool):
        raise ConfigError(f"{type(rule).__name__}: {name} must be True or False, got {value!r}")
