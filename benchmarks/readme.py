"""Write tables of README and docs from the results in benchmarks/results; `--check` says whether they are current.

Run: python benchmarks/readme.py
"""

from __future__ import annotations

import re
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ensemble_tables import (
    activity_designs,
    activity_settings,
    certificates_at_scale,
    certify_speed,
    ensemble_memory,
    ensemble_published,
    image_settings,
    mnist_designs,
    skewed_training,
    skewed_trial,
)
from romoa_tables import reproduced, step_cost
from rules_tables import (
    coordinate_pairs,
    elsewhere,
    files_memory,
    first_call,
    machines,
    matrix_pairs,
    residual_pairs,
    rules_speed,
)
from selection_tables import (
    pair_minutes,
    selection_accuracy,
    selection_phases,
    selection_published,
    selection_times,
)
from tables import markdown, result

ROOT = Path(__file__).resolve().parents[1]
PEERS = {
    "plain": "plain PyTorch loop",
    "flower": "Flower simulation",
    "pfl": "pfl-research",
    "torch": "holdfast, torch",
}


def training_speed() -> str:
    """Samples per CPU-second of the same FedAvg rounds."""
    return _training("training_rounds")


def training_elsewhere() -> str:
    """The same on another processor."""
    return _training("training_rounds_xeon")


def _training(name: str) -> str:
    networks = result(name)["networks"]
    cells = []
    for network, content in networks.items():
        rows = {row["contender"]: row for row in content["rows"]}
        faster = {name: found["median"] for name, found in content["faster_by"].items()}  # within turns, not of medians
        for contender, words in (*PEERS.items(), ("compiled", "**holdfast, compiled**")):
            row = rows.get(contender)
            if row is None or not row["cpu_rate"]:
                continue
            rate = statistics.median(row["cpu_rate"])
            peak = f"{statistics.median(row['peak']):.0%}" if row["peak"] else "–"
            title = {"cnn": "the paper's CNN", "har": "the HAR network"}[network]
            cells.append([title, words, f"{rate:,.0f}", f"{faster.get(contender, 1):.1f}x", peak])
    head = ["network", "engine", "samples per CPU-second", "holdfast is faster by", "of the core's fp32 peak"]
    return markdown(head, cells, left=2)


def sweep_table(name: str, success: Sequence[str] = ()) -> str:
    """Accuracy by attack and rule in percent, and below it the attack success of some of the attacks."""
    accuracy, successes = result(name)["tables"][:2]
    goals = {f"{row['attack']}: *attack success*": row for row in successes["rows"] if row["attack"] in success}
    columns = list(accuracy["rows"][0])
    cells = [
        [re.sub(r", m=\d+", "", attack), *(interval(row[rule]) for rule in columns[1:])]
        for attack, row in [*((row["attack"], row) for row in accuracy["rows"]), *goals.items()]
    ]
    return markdown(columns, cells)


def interval(found: Any) -> str:
    """A mean in percent, and half of its interval."""
    if found is None:
        return "–"
    half = "" if found["high"] is None else f" ± {100 * (found['high'] - found['mean']):.1f}"
    return f"{100 * found['mean']:.1f}{half}"


def reweighting_claims() -> str:
    """What the residual-reweighting paper concludes, and whether we find it too."""
    rows = result("reproduce_reweighting_cpu")["tables"][0]["rows"]
    return markdown(list(rows[0]), [list(row.values()) for row in rows], left=4)


def reweighting_took() -> str:
    """Processor time of the experiments."""
    rows = result("reproduce_reweighting_cpu")["tables"][-1]["rows"]
    cells = [
        [
            row["where"],
            f"`{row['--only']}`",
            str(row["cells"]),
            "–" if row["CPU-minutes"] is None else f"{row['CPU-minutes']:.1f}",
        ]
        for row in rows
    ]
    return markdown(["where", "`--only`", "cells", "CPU-minutes"], cells, left=2)


def simulation_speed() -> str:
    """Processor time of a round of an attacked federation, beside the peers'."""
    cells = []
    for found in result("simulation_rounds")["results"]:
        turns, faster = found["cpu_seconds_per_round"], found["faster_by"]
        for contender, words in (("plain loop", "plain PyTorch loop"), ("flower", "Flower simulation")):
            took = f"{1000 * statistics.median(turns[contender]):,.0f}" if turns[contender] else "not run"
            ratio = f"{faster[contender][0]:.0f}x" if contender in faster else "–"
            cells.append([str(found["clients"]), words, took, ratio])
        ours = f"{1000 * statistics.median(turns['holdfast']):,.1f}"
        cells.append([str(found["clients"]), "**holdfast**", ours, ""])
    return markdown(["clients", "engine", "CPU-milliseconds per round", "holdfast is faster by"], cells, left=2)


def rule_shares() -> str:
    """The rule's share of a round."""
    results = result("simulation_rounds")["results"]
    rules = list(results[0]["rule_share"])
    cells = [[rule.replace("-", " "), *(f"{found['rule_share'][rule]:.1%}" for found in results)] for rule in rules]
    return markdown(["rule", *(f"{found['clients']} clients" for found in results)], cells)


