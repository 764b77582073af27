"""`holdfast reproduce ensemble`: Figures 2-6 of the ensemble paper, beside its numbers and with better certificates.

Every run is an ordinary run folder under `OUT/runs`, resumable on its own. The paper's certificate is computed as
published ("ideal", one-vs-rest at alpha/d) and beside it stand the rigorous certificates of this library.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.certification import (
    Certificate,
    certified_level,
    certify_deployed,
    certify_ideal,
    certify_secret,
    clopper_pearson_lower,
    clopper_pearson_upper,
)
from holdfast.ensemble import Votes
from holdfast.experiments.events import Events, Silent
from holdfast.experiments.paper_ensemble import ALPHAS, LEVELS, PUBLISHED, Scale, scale
from holdfast.experiments.reproduction import ALPHA, Reproduction, Runs
from holdfast.experiments.result import describe
from holdfast.report import Comparison, LinePlot, Series, Table, comparison_table

PUBLISHED_METHOD = "as-published-ensemble"


def reproduce_ensemble(
    out: Path,
    *,
    scale_name: str = "smoke",
    data_dir: str | None = None,
    activity: str = "har",
    seed: str | None = None,
    only: Sequence[str] = (),
    threads: int | None = None,
    events: Events | None = None,
) -> Reproduction:
    """Train what the figures need (or take it from `out`), certify, draw and compare.

    Args:
        out: folder for runs, figures and tables; runs already there are continued.
        scale_name: "smoke", "cpu" or "paper".
        data_dir: folder with the official files.
        activity: "har", or a file with activity data and a client column.
        seed: makes all runs repeatable.
        only: names of runs to train now; figures that need others are left out.
        threads: threads to train with.
        events: hears what happens.
    """
    chosen = scale(scale_name, data_dir=data_dir, activity=activity)
    runs = Runs(chosen, Path(out), seed=seed, only=tuple(only), threads=threads, events=events or Silent())
    plots = [plot for figure in (_figure2, _figure3, _figure4, _figure5, _figure6) for plot in figure(runs)]
    tables = [
        comparison_table("Published numbers beside ours", _comparisons(runs)),
        *(_designs(runs) if runs.has("images", "images-partitions") else ()),
        *(_activity(runs) if runs.has("activity", *_activity_arms(runs)) else ()),
    ]
    return Reproduction.write(runs.out, scale_name, tables, plots)


def _ideal(votes: Votes, *, alpha: float = ALPHA, method: str = PUBLISHED_METHOD) -> Certificate:
    design = votes.design
    if design.kind == "exhaustive":
        return certify_ideal(votes.counts(), n=design.n, k=design.k, alpha=alpha, exhaustive=True)
    return certify_ideal(votes.counts(), n=design.n, k=design.k, alpha=alpha, method=method)


def _labels(votes: Votes) -> NDArray[np.int64]:
    assert votes.labels is not None  # every run of a reproduction is on labeled data
    return votes.labels


def _series(name: str, votes: Votes, certificate: Certificate, **style: Any) -> Series:
    curve = certificate.curve(_labels(votes))
    return Series.of(name, np.arange(len(curve)), curve, **style)


def _plot(title: str, series: list[Series]) -> LinePlot:
    return LinePlot(title, "m, malicious clients", "certified accuracy at m", tuple(series), steps=True)


def _single(runs: Runs[Scale], name: str) -> list[Series]:
    single = runs.reports[name].clean_accuracy_single_fedavg if name in runs.reports else None
    if single is None:
        return []
    return [Series.of("single FedAvg model", [0, 1], [single, 0], color=7, marker=True)]


def _figure2(runs: Runs[Scale]) -> list[tuple[str, LinePlot]]:
    plots = []
    if runs.has("images"):
        votes = runs.votes("images", runs.scale.models)
        series = [
            *_single(runs, "images"),
            _series("as published (ideal)", votes, _ideal(votes)),
            _series("ideal, rigorous", votes, _ideal(votes, method="auto"), dash=1),
        ]
        if runs.has("images-partitions"):
            split = runs.votes("images-partitions")
            series += [_series(f"{c.kind}, {describe(split.design)}", split, c) for c in _deployed_and_secret(split)]
        plots.append(("figure-2a", _plot("Figure 2a: single model and ensembles, images", series)))
    if runs.has("activity"):
        votes = runs.votes("activity")
        series = [*_single(runs, "activity"), _series("all groups (exact)", votes, _ideal(votes))]
        deployed = certify_deployed(votes.votes, votes.design.membership, votes.n_labels)
        series.append(_series("deployed", votes, deployed, dash=1))
        plots.append(("figure-2b", _plot("Figure 2b: single model and ensemble, activity", series)))
    return plots


def _deployed_and_secret(votes: Votes) -> list[Certificate]:
    design = votes.design
    return [
        certify_deployed(votes.votes, design.membership, votes.n_labels),
        certify_secret(votes.votes, design.group_sizes, design.repeats, votes.n_labels, alpha=ALPHA),
    ]


def _figure3(runs: Runs[Scale]) -> list[tuple[str, LinePlot]]:
    plots = []
    images = [f"images-k-{k}" for k in runs.scale.image_ks]
    if runs.has("images", *images):
        side = runs.scale.side_models
        sized = {runs.scale.arms()["images"].k: runs.votes("images", side)}
        sized |= {runs.scale.arms()[name].k: runs.votes(name) for name in images}
        series = [_series(f"k = {k}", sized[k], _ideal(sized[k])) for k in sorted(sized)]
        plots.append(("figure-3a", _plot(f"Figure 3a: clients per group k, images (N = {side})", series)))
    activity = [f"activity-k-{k}" for k in runs.scale.activity_ks]
    if runs.has("activity", *activity):
        sized = {runs.scale.arms()[name].k: runs.votes(name) for name in ("activity", *activity)}
        series = [_series(f"k = {k}", sized[k], _ideal(sized[k])) for k in sorted(sized)]
        plots.append(("figure-3b", _plot("Figure 3b: clients per group k, activity (all groups)", series)))
    return plots


def _figure4(runs: Runs[Scale]) -> list[tuple[str, LinePlot]]:
    plots = []
    halves = (("a", "images", runs.scale.image_counts), ("b", "activity-random", runs.scale.activity_counts))
    for letter, name, counts in halves:
        if runs.has(name):
            votes = [runs.votes(name, models) for models in counts]
            series = [_series(f"N = {v.n_models}", v, _ideal(v)) for v in votes]
            plots.append((f"figure-4{letter}", _plot(f"Figure 4{letter}: number of models N", series)))
    return plots


def _figure5(runs: Runs[Scale]) -> list[tuple[str, LinePlot]]:
    plots = []
    for letter, name, models in (("a", "images", runs.scale.models), ("b", "activity-random", None)):
        if runs.has(name):
            votes = runs.votes(name, models)
            series = [_series(f"alpha = {alpha:g}", votes, _ideal(votes, alpha=alpha)) for alpha in ALPHAS]
            plots.append((f"figure-5{letter}", _plot(f"Figure 5{letter}: failure probability alpha", series)))
    return plots


def _figure6(runs: Runs[Scale]) -> list[tuple[str, LinePlot]]:
    names = [f"images-q-{q}" for q in runs.scale.skews]
    if not runs.has("images", *names):
        return []
    skewed = {runs.scale.arms()["images"].skew: runs.votes("images", runs.scale.side_models)}
    skewed |= {runs.scale.arms()[name].skew: runs.votes(name) for name in names}
    series = [_series(f"q = {q:g}", skewed[q], _ideal(skewed[q])) for q in sorted(skewed)]
    return [("figure-6", _plot(f"Figure 6: label skew q (N = {runs.scale.side_models})", series))]


def _comparisons(runs: Runs[Scale]) -> list[Comparison]:
    """The paper's numbers: first what follows from formulas alone, then what this scale measured."""
    p_low = Fraction(float(clopper_pearson_lower(500, 500, ALPHA / 10_000)))
    anchors = {
        "mnist-zero": certified_level(p_low, 1 - p_low, 1000, 10) + 1,
        "har-zero": certified_level(Fraction(1), Fraction(0), 30, 2) + 1,
    }
    made = [_compare(key, value, None, "from the formulas, at unanimous votes") for key, value in anchors.items()]
    if not runs.scale.comparable:
        return made + [_compare(key, None, None, "") for key in ("mnist-20", "skew-10")]
    for key, name, m in (("mnist-20", "images", 20), ("skew-10", "images-q-0.9", 10)):
        votes = runs.votes(name, runs.scale.models if name == "images" else None) if runs.has(name) else None
        for method, words in ((PUBLISHED_METHOD, "as published"), ("auto", "rigorous")):
            certificate = None if votes is None else _ideal(votes, method=method)
            note = f"ideal, {words}" + ("" if votes is None else f", N = {votes.n_models}")
            made.append(_compare(key, certificate, votes, note, m=m))
    if runs.has("images"):
        votes = runs.votes("images", runs.scale.models)
        curve = _ideal(votes).curve(_labels(votes))
        made.append(_compare("mnist-zero", int(np.argmax(curve == 0)), None, "measured, as published"))
    return made


