"""The tables of docs/romoa.md from the results of `holdfast reproduce romoa --scale cpu` and `romoa_step.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast.experiments.paper_romoa import printed_twice
from tables import markdown, result

NOT_RUN = "not run at this scale"


def reproduced(title: str) -> str:
    """A table of the reproduction by the start of its title; settings that were not run are left out."""
    found = [table for table in result("reproduce_romoa_cpu")["tables"] if table["title"].startswith(title)]
    if not found:
        return markdown([title], [[NOT_RUN]])
    rows = found[0]["rows"]
    columns = list(rows[0])
    words = next((place for place, name in enumerate(columns) if not isinstance(rows[0][name], str)), len(columns))
    cells = [[cell(row[name]) for name in columns] for row in rows if NOT_RUN not in row.values()]
    return markdown(columns, cells, left=words)


def cell(value: Any) -> str:
    """A value as it stands in a table: printed (a star: in several cells) and ours, a number per seed, or words."""
    if isinstance(value, Mapping):
        star = "*" if printed_twice(value["printed"]) else ""
        return f"{value['printed']:.3f}{star} / {'–' if value['ours'] is None else format(value['ours'], '.3f')}"
    if isinstance(value, list):
        return ", ".join(f"{number:.3f}" for number in value)
    if isinstance(value, float):
        return f"{value:.3f}"
    return "–" if value is None or value == "" else str(value)


def step_cost() -> str:
    """Processor time and memory of one lookahead or syncing step."""
    cells = [
        [
            row["what"],
            str(row["n"]),
            f"{row['d']:,}",
            f"{row['seconds']:.2f}",
            f"{row['uploads'] / 1e9:.1f}",
            f"{row['rest_bytes'] / 1e6:,.0f}",
        ]
        for row in result("romoa_step")["rows"]
    ]
    return markdown(["step", "n", "d", "CPU-seconds", "uploads, GB", "peak beside the uploads, MB"], cells)
