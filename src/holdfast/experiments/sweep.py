"""`holdfast sweep`: a grid of attacked federations, cell by cell, with means and intervals over seeds.

Every finished cell is a file of its own, named by a hash of everything that decides it, so an interrupted sweep goes
on where it stopped, a grown experiment reuses what it has, and the table does not depend on the order of cells.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from holdfast.experiments.attacked import SimulateConfig, load_attacked, load_data
from holdfast.experiments.events import Events, Silent
from holdfast.experiments.experiment import Cell, Experiment
from holdfast.experiments.measures import RoundRecord
from holdfast.experiments.run import FORMAT, Run, fingerprint, versions, write_json
from holdfast.experiments.simulation import simulate
from holdfast.experiments.sweep_result import SweepResult
from holdfast.experiments.threat import flipped_labels, make_threat
from holdfast.report.document import Document, write_document
from holdfast.report.figures import heat_figure, line_figure, save_figure
from holdfast.types import ArtifactError, ConfigError

JOB = "sweep"


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
