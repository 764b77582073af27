"""Reports: the same numbers as terminal tables, JSON, figures and one self-contained HTML page."""

from holdfast.report.comparison import Comparison, comparison_table
from holdfast.report.content import CertificateSummary, CertifyReport, Example, levels, summarize
from holdfast.report.examples import pick_examples
from holdfast.report.plots import HeatMap, LinePlot, Series, certified_plot, heat_table, radius_histograms
from holdfast.report.tables import Table, as_text, certified_tables, show, to_json
from holdfast.report.wording import headline

__all__ = [
    "CertificateSummary",
    "CertifyReport",
    "Comparison",
    "Example",
    "HeatMap",
    "LinePlot",
    "Series",
    "Table",
    "as_text",
    "certified_plot",
    "certified_tables",
    "comparison_table",
    "headline",
    "heat_table",
    "levels",
    "pick_examples",
    "radius_histograms",
    "show",
    "summarize",
    "to_json",
]
