"""Inline SVG for the HTML page: the values of `plots`, drawn with classes that the style sheet colors.

Each chart is made twice, for a wide and for a narrow screen, so that text keeps its size; the style sheet shows one.
The page's script finds the geometry in data attributes. Elements are built as an XML tree, so no text can break out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree.ElementTree import Element, SubElement, tostring

import numpy as np
from numpy.typing import NDArray

from holdfast.report.content import NICE
from holdfast.report.palette import LIGHT, dash
from holdfast.report.plots import Histogram, LinePlot, Series


@dataclass(frozen=True)
class Frame:
    """Where a chart's plotting area lies, in pixels, and what its axes span."""

    width: int
    height: int
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    left: int = 46
    right: int = 14
    top: int = 12
    bottom: int = 44

    def x(self, value: float) -> float:
        """Horizontal pixel of a data value."""
        low, high = self.x_range
        return round(self.left + (value - low) / (high - low) * (self.width - self.left - self.right), 2)

    def y(self, value: float) -> float:
        """Vertical pixel of a data value."""
        low, high = self.y_range
        return round(
            self.height - self.bottom - (value - low) / (high - low) * (self.height - self.top - self.bottom), 2
        )


def line_chart(plot: LinePlot, description: str) -> str:
    """A line plot as two SVG elements (wide, narrow), with a hidden cross-hair for the script."""
    wide, narrow = (Frame(width, height, plot.x_range(), plot.y_range()) for width, height in ((760, 380), (360, 280)))
    return "".join(_line_svg(plot, frame, size, description) for frame, size in ((wide, "wide"), (narrow, "narrow")))


def _line_svg(plot: LinePlot, frame: Frame, size: str, description: str) -> str:
    svg = _svg(frame, f"line {size}", plot.title, description)
    _axes(
        svg,
        frame,
        plot.x_label,
        plot.y_label,
        percent=plot.percent,
        whole=plot.steps,
        ticks=10 if size == "wide" else 6,
    )
    curves = SubElement(svg, "g", {"class": "curves"})
    for position, series in enumerate(plot.series):
        ink = plot.color_of(position) % len(LIGHT)
        group = SubElement(curves, "g", {"class": f"series k{ink}", "data-series": str(position)})
        if series.low is not None and series.high is not None:
            SubElement(group, "path", {"class": "band", "d": _band(series, frame, plot.steps)})
        attributes = {
            "class": "curve thin" if series.marker else "curve",
            "d": _path(series.x, series.y, frame, plot.steps),
        }
        if pattern := dash(series.dash):
            attributes["stroke-dasharray"] = " ".join(map(str, pattern))
        SubElement(group, "path", attributes)
        for place in plot.dots(position):
            if np.isfinite(series.y[place]):
                where = {"cx": f"{frame.x(series.x[place])}", "cy": f"{frame.y(series.y[place])}"}
                SubElement(group, "circle", {**where, "r": "5" if series.marker else "3.5"})
    for name in ("crosshair", "guide"):  # at the chosen m, and under the pointer
        ends = {"y1": str(frame.top), "y2": str(frame.height - frame.bottom)}
        SubElement(svg, "line", {"class": name, "x1": "0", "x2": "0", **ends})
    return _text_of(svg)


def _path(x: NDArray[np.float64], y: NDArray[np.float64], frame: Frame, steps: bool) -> str:
    """SVG path through the finite points; a gap starts a new stroke."""
    parts: list[str] = []
    pen_down = False
    for a, b in zip(x.tolist(), y.tolist(), strict=True):
        if not np.isfinite(b):
            pen_down = False
            continue
        across, down = frame.x(a), frame.y(b)
        if not pen_down:
            parts.append(f"M{across} {down}")
        else:
            parts.append(f"H{across}V{down}" if steps else f"L{across} {down}")
        pen_down = True
    return "".join(parts)


def _band(series: Series, frame: Frame, steps: bool) -> str:
    """Closed path between the ends of the confidence band, left out where an end is missing."""
    assert series.low is not None
    assert series.high is not None
    known = np.isfinite(series.low) & np.isfinite(series.high)
    x, low, high = series.x[known], series.low[known], series.high[known]
    if not x.size:
        return ""
    back = _path(x[::-1], low[::-1], frame, False)[1:]
    if steps:  # held values: walk back along the same steps, vertical before horizontal
        back = "".join(f"V{frame.y(b)}H{frame.x(a)}" for a, b in zip(x[-2::-1], low[-2::-1], strict=True))
        back = f"{frame.x(x[-1])} {frame.y(low[-1])}{back}"
    return f"{_path(x, high, frame, steps)}L{back}Z"