def flower_cost() -> str:
    """What a strategy costs per round on Flower, ours and Flower's."""
    content, real = result("flower_strategy"), result("flower_round")
    seconds = {row["strategy"]: row["seconds"] for row in content["rows"]}
    median = seconds["Flower FedMedian"]
    cells = [
        [
            name if name.startswith("Flower") else f"**{name}**",
            "yes" if row["coordinate_wise"] else "",
            f"{1000 * row['seconds']:.0f}",
            f"{row['seconds'] / median:.2f}",
            f"{row['seconds'] / real['round']:.1%}",
        ]
        for row in content["rows"]
        for name in [row["strategy"]]
    ]
    share = f"of a real round of {real['round']:.0f} s"
    return markdown(["strategy or rule", "coordinate-wise", "ms per round", "of FedMedian", share], cells, left=2)


def flower_romoa() -> str:
    """Romoa's two ways over Flower."""
    content = result("flower_strategy")
    cells = [
        [
            row["way"],
            str(row["messages"]),
            f"{row['up'] / 1e6:.0f} MB",
            f"{row['down'] / 1e6:.0f} MB",
            f"{row['seconds']:.2f} s",
            f"{row['peak'] / 1e6:.0f} MB",
        ]
        for row in content["romoa"]
    ]
    head = ["way", "messages per node", "up per node", "down per node", "strategy", "peak memory, replies included"]
    return markdown(head, cells)


def cluster_overhead() -> str:
    """What training elsewhere costs beside training in one process."""
    cells = [
        [
            row["place"],
            f"{row['cpu']:.1f}",
            f"{row['once']:.1f}",
            f"{1000 * row['cpu_per_model']:.0f}",
            f"{1000 * row['overhead_per_model']:.0f}",
        ]
        for row in result("cluster_overhead")["rows"]
    ]
    columns = ["place", "CPU seconds", "paid once", "CPU ms per model", "of it overhead"]
    return markdown(columns, cells)


TABLES: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {
        "mnist-designs": mnist_designs,
        "ensemble-published": ensemble_published,
        "training-speed": training_speed,
        "rules-speed": rules_speed,
    },
    "docs/speed.md": {
        "machines": machines,
        "coordinate-pairs": coordinate_pairs,
        "elsewhere": elsewhere,
        "residual-pairs": residual_pairs,
        "matrix-pairs": matrix_pairs,
        "files-memory": files_memory,
        "first-call": first_call,
    },
    "docs/flower.md": {"flower-cost": flower_cost, "flower-romoa": flower_romoa},
    "docs/cluster.md": {"cluster-overhead": cluster_overhead},
    "docs/training.md": {"ensemble-memory": ensemble_memory, "training-elsewhere": training_elsewhere},
    "docs/certificates.md": {
        "certify-speed": certify_speed,
        "certificates-at-scale": certificates_at_scale,
        "activity-designs": activity_designs,
        "skewed-training": skewed_training,
        "skewed-trial": skewed_trial,
        "image-settings": image_settings,
        "activity-settings": activity_settings,
    },
    "docs/reweighting.md": {
        "reweighting-claims": reweighting_claims,
        "reweighting-took": reweighting_took,
    },
    "docs/certify-data.md": {
        "selection-published": selection_published,
        "selection-accuracy": selection_accuracy,
        "selection-phases": selection_phases,
        "selection-times": selection_times,
        "pair-minutes": pair_minutes,
    },
    "docs/romoa.md": {
        "romoa-targets": lambda: reproduced("Targets"),
        "romoa-presets": lambda: reproduced("Presets"),
        "romoa-memory": lambda: reproduced("Honest until"),
        "romoa-length": lambda: reproduced("Far too long"),
        "romoa-adaptive": lambda: reproduced("An opponent"),
        "romoa-table-1": lambda: reproduced("Table 1:"),
        "romoa-table-2": lambda: reproduced("Table 2:"),
        "romoa-sentences": lambda: reproduced("The paper's sentences"),
        "romoa-step": step_cost,
    },
    "docs/simulate.md": {
        "digits-attacks": lambda: sweep_table("sweep_digits_attacks", success=("backdoor, m=6",)),
        "adaptive-attacks": lambda: sweep_table("sweep_adaptive_attacks"),
        "simulation-speed": simulation_speed,
        "rule-shares": rule_shares,
    },
}
"""Per page, its tables by the name in their marks."""


def filled(page: str, text: str) -> str:
    """The page with every table made anew."""
    for name, make in TABLES[page].items():
        pattern = rf"(<!-- begin table: {name} -->\n).*?(<!-- end table: {name} -->)"
        table = make()
        text, count = re.subn(pattern, lambda m, table=table: f"{m[1]}{table}\n{m[2]}", text, flags=re.DOTALL)
        if count != 1:
            raise SystemExit(f"{page} must hold the table {name!r} exactly once, found {count}")
    return text


def main() -> None:
    """Write or check."""
    for page in TABLES:
        path = ROOT / page
        text = path.read_text()
        made = filled(page, text)
        if "--check" not in sys.argv:
            path.write_text(made)
        elif made != text:
            raise SystemExit(f"{page}: tables differ from benchmarks/results; run: python benchmarks/readme.py")


if __name__ == "__main__":
    main()
