"""What a sweep found: every cell's rounds, and means with intervals over the seeds as tables, heat maps and curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from scipy import stats

from holdfast.experiments.experiment import Experiment
from holdfast.experiments.measures import RoundRecord
from holdfast.experiments.run import versions
from holdfast.report import HeatMap, LinePlot, Series, Table, show

CONFIDENCE = 0.95
_NAMES = {
    "accuracy": "accuracy",
    "training_accuracy": "training accuracy",
    "success": "attack success",
    "malicious_influence": "influence of malicious clients",
}
_UNATTACKED = ("accuracy", "training_accuracy")


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
            if any(interval is not None for interval in found) and (row[1] or measure in _UNATTACKED):
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
        """Accuracies, attack success and influence, as far as they were measured."""
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


def _ends(points: Sequence[Interval]) -> tuple[list[float | None], list[float | None]]:
    return [point.low for point in points], [point.high for point in points]


def _row_name(row: tuple[str, int]) -> str:
    attack, attackers = row
    return "no attack" if not attackers else f"{attack}, m={attackers}"
