"""Pictures as values: lines with confidence bands, heat maps, histograms. `figures` and `charts` draw them.

The same `LinePlot` becomes a matplotlib figure (PNG, SVG) and an inline chart of the HTML page, so the two agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from holdfast.report.content import KINDS, NICE, CertificateSummary, CertifyReport
from holdfast.report.tables import Table
from holdfast.report.wording import single_model, what_is_bad
from holdfast.types import ConfigError

BASELINE_COLOR = 7  # index into the palette: gray, kept for models without a certificate


@dataclass(frozen=True)
class Series:
    """One curve.

    Attributes:
        name: as in the legend.
        x: `[K]`, increasing.
        y: `[K]`; NaN leaves a gap.
        low: lower end of a confidence band, `[K]`, or None.
        high: upper end of it.
        color: index into the palette; None = by position in the plot.
        dash: index into the dash patterns, 0 = solid; -1, -2: drawn over as many equal curves, which show through.
        marker: draw a dot at the first point (a model with no guarantee beyond it).
    """

    name: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    low: NDArray[np.float64] | None = None
    high: NDArray[np.float64] | None = None
    color: int | None = None
    dash: int = 0
    marker: bool = False

    @classmethod
    def of(
        cls,
        name: str,
        x: ArrayLike,
        y: ArrayLike,
        low: ArrayLike | None = None,
        high: ArrayLike | None = None,
        *,
        color: int | None = None,
        dash: int = 0,
        marker: bool = False,
    ) -> Series:
        """A series from any array-likes.

        Raises:
            ConfigError: empty or unequal lengths.
        """
        arrays = [None if a is None else np.asarray(a, dtype=np.float64) for a in (x, y, low, high)]
        sizes = {a.shape for a in arrays if a is not None}
        if len(sizes) != 1 or len(next(iter(sizes))) != 1 or next(iter(sizes)) == (0,):
            raise ConfigError(
                f"series {name!r}: x, y, low and high must be [K] with one K >= 1, got shapes {sorted(sizes)}"
            )
        xs, ys, lows, highs = arrays
        assert xs is not None
        assert ys is not None
        return cls(name, xs, ys, lows, highs, color, dash, marker)


_FEW = 12


@dataclass(frozen=True)
class LinePlot:
    """Curves over one x axis.

    Attributes:
        title: what is shown.
        x_label: the x axis, with its unit.
        y_label: the y axis, with its unit.
        series: the curves.
        steps: hold each value until the next x (counts such as m); else straight lines.
        percent: y values are shares, shown in percent on a fixed axis from 0 to 100.
    """

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    steps: bool = False
    percent: bool = True

    def __post_init__(self) -> None:
        if not self.series:
            raise ConfigError(f"plot {self.title!r} has no series")

    def color_of(self, position: int) -> int:
        """Palette index of the series at `position`."""
        chosen = self.series[position].color
        return position % BASELINE_COLOR if chosen is None else chosen

    def dots(self, position: int) -> list[int]:
        """The points of a series to draw dots at: all, where there are so few that lines would hide what is measured.

        Example:
            >>> LinePlot("", "m", "%", (Series.of("a", [0, 5, 10], [1.0, 0.8, 0.1]),)).dots(0)
            [0, 1, 2]
        """
        series = self.series[position]
        if series.marker:
            return [0]
        return list(range(len(series.x))) if not self.steps and len(series.x) <= _FEW else []

    def x_range(self) -> tuple[float, float]:
        """Smallest and largest x of all series, never of zero width."""
        low = min(float(s.x[0]) for s in self.series)
        high = max(float(s.x[-1]) for s in self.series)
        return low, high if high > low else low + 1

    def y_range(self) -> tuple[float, float]:
        """0 to 1 for shares; else the data's range with a small margin, from 0 when nothing is negative."""
        if self.percent:
            return 0.0, 1.0
        ends = [a for s in self.series for a in (s.y, s.low, s.high) if a is not None]
        low, high = (
            float(f([f(a[np.isfinite(a)], initial=v) for a in ends])) for f, v in ((np.min, np.inf), (np.max, -np.inf))
        )
        if not np.isfinite([low, high]).all():
            return 0.0, 1.0
        low = min(low, 0.0)
        margin = 0.05 * (high - low) or 1.0
        return low - margin * (low < 0), high + margin


@dataclass(frozen=True)
class HeatMap:
    """A grid of values: one row and one column per setting.

    Attributes:
        title: what is shown.
        row_label: name of the setting down the side.
        column_label: name of the setting along the top.
        rows: `R` row names.
        columns: `C` column names.
        values: `[R, C]`; NaN = not measured.
        percent: values are shares, shown in percent.
    """

    title: str
    row_label: str
    column_label: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: NDArray[np.float64]
    percent: bool = True

    def __post_init__(self) -> None:
        if self.values.shape != (len(self.rows), len(self.columns)) or self.values.size == 0:
            raise ConfigError(
                f"heat map {self.title!r}: values have shape {self.values.shape}, "
                f"expected {(len(self.rows), len(self.columns))} with at least one cell"
            )

    def text(self, row: int, column: int) -> str:
        """The text of one cell."""
        value = float(self.values[row, column])
        if np.isnan(value):
            return "–"
        return f"{100 * value:.1f}" if self.percent else f"{value:.3g}"

    def shades(self) -> NDArray[np.float64]:
        """Values scaled to [0, 1]: shares as they are, others over their own range; NaN stays."""
        if self.percent:
            return np.clip(self.values, 0.0, 1.0)
        low, high = np.nanmin(self.values), np.nanmax(self.values)
        return (self.values - low) / (high - low if high > low else 1.0)


