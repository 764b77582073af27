"""Tables as values, rendered for a terminal (Rich), a pipe (plain text), a program (JSON) or the HTML page.

A `Table` knows no data type of the product; the builders below it turn reports, comparisons and sweeps into one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any

from rich import box
from rich.console import Console
from rich.style import Style
from rich.table import Table as RichTable
from rich.text import Text

from holdfast.report.content import CertificateSummary, CertifyReport, levels
from holdfast.report.wording import headline, number, percent, probability, share, single_model, what_is_bad
from holdfast.types import ConfigError


@dataclass(frozen=True)
class Table:
    """Columns of text, with the exact values behind them.

    Attributes:
        title: one line above the table.
        columns: header texts; the first column is left-aligned and names the row, the others are right-aligned.
        rows: the text of every cell.
        values: what `to_json` gives for every cell instead of its text (numbers unrounded); None = the texts.
        notes: lines below the table.
        left: how many leading columns hold words and are left-aligned.
        shades: for a heat map, a number in [0, 1] behind every cell, or None; drawn as the cell's background.

    Raises:
        ConfigError: a row whose length is not the number of columns.

    Example:
        >>> t = Table("Certified accuracy (%)", ("certificate", "m=0", "m=1"), (("deployed", "95.0", "90.2"),))
        >>> print(t.to_plain())
        Certified accuracy (%)
        certificate   m=0   m=1
        deployed     95.0  90.2
        >>> t.to_json()["rows"]
        [{'certificate': 'deployed', 'm=0': '95.0', 'm=1': '90.2'}]
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    values: tuple[tuple[Any, ...], ...] | None = None
    notes: tuple[str, ...] = ()
    left: int = 1
    shades: tuple[tuple[float | None, ...], ...] | None = None

    def __post_init__(self) -> None:
        for row in (*self.rows, *(self.values or ())):
            if len(row) != len(self.columns):
                raise ConfigError(f"table {self.title!r}: a row has {len(row)} cells for {len(self.columns)} columns")

    def to_rich(self) -> RichTable:
        """A `rich.table.Table`; user text is taken literally, never as Rich markup."""
        table = RichTable(
            title=Text(self.title, style="bold"),
            title_justify="left",
            box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
            pad_edge=False,
        )
        for position, column in enumerate(self.columns):
            width = max(len(row[position]) for row in (self.columns, *self.rows))
            if position < self.left:
                table.add_column(Text(column), min_width=min(12, width))
            else:
                table.add_column(Text(column), justify="right", no_wrap=True, min_width=width)
        for r, row in enumerate(self.rows):
            shades = self.shades[r] if self.shades else (None,) * len(row)
            table.add_row(*(Text(cell, style=_shade(value)) for cell, value in zip(row, shades, strict=True)))
        if self.notes:
            table.caption = Text("\n".join(self.notes), style="dim")
            table.caption_justify = "left"
        return table

    def to_plain(self) -> str:
        """Aligned text without color, lines or wrapping, for files and pipes."""
        widths = [max(len(row[i]) for row in (self.columns, *self.rows)) for i in range(len(self.columns))]
        lines = [
            "  ".join(
                cell.ljust(width) if i < self.left else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in (self.columns, *self.rows)
        ]
        return "\n".join([self.title, *lines, *self.notes])

    def to_json(self) -> dict[str, Any]:
        """Title, notes and one record per row, with exact values where they are known."""
        records = [dict(zip(self.columns, row, strict=True)) for row in self.values or self.rows]
        return {"title": self.title, "rows": records, "notes": list(self.notes)}


def _shade(value: float | None) -> Style:
    """A background from pale (0) to dark blue (1), with text that stays readable on it."""
    if value is None:
        return Style.null()
    red, green, blue = (round(a + (b - a) * value) for a, b in zip((235, 243, 250), (8, 69, 120), strict=True))
    return Style(color="white" if value > 0.5 else "black", bgcolor=f"rgb({red},{green},{blue})")


def show(*tables: Table, console: Console | None = None) -> None:
    """Print tables: Rich on a terminal wide enough for every number, plain text into a pipe, file or narrow window."""
    console = console or Console()
    for table in tables:
        drawn = table.to_rich()
        needed = console.measure(drawn, options=console.options.update(width=10_000)).minimum
        if console.is_terminal and needed <= console.width:
            console.print(drawn)
        else:
            console.file.write(table.to_plain() + "\n\n")


def as_text(*tables: Table, width: int = 100) -> str:
    """The tables as a terminal of that width shows them, without color: for a README or a log."""
    out = StringIO()
    show(*tables, console=Console(file=out, width=width, color_system=None, force_terminal=True, legacy_windows=False))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def certified_tables(report: CertifyReport, *, limit: int = 8) -> tuple[Table, ...]:
    """What the report page shows, as tables: accuracy (with labels) and certified rate (without), at a ladder of m.

    `limit` is the largest number of m columns; 8 fit a terminal of 80 characters.
    """
    ms = levels(report.max_radius, limit)
    rate = _by_level(
        report, ms, "Certified rate: % of inputs whose label provably cannot change (needs no labels)", False
    )
    if not report.labeled:
        return (rate,)
    return (_by_level(report, ms, "Certified accuracy: % of inputs that provably keep their correct label", True), rate)


def _by_level(report: CertifyReport, ms: Sequence[int], title: str, accuracy: bool) -> Table:
    rows: list[tuple[str, ...]] = []
    values: list[tuple[Any, ...]] = []
    total = report.kinds[0].accuracy_base if accuracy else report.n_inputs
    columns = ("certificate", "alpha", "max m", *(f"m={number(m)}" for m in ms))
    for s in report.kinds:
        counts = [s.correct(m) if accuracy else s.certified(m) for m in ms]
        rows.append((report.name_of(s), probability(s.alpha), number(s.max_radius), *(share(c, total) for c in counts)))
        values.append((report.name_of(s), s.alpha, s.max_radius, *(c / total for c in counts)))
    for name, at_zero, after in _baselines(report) if accuracy else ():
        cells = [at_zero if m == 0 else after for m in ms]
        rows.append((name, "none", "–", *(percent(c) for c in cells)))
        values.append((name, 0.0, None, *cells))
    if report.labeled and not accuracy:
        return Table(title, columns, tuple(rows), tuple(values))  # the table above it explains the letters
    notes = (
        f"m = {what_is_bad(report)}, of {number(report.n_clients)}; {number(total)} inputs; shares rounded down; "
        "alpha = failure probability; max m = largest certified m of any input",
    )
    return Table(title, columns, tuple(rows), tuple(values), notes)


def _baselines(report: CertifyReport) -> list[tuple[str, float, float]]:
    """(name, accuracy at m = 0, guaranteed accuracy at every m >= 1) of the models without a vote."""
    found = []
    if (single := report.clean_accuracy_single_fedavg) is not None:
        found.append((single_model(report), single, 0.0))
    if (trusted := report.trusted_only_accuracy) is not None:
        found.append(("trusted data only", trusted, trusted))
    return found


def _summary_json(report: CertifyReport, s: CertificateSummary) -> dict[str, Any]:
    ms = range(s.max_radius + 2)
    return {
        "name": report.name_of(s),
        "kind": s.kind,
        "design": s.design,
        "method": s.method,
        "alpha": s.alpha,
        "n_models": s.n_models,
        "assumptions": list(s.assumptions),
        "n_labeled": s.accuracy_base if s.labeled else 0,
        "abstained": s.abstained,
        "max_radius": s.max_radius,
        "radius_counts": list(s.radius_counts),
        "certified_rate": [s.certified_rate(m) for m in ms],
        "certified_accuracy": [s.certified_accuracy(m) for m in ms] if s.labeled else None,
    }


def to_json(report: CertifyReport) -> dict[str, Any]:
    """Every number of the report, for `--json`: exact curves (entry m, up to the first zero), baselines, manifest."""
    return {
        "headline": headline(report),
        "dataset": report.dataset,
        "n_clients": report.n_clients,
        "n_models": report.n_models,
        "n_inputs": report.n_inputs,
        "unit": report.unit,
        "certificates": [_summary_json(report, s) for s in report.kinds],
        "clean_accuracy_single_fedavg": report.clean_accuracy_single_fedavg,
        "trusted_only_accuracy": report.trusted_only_accuracy,
        "config": dict(report.config),
        "hashes": dict(report.hashes),
        "versions": dict(report.versions),
        "timings": dict(report.timings),
        "seed_commitment": report.seed_commitment,
    }
