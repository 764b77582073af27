"""Keys that a user typed: the known ones pass, an unknown one is named with the nearest known one."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from holdfast.types import ConfigError


def check_keys(given: Iterable[str], known: Iterable[str], where: str) -> None:
    """Refuse the first key that is not known.

    Raises:
        ConfigError: with the nearest known key, or all of them.

    Example:
        >>> check_keys({"round": 3}, ["rounds", "lr"], "[federation]")
        Traceback (most recent call last):
            ...
        holdfast.types.ConfigError: [federation] has no key 'round'; did you mean 'rounds'?
    """
    names = sorted(known)
    for key in given:
        if key not in names:
            raise ConfigError(f"{where} has no key {key!r}; {_hint(str(key), names)}")


def check_name(name: str, known: Iterable[str], what: str) -> None:
    """Refuse a name that is not known.

    Example:
        >>> check_name("stelth", ["stealth", "blend"], "wrapper")
        Traceback (most recent call last):
            ...
        holdfast.types.ConfigError: unknown wrapper 'stelth'; did you mean 'stealth'?
    """
    names = sorted(known)
    if name not in names:
        raise ConfigError(f"unknown {what} {name!r}; {_hint(name, names)}")


def _hint(wrong: str, names: list[str]) -> str:
    close = get_close_matches(wrong, names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"it is one of {', '.join(names)}"
