"""`holdfast plan`: what each design could certify at best, and what it costs to train, before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.console import Console

from holdfast.report import Table, show


@dataclass(frozen=True)
class PlanResult:
    """The planner's answer as a table."""

    table: Table

    def to_json(self) -> dict[str, Any]:
        """The table with exact values."""
        return self.table.to_json()

    def print(self, console: Console) -> None:
        """The table."""
        show(self.table, console=console)

    def text(self) -> str:
        """The table as plain text."""
        return self.table.to_plain()
