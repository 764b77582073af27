"""Tables of the ensemble paper's experiments, of skewed clients, and of what certifying costs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from tables import markdown, result, share


def mnist_designs() -> str:
    """Certified accuracy of every design and kind."""
    return _designs(result("reproduce_ensemble_cpu")["tables"][1]["rows"])


def activity_designs() -> str:
    """Certified accuracy on the data of 23 phone users."""
    return _designs(result("reproduce_ensemble_activity")["tables"][1]["rows"])


def image_settings() -> str:
    """What Figures 3 to 6 vary on MNIST."""
    return _settings("reproduce_ensemble_settings", "images")


def activity_settings() -> str:
    """What Figures 3 to 5 vary on the data of phone users."""
    return _settings("reproduce_ensemble_activity", "activity")


def _settings(name: str, data: str) -> str:
    tables = {table["title"]: table["rows"] for table in result(name)["tables"]}
    rows = next(rows for title, rows in tables.items() if title.startswith(f"Figures 3 to 6, {data}"))
    return _designs(rows, head="line")


def _designs(rows: Sequence[dict[str, Any]], head: str = "certificate") -> str:
    levels = [name for name in rows[0] if name.startswith("m=")]
    words = (head, "design", "client trainings", "alpha")
    cells = [
        [
            row["certificate"],
            row["design"],
            f"{row['client trainings']:,}",
            "none" if row["alpha"] == 0 else f"{row['alpha']:g}",
            *(f"{100 * row[name]:.1f}" for name in levels),
        ]
        for row in rows
    ]
    return markdown([*words, *levels], cells, left=2)


def ensemble_published() -> str:
    """The paper's numbers beside ours; the run of single steps was made by itself."""
    found = [pair for name in ("cpu", "single_steps") for pair in _published(result(f"reproduce_ensemble_{name}"))]
    cells = []
    for row, note in found:
        percent = "certified accuracy at" in row["claim"]
        ours = f"{row['ours']:.1f}%" if percent else f"{row['ours']:g}"
        published = f"{row['published']:g}%" if percent else f"{row['published']:g}"
        cells.append([row["claim"], note, published, ours, row["verdict"]])
    return markdown(["claim", "how", "published", "ours", "verdict"], cells, left=2)


def _published(content: Any) -> Iterator[tuple[dict[str, Any], str]]:
    """Comparisons and how they were made, without what was not measured or follows from formulas in both files."""
    table = content["tables"][0]
    alone = len(content["tables"]) == 1
    for row, note in zip(table["rows"], table["notes"], strict=False):
        how = re.sub(r"^\[\d+\] ", "", note)
        if row["ours"] is not None and not (alone and "from the formulas" in how):
            yield row, how


def certify_speed() -> str:
    """Certifying 10,000 inputs beside the loops of published code."""
    rows = [row for row in result("certify_ten_thousand_inputs")["rows"] if "ratio" in row]
    cells = []
    for row in rows:
        what, _, loop = (part.strip() for part in row["what"].partition("|"))
        times = (f"{row['seconds']:.3f}", f"{row['loop_seconds']:.1f}", f"{row['ratio']:.0f}x")
        cells.append([what, loop or "a matrix product per input and rival", *times])
    return markdown(["certificate", "the plain loop", "ours (s)", "the loop (s)", "faster by"], cells, left=2)


def certificates_at_scale() -> str:
    """Milliseconds of one exact radius of a million items."""
    rows = result("certificates_at_scale")["rows"]
    cells = [
        [row["scheme"], row["poisoning"], f"{row['median_ms']:.2f}", f"{row['worst_ms']:.1f}", f"{row['worst_k']:,}"]
        for row in rows
    ]
    return markdown(["scheme", "poisoning", "median (ms)", "worst (ms)", "at n_s ="], cells, left=2)


def skewed_training() -> str:
    """The same groups of very skewed clients, trained in different ways."""
    cells = [
        [
            row["training"],
            f"{row['rounds']} x {row['local_steps']}",
            f"{row['lr']:g}",
            f"{row['distance']:g}",
            f"{row['cpu_seconds']:.1f}",
            *(share(row[name]) for name in ("single_accuracy", "vote_accuracy")),
            *(share(row["certified"][size]) for size in ("100", "500")),
        ]
        for row in result("skewed_training")["rows"]
    ]
    head = ["training", "rounds x local steps", "lr", "lr x steps", "CPU-s a model", "one model (%)", "vote of 20 (%)"]
    return markdown([*head, "N = 100 (%)", "N = 500 (%)"], cells)


def skewed_trial() -> str:
    """What the estimate behind `skewed_training` is worth."""
    found = result("skewed_training")["trial"]
    parts = [part["certified"] for part in found["parts"]]
    spread = {size: sorted(part[size] for part in parts) for size in ("100", "500")}
    ends = {size: f"{share(values[0])} to {share(values[-1])}" for size, values in spread.items()}
    count, few = found["all"]["models"], found["parts"][0]["models"]
    whole = found["all"]["certified"]
    cells = [
        ["right votes that an image needs", *(f"{found['needed'][size]} of {size}" for size in ("100", "500"))],
        [f"estimated from each {few} models", ends["100"], ends["500"]],
        [f"estimated from all {count} models", share(whole["100"]), share(whole["500"])],
        [f"counted, {count} models", share(found["truth"]), share(None)],
    ]
    return markdown(["fast preset, certified accuracy at m = 10", "N = 100 (%)", "N = 500 (%)"], cells)


def ensemble_memory() -> str:
    """Peak memory of 500 CNNs."""
    cells = [
        [f"{row['models']}", f"{row['threads']}", f"{row['peak_memory_mib'] / 1024:.2f} GiB"]
        for row in result("ensemble_memory")["rows"]
    ]
    return markdown(["models", "threads", "peak memory of the whole command"], cells)
