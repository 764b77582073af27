"""Result files, and Markdown tables of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A Markdown table; the first `left` columns hold words."""
    rule = ["---" if i < left else "---:" for i in range(len(columns))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (columns, rule, *rows))


def result(name: str) -> Any:
    """A result file by name."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def share(value: float | None) -> str:
    """In percent."""
    return "–" if value is None else f"{100 * value:.1f}"
