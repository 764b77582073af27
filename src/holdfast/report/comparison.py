"""Published numbers beside ours, with a verdict that follows from the numbers alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.report.tables import Table
from holdfast.types import ConfigError


@dataclass(frozen=True)
class Comparison:
    """One published claim and what we found.

    Attributes:
        claim: what is claimed, in words ("MNIST, certified accuracy at m = 20").
        published: the published value; None where the source prints none.
        ours: our value, in the same unit; None when this scale did not measure it.
        low: lower end of our interval; the value itself when it is exact.
        high: upper end of our interval.
        unit: "%" (values are percentages, one decimal) or "" (plain numbers).
        precision: half a unit of the published value's last digit: 0.5 for "88%", 0 for an exact integer.
        note: why they may differ, or how ours was found.

    Example:
        >>> Comparison("CA at m = 20", published=88, ours=87.9, low=87.2, high=88.6, unit="%", precision=0.5).verdict
        'agrees'
        >>> Comparison("first m with CA 0", published=61, ours=60).verdict
        'lower'
    """

    claim: str
    published: float | None
    ours: float | None
    low: float | None = None
    high: float | None = None
    unit: str = ""
    precision: float = 0.0
    note: str = ""

    def __post_init__(self) -> None:
        if self.ours is not None and not self.interval[0] <= self.ours <= self.interval[1]:
            raise ConfigError(f"{self.claim}: ours={self.ours} lies outside its interval {self.interval}")

    @property
    def interval(self) -> tuple[float, float]:
        """Our interval; a point when the value is exact."""
        ours = float("nan") if self.ours is None else self.ours
        return (ours if self.low is None else self.low, ours if self.high is None else self.high)

    @property
    def verdict(self) -> str:
        """'agrees' when our interval meets the published rounding; else 'higher', 'lower', or what is missing."""
        if self.ours is None:
            return "not measured"
        if self.published is None:
            return "not published"
        low, high = self.interval
        if low > self.published + self.precision:
            return "higher"
        return "lower" if high < self.published - self.precision else "agrees"


def comparison_table(title: str, comparisons: Sequence[Comparison], notes: Sequence[str] = ()) -> Table:
    """Columns claim, published, ours, interval, verdict; notes of single claims are numbered below the table.

    Example:
        >>> rows = [Comparison("CA at m = 20", 88, 91.24, 90.6, 91.8, unit="%", precision=0.5)]
        >>> print(comparison_table("Figure 2a", rows).to_plain())
        Figure 2a
        claim         published  ours   interval    verdict
        CA at m = 20  88%        91.2%  90.6–91.8%  higher
    """
    rows: list[tuple[str, ...]] = []
    values: list[tuple[object, ...]] = []
    footnotes: list[str] = []
    for c in comparisons:
        mark = ""
        if c.note:
            footnotes.append(f"[{len(footnotes) + 1}] {c.note}")
            mark = f" [{len(footnotes)}]"
        low, high = c.interval
        exact = c.ours is None or low == high
        span = ("–" if c.ours is None else "exact") if exact else f"{_text(low, '')}–{_text(high, c.unit)}"
        published = "–" if c.published is None else f"{c.published:g}{c.unit}"
        rows.append((c.claim + mark, published, _text(c.ours, c.unit), span, c.verdict))
        values.append((c.claim, c.published, c.ours, None if c.ours is None else [low, high], c.verdict))
    columns = ("claim", "published", "ours", "interval", "verdict")
    return Table(title, columns, tuple(rows), tuple(values), (*footnotes, *notes), left=5)


def _text(value: float | None, unit: str) -> str:
    if value is None:
        return "–"
    return f"{value:g}{unit}" if float(value).is_integer() and not unit else f"{value:.1f}{unit}"