def heat_table(heat: HeatMap) -> Table:
    """A heat map as a table: shaded cells on a terminal, plain numbers elsewhere."""
    columns = (f"{heat.row_label} \\ {heat.column_label}", *heat.columns)
    rows = tuple((name, *(heat.text(r, c) for c in range(len(heat.columns)))) for r, name in enumerate(heat.rows))
    exact = [[None if np.isnan(v) else float(v) for v in row] for row in heat.values]
    shaded = [[None if np.isnan(v) else float(v) for v in row] for row in heat.shades()]
    return Table(
        heat.title + (" (%)" if heat.percent else ""),
        columns,
        rows,
        values=tuple((name, *row) for name, row in zip(heat.rows, exact, strict=True)),
        shades=tuple((None, *row) for row in shaded),
    )


@dataclass(frozen=True)
class Histogram:
    """Inputs per radius for one certificate, in bins of equal width, right and wrong predictions apart.

    Attributes:
        name: the certificate's name in its report.
        width: how many radii one bar covers.
        right: per bin, inputs with the correct label (all of them unless every true label is known).
        wrong: per bin, inputs certified with a wrong label.
        abstained: inputs without a certificate.
        labeled: whether right and wrong could be told apart.
        color: palette index.
    """

    name: str
    width: int
    right: tuple[int, ...]
    wrong: tuple[int, ...]
    abstained: int
    labeled: bool
    color: int


def certified_plot(report: CertifyReport, *, accuracy: bool = True) -> LinePlot:
    """Certified accuracy (or, with `accuracy=False`, certified rate) against m: a curve per certificate, and baselines.

    Color tells the kind of certificate, the dash pattern the design (or that an equal curve lies below). The single
    FedAvg model is its clean accuracy at m = 0 and zero from m = 1 on; the trusted-only model is a level line.
    """
    ms = np.arange(report.max_radius + 2 if report.max_radius > 0 else 3)
    designs = list(dict.fromkeys(s.design for s in report.kinds))
    series: list[Series] = []
    for s in report.kinds:
        y = [s.certified_accuracy(int(m)) if accuracy else s.certified_rate(int(m)) for m in ms]
        below = sum(np.array_equal(y, other.y) for other in series)  # equal curves would hide each other
        dash = -below if below else designs.index(s.design)
        series.append(Series.of(report.name_of(s), ms, y, color=color_of(s), dash=dash))
    single, trusted = report.clean_accuracy_single_fedavg, report.trusted_only_accuracy
    if accuracy and single is not None:
        y = [single, *[0.0] * (len(ms) - 1)]
        series.append(Series.of(f"{single_model(report)} (0 from m = 1)", ms, y, color=BASELINE_COLOR, marker=True))
    if accuracy and trusted is not None:
        series.append(Series.of("trusted data only", ms, np.full(len(ms), trusted), color=BASELINE_COLOR, dash=2))
    what = "accuracy" if accuracy else "rate"
    bad = what_is_bad(report)
    return LinePlot(f"Certified {what} against {bad}", f"{bad}, m", f"certified {what} (%)", tuple(series), steps=True)


def radius_histograms(report: CertifyReport, bars: int = 30) -> tuple[Histogram, ...]:
    """One histogram per certificate, all with the same bins: at most `bars` of a round width."""
    top = report.max_radius + 1
    width = next(w for w in NICE if -(-top // w) <= bars)
    found = []
    for s in report.kinds:
        told_apart = s.correct_counts is not None and s.accuracy_base == s.n_inputs
        right = _binned(s.correct_counts if told_apart and s.correct_counts else s.radius_counts, width, top)
        wrong = tuple(a - r for a, r in zip(_binned(s.radius_counts, width, top), right, strict=True))
        found.append(Histogram(report.name_of(s), width, right, wrong, s.abstained, told_apart, color_of(s)))
    return tuple(found)


def color_of(summary: CertificateSummary) -> int:
    """Palette index of a kind of certificate, the same in every picture."""
    return KINDS.index(summary.kind)


def _binned(counts: Sequence[int], width: int, top: int) -> tuple[int, ...]:
    padded = np.zeros(-(-max(top, 1) // width) * width, dtype=np.int64)
    padded[: min(len(counts), len(padded))] = counts[: len(padded)]
    return tuple(padded.reshape(-1, width).sum(axis=1).tolist())
