"""`holdfast reproduce reweighting`: the tables and figures of the residual-reweighting paper beside its numbers.

Every experiment is an ordinary sweep under `OUT/runs`; all keep their cells in `OUT/cells`, so that what two of them
need is run once, and an interrupted reproduction goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from holdfast.certification import clopper_pearson_lower, clopper_pearson_upper
from holdfast.experiments.attacked import load_data
from holdfast.experiments.claims_reweighting import CLAIMS
from holdfast.experiments.events import Events, Silent
from holdfast.experiments.numbers_reweighting import Row, published_numbers
from holdfast.experiments.paper_reweighting import NAMES, Scale, scale
from holdfast.experiments.reproduction import Reproduction
from holdfast.experiments.sweep import sweep
from holdfast.experiments.sweep_result import SweepResult
from holdfast.report import Comparison, LinePlot, Series, Table, comparison_table
from holdfast.types import ConfigError

PRECISION = 0.005


def reproduce_reweighting(
    out: Path,
    *,
    scale_name: str = "smoke",
    data_dir: str | None = None,
    reviews: str = "reviews",
    loan: str = "loan",
    seed: int = 0,
    only: Sequence[str] = (),
    engine: str = "auto",
    device: str = "cpu",
    threads: int | None = None,
    events: Events | None = None,
) -> Reproduction:
    """Run what the tables and figures need (or take it from `out`), draw, compare, and judge every claim.

    Args:
        out: folder for sweeps, figures and tables; sweeps already there are continued.
        scale_name: "smoke", "cpu" or "paper".
        data_dir: folder with the official files.
        reviews: "reviews", or a file of reviews.
        loan: "loan", or a file of loans.
        seed: where the seeds of the repetitions start.
        only: names of experiments to run now; what needs others is left out.
        engine: "auto", "compiled" or "torch".
        device: where torch computes.
        threads: threads to train with.
        events: hears what happens.

    Raises:
        ConfigError: no such scale or experiment.
    """
    chosen, events = scale(scale_name, data_dir=data_dir, reviews=reviews, loan=loan), events or Silent()
    unknown = [name for name in only if name not in chosen.arms]
    if unknown:
        raise ConfigError(f"only names {unknown[0]!r}, which is not one of {', '.join(chosen.arms)}")
    sweeps: dict[str, SweepResult] = {}
    for name in only or chosen.arms:
        experiment = chosen.arms[name]
        experiment = replace(experiment, seeds=tuple(seed + number for number in experiment.seeds))
        events.note(f"{experiment.title}: {Path(out) / 'runs' / name}")
        sweeps[name] = sweep(
            experiment,
            Path(out) / "runs" / name,
            cells_in=Path(out) / "cells",
            engine=engine,
            device=device,
            threads=threads,
            events=events,
        )
    tables = [
        claims_table(chosen, sweeps),
        _numbers(_comparisons(chosen, sweeps), _shorter(chosen, sweeps)),
        *(table for found in sweeps.values() for table in found.tables()[:2]),
        _took(sweeps),
    ]
    return Reproduction.write(Path(out), f"reweighting-{scale_name}", tables, _figures(sweeps).items())


def claims_table(chosen: Scale, sweeps: dict[str, SweepResult]) -> Table:
    """A verdict per claim of the paper, with the numbers it rests on."""
    rows = []
    for claim in CLAIMS:
        verdict, evidence = claim.verdict(sweeps, at_scale=chosen.name != "smoke")
        rows.append((claim.where, claim.text, verdict, evidence))
    notes = []
    if chosen.name == "cpu":
        notes = ["MNIST has the paper's sizes; reviews and loans are those of the files given; parts of the grids run."]
    return Table(
        "The paper's claims", ("where", "claim", "verdict", "evidence"), tuple(rows), notes=tuple(notes), left=4
    )


def _numbers(comparisons: list[Comparison], notes: tuple[str, ...]) -> Table:
    """The published numbers that were measured at this scale; how many others there are."""
    measured = [comparison for comparison in comparisons if comparison.ours is not None]
    missing = f"{len(comparisons) - len(measured)} of {len(comparisons)} published numbers are not run at this scale."
    counted = "Attack success counts test images that are of the target class already, as the paper does."
    return comparison_table(
        "Published numbers beside ours", measured, (missing, counted, *notes) if measured else (missing,)
    )


def _took(sweeps: dict[str, SweepResult]) -> Table:
    """Processor time of every experiment; shared cells count in each."""
    rows, values = [], []
    for name, found in sweeps.items():
        minutes = None if found.cpu_seconds is None else found.cpu_seconds / 60
        rows.append(
            (found.experiment.title, name, str(len(found.records)), "–" if minutes is None else f"{minutes:.1f}")
        )
        values.append((found.experiment.title, name, len(found.records), minutes))
    notes = ("Cells that several experiments share count in each; – where a run was interrupted.",)
    return Table(
        "What the experiments took",
        ("where", "--only", "cells", "CPU-minutes"),
        tuple(rows),
        tuple(values),
        notes,
        left=2,
    )


def _shorter(chosen: Scale, sweeps: dict[str, SweepResult]) -> tuple[str, ...]:
    """A sentence per number of rounds that is not the paper's, and the tables and figures it is about."""
    whole = scale("paper").arms
    fewer: dict[tuple[int, int], list[str]] = {}
    for name, found in sweeps.items():
        ours, papers = found.experiment.federation.rounds, whole[name].federation.rounds if name in whole else 0
        if name in chosen.comparable and ours < papers:
            fewer.setdefault((ours, papers), []).append(found.experiment.title)
    return tuple(f"{ours} of {papers} rounds: {'; '.join(titles)}." for (ours, papers), titles in fewer.items())


