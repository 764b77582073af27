"""Tables of the randomized-selection paper's experiments."""

from __future__ import annotations

import re
from typing import Any

from tables import markdown, result, share


def selection(title: str) -> list[dict[str, Any]]:
    """The rows of a table of the reproduced randomized-selection paper; none if nothing in it was run."""
    tables = result("reproduce_selection_cpu")["tables"]
    return next((table["rows"] for table in tables if table["title"] == title), [])


def selection_published() -> str:
    """The randomized-selection paper's numbers beside ours."""
    notes = result("reproduce_selection_cpu")["tables"][0]["notes"]
    texts = iter(re.sub(r"^\[\d+\] ", "", note) for note in notes)
    cells = []
    for row in selection("Published numbers beside ours"):
        percent = "phase" in row["claim"]
        unit, digits = ("%", 1) if percent else ("", 0)
        ours = "–" if row["ours"] is None else f"{row['ours']:.{digits}f}{unit}"
        how = "–" if row["ours"] is None else next(texts)
        cells.append([row["claim"], how, f"{row['published']:g}{unit}", ours, row["verdict"]])
    return markdown(["claim", "how", "published", "ours", "verdict"], cells, left=2)


def selection_accuracy() -> str:
    """Certified accuracy of every run of Figure 4, in percent."""
    rows = selection("Figure 4 in numbers")
    levels = [name for name in rows[0] if name.startswith("rho=") and name not in ("rho=1", "rho=2", "rho=5")]
    cells = [
        [
            row["run"],
            *(f"{100 * row[level]:.1f}" for level in levels),
            str(row["largest rho"]),
            share(row["trusted only"]),
        ]
        for row in rows
    ]
    return markdown(["run", *levels, "largest rho", "trusted data only"], cells)


def selection_phases() -> str:
    """Two-phase classifiers beside ordinary ones (Figure 6)."""
    head = ["run", "n (untrusted)", "certified accuracy at 0 (%)", "largest rho", "trusted data only (%)"]
    cells = [
        [row[head[0]], f"{row[head[1]]:,}", share(row[head[2]]), str(row[head[3]]), share(row[head[4]])]
        for row in selection("Figure 6 in numbers")
    ]
    return markdown(head, cells)


def selection_times() -> str:
    """What every run took."""
    head = ["run", "models", "steps of each", "inputs", "CPU-seconds", "peak MiB"]
    cells = [[row["run"], *(f"{row[name]:,.0f}" for name in head[1:])] for row in selection("What the runs took")]
    return markdown(head, cells)


def pair_minutes() -> str:
    """MNIST 1/7 at the paper's size: minutes, and what they prove."""
    content = result("mnist_pair_minutes")
    levels = list(content["rows"][0]["certificates"][0]["accuracy"])
    cells = []
    for row in content["rows"]:
        for found in row["certificates"]:
            took = (f"{row['wall_minutes']:.1f}", f"{row['cpu_minutes']:.1f}") if found["kind"] == "data" else ("", "")
            shares = (share(found["accuracy"][level]) for level in levels)
            cells.append([str(row["size"]), found["kind"], *shares, str(found["max_radius"]), *took])
    head = ["n_s", "certificate", *(f"rho={level}" for level in levels), "largest rho"]
    return markdown([*head, f"minutes on {content['threads']} cores", "CPU-minutes"], cells, left=2)
