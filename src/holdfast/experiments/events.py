"""How a job tells what it does while it runs; the command line draws it, a library caller may ignore it."""

from __future__ import annotations

from typing import Protocol


class Events(Protocol):
    """Receives what a long job reports."""

    def note(self, text: str) -> None:
        """One line worth reading."""
        ...

    def progress(self, stage: str, done: int, total: int, left: float | None = None) -> None:
        """`done` of `total` steps of a stage are finished; `left` is the estimate in seconds."""
        ...


class Silent:
    """Events nobody listens to."""

    def note(self, text: str) -> None:
        """Drop the line."""

    def progress(self, stage: str, done: int, total: int, left: float | None = None) -> None:
        """Drop the report."""
