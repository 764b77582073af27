"""`holdfast simulate`: one attacked federation as a run: settings, live progress, curves, figures, a page, JSON."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from holdfast.experiments import run as runs
from holdfast.experiments.attacked import SimulateConfig, label_of
from holdfast.experiments.events import Events
from holdfast.experiments.run import Run, versions, write_json
from holdfast.experiments.simulation import Simulation, simulate
from holdfast.experiments.threat import check_attack
from holdfast.experiments.verdict_report import factor_map, figure_4, suppressed_table
from holdfast.report import LinePlot, Series, Table, show
from holdfast.report.curve import curve_text
from holdfast.report.document import Document, Part, write_document
from holdfast.report.figures import heat_figure, line_figure, save_figure
from holdfast.report.ridges import HONEST, MALICIOUS, ridge_figure

JOB = "simulate"


@dataclass(frozen=True)
class SimulateResult:
    """A finished simulation and where it lies."""

    simulation: Simulation
    out: Path | None

    def to_json(self) -> dict[str, Any]:
        """Everything measured, with the settings."""
        found = self.simulation
        return {
            "out": None if self.out is None else str(self.out),
            "config": asdict(found.config),
            "malicious": list(found.malicious),
            "goal": found.goal,
            "engine": found.engine,
            "parameters": len(found.model),
            "seconds": {name: round(value, 3) for name, value in found.seconds.items()},
            "last": found.last.to_json(),
            "rounds": [record.to_json() for record in found.records],
        }

    def print(self, console: Console) -> None:
        """The curves, the numbers, and where the files are."""
        records = self.simulation.records
        console.print(curve_text("accuracy over the rounds", [r.accuracy for r in records]), highlight=False)
        if records[-1].success is not None:
            success = curve_text("attack success over the rounds", [r.success or 0.0 for r in records], height=4)
            console.print(success, highlight=False)
        show(*result_tables(self.simulation), console=console)
        if self.out is not None:
            console.print(f"report: {self.out / 'report.html'}", markup=False, highlight=False)


def simulate_run(
    config: SimulateConfig,
    out: Path | None,
    *,
    resume: bool = False,
    given: Mapping[str, Any] | None = None,
    engine: str = "auto",
    device: str = "cpu",
    threads: int | None = None,
    events: Events | None = None,
) -> SimulateResult:
    """Run, or continue, one simulation; the folder `out`, if there is one, holds settings, rounds, figures and a page.

    Args:
        config: the federation, the attack and the rule.
        out: the run's folder; one that holds a run already is never overwritten. None writes nothing.
        resume: continue the run in `out` with its own configuration, or start it if there is none.
        given: with `resume`, the options to compare with the run's own; others are taken from the run.
        engine: "auto", "compiled" or "torch".
        device: where torch computes.
        threads: threads to train with.
        events: hears what happens.

    Raises:
        ConfigError: options that do not fit together or with the run in `out`.
        DataError: data that cannot be used.
        ThreatModelError: the rule's theory does not cover this federation.
        ArtifactError: files of the run that are damaged or foreign.
    """
    check_attack(config.attack)
    run: Run | None = None
    if out is not None and resume and Run(Path(out)).manifest_path.exists():
        run = runs.resume(Path(out), JOB, given or {})
        config = SimulateConfig(**run.manifest()["config"])
    begin: list[Run] = [] if run is None else [run]
    checkpoint = None if out is None else Path(out) / "checkpoint.safetensors"
    if run is None and out is not None:
        refuse_early(config)
        begin.append(runs.start(Path(out), JOB, asdict(config), None, command=shlex.join(["holdfast", *sys.argv[1:]])))
    found = simulate(config, checkpoint=checkpoint, engine=engine, device=device, threads=threads, events=events)
    result = SimulateResult(found, None if out is None else Path(out))
    if begin:
        _write(begin[0], result)
    return result


def refuse_early(config: SimulateConfig) -> None:
    """Find what is wrong with a configuration before a folder is made for it."""
    from holdfast.experiments.attacked import load_attacked
    from holdfast.experiments.threat import flipped_labels, make_threat

    make_threat(config.attack, load_attacked(config, flipped=flipped_labels(config.attack)).dataset, seed=0)


def _write(run: Run, result: SimulateResult) -> None:
    write_json(run.path / "result.json", result.to_json())
    plots = curves(result.simulation)
    for name, plot in plots.items():
        save_figure(line_figure(plot), run.path / "figures" / name, overwrite=True)
    found = result.simulation
    ridges, heat = figure_4(found.records, found.malicious), factor_map(found.records, found.malicious)
    if ridges is not None and heat is not None:
        save_figure(ridge_figure(ridges), run.path / "figures" / "distributions", overwrite=True)
        save_figure(heat_figure(heat), run.path / "figures" / "factors", overwrite=True)
    parts: list[Part | None] = [*plots.values(), ridges, heat, *result_tables(found)]
    page = document(found, tuple(part for part in parts if part is not None))
    write_document(page, run.path / "report.html", overwrite=True)
    run.update(finished=True, engine=result.simulation.engine)


def document(found: Simulation, parts: tuple[Part, ...]) -> Document:
    """The page of one simulation."""
    config = found.config
    return Document(
        title=f"{label_of(config.rule)} against {label_of(config.attack)}",
        kind="simulation",
        facts=(config.data, f"{len(found.malicious)} malicious clients", f"{config.rounds} rounds"),
        answer=headline(found),
        parts=parts,
        entries={"Settings": asdict(config), "Versions": versions()},
    )


def headline(found: Simulation) -> str:
    """The result in one sentence."""
    last = found.last
    text = f"After {last.round} rounds the model is right on {100 * last.accuracy:.1f}% of the test inputs"
    return text + "." if last.success is None else f"{text}, and the attack succeeds on {100 * last.success:.1f}%."


def curves(found: Simulation) -> dict[str, LinePlot]:
    """Accuracy and attack success, and the influence of both sides, against the round."""
    records = found.records
    rounds = [record.round for record in records]

    def series(name: str, values: list[float | None], **style: Any) -> Series:
        return Series.of(name, rounds, [np.nan if value is None else value for value in values], **style)

    lines = [series("accuracy", [r.accuracy for r in records])]
    if records[-1].training_accuracy is not None:
        lines.append(series("training accuracy", [r.training_accuracy for r in records]))
    if records[-1].success is not None:
        lines.append(series("attack success", [r.success for r in records]))
    if records[-1].target_confidence is not None:
        lines.append(series("confidence in the wanted label", [r.target_confidence for r in records], dash=1))
        lines.append(series("confidence in the true label", [r.true_confidence for r in records], dash=1))
    share = "share of inputs (%)" if found.config.training_accuracy else "share of test inputs (%)"
    plots = {"accuracy": LinePlot("Accuracy and attack", "round", share, tuple(lines))}
    if found.malicious and any(r.malicious_influence is not None for r in records):
        n = [r.malicious_in_round for r in records]
        sides = (
            series("malicious clients", [r.malicious_influence for r in records], color=MALICIOUS),
            series("honest clients", [r.honest_influence for r in records], color=HONEST),
        )
        title = f"Influence the rule gave ({max(n)} malicious in a round)"
        plots["influence"] = LinePlot(title, "round", "share of the update (%)", sides)
    return plots


def result_tables(found: Simulation) -> tuple[Table, ...]:
    """The last round in numbers, and accuracy by label."""
    last = found.last
    rows: list[tuple[str, float | None]] = [
        ("accuracy", last.accuracy),
        ("training accuracy", last.training_accuracy),
        ("attack success", last.success),
        ("targets misclassified", last.target_error),
        ("confidence in the wanted label", last.target_confidence),
        ("confidence in the true label", last.true_confidence),
        ("influence of malicious clients", last.malicious_influence),
        ("influence of honest clients", last.honest_influence),
    ]
    known = [(name, value) for name, value in rows if value is not None]
    notes = [] if found.goal is None else [f"Attack success: {found.goal}."]
    if last.replaced_malicious or last.replaced_honest:
        bad, good = last.replaced_malicious, last.replaced_honest
        notes.append(f"Rows replaced as unusable in the last round: {bad} malicious, {good} honest.")
    shown = tuple((name, f"{100 * value:.1f}") for name, value in known)
    labels = tuple((str(label), _percent(share)) for label, share in enumerate(last.by_label))
    syncing = found.config.syncing
    muted = suppressed_table(found.records, found.malicious, 1 if syncing is None else syncing.tau)
    return (
        Table(f"After {last.round} rounds", ("measure", "%"), shown, tuple(known), tuple(notes)),
        *(() if muted is None else (muted,)),
        Table("Accuracy by label", ("label", "%"), labels, tuple(enumerate(last.by_label))),
    )


def _percent(share: float) -> str:
    return "–" if np.isnan(share) else f"{100 * share:.1f}"
