"""`holdfast reproduce ensemble`: Figures 2-6 of the ensemble paper, beside its numbers and with better certificates.

Every run is an ordinary run folder under `OUT/runs`, resumable on its own. The paper's certificate is computed as
published ("ideal", one-vs-rest at alpha/d) and beside it stand the rigorous certificates of this library.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from holdfast.certification import (
    Certificate,
    certified_level,
    certify_deployed,
    certify_secret,
    clopper_pearson_lower,
    clopper_pearson_upper,
)
from holdfast.ensemble import Votes
from holdfast.experiments.events import Events, Silent
from holdfast.experiments.figures_ensemble import (
    PUBLISHED_METHOD,
    accuracy_table,
    ideal,
    labels_of,
    plot_of,
    series_of,
    settings_of,
    settings_plots,
    settings_tables,
)
from holdfast.experiments.paper_ensemble import PUBLISHED, Scale, scale
from holdfast.experiments.reproduction import ALPHA, NOTHING, Reproduction, Runs
from holdfast.experiments.result import describe
from holdfast.report import Comparison, LinePlot, Series, Table, comparison_table


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
    for name in only:  # those too that no figure can be drawn of
        if name != NOTHING:
            runs.votes(name)
    settings = settings_of(runs)
    plots = _figure2(runs) + settings_plots(settings, chosen.side_models)
    tables = [
        comparison_table("Published numbers beside ours", _comparisons(runs)),
        *(_designs(runs) if runs.has("images", "images-partitions") else ()),
        *settings_tables(settings),
        *(_activity(runs) if runs.has("activity", *_activity_arms(runs)) else ()),
    ]
    return Reproduction.write(runs.out, scale_name, tables, plots)


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
            series_of("as published (ideal)", votes, ideal(votes)),
            series_of("ideal, rigorous", votes, ideal(votes, method="auto"), dash=1),
        ]
        if runs.has("images-partitions"):
            split = runs.votes("images-partitions")
            series += [series_of(f"{c.kind}, {describe(split.design)}", split, c) for c in _deployed_and_secret(split)]
        plots.append(("figure-2a", plot_of("Figure 2a: single model and ensembles, images", series)))
    if runs.has("activity"):
        votes = runs.votes("activity")
        series = [*_single(runs, "activity"), series_of("all groups (exact)", votes, ideal(votes))]
        deployed = certify_deployed(votes.votes, votes.design.membership, votes.n_labels)
        series.append(series_of("deployed", votes, deployed, dash=1))
        plots.append(("figure-2b", plot_of("Figure 2b: single model and ensemble, activity", series)))
    return plots


def _deployed_and_secret(votes: Votes) -> list[Certificate]:
    design = votes.design
    return [
        certify_deployed(votes.votes, design.membership, votes.n_labels),
        certify_secret(votes.votes, design.group_sizes, design.repeats, votes.n_labels, alpha=ALPHA),
    ]


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
    single = "images-q-0.9-single-steps"
    for key, name, m in (("mnist-20", "images", 20), ("skew-10", "images-q-0.9", 10), ("skew-10", single, 10)):
        if name not in runs.arms:
            continue
        votes = runs.votes(name, runs.scale.models if name == "images" else None) if runs.has(name) else None
        for method, words in ((PUBLISHED_METHOD, "as published"), ("auto", "rigorous")):
            certificate = None if votes is None else ideal(votes, method=method)
            note = f"ideal, {words}" + ("" if votes is None else f", N = {votes.n_models}")
            note += ", rounds of one local step" if name == single else ""
            made.append(_compare(key, certificate, votes, note, m=m))
    if runs.has("images"):
        votes = runs.votes("images", runs.scale.models)
        curve = ideal(votes).curve(labels_of(votes))
        made.append(_compare("mnist-zero", int(np.argmax(curve == 0)), None, "measured, as published"))
    return made


def _compare(key: str, found: Certificate | int | None, votes: Votes | None, note: str, *, m: int = 0) -> Comparison:
    """One published number beside ours; shares get the 95% Clopper-Pearson interval over test inputs."""
    told = PUBLISHED[key]
    if not isinstance(found, Certificate):
        ours = None if found is None else float(found)
        return Comparison(told.claim, told.value, ours, unit=told.unit, precision=told.precision, note=note)
    assert votes is not None
    share, total = found.certified_accuracy(labels_of(votes), m), votes.n_inputs
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
        ("ideal (as published)", random, ideal(random)),
        ("ideal (rigorous)", random, ideal(random, method="auto")),
        ("deployed", random, certify_deployed(random.votes, random.design.membership, random.n_labels)),
    ]
    for votes in (partitions, *disjoint, partitions.prefix(1)):
        entries += [(certificate.kind, votes, certificate) for certificate in _deployed_and_secret(votes)]
    return (accuracy_table(f"Certified accuracy (%) at m malicious of {random.design.n} clients", entries),)


def _activity_arms(runs: Runs[Scale]) -> list[str]:
    return [f"activity-k-{k}" for k in runs.scale.activity_ks]


def _activity(runs: Runs[Scale]) -> tuple[Table, ...]:
    """Certified accuracy at every m, of all groups of users."""
    sized = [runs.votes(name) for name in ("activity", *_activity_arms(runs))]
    entries = []
    for votes in sized:
        deployed = certify_deployed(votes.votes, votes.design.membership, votes.n_labels)
        entries += [("ideal (exact: all groups are trained)", votes, ideal(votes)), ("deployed", votes, deployed)]
    title = f"Certified accuracy (%) at m malicious of {sized[0].design.n} users"
    return (accuracy_table(title, entries),)