def _compare(key: str, found: Certificate | int | None, votes: Votes | None, note: str, *, m: int = 0) -> Comparison:
    """One published number beside ours; shares get the 95% Clopper-Pearson interval over test inputs."""
    told = PUBLISHED[key]
    if not isinstance(found, Certificate):
        ours = None if found is None else float(found)
        return Comparison(told.claim, told.value, ours, unit=told.unit, precision=told.precision, note=note)
    assert votes is not None
    share, total = found.certified_accuracy(_labels(votes), m), votes.n_inputs
    count = round(share * total)
    low = float(clopper_pearson_lower(count, total, 0.025)) if count else 0.0
    high = float(clopper_pearson_upper(count, total, 0.025)) if count < total else 1.0
    return Comparison(
        told.claim, told.value, 100 * share, 100 * low, 100 * high, unit=told.unit, precision=told.precision, note=note
    )


def _designs(runs: Runs[Scale]) -> tuple[Table, ...]:
    """Certified accuracy of every design and kind at no more training than the paper's own ensemble."""
    random = runs.votes("images", runs.scale.models)
    partitions = runs.votes("images-partitions")
    disjoint = [runs.votes(f"images-disjoint-{k}") for k in runs.scale.disjoint if runs.has(f"images-disjoint-{k}")]
    entries: list[tuple[str, Votes, Certificate]] = [
        ("ideal (as published)", random, _ideal(random)),
        ("ideal (rigorous)", random, _ideal(random, method="auto")),
        ("deployed", random, certify_deployed(random.votes, random.design.membership, random.n_labels)),
    ]
    for votes in (partitions, *disjoint, partitions.prefix(1)):
        entries += [(certificate.kind, votes, certificate) for certificate in _deployed_and_secret(votes)]
    top = max(certificate.max_radius for _, _, certificate in entries)
    levels = tuple(m for m in LEVELS if m <= top) if top >= LEVELS[1] else range(max(top, 0) + 1)
    return (_accuracy_table(f"Certified accuracy (%) at m malicious of {random.design.n} clients", entries, levels),)


