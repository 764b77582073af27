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

from romoa_tables import reproduced, step_cost
from rules_tables import coordinate_pairs, files_memory, first_call, matrix_pairs, residual_pairs, rules_speed
from tables import markdown, result

ROOT = Path(__file__).resolve().parents[1]
PEERS = {
    "plain": "plain PyTorch loop",
    "flower": "Flower simulation",
    "pfl": "pfl-research",
    "torch": "holdfast, torch",
}


def mnist_designs() -> str:
    """Certified accuracy of every design and kind."""
    return _designs(result("reproduce_ensemble_cpu")["tables"][1]["rows"])


def activity_designs() -> str:
    """Certified accuracy on the data of 23 phone users."""
    return _designs(result("reproduce_ensemble_activity")["tables"][1]["rows"])


def _designs(rows: Sequence[dict[str, Any]]) -> str:
    levels = [name for name in rows[0] if name.startswith("m=")]
    words = ("certificate", "design", "client trainings", "alpha")
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
    """The paper's numbers beside ours."""
    rows = result("reproduce_ensemble_cpu")["tables"][0]["rows"]
    notes = result("reproduce_ensemble_cpu")["tables"][0]["notes"]
    texts = [re.sub(r"^\[\d+\] ", "", note) for note in notes]
    cells = []
    for row, note in zip(rows, texts, strict=False):
        percent = "certified accuracy at" in row["claim"]
        ours = "–" if row["ours"] is None else f"{row['ours']:.1f}%" if percent else f"{row['ours']:g}"
        published = f"{row['published']:g}%" if percent else f"{row['published']:g}"
        cells.append([row["claim"], note, published, ours, row["verdict"]])
    return markdown(["claim", "how", "published", "ours", "verdict"], cells, left=2)


def training_speed() -> str:
    """Samples per CPU-second of the same FedAvg rounds."""
    networks = result("training_rounds")["networks"]
    cells = []
    for network, content in networks.items():
        rows = {row["contender"]: row for row in content["rows"]}
        ours = statistics.median(rows["compiled"]["cpu_rate"])
        for contender, words in (*PEERS.items(), ("compiled", "**holdfast, compiled**")):
            row = rows.get(contender)
            if row is None or not row["cpu_rate"]:
                continue
            rate = statistics.median(row["cpu_rate"])
            peak = f"{statistics.median(row['peak']):.0%}" if row["peak"] else "–"
            name = {"cnn": "the paper's CNN", "har": "the HAR network"}[network]
            cells.append([name, words, f"{rate:,.0f}", f"{ours / rate:.1f}x", peak])
    head = ["network", "engine", "samples per CPU-second", "holdfast is faster by", "of the core's fp32 peak"]
    return markdown(head, cells, left=2)


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


def share(value: float | None) -> str:
    """In percent."""
    return "–" if value is None else f"{100 * value:.1f}"


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


TABLES: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {
        "mnist-designs": mnist_designs,
        "ensemble-published": ensemble_published,
        "training-speed": training_speed,
        "rules-speed": rules_speed,
    },
    "docs/speed.md": {
        "coordinate-pairs": coordinate_pairs,
        "residual-pairs": residual_pairs,
        "matrix-pairs": matrix_pairs,
        "files-memory": files_memory,
        "first-call": first_call,
    },
    "docs/flower.md": {"flower-cost": flower_cost, "flower-romoa": flower_romoa},
    "docs/cluster.md": {"cluster-overhead": cluster_overhead},
    "docs/certificates.md": {
        "certify-speed": certify_speed,
        "certificates-at-scale": certificates_at_scale,
        "activity-designs": activity_designs,
        "skewed-training": skewed_training,
        "skewed-trial": skewed_trial,
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
