"""holdfast on Flower: rules, transport and red-team mods for federations of real machines (extra `holdfast[flower]`).

This is the only package that imports flwr, and it does so on first use: importing `holdfast.flower` alone needs
nothing but holdfast.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import re
import warnings
from typing import TYPE_CHECKING, Any

from holdfast.types import ConfigError

if TYPE_CHECKING:
    from holdfast.flower.grid import Outcome, SafeGrid
    from holdfast.flower.mods import poison_mod
    from holdfast.flower.strategy import RobustStrategy
    from holdfast.flower.trajectory import encode_path, keep_local, local_model

TESTED = ((1, 41), (1, 43))
"""Flower versions the tests run with: from the first, below the second."""

_HOME = {
    "Outcome": "grid",
    "RobustStrategy": "strategy",
    "SafeGrid": "grid",
    "encode_path": "trajectory",
    "keep_local": "trajectory",
    "local_model": "trajectory",
    "poison_mod": "mods",
}

__all__ = [
    "TESTED",
    "Outcome",
    "RobustStrategy",
    "SafeGrid",
    "encode_path",
    "keep_local",
    "local_model",
    "poison_mod",
    "require_flower",
]


def require_flower() -> None:
    """Check that Flower is there, and warn about a version nobody tested.

    Raises:
        ConfigError: flwr is not installed; the sentence says which extra to install.
    """
    try:
        found = importlib.metadata.version("flwr")
    except importlib.metadata.PackageNotFoundError:
        raise ConfigError(
            "holdfast.flower needs Flower, which is not installed: pip install 'holdfast[flower]'"
        ) from None
    numbers = tuple(int(part) for part in re.findall(r"\d+", found)[:2])
    if not TESTED[0] <= numbers < TESTED[1]:
        least, below = (".".join(map(str, version)) for version in TESTED)
        warnings.warn(
            f"flwr {found} is outside the range holdfast is tested with, flwr>={least},<{below}",
            RuntimeWarning,
            stacklevel=2,
        )


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    require_flower()
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