def _comparisons(chosen: Scale, sweeps: dict[str, SweepResult]) -> list[Comparison]:
    """Every number of Tables 1-4, 6, 7 and 8 and of the text on loans."""
    made = []
    for claim, arm, rule, row, measure, published in published_numbers():
        found = sweeps.get(arm) if arm in chosen.comparable else None
        known = found is not None and rule in found.experiment.rule_labels and row in found.experiment.rows()
        made.append(_compare(claim, found if known else None, rule, row, measure, published))
    return made


def _compare(claim: str, found: SweepResult | None, rule: str, row: Row, measure: str, published: float) -> Comparison:
    """One published number beside ours; a single seed gets the 95% interval over test inputs."""
    interval = None if found is None else found.interval(rule, row, measure)
    if found is None or interval is None:
        return Comparison(claim, published, None, unit="%", precision=PRECISION)
    federation = found.experiment.federation
    y_test = load_data(federation.data, federation.data_dir).y_test
    total = len(y_test)
    mean, low, high = interval.mean, interval.low, interval.high
    if low is None or high is None:
        count = round(mean * total)
        low = float(clopper_pearson_lower(count, total, 0.025)) if count else 0.0
        high = float(clopper_pearson_upper(count, total, 0.025)) if count < total else 1.0
    if measure == "success" and not claim.startswith("Loans"):
        share = float(np.mean(y_test == 2))
        mean, low, high = (share + (1 - share) * value for value in (mean, low, high))
    low, high = max(0.0, min(low, mean)), min(1.0, max(high, mean))
    return Comparison(claim, published, 100 * mean, 100 * low, 100 * high, unit="%", precision=PRECISION)


def _figures(sweeps: dict[str, SweepResult]) -> dict[str, LinePlot]:
    """Figures 3, 4, 5, 7 and 8, as far as their sweeps were run."""
    plots: dict[str, LinePlot] = {}
    if "mnist-label-flip" in sweeps:
        for plot in sweeps["mnist-label-flip"].plots().values():
            plots["figure-3"] = plot
    for name, arm in (("figure-4", "cifar-backdoor"), ("figure-7", "mnist-resnet-backdoor")):
        if arm in sweeps:
            plots[name] = _over_rounds(name, sweeps[arm], ("success",))
    eighth = next((arm for arm in ("cifar-backdoor", "mnist-backdoor") if arm in sweeps), None)
    if eighth:
        plots["figure-8"] = _over_rounds("figure-8", sweeps[eighth], ("accuracy", "success"))
    removed = sorted((int(name.rpartition("-")[2]), found) for name, found in sweeps.items() if "-drop-" in name)
    if len(removed) > 1:
        lines = []
        for rule in NAMES:
            means = [interval.mean for _, found in removed if (interval := found.interval(rule, ("none", 0)))]
            lines.append(Series.of(rule, [count for count, _ in removed], means))
        plots["figure-5"] = LinePlot("Figure 5", "holders of digit 0 removed", "accuracy (%)", tuple(lines))
    return plots


def _over_rounds(name: str, found: SweepResult, measures: tuple[str, ...]) -> LinePlot:
    lines = []
    for number, measure in enumerate(measures):
        for color, rule in enumerate(NAMES):
            curve = found.curve(rule, ("naive", 1), measure)  # drawn without its band: a dozen would hide the curves
            title = rule if len(measures) == 1 else f"{rule}, {measure}"
            lines.append(replace(curve, name=title, color=color, dash=number, low=None, high=None))
    what = "attack success" if measures == ("success",) else "accuracy and attack success"
    title = f"{name.replace('-', ' ').capitalize()}: naive backdoor, {found.experiment.federation.data}"
    return LinePlot(title, "round", f"{what} (%)", tuple(lines))