def histogram_chart(histogram: Histogram, tallest: int, description: str) -> str:
    """One histogram of radii; bars carry the radii they cover, so that the script can fade those below m."""
    width = histogram.width
    bins = len(histogram.right)
    frame = Frame(300, 190, (-2.5 * width, bins * width), (0.0, 1.05 * max(tallest, 1)), left=36)
    svg = _svg(frame, "histogram", f"Radii: {histogram.name}", description)
    _axes(svg, frame, "certified radius", "", percent=False, whole=True, ticks=6)
    bars = SubElement(svg, "g", {"class": f"bars k{histogram.color}"})
    if histogram.abstained:
        text = f"{histogram.abstained} inputs abstained: no certificate at any m"
        _bar(bars, frame, -2.0 * width, width, (0, histogram.abstained), "abstained", -1, text)
    for position, (right, wrong) in enumerate(zip(histogram.right, histogram.wrong, strict=True)):
        first, last = position * width, (position + 1) * width - 1
        span = f"radius {first}" if first == last else f"radius {first} to {last}"
        text = f"{span}: {right + wrong} inputs" + (f", {wrong} with a wrong label" if wrong else "")
        _bar(bars, frame, first - 0.5, width, (0, right), "right", last, text)
        _bar(bars, frame, first - 0.5, width, (right, right + wrong), "wrong", last, text)
    return _text_of(svg)


def _bar(
    parent: Element, frame: Frame, start: float, width: int, ends: tuple[int, int], kind: str, last: int, text: str
) -> None:
    if ends[0] == ends[1]:
        return
    left, right = frame.x(start), frame.x(start + width)
    top, bottom = frame.y(ends[1]), frame.y(ends[0])
    gap = min(1.0, 0.1 * (right - left))
    shape = {
        "class": f"bar {kind}",
        "data-last": str(last),
        "x": f"{left + gap / 2:.2f}",
        "y": f"{top:.2f}",
        "width": f"{right - left - gap:.2f}",
        "height": f"{max(bottom - top, 0.75):.2f}",
    }
    SubElement(SubElement(parent, "rect", shape), "title").text = text


def _svg(frame: Frame, kind: str, title: str, description: str) -> Element:
    low, high = frame.x_range
    svg = Element(
        "svg",
        {
            "class": f"chart {kind}",
            "viewBox": f"0 0 {frame.width} {frame.height}",
            "role": "img",
            "aria-label": f"{title}. {description}",
            "data-x0": f"{frame.x(low)}",
            "data-x1": f"{frame.x(high)}",
            "data-low": f"{low:g}",
            "data-high": f"{high:g}",
        },
    )
    return svg


def _axes(svg: Element, frame: Frame, x_label: str, y_label: str, *, percent: bool, whole: bool, ticks: int) -> None:
    group = SubElement(svg, "g", {"class": "axes"})
    base, right = frame.height - frame.bottom, frame.width - frame.right
    for value in _ticks(frame.y_range, 6, whole=not percent and frame.y_range[1] > 10):
        y = frame.y(value)
        SubElement(
            group, "line", {"class": "grid", "x1": str(frame.left), "x2": str(right), "y1": f"{y}", "y2": f"{y}"}
        )
        text = f"{100 * value:.0f}" if percent else f"{value:,g}"
        SubElement(group, "text", {"x": str(frame.left - 7), "y": f"{y + 4}", "class": "tick end"}).text = text
    for value in _ticks(frame.x_range, ticks, whole=whole):
        x = frame.x(value)
        SubElement(group, "line", {"class": "grid", "x1": f"{x}", "x2": f"{x}", "y1": str(frame.top), "y2": str(base)})
        SubElement(group, "text", {"x": f"{x}", "y": str(base + 17), "class": "tick middle"}).text = f"{value:,g}"
    SubElement(
        group, "line", {"class": "axis", "x1": str(frame.left), "x2": str(right), "y1": str(base), "y2": str(base)}
    )
    middle = str((frame.left + right) / 2)
    SubElement(group, "text", {"x": middle, "y": str(frame.height - 7), "class": "name middle"}).text = x_label
    if y_label:
        across, down = 11, (frame.top + base) / 2
        place = {"transform": f"translate({across} {down}) rotate(-90)", "class": "name middle"}
        SubElement(group, "text", place).text = y_label


def _ticks(span: tuple[float, float], most: int, *, whole: bool) -> Iterator[float]:
    """Round values inside the span (not below 0 where the span starts there), at most `most` + 1."""
    low, high = span
    scale = 1.0 if whole else 10.0 ** (np.floor(np.log10(high - low)) - 2)
    step = next(n for n in NICE if (high - max(low, 0.0)) / (n * scale) <= most) * scale
    first = 0 if low >= -2.5 * step and whole else int(np.ceil(low / step))
    for k in range(first, int(np.floor(high / step + 1e-9)) + 1):
        yield round(k * step, 12)


def _text_of(svg: Element) -> str:
    return tostring(svg, encoding="unicode", short_empty_elements=True)
