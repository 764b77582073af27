"""What the reproductions of all papers share: runs trained when first asked for, and what is found in the end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from matplotlib.figure import Figure
from rich.console import Console

from holdfast.ensemble import Votes
from holdfast.experiments.certify import certify_run
from holdfast.experiments.events import Events
from holdfast.experiments.run import Run, write_json
from holdfast.experiments.study import StudyConfig
from holdfast.report import CertifyReport, LinePlot, Table, show
from holdfast.report.figures import line_figure, save_figure
from holdfast.report.ridges import RidgePlot, ridge_figure
from holdfast.types import ConfigError

ALPHA = 0.001
NOTHING = "nothing"
"""In `only`: a run that is none, for what follows from formulas alone."""
Plot = LinePlot | RidgePlot


class Scale(Protocol):
    """The experiments of a paper at one scale."""

    @property
    def name(self) -> str:
        """Such as "smoke", "cpu" or "paper"."""
        ...

    def arms(self) -> Mapping[str, StudyConfig]:
        """Every run by name; figures share runs."""
        ...


S = TypeVar("S", bound=Scale)


@dataclass(frozen=True)
class Reproduction:
    """Tables and figures of one reproduction, and where they lie."""

    out: Path
    tables: tuple[Table, ...]
    figures: tuple[Path, ...]

    @classmethod
    def write(
        cls, out: Path, scale_name: str, tables: Iterable[Table], plots: Iterable[tuple[str, Plot]]
    ) -> Reproduction:
        """Draw the plots under `out/figures` and leave all tables in `out/reproduction-SCALE.json`."""
        figures = [
            path for name, plot in plots for path in save_figure(_drawn(plot), out / "figures" / name, overwrite=True)
        ]
        found = cls(out, tuple(tables), tuple(figures))
        write_json(out / f"reproduction-{scale_name}.json", found.to_json())
        return found

    def to_json(self) -> dict[str, Any]:
        """All tables, with exact values."""
        return {
            "tables": [table.to_json() for table in self.tables],
            "figures": [str(path.relative_to(self.out)) for path in self.figures],
        }

    def print(self, console: Console) -> None:
        """The tables, then where the figures are."""
        show(*self.tables, console=console)
        console.print(f"figures: {self.out / 'figures'}", markup=False, highlight=False)


def _drawn(plot: Plot) -> Figure:
    return ridge_figure(plot) if isinstance(plot, RidgePlot) else line_figure(plot)


class Runs(Generic[S]):
    """The runs of one scale, each an ordinary run folder, trained when first asked for."""

    def __init__(
        self,
        scale: S,
        out: Path,
        *,
        seed: str | None,
        only: tuple[str, ...],
        threads: int | None,
        events: Events,
        device: str = "cpu",
    ) -> None:
        self.scale, self.out = scale, out
        self.arms = scale.arms()
        unknown = [name for name in only if name not in self.arms and name != NOTHING]
        if unknown:
            raise ConfigError(f"only names {unknown[0]!r}, which is not one of {', '.join((*self.arms, NOTHING))}")
        self._wanted = only or tuple(self.arms)
        self._seed, self._threads, self._device, self._events = seed, threads, device, events
        self._votes: dict[str, Votes] = {}
        self.reports: dict[str, CertifyReport] = {}

    def has(self, *names: str) -> bool:
        """Whether these runs belong to this call."""
        return all(name in self._wanted and name in self.arms for name in names)

    def votes(self, name: str, models: int | None = None) -> Votes:
        """The votes of a run, or of its first models."""
        if name not in self._votes:
            folder = self.out / "runs" / name
            self._events.note(f"run {name}: {folder}")
            seed = None if self._seed is None else f"{self._seed}/{name}"
            result = certify_run(
                self.arms[name],
                folder,
                alpha=ALPHA,
                seed=seed if not (folder / "run.json").exists() else None,
                resume=True,
                threads=self._threads,
                device=self._device,
                keep_models=False,
                events=self._events,
            )
            self._votes[name], self.reports[name] = result.votes, result.content
        votes = self._votes[name]
        return votes if models is None or models == votes.n_models else votes.prefix(models)

    def manifest(self, name: str) -> dict[str, Any]:
        """What the folder of a run says about it, its time and memory included."""
        return Run(self.out / "runs" / name).manifest()
