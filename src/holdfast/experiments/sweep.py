"""`holdfast sweep`: a grid of attacked federations, cell by cell, with means and intervals over seeds.

Every finished cell is a file of its own, named by a hash of everything that decides it, so an interrupted sweep goes
on where it stopped, a grown experiment reuses what it has, and the table does not depend on the order of cells.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from scipy import stats

from holdfast.experiments.attacked import SimulateConfig, load_attacked, load_data
from holdfast.experiments.events import Events, Silent
from holdfast.experiments.experiment import Cell, Experiment
from holdfast.experiments.measures import RoundRecord
from holdfast.experiments.run import FORMAT, Run, fingerprint, versions, write_json
from holdfast.experiments.simulation import simulate
from holdfast.experiments.threat import flipped_labels, make_threat
from holdfast.report import HeatMap, LinePlot, Series, Table, show
from holdfast.report.document import Document, write_document
from holdfast.report.figures import heat_figure, line_figure, save_figure
from holdfast.types import ArtifactError, ConfigError

JOB = "sweep"
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with its 95% interval (Student's t; none for a single seed)."""

    mean: float
    low: float | None
    high: float | None
    seeds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Interval:
        """The mean of some values and the interval around it.

        Example:
            >>> found = Interval.of([0.1, 0.2, 0.3])
            >>> round(found.mean, 3), round(found.low, 3), round(found.high, 3)
            (0.2, -0.048, 0.448)
        """
        mean, k = float(np.mean(values)), len(values)
        if k < 2:
            return cls(mean, None, None, k)
        half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, k - 1) * np.std(values, ddof=1) / np.sqrt(k))
        return cls(mean, mean - half, mean + half, k)

    def text(self) -> str:
        """In percent.

        Example:
            >>> Interval.of([0.9]).text(), Interval.of([0.8, 0.9]).text()
            ('90.0', '85.0 ± 63.5')
        """
        half = "" if self.high is None else f" ± {100 * (self.high - self.mean):.1f}"
        return f"{100 * self.mean:.1f}{half}"


