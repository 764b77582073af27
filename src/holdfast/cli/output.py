"""What a finished job prints: its own words, or JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Protocol

import typer

if TYPE_CHECKING:
    from rich.console import Console


class Result(Protocol):
    """What every job returns."""

    def to_json(self) -> Any:
        """Plain values that JSON can hold."""
        ...

    def print(self, console: Console, /) -> None:
        """The result in words and tables."""
        ...


def show(result: Result, *, as_json: bool) -> None:
    """Print a result on stdout."""
    from rich.console import Console

    if as_json:
        typer.echo(json.dumps(result.to_json(), indent=2))
    else:
        result.print(Console())
