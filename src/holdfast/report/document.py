"""Any result as one HTML file that needs nothing else: a sentence, charts, tables and settings, no script at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from holdfast.report import charts, palette
from holdfast.report.files import write_whole
from holdfast.report.page import _asset, _environment, _hash, _palette_css
from holdfast.report.plots import HeatMap, LinePlot, heat_table
from holdfast.report.ridges import RidgePlot, ridge_chart
from holdfast.report.tables import Table

Part = Table | LinePlot | HeatMap | RidgePlot
_SHADES = 8


@dataclass(frozen=True)
class Document:
    """What a page shows, from top to bottom.

    Attributes:
        title: the headline.
        kind: what sort of report it is, beside the product's name.
        facts: short facts below the headline.
        answer: one sentence that answers the user's question.
        parts: charts, tables and heat maps.
        entries: settings and versions by heading.
    """

    title: str
    kind: str
    facts: tuple[str, ...] = ()
    answer: str = ""
    parts: tuple[Part, ...] = ()
    entries: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def write_document(document: Document, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write the page as one HTML file.

    Raises:
        ArtifactError: the file exists and `overwrite` is False, or it cannot be written.
    """
    return write_whole(Path(path), render_document(document).encode(), overwrite=overwrite)


def render_document(document: Document) -> str:
    """The page as text; everything from the user is escaped, and the same document gives the same bytes.

    Example:
        >>> page = render_document(Document("A <b> run", "simulation", parts=(Table("T", ("a", "b"), (("x", "1"),)),)))
        >>> "A &lt;b&gt; run" in page, "<script" in page
        (True, False)
    """
    style = _palette_css() + _asset("page.css") + _shade_css()
    return (
        _environment()
        .get_template("document.html.j2")
        .render(
            document=document,
            parts=[_part(part) for part in document.parts],
            style=Markup(style),
            style_hash=_hash(style),
        )
    )


def _part(part: Part) -> dict[str, Any]:
    if isinstance(part, LinePlot):
        ends = " ".join(f"{s.name}: ends at {s.y[np.isfinite(s.y)][-1]:.3g}." for s in part.series if _finite(s.y))
        legend = [
            {"name": s.name, "color": part.color_of(i), "dash": " ".join(map(str, palette.dash(s.dash)))}
            for i, s in enumerate(part.series)
        ]
        return {"title": part.title, "plot": Markup(charts.line_chart(part, ends)), "legend": legend}
    if isinstance(part, RidgePlot):
        sides = [{"name": name, "color": ink, "dash": ""} for name, ink in part.legend]
        return {"title": part.title, "plot": Markup(ridge_chart(part)), "legend": sides}
    table = heat_table(part) if isinstance(part, HeatMap) else part
    shades = table.shades or tuple((None,) * len(row) for row in table.rows)
    cells = [
        [(cell, _css(place, table.left, shade)) for place, (cell, shade) in enumerate(zip(row, dark, strict=True))]
        for row, dark in zip(table.rows, shades, strict=True)
    ]
    return {"title": table.title, "plot": None, "table": table, "cells": cells}


def _css(place: int, left: int, shade: float | None) -> str:
    classes = ["num"] if place >= left else []
    if shade is not None:
        classes.append(f"shade{min(_SHADES - 1, int(shade * _SHADES))}")
    return " ".join(classes)


def _shade_css() -> str:
    """Backgrounds from pale to dark blue, with text that stays readable on them."""
    rules = ["td[class*=shade]:last-child{padding-right:.5rem}"]
    for step in range(_SHADES):
        share = step / (_SHADES - 1)
        red, green, blue = (round(a + (b - a) * share) for a, b in zip((235, 243, 250), (8, 69, 120), strict=True))
        ink = "#fff" if share > 0.5 else "#000"
        rules.append(f".shade{step}{{background:rgb({red},{green},{blue});color:{ink}}}")
    return "".join(rules)


def _finite(values: Any) -> bool:
    return bool(np.isfinite(values).any())
