"""Distributions over time as stacked outlines: one panel per subject and quantity, one outline per point in time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from holdfast.report.figures import STYLE
from holdfast.report.palette import color
from holdfast.types import ConfigError

HONEST, MALICIOUS = 0, 1  # indices into the palette
_RISE = 1.2  # height of the tallest outline, in distances between two baselines
_PANEL, _LEFT, _TOP, _BOTTOM, _GAP = 150, 62, 26, 24, 46


@dataclass(frozen=True)
class RidgePlot:
    """Histograms of several quantities, of several subjects, at several times.

    Attributes:
        title: what is shown.
        rows: `R` subjects.
        colors: `R` palette indices.
        columns: `C` quantities, as on the x axis.
        edges: `C` arrays of `B + 1` bin edges.
        times: `T` names of points in time; the first is drawn on top.
        heights: `[R, C, T, B]`, shares in each bin; NaN where a subject was not there.
        legend: (name, palette index) pairs.
    """

    title: str
    rows: tuple[str, ...]
    colors: tuple[int, ...]
    columns: tuple[str, ...]
    edges: tuple[NDArray[np.float64], ...]
    times: tuple[str, ...]
    heights: NDArray[np.float64]
    legend: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        wanted = (len(self.rows), len(self.columns), len(self.times))
        if self.heights.shape[:3] != wanted or 0 in self.heights.shape:
            raise ConfigError(f"ridge plot {self.title!r}: heights have shape {self.heights.shape}, expected {wanted}")

    def outline(self, row: int, column: int, time: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """One histogram as corners of its outline: places on the x axis, and heights in distances of baselines."""
        shares = np.nan_to_num(self.heights[row, column, time])
        edges = self.edges[column]
        tallest = np.nanmax(self.heights[:, column], initial=0.0) or 1.0
        return np.repeat(edges, 2), np.concatenate([[0.0], np.repeat(shares, 2), [0.0]]) * _RISE / tallest


def ridge_chart(plot: RidgePlot) -> str:
    """The plot as two SVG elements (wide, narrow), for the page."""
    return "".join(_svg(plot, width, size) for width, size in ((760, "wide"), (360, "narrow")))


def _svg(plot: RidgePlot, width: int, size: str) -> str:
    height = _TOP + len(plot.rows) * (_PANEL + _GAP) + _BOTTOM
    told = f"{plot.title}. {len(plot.rows)} participants, {', '.join(plot.columns)}."
    svg = Element(
        "svg",
        {"class": f"chart ridges {size}", "viewBox": f"0 0 {width} {height}", "role": "img", "aria-label": told},
    )
    across = (width - _LEFT - 12) / len(plot.columns)
    for row, name in enumerate(plot.rows):
        top = _TOP + row * (_PANEL + _GAP)
        SubElement(svg, "text", {"x": str(_LEFT), "y": str(top - 6), "class": "name"}).text = name
        for column in range(len(plot.columns)):
            _panel(svg, plot, (row, column), (_LEFT + column * across, top, across - 22, _PANEL))
    for column, name in enumerate(plot.columns):
        place = {"x": f"{_LEFT + (column + 0.5) * across - 11:.1f}", "y": str(height - 8), "class": "name middle"}
        SubElement(svg, "text", place).text = name
    return tostring(svg, encoding="unicode", short_empty_elements=True)


def _panel(svg: Element, plot: RidgePlot, place: tuple[int, int], box: tuple[float, float, float, float]) -> None:
    row, column = place
    left, top, width, height = box
    edges = plot.edges[column]
    pitch = height / (len(plot.times) + _RISE - 1)
    group = SubElement(svg, "g", {"class": f"k{plot.colors[row]}"})

    def x(value: float) -> float:
        return round(left + float((value - edges[0]) / (edges[-1] - edges[0])) * width, 2)

    for time, name in enumerate(plot.times):
        base = round(top + height - (len(plot.times) - 1 - time) * pitch, 2)
        xs, ys = plot.outline(row, column, time)
        corners = " ".join(
            f"{x(a)},{round(base - b * pitch, 2)}" for a, b in zip(xs.tolist(), ys.tolist(), strict=True)
        )
        SubElement(group, "polygon", {"class": "ridge", "points": corners})
        if column == 0:
            SubElement(svg, "text", {"x": f"{left - 7}", "y": f"{base + 4}", "class": "tick end"}).text = name
    for value in (edges[0], (edges[0] + edges[-1]) / 2, edges[-1]):
        label = {"x": f"{x(value)}", "y": f"{top + height + 15}", "class": "tick middle"}
        SubElement(svg, "text", label).text = f"{value:g}"


def ridge_figure(plot: RidgePlot) -> Figure:
    """The plot for papers and READMEs."""
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        rows, columns = len(plot.rows), len(plot.columns)
        figure = Figure(figsize=(3.3 * columns, 0.7 + 1.5 * rows), layout="constrained")
        panels: Any = figure.subplots(rows, columns, squeeze=False, sharex="col")
        for row, column in np.ndindex(rows, columns):
            _draw(panels[row, column], plot, row, column)
        figure.suptitle(plot.title, fontsize=10, fontweight="bold", x=0.01, ha="left")
    return figure


def _draw(axes: Axes, plot: RidgePlot, row: int, column: int) -> None:
    ink = color(plot.colors[row])
    for time in range(len(plot.times)):
        base = len(plot.times) - 1 - time
        xs, ys = plot.outline(row, column, time)
        axes.fill_between(xs, base, base + ys, facecolor=ink, alpha=0.55, edgecolor=ink, linewidth=0.8, zorder=time)
    axes.set_yticks(range(len(plot.times)), plot.times[::-1], fontsize=7)
    axes.tick_params(length=0)
    axes.spines["left"].set_visible(False)
    if column == 0:
        axes.set_title(plot.rows[row], fontsize=8, fontweight="normal")
    if row == len(plot.rows) - 1:
        axes.set_xlabel(plot.columns[column])
