"""Figures for papers and READMEs: PNG and SVG of the report's pictures, drawn with matplotlib and no global state."""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from holdfast.report.content import CertifyReport, Example
from holdfast.report.examples import extremes, picture_of
from holdfast.report.files import write_whole
from holdfast.report.palette import WRONG_LIGHT, color, dash
from holdfast.report.plots import HeatMap, Histogram, LinePlot, Series, certified_plot, radius_histograms
from holdfast.report.wording import what_is_bad
from holdfast.types import ConfigError

INK, MUTED, GRID = "#1a1a1a", "#595959", "#e3e3e3"
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "svg.fonttype": "none",
    "svg.hashsalt": "holdfast",
}


def line_figure(plot: LinePlot, *, width: float = 6.4, height: float = 4.0) -> Figure:
    """Curves with confidence bands; the legend below the axes, where it hides no data. Sizes in inches."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.add_subplot()
        for position, series in enumerate(plot.series):
            _draw_series(axes, plot, position, series)
        axes.set_title(plot.title)
        axes.set_xlabel(plot.x_label)
        axes.set_ylabel(plot.y_label)
        low, high = plot.x_range()
        axes.set_xlim(low - 0.01 * (high - low), high)
        bottom, top = plot.y_range()
        axes.set_ylim(bottom, top + 0.02 * plot.percent)
        if plot.steps or all((series.x % 1 == 0).all() for series in plot.series):
            axes.xaxis.set_major_locator(whole_numbers(10))
        if plot.percent:
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=""))
        columns = 1 if max(len(s.name) for s in plot.series) > 42 else min(len(plot.series), 3 if width >= 6 else 2)
        if max(len(s.name) for s in plot.series) > 26:
            columns = min(columns, 2)
        figure.legend(loc="outside lower center", ncols=columns, fontsize=8, handlelength=2.8)
    return figure


def whole_numbers(ticks: int) -> MaxNLocator:
    """At most so many ticks, at 1, 2, 5, 10, 20, ... apart."""
    return MaxNLocator(ticks, integer=True, steps=[1, 2, 5, 10])


def _draw_series(axes: Axes, plot: LinePlot, position: int, series: Series) -> None:
    ink = color(plot.color_of(position))
    pattern = dash(series.dash)
    line: Any = {"color": ink, "linestyle": (0, tuple(length / 2 for length in pattern)) if pattern else "-"}
    where: Any = {"drawstyle": "steps-post"} if plot.steps else {}
    marker: Any = {}
    if dots := plot.dots(position):
        marker = {"marker": "o", "markevery": dots, "markersize": 4, "clip_on": False, "zorder": 3}
    if series.marker:
        marker |= {"markersize": 6, "linewidth": 1.0}
    axes.plot(series.x, series.y, label=series.name, **line, **where, **marker)
    if series.low is not None and series.high is not None:
        axes.fill_between(
            series.x, series.low, series.high, color=ink, alpha=0.16, linewidth=0, step="post" if plot.steps else None
        )


def certified_figure(report: CertifyReport, *, accuracy: bool = True) -> Figure:
    """Certified accuracy (or certified rate) against m, with the baselines."""
    return line_figure(certified_plot(report, accuracy=accuracy))


def radius_figure(report: CertifyReport) -> Figure:
    """How the radii are distributed: one histogram per certificate, on common axes."""
    histograms = radius_histograms(report)
    columns = min(len(histograms), 3)
    rows = -(-len(histograms) // columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(max(2.6 * columns, 4.2), 0.6 + 2.1 * rows), layout="constrained")
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        cells = list(grid.flat)
        tallest = max(max(r + w for r, w in zip(h.right, h.wrong, strict=True)) for h in histograms)
        cells[0].set_ylim(0, 1.08 * max(tallest, *(h.abstained for h in histograms), 1))
        for position, (axes, histogram) in enumerate(zip(cells, histograms, strict=False)):
            _draw_histogram(axes, histogram, legend=position == 0)
            axes.tick_params(labelbottom=position + columns >= len(histograms))
        for axes in cells[len(histograms) :]:
            axes.set_visible(False)
        figure.supxlabel(f"certified radius: {what_is_bad(report)} survived", fontsize=9, color=INK)
        figure.supylabel("test inputs", fontsize=9, color=INK)
    return figure


def _draw_histogram(axes: Axes, histogram: Histogram, *, legend: bool) -> None:
    width = histogram.width
    middle = np.arange(len(histogram.right)) * width + (width - 1) / 2
    bar: dict[str, Any] = {"width": 0.9 * width}
    good = axes.bar(middle, histogram.right, color=color(histogram.color), **bar)
    bad = axes.bar(middle, histogram.wrong, bottom=histogram.right, color=WRONG_LIGHT, **bar)
    none = axes.bar([-1.5 * width], [histogram.abstained], color="#8a8a8a", hatch="////", edgecolor="white", **bar)
    axes.set_title(histogram.name.replace(", ", "\n", 1), fontsize=8.5)
    axes.grid(axis="x", visible=False)
    axes.xaxis.set_major_locator(whole_numbers(6))
    axes.yaxis.set_major_locator(whole_numbers(5))
    if legend:
        labels = ("correct label", "wrong label", "abstained") if histogram.labeled else ("certified", "", "abstained")
        shown = [(h, text) for h, text in zip((good, bad, none), labels, strict=True) if text]
        axes.legend(*zip(*shown, strict=True), fontsize=7, loc="best")


def examples_figure(report: CertifyReport, *, each: int = 6) -> Figure:
    """The inputs with the largest radius (top row) and the smallest (bottom row), as pictures.

    Raises:
        ConfigError: no example has a picture.
    """
    rows = [row for row in extremes([e for e in report.examples if e.image is not None], each) if row]
    if not rows:
        raise ConfigError("examples hold no picture; the example grid needs inputs with images")
    columns = max(len(row) for row in rows)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(1.15 * columns + 0.4, 1.75 * len(rows) + 0.2), layout="constrained")
        parts = figure.subfigures(len(rows), 1, squeeze=False)[:, 0]
        for part, row, heading in zip(parts, rows, ("Largest radius", "Smallest radius"), strict=False):
            part.suptitle(heading, fontsize=9, fontweight="bold", x=0.01, ha="left")
            for axes, example in zip(
                part.subplots(1, columns, squeeze=False)[0], [*row, *[None] * columns], strict=False
            ):
                _draw_example(axes, example)
    return figure


def _draw_example(axes: Axes, example: Example | None) -> None:
    axes.set_axis_off()
    if example is None or example.image is None:
        return
    axes.imshow(picture_of(example.image), cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
    wrong = example.label is not None and example.prediction != example.label
    said = "abstained" if example.prediction is None else example.prediction
    text = f"{said}, not {example.label}" if wrong else said
    held = "no certificate" if example.radius < 0 else f"radius {example.radius}"
    axes.set_title(
        f"{text}\n{held}", fontsize=8, loc="center", fontweight="normal", color=WRONG_LIGHT if wrong else INK
    )


_LEVEL = 9
"""Letters that a column name of a heat map has room for; with longer ones, all names are slanted."""


def heat_figure(heat: HeatMap) -> Figure:
    """A heat map with every value written into its cell."""
    shades = np.ma.masked_invalid(heat.shades())
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(1.6 + 0.75 * len(heat.columns), 1.1 + 0.42 * len(heat.rows)), layout="constrained")
        axes = figure.add_subplot()
        axes.imshow(shades, cmap="Blues", vmin=0, vmax=1.15, aspect="auto")
        for r in range(len(heat.rows)):
            for c in range(len(heat.columns)):
                dark = not np.ma.is_masked(shades[r, c]) and shades[r, c] > 0.6
                axes.text(c, r, heat.text(r, c), ha="center", va="center", color="white" if dark else INK)
        axes.set_xticks(range(len(heat.columns)), heat.columns)
        if max(map(len, heat.columns)) > _LEVEL:
            axes.tick_params("x", rotation=30)
            for label in axes.get_xticklabels():
                label.set(ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(heat.rows)), heat.rows)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_xlabel(heat.column_label)
        axes.set_ylabel(heat.row_label)
        axes.set_title(heat.title + (" (%)" if heat.percent else ""))
    return figure


def save_figure(figure: Figure, stem: str | Path, *, overwrite: bool = False, dpi: int = 200) -> tuple[Path, Path]:
    """Write `stem.png` and `stem.svg`, byte for byte the same for the same figure.

    Raises:
        ArtifactError: a file exists and `overwrite` is False.
    """
    paths = []
    undated: Any = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}
    for kind, metadata in undated.items():
        buffer = BytesIO()
        with mpl.rc_context(STYLE):
            figure.savefig(buffer, format=kind, dpi=dpi, metadata=metadata)
        paths.append(write_whole(Path(f"{stem}.{kind}"), buffer.getvalue(), overwrite=overwrite))
    return paths[0], paths[1]


def save_report_figures(report: CertifyReport, folder: str | Path, *, overwrite: bool = False) -> tuple[Path, ...]:
    """All figures of a report as PNG and SVG: certified accuracy, certified rate, radii, and examples with pictures."""
    figures: list[tuple[str, Figure]] = [("certified-rate", certified_figure(report, accuracy=False))]
    if report.labeled:
        figures.insert(0, ("certified-accuracy", certified_figure(report)))
    figures.append(("radii", radius_figure(report)))
    if any(e.image is not None for e in report.examples):
        figures.append(("examples", examples_figure(report)))
    return tuple(_flat(save_figure(f, Path(folder) / name, overwrite=overwrite) for name, f in figures))


def _flat(pairs: Iterable[tuple[Path, Path]]) -> list[Path]:
    return [path for pair in pairs for path in pair]
