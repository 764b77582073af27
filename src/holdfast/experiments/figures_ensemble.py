"""The lines of the ensemble paper's figures: what Figures 3 to 6 vary, drawn and in numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.certification import Certificate, certify_ideal
from holdfast.ensemble import Votes
from holdfast.experiments.paper_ensemble import ALPHAS, LEVELS, Scale
from holdfast.experiments.reproduction import ALPHA, Runs
from holdfast.experiments.result import describe
from holdfast.report import LinePlot, Series, Table

PUBLISHED_METHOD = "as-published-ensemble"

Setting = tuple[str, Votes, float]
"""A line of Figures 3 to 6: what is varied, in words, the votes, alpha."""


def ideal(votes: Votes, *, alpha: float = ALPHA, method: str = PUBLISHED_METHOD) -> Certificate:
    """The paper's certificate of votes, exact where all groups were trained."""
    design = votes.design
    if design.kind == "exhaustive":
        return certify_ideal(votes.counts(), n=design.n, k=design.k, alpha=alpha, exhaustive=True)
    return certify_ideal(votes.counts(), n=design.n, k=design.k, alpha=alpha, method=method)


def labels_of(votes: Votes) -> NDArray[np.int64]:
    """The true labels."""
    assert votes.labels is not None  # every run of a reproduction is on labeled data
    return votes.labels


def series_of(name: str, votes: Votes, certificate: Certificate, **style: Any) -> Series:
    """Certified accuracy at every m as a line."""
    curve = certificate.curve(labels_of(votes))
    return Series.of(name, np.arange(len(curve)), curve, **style)


def plot_of(title: str, series: list[Series]) -> LinePlot:
    """Certified accuracy against m."""
    return LinePlot(title, "m, malicious clients", "certified accuracy at m", tuple(series), steps=True)


def settings_of(runs: Runs[Scale]) -> dict[str, list[Setting]]:
    """The lines of Figures 3 to 6, as far as their runs belong to this call."""
    scale, arms = runs.scale, runs.scale.arms()
    images = "images" if runs.has("images") else f"images-k-{scale.images.k}"  # a prefix of the one, or the other
    found: dict[str, list[Setting]] = {}
    for figure, main, models, others, word, field in (
        ("3a", images, scale.side_models, [f"images-k-{k}" for k in scale.image_ks], "k", "k"),
        ("3b", "activity", None, [f"activity-k-{k}" for k in scale.activity_ks], "k", "k"),
        ("6", images, scale.side_models, [f"images-q-{q}" for q in scale.skews], "q", "skew"),
    ):
        if runs.has(main, *others):
            sizes = {name: models if name == main else None for name in (main, *others)}
            varied = {name: getattr(arms[name], field) for name in sizes}
            names = sorted(sizes, key=varied.__getitem__)
            found[figure] = [(f"{word} = {varied[name]:g}", runs.votes(name, sizes[name]), ALPHA) for name in names]
    for letter, name, models, counts in (
        ("a", "images", scale.models, scale.image_counts),
        ("b", "activity-random", None, scale.activity_counts),
    ):
        if runs.has(name):
            found[f"4{letter}"] = [(f"N = {count}", runs.votes(name, count), ALPHA) for count in counts]
            found[f"5{letter}"] = [(f"alpha = {alpha:g}", runs.votes(name, models), alpha) for alpha in ALPHAS]
    return dict(sorted(found.items()))


def settings_plots(settings: Mapping[str, list[Setting]], side_models: int) -> list[tuple[str, LinePlot]]:
    """Figures 3 to 6."""
    titles = {
        "3a": f"clients per group k, images (N = {side_models})",
        "3b": "clients per group k, activity (all groups)",
        "6": f"label skew q (N = {side_models})",
    }
    plots = []
    for figure, lines in settings.items():
        title = titles.get(figure) or ("number of models N" if figure[0] == "4" else "failure probability alpha")
        series = [series_of(words, votes, ideal(votes, alpha=alpha)) for words, votes, alpha in lines]
        plots.append((f"figure-{figure}", plot_of(f"Figure {figure}: {title}", series)))
    return plots


def settings_tables(settings: Mapping[str, list[Setting]]) -> list[Table]:
    """The same lines in numbers, images and activity apart."""
    tables = []
    for name, figures in (("images", ("3a", "4a", "5a", "6")), ("activity", ("3b", "4b", "5b"))):
        entries = [
            (f"Figure {figure}: {words}", votes, ideal(votes, alpha=alpha))
            for figure in figures
            for words, votes, alpha in settings.get(figure, ())
        ]
        if entries:
            tables.append(accuracy_table(f"Figures 3 to 6, {name}: certified accuracy (%) as published", entries))
    return tables


def accuracy_table(title: str, entries: Sequence[tuple[str, Votes, Certificate]]) -> Table:
    """One row per certificate and design, one column per m: every m where few are survived, up to the first without."""
    top = max(certificate.max_radius for _, _, certificate in entries)
    levels = tuple(m for m in LEVELS if m <= top) if top >= 2 * LEVELS[1] else tuple(range(max(top, 0) + 2))
    rows, values = [], []
    for kind, votes, certificate in entries:
        shares = [certificate.certified_accuracy(labels_of(votes), m) for m in levels]
        words, cost = describe(votes.design), int(votes.design.membership.sum())
        rows.append((kind, words, str(cost), f"{certificate.alpha:g}", *(f"{100 * s:.1f}" for s in shares)))
        values.append((kind, words, cost, certificate.alpha, *shares))
    columns = ("certificate", "design", "client trainings", "alpha", *(f"m={m}" for m in levels))
    return Table(title, columns, tuple(rows), tuple(values), left=2)
