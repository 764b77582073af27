"""The report as one HTML file that needs nothing else: no network, no server, no font, no library.

Why not plotly: its script alone is 4.8 MB, its charts are blank without JavaScript and on paper, and a keyboard cannot
reach their numbers. Here the charts are finished SVG; a small script adds the slider, the cross-hair and the legend.
A content security policy with the hashes of that script and of the style sheet forbids everything else, so that even a
label named `<script>` could not run or call out.
"""

from __future__ import annotations

import base64
import hashlib
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from holdfast.report import charts, palette, wording
from holdfast.report.content import CertificateSummary, CertifyReport, Example
from holdfast.report.examples import data_uri, extremes
from holdfast.report.files import write_whole
from holdfast.report.plots import LinePlot, certified_plot, color_of, radius_histograms
from holdfast.report.tables import certified_tables


def write_page(report: CertifyReport, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write the report as one HTML file.

    Raises:
        ArtifactError: the file exists and `overwrite` is False, or it cannot be written.
    """
    return write_whole(Path(path), render_page(report).encode(), overwrite=overwrite)


def render_page(report: CertifyReport) -> str:
    """The page as text. Everything that comes from the user is escaped; the same report gives the same bytes."""
    style, script = _palette_css() + _asset("page.css"), _asset("page.js")
    accuracy = certified_plot(report, accuracy=True) if report.labeled else None
    histograms = radius_histograms(report)
    tallest = max(max(*(r + w for r, w in zip(h.right, h.wrong, strict=True)), h.abstained) for h in histograms)
    most, least = extremes(report.examples)
    m = report.headline_m()
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            report=report,
            words=wording,
            kind_text=_kinds(report),
            designs=list(dict.fromkeys(s.design for s in report.kinds if s.design)),
            headline=wording.headline(report),
            start_m=m,
            top_m=max(report.max_radius, 0) + 1,
            rows=[_live_row(report, s, m) for s in report.kinds],
            baselines=_baseline_rows(report, m),
            accuracy=accuracy and _chart(report, accuracy),
            rate=_chart(report, certified_plot(report, accuracy=False)),
            histograms=[
                (h, Markup(charts.histogram_chart(h, tallest, _radius_summary(s))))
                for h, s in zip(histograms, report.kinds, strict=True)
            ],
            examples=[("Largest radius", _cards(report, most)), ("Smallest radius", _cards(report, least))],
            assumptions=wording.assumptions(report),
            limits=wording.limits(report),
            tables=certified_tables(report, limit=12),
            data=_data(report),
            style=Markup(style),
            script=Markup(script),
            style_hash=_hash(style),
            script_hash=_hash(script),
        )
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("holdfast.report", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = wording.number
    environment.filters["setting"] = _setting
    environment.filters["sentence"] = lambda text: text[:1].upper() + text[1:].removesuffix(".") + "."
    return environment


def _setting(value: object) -> str:
    """A setting as the page shows it; None means that the default was used."""
    if value is None:
        return "default"
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _asset(name: str) -> str:
    return (files("holdfast.report") / "assets" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _palette_css() -> str:
    """The palette as CSS variables, light and dark."""

    def variables(colors: tuple[str, ...], wrong: str) -> str:
        return "".join(f"--k{i}:{c};" for i, c in enumerate(colors)) + f"--wrong:{wrong};"

    light = f":root{{{variables(palette.LIGHT, palette.WRONG_LIGHT)}}}"
    dark = f":root{{{variables(palette.DARK, palette.WRONG_DARK)}}}"
    ink = "".join(f".k{i}{{--ink:var(--k{i})}}" for i in range(len(palette.LIGHT)))
    return f"{light}@media screen and (prefers-color-scheme:dark){{{dark}}}{ink}\n"


def _chart(report: CertifyReport, plot: LinePlot) -> dict[str, Any]:
    description = " ".join(f"{s.name}: {_curve_summary(s.y.tolist())}" for s in plot.series)
    legend = [
        {
            "name": s.name,
            "color": plot.color_of(i),
            "dash": " ".join(map(str, palette.dash(s.dash))),
            "marker": s.marker,
        }
        for i, s in enumerate(plot.series)
    ]
    return {"title": plot.title, "svg": Markup(charts.line_chart(plot, description)), "legend": legend}


def _curve_summary(y: list[float]) -> str:
    zero = next((m for m, value in enumerate(y) if value == 0), None)
    end = "stays there." if zero is None else f"falls to zero at m = {zero}."
    return f"{100 * y[0]:.1f}% at m = 0, {end}"


def _radius_summary(summary: CertificateSummary) -> str:
    half = next((m for m in range(summary.max_radius + 2) if 2 * summary.certified(m) < summary.n_inputs), 0) - 1
    middle = f"half of the inputs have radius {half} or more" if half >= 0 else "more than half of the inputs abstained"
    return f"Largest radius {summary.max_radius}; {middle}; {summary.abstained} abstained."


def _kinds(report: CertifyReport) -> list[tuple[str, wording.KindText, str]]:
    """Each kind of certificate of the report, its explanation, and how its radii were computed."""
    methods: dict[str, dict[str, None]] = {}
    for s in report.kinds:
        methods.setdefault(s.kind, {})[s.method] = None
    return [(kind, wording.kind_text(report, kind), "; ".join(found)) for kind, found in methods.items()]


def _live_row(report: CertifyReport, s: CertificateSummary, m: int) -> dict[str, Any]:
    return {
        "name": report.name_of(s),
        "color": color_of(s),
        "alpha": wording.probability(s.alpha),
        "accuracy": wording.share(s.correct(m), s.accuracy_base) if s.labeled else None,
        "rate": wording.share(s.certified(m), s.n_inputs),
        "bar": 100 * s.guaranteed(m) / s.guaranteed_base,
        "count": s.guaranteed(m),
    }


def _baseline_rows(report: CertifyReport, m: int) -> list[dict[str, Any]]:
    if not report.labeled:  # an accuracy has no place beside shares of unchanged labels
        return []
    rows = []
    if (single := report.clean_accuracy_single_fedavg) is not None:
        rows.append({"name": wording.single_model(report), "zero": single, "after": 0.0})
    if (trusted := report.trusted_only_accuracy) is not None:
        rows.append({"name": "trusted data only", "zero": trusted, "after": trusted})
    return [r | {"now": 100 * float(str(r["zero"] if m == 0 else r["after"]))} for r in rows]


def _cards(report: CertifyReport, examples: tuple[Example, ...]) -> list[dict[str, Any]]:
    cards = []
    for e in examples:
        said = "abstained" if e.prediction is None else f"predicted {e.prediction}"
        truth = "" if e.label is None else f", true label {e.label}"
        held = wording.survival(report, e.radius)
        cards.append(
            {
                "example": e,
                "alt": f"Test input {e.index}: {said}{truth}, {held}.",
                "held": held,
                "wrong": e.label is not None and e.prediction is not None and e.prediction != e.label,
                "uri": None if e.image is None else data_uri(e.image),
            }
        )
    return cards


def _data(report: CertifyReport) -> dict[str, Any]:
    """What the script needs: counts of inputs at every m, so that it rounds down just as the tables do."""
    top = max(report.max_radius, 0) + 2
    return {
        "total": {"correct": report.kinds[0].accuracy_base, "certified": report.n_inputs},
        "clients": report.n_clients,
        "labeled": report.labeled,
        "rows": [
            {
                "correct": [s.correct(m) for m in range(top)] if s.labeled else None,
                "certified": [s.certified(m) for m in range(top)],
            }
            for s in report.kinds
        ],
        "baselines": [[r["zero"], r["after"]] for r in _baseline_rows(report, 0)],
    }