@dataclass(frozen=True, eq=False)
class SweepResult:
    """All cells of an experiment.

    Attributes:
        experiment: the grid.
        records: the evaluated rounds of every cell, by (rule, attack, attackers, seed).
        out: the folder.
        cpu_seconds: processor seconds of all cells, in whichever session; None if not all of them were measured.
    """

    experiment: Experiment
    records: dict[tuple[str, str, int, int], tuple[RoundRecord, ...]]
    out: Path
    cpu_seconds: float | None = None

    def values(self, rule: str, row: tuple[str, int], measure: str = "accuracy") -> list[float]:
        """A measure after the last round, one number per seed that has it."""
        found = [getattr(self.records[rule, *row, seed][-1], measure) for seed in self.experiment.seeds]
        return [float(value) for value in found if value is not None]

    def interval(self, rule: str, row: tuple[str, int], measure: str = "accuracy") -> Interval | None:
        """Mean and interval over the seeds; None where the measure does not exist."""
        values = self.values(rule, row, measure)
        return Interval.of(values) if values else None

    def curve(self, rule: str, row: tuple[str, int], measure: str = "accuracy") -> Series:
        """A measure against the round: mean over the seeds, with the interval as a band."""
        runs = [self.records[rule, *row, seed] for seed in self.experiment.seeds]
        points = [
            Interval.of([np.nan if getattr(r, measure) is None else getattr(r, measure) for r in at])
            for at in zip(*runs, strict=True)
        ]
        low, high = ([np.nan if e is None else min(max(e, 0.0), 1.0) for e in ends] for ends in _ends(points))
        return Series.of(rule, [r.round for r in runs[0]], [p.mean for p in points], low, high)

    def table(self, measure: str = "accuracy") -> Table | None:
        """Rows: attacks and numbers of attackers; columns: rules; cells: mean and interval over seeds."""
        experiment, rows, values = self.experiment, [], []
        for row in experiment.rows():
            found = [self.interval(rule, row, measure) for rule in experiment.rule_labels]
            if any(interval is not None for interval in found) and (row[1] or measure == "accuracy"):
                head = _row_name(row)
                rows.append((head, *("–" if interval is None else interval.text() for interval in found)))
                values.append((head, *(None if interval is None else asdict(interval) for interval in found)))
        if not rows:
            return None
        k = len(experiment.seeds)
        seeds = (
            f"Mean of {k} seeds, ± half of the 95% interval (Student's t)." if k > 1 else "One seed, so no interval."
        )
        return Table(
            f"{experiment.title}: {_NAMES[measure]} (%)",
            ("attack", *experiment.rule_labels),
            tuple(rows),
            tuple(values),
            (seeds,),
        )

    def heat(self, measure: str = "accuracy") -> HeatMap:
        """Mean values as a heat map."""
        experiment = self.experiment
        values: NDArray[np.float64] = np.array(
            [
                [
                    np.nan if (i := self.interval(rule, row, measure)) is None else i.mean
                    for rule in experiment.rule_labels
                ]
                for row in experiment.rows()
            ]
        )
        names = tuple(_row_name(row) for row in experiment.rows())
        return HeatMap(
            f"{experiment.title}: {_NAMES[measure]}", "attack", "rule", names, experiment.rule_labels, values
        )

    def tables(self) -> tuple[Table, ...]:
        """Accuracy, attack success and influence, as far as they were measured."""
        found = [self.table(measure) for measure in _NAMES]
        return tuple(table for table in found if table is not None)

    def plots(self) -> dict[str, LinePlot]:
        """A plot per attack, a curve per rule: accuracy against the number of attackers, or the round if those are few.

        No plot where neither has three points: the table says it all.
        """
        experiment = self.experiment
        plots = {}
        for attack in dict.fromkeys(attack for attack, attackers in experiment.rows() if attackers):
            counts = [m for m in sorted(experiment.attackers) if (attack, m) in experiment.rows() or m == 0]
            rounds = self.records[experiment.rule_labels[0], attack, counts[-1], experiment.seeds[0]]
            if len(counts) > 2:
                plots[attack] = self._by_attackers(attack, counts)
            elif len(rounds) > 2:
                lines = tuple(self.curve(rule, (attack, counts[-1])) for rule in experiment.rule_labels)
                title = f"{experiment.title}: {_row_name((attack, counts[-1]))}"
                plots[attack] = LinePlot(title, "round", "accuracy (%)", lines)
        return plots

    def _by_attackers(self, attack: str, counts: Sequence[int]) -> LinePlot:
        lines = []
        for rule in self.experiment.rule_labels:
            points = [self.interval(rule, (attack, m) if m else ("none", 0)) for m in counts]
            known = [point for point in points if point is not None]
            low, high = ([np.nan if e is None else min(max(e, 0.0), 1.0) for e in ends] for ends in _ends(known))
            lines.append(Series.of(rule, counts, [point.mean for point in known], low, high))
        return LinePlot(f"{self.experiment.title}: {attack}", "malicious clients", "accuracy (%)", tuple(lines))

    def to_json(self) -> dict[str, Any]:
        """The tables with exact values, what they follow from, and where the files are."""
        return {
            "title": self.experiment.title,
            "out": str(self.out),
            "experiment": asdict(self.experiment),
            "versions": versions(),
            "cpu_seconds": self.cpu_seconds,
            "tables": [table.to_json() for table in self.tables()],
        }

    def print(self, console: Console) -> None:
        """The tables, and where the report is."""
        show(*self.tables(), console=console)
        console.print(f"report: {self.out / 'report.html'}", markup=False, highlight=False)


_NAMES = {"accuracy": "accuracy", "success": "attack success", "malicious_influence": "influence of malicious clients"}


def sweep(
    experiment: Experiment,
    out: Path,
    *,
    cells_in: Path | None = None,
    order: Sequence[int] | None = None,
    engine: str = "auto",
    device: str = "cpu",
    threads: int | None = None,
    events: Events | None = None,
) -> SweepResult:
    """Run what is missing of an experiment, and put the cells together.

    Args:
        experiment: the grid.
        out: folder of the sweep; cells that are there already are kept, whatever experiment they were run for.
        cells_in: folder of the cells, where several sweeps share them; None: `out/cells`.
        order: the order of cells, as positions; no result depends on it.
        engine: "auto", "compiled" or "torch".
        device: where torch computes.
        threads: threads to train with.
        events: hears what happens.

    Raises:
        ConfigError: options that do not fit together, before anything is trained.
        ThreatModelError: a rule's theory does not cover one of the cells; said before anything is trained.
        ArtifactError: the folder is another job's, or a cell's file is damaged.
    """
    events = events or Silent()
    folder = _folder(Path(out), experiment)
    cells = experiment.cells()
    _check(cells)
    data = load_data(experiment.federation.data, experiment.federation.data_dir).fingerprint()
    paths = [(cells_in or folder / "cells") / f"{cell_key(cell.config, data)}.json" for cell in cells]
    waiting = [place for place in (order or range(len(cells))) if not paths[place].exists()]
    if len(waiting) < len(cells):
        events.note(f"{len(cells) - len(waiting)} of {len(cells)} cells are there already")
    inside, began = _Inside(events), time.monotonic()
    for done, place in enumerate(waiting):
        left = None if not done else (time.monotonic() - began) / done * (len(waiting) - done)
        events.progress("cells", len(cells) - len(waiting) + done, len(cells), left)
        _run_cell(cells[place], paths[place], engine, device, threads, inside)
    events.progress("cells", len(cells), len(cells))
    records, seconds = _collect(cells, paths)
    found = SweepResult(experiment, records, folder, seconds)
    _write(found)
    return found


