"""`holdfast reproduce romoa`: the tables and figures of the Romoa paper beside its numbers, and our own measurements.

Every experiment is an ordinary sweep under `OUT/runs`; all keep their cells in `OUT/cells`, so that what two of them
need is run once, and an interrupted reproduction goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from holdfast.experiments.attacked import SimulateConfig
from holdfast.experiments.claims_romoa import claims_table
from holdfast.experiments.events import Events, Silent
from holdfast.experiments.paper_romoa import BASELINE, NAMES, on, scale
from holdfast.experiments.reproduction import Plot, Reproduction
from holdfast.experiments.simulate import simulate_run
from holdfast.experiments.sweep import sweep
from holdfast.experiments.sweep_result import SweepResult
from holdfast.experiments.tables_romoa import rules_table, table_1, table_2
from holdfast.experiments.targets_romoa import targets_table
from holdfast.experiments.verdict_report import figure_4
from holdfast.report import LinePlot, Series
from holdfast.types import ConfigError

FIGURE_4 = "figure-4"
_DATA = (("MNIST", "mnist-10"), ("CIFAR-10", "cifar-10-10"))


def reproduce_romoa(
    out: Path,
    *,
    scale_name: str = "smoke",
    data_dir: str | None = None,
    cifar_dir: str | None = None,
    seed: int = 0,
    only: Sequence[str] = (),
    engine: str = "auto",
    device: str = "cpu",
    threads: int | None = None,
    events: Events | None = None,
) -> Reproduction:
    """Run what the tables and figures need (or take it from `out`), draw, compare, and judge every claim.

    Args:
        out: folder for sweeps, figures and tables; what is already there is continued.
        scale_name: "smoke", "cpu" or "paper".
        data_dir: folder with the official files of MNIST.
        cifar_dir: folder with those of CIFAR-10.
        seed: where the seeds of the repetitions start.
        only: names of experiments to run now; what needs others is left out.
        engine: "auto", "compiled" or "torch".
        device: where torch computes.
        threads: threads to train with.
        events: hears what happens.

    Raises:
        ConfigError: no such scale or experiment.
    """
    chosen, events = scale(scale_name, data_dir=data_dir, cifar_dir=cifar_dir), events or Silent()
    known = (*chosen.arms, FIGURE_4)
    unknown = [name for name in only if name not in known]
    if unknown:
        raise ConfigError(f"only names {unknown[0]!r}, which is not one of {', '.join(known)}")
    sweeps: dict[str, SweepResult] = {}
    for name in [name for name in only or chosen.arms if name != FIGURE_4]:
        experiment = replace(chosen.arms[name], seeds=tuple(seed + number for number in chosen.arms[name].seeds))
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
    at_scale = chosen.name != "smoke"
    tables = [
        table_1(sweeps, at_scale=at_scale),
        table_2(sweeps, at_scale=at_scale),
        claims_table(sweeps, at_scale=at_scale),
        targets_table(sweeps, at_scale=at_scale),
        *(rules_table(found.experiment.title, found) for found in sweeps.values()),
    ]
    plots: list[tuple[str, Plot]] = list(_figures(sweeps))
    if not only or FIGURE_4 in only:
        fourth = replace(chosen.figure_4, seed=seed)
        plots += _fourth(fourth, Path(out) / "runs" / FIGURE_4, engine, device, threads, events)
    return Reproduction.write(Path(out), f"romoa-{scale_name}", tables, plots)


def _fourth(
    config: SimulateConfig, folder: Path, engine: str, device: str, threads: int | None, events: Events
) -> Iterator[tuple[str, Plot]]:
    """Figure 4 from one run with its verdicts."""
    events.note(f"Figure 4: {folder}")
    found = simulate_run(
        config, folder, resume=True, engine=engine, device=device, threads=threads, events=events
    ).simulation
    plot = figure_4(found.records, found.malicious)
    if plot is not None:
        yield FIGURE_4, plot


def _figures(sweeps: dict[str, SweepResult]) -> Iterator[tuple[str, Plot]]:
    """Figures 1, 2 and 5 to 8, one per data set, as far as their sweeps were run; one adversary of ten."""
    for data, arm in _DATA:
        found = sweeps.get(arm)
        if found is None:
            continue
        suffix = data.lower()
        rows = (("none", 0), ("UPA", 1), ("TPA", 1))
        lines = [_curve(found, BASELINE, row, "accuracy", "no attack" if not row[1] else row[0]) for row in rows]
        title = f"{on(found.experiment.federation, data)}, one adversary of ten"
        yield f"figure-1-{suffix}", _plot(f"Figure 1: {title}", "test accuracy (%)", lines)
        confidences = [
            _curve(found, BASELINE, ("TPA", 1), f"{side}_confidence", words)
            for side, words in (("target", "poisoned label"), ("true", "true label"))
        ]
        yield f"figure-2-{suffix}", _plot(f"Figure 2: TPA, {title}", "confidence (%)", confidences)
        errors = [_error(_curve(found, rule, ("UPA", 1), "accuracy", rule)) for rule in NAMES]
        yield f"figure-5-{suffix}", _plot(f"Figure 5: UPA, {title}", "error rate (%)", errors)
        for number, attack in ((7, "UPA"), (8, "TPA")):
            for half, measure in (("training", "training_accuracy"), ("test", "accuracy")):
                lines = [_curve(found, rule, (attack, 1), measure, rule) for rule in NAMES]
                label = f"{half} accuracy (%)"
                yield f"figure-{number}-{suffix}-{half}", _plot(f"Figure {number}: {attack}, {title}", label, lines)
        if data == "MNIST":
            for side, words in (("true", "true"), ("target", "poisoned")):
                lines = [_curve(found, rule, ("TPA", 1), f"{side}_confidence", rule) for rule in NAMES]
                label = f"confidence in the {words} label (%)"
                yield f"figure-6-{words}", _plot(f"Figure 6: TPA, {title}", label, lines)


def _curve(found: SweepResult, rule: str, row: tuple[str, int], measure: str, name: str) -> Series:
    return replace(found.curve(rule, row, measure), name=name)


def _error(series: Series) -> Series:
    """One minus accuracy, with its band."""
    low, high = series.low, series.high
    return replace(
        series,
        y=1.0 - series.y,
        low=None if high is None else 1.0 - high,
        high=None if low is None else 1.0 - low,
    )


def _plot(title: str, label: str, lines: list[Series]) -> LinePlot:
    return LinePlot(title, "syncing points", label, tuple(lines))