def _activity_arms(runs: Runs[Scale]) -> list[str]:
    return [f"activity-k-{k}" for k in runs.scale.activity_ks]


def _activity(runs: Runs[Scale]) -> tuple[Table, ...]:
    """Certified accuracy at every m, of all groups of users."""
    sized = [runs.votes(name) for name in ("activity", *_activity_arms(runs))]
    entries = []
    for votes in sized:
        deployed = certify_deployed(votes.votes, votes.design.membership, votes.n_labels)
        entries += [("ideal (exact: all groups are trained)", votes, _ideal(votes)), ("deployed", votes, deployed)]
    top = max(certificate.max_radius for _, _, certificate in entries)
    title = f"Certified accuracy (%) at m malicious of {sized[0].design.n} users"
    return (_accuracy_table(title, entries, range(max(top, 0) + 2)),)  # up to the first m where nothing is certified


def _accuracy_table(title: str, entries: Sequence[tuple[str, Votes, Certificate]], levels: Sequence[int]) -> Table:
    """One row per certificate and design, one column per m."""
    rows, values = [], []
    for kind, votes, certificate in entries:
        shares = [certificate.certified_accuracy(_labels(votes), m) for m in levels]
        words, cost = describe(votes.design), int(votes.design.membership.sum())
        rows.append((kind, words, str(cost), f"{certificate.alpha:g}", *(f"{100 * s:.1f}" for s in shares)))
        values.append((kind, words, cost, certificate.alpha, *shares))
    columns = ("certificate", "design", "client trainings", "alpha", *(f"m={m}" for m in levels))
    return Table(title, columns, tuple(rows), tuple(values), left=2)