def cell_key(config: SimulateConfig, data: str) -> str:
    """The name of a cell: a hash of its settings and of its data's content."""
    return fingerprint({"config": config.decisive(), "data": data})[:24]


class _Inside:
    """What a cell tells: every note once, no progress of its own."""

    def __init__(self, events: Events) -> None:
        self._note: Callable[[str], None] = events.note
        self._told: set[str] = set()

    def note(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._note(text)

    def progress(self, stage: str, done: int, total: int, left: float | None = None) -> None:
        pass


def _folder(out: Path, experiment: Experiment) -> Path:
    run = Run(out)
    if run.manifest_path.exists() and run.manifest().get("job") != JOB:
        raise ArtifactError(f"{out} holds a {run.manifest().get('job')} run, not a sweep; name another folder")
    if not run.manifest_path.exists() and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"--out {out} exists and is not an empty folder; name another one")
    write_json(
        run.manifest_path,
        {"format": FORMAT, "job": JOB, "versions": versions(), "config": asdict(experiment)},
    )
    return out


def _check(cells: Sequence[Cell]) -> None:
    """Find what cannot run before anything is trained: every combination, with one seed."""
    seen = set()
    for cell in cells:
        if (cell.rule, *cell.row) not in seen:
            seen.add((cell.rule, *cell.row))
            federation = load_attacked(cell.config, flipped=flipped_labels(cell.config.attack))
            make_threat(cell.config.attack, federation.dataset, seed=0)


def _run_cell(cell: Cell, path: Path, engine: str, device: str, threads: int | None, events: Events) -> None:
    """Simulate one cell; its file appears whole, and its checkpoint goes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint = path.with_suffix(".safetensors")
    continued, worked = checkpoint.exists(), time.process_time()
    found = simulate(cell.config, checkpoint=checkpoint, engine=engine, device=device, threads=threads, events=events)
    content = {
        "format": FORMAT,
        "config": asdict(cell.config),
        "malicious": found.malicious,
        "engine": found.engine,
        "seconds": found.seconds,
        "cpu_seconds": None if continued else time.process_time() - worked,
        "rounds": [replace(record, verdict=None).to_json() for record in found.records],
    }
    write_json(path, content)
    checkpoint.unlink(missing_ok=True)


def _collect(
    cells: Sequence[Cell], paths: Sequence[Path]
) -> tuple[dict[tuple[str, str, int, int], tuple[RoundRecord, ...]], float | None]:
    """The rounds of every cell, and the processor seconds of all."""
    records, seconds = {}, list[float | None]()
    for cell, path in zip(cells, paths, strict=True):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            found = tuple(RoundRecord.from_json(entry) for entry in content["rounds"])
        except (OSError, ValueError, KeyError, TypeError) as problem:
            raise ArtifactError(f"{path} is damaged ({problem}); delete it to run that cell again") from problem
        records[cell.rule, cell.attack, cell.attackers, cell.config.seed] = found
        seconds.append(content.get("cpu_seconds"))
    known = [value for value in seconds if value is not None]
    return records, sum(known) if len(known) == len(seconds) else None


def _write(found: SweepResult) -> None:
    write_json(found.out / "result.json", found.to_json())
    heat, plots = found.heat(), found.plots()
    save_figure(heat_figure(heat), found.out / "figures" / "accuracy", overwrite=True)
    for number, plot in enumerate(plots.values()):
        save_figure(line_figure(plot), found.out / "figures" / f"attack-{number + 1}", overwrite=True)
    experiment = found.experiment
    document = Document(
        experiment.title,
        "sweep",
        facts=(
            experiment.federation.data,
            f"{len(experiment.rules)} rules",
            f"{len(experiment.attacks)} attacks",
            f"{len(experiment.seeds)} seeds",
        ),
        parts=(heat, *plots.values(), *found.tables()),
        entries={"Settings": asdict(experiment.federation), "Versions": versions()},
    )
    write_document(document, found.out / "report.html", overwrite=True)


def _ends(points: Sequence[Interval]) -> tuple[list[float | None], list[float | None]]:
    return [point.low for point in points], [point.high for point in points]


def _row_name(row: tuple[str, int]) -> str:
    attack, attackers = row
    return "no attack" if not attackers else f"{attack}, m={attackers}"
