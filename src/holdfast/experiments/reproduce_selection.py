"""`holdfast reproduce selection`: Figures 2, 4, 5 and 6 of the randomized-selection paper, beside its numbers.

Figure 2 and the places where certified accuracy reaches zero follow from formulas alone; the rest is trained, every
run in an ordinary run folder under `OUT/runs`. Curves are the corrected, rigorous certificates (all inputs share
alpha); the comparison with printed numbers uses the paper's own settings, and says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.stats import binom

from holdfast.certification import Certificate, delta, radius
from holdfast.ensemble import Votes
from holdfast.experiments.certificates import EXAMPLES, certify_votes
from holdfast.experiments.claims_selection import formulas, labels_of, measured, sizes_and_accuracies
from holdfast.experiments.events import Events, Silent
from holdfast.experiments.paper_selection import (
    PANELS,
    ROW_NAMES,
    SCHEME_NAMES,
    SCHEMES,
    DeltaPanel,
    Scale,
    scale,
)
from holdfast.experiments.reproduction import ALPHA, Reproduction, Runs
from holdfast.report import LinePlot, Series, Table, comparison_table

_LEVELS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 400, 600, 800)

Plots = list[tuple[str, LinePlot]]


def reproduce_selection(
    out: Path,
    *,
    scale_name: str = "smoke",
    data_dir: str | None = None,
    seed: str | None = None,
    only: Sequence[str] = (),
    threads: int | None = None,
    device: str = "cpu",
    events: Events | None = None,
) -> Reproduction:
    """Train what the figures need (or take it from `out`), certify, draw and compare.

    Args:
        out: folder for runs, figures and tables; runs already there are continued.
        scale_name: "smoke", "cpu" or "paper".
        data_dir: folder with the official files.
        seed: makes all runs repeatable.
        only: names of runs to train now; figures that need others are left out, or leave those curves out. "nothing"
            trains none: Figure 2 and the numbers that formulas give.
        threads: threads to train with.
        device: where torch computes; CIFAR-10 at scale "paper" needs "cuda".
        events: hears what happens.
    """
    chosen = scale(scale_name, data_dir=data_dir)
    runs = Runs(
        chosen, Path(out), seed=seed, only=tuple(only), threads=threads, device=device, events=events or Silent()
    )
    figure_6, phases = _figure6(runs)
    plots = [*figure2(), *_figure4(runs), *_figure5(runs), *figure_6]
    tables = [
        comparison_table("Published numbers beside ours", [*formulas(), *measured(runs)]),
        delta_table(),
        *(table for table in (_accuracies(runs), phases, _times(runs)) if table is not None),
    ]
    return Reproduction.write(runs.out, scale_name, tables, plots)


def figure2() -> Plots:
    """Both panels of Figure 2, exactly: the gap that rho poisoned examples can close, for all schemes."""
    return [(panel.name, _delta_plot(panel)) for panel in PANELS]


def _delta_plot(panel: DeltaPanel) -> LinePlot:
    rho = np.arange(panel.largest + 1)
    series = [
        Series.of(
            SCHEME_NAMES[scheme],
            rho,
            [float(delta(scheme, "P6", panel.n, panel.size, int(r))) for r in rho],
            dash=number,
        )
        for number, scheme in enumerate(SCHEMES)
    ]
    title = f"Figure 2: n = {panel.n:,}, n_s = {panel.size:,}"
    return LinePlot(title, "rho, poisoned examples", "delta(rho) under P6", tuple(series), percent=False)


def delta_table() -> Table:
    """Figure 2 in numbers: the smallest rho that not even a unanimous vote survives, and who is best where."""
    rows = []
    for panel in PANELS:
        most = [radius(scheme, "P6", panel.n, panel.size, 1) for scheme in SCHEMES]
        middle = panel.size
        order = sorted(SCHEMES, key=lambda s: delta(s, "P6", panel.n, panel.size, 2 * middle))
        rows.append((f"n = {panel.n}, n_s = {panel.size}", *(str(m + 1) for m in most), " < ".join(order)))
    columns = ("panel", *(f"{scheme}: first rho with delta >= 1" for scheme in SCHEMES), "order at rho = 2 n_s")
    notes = (
        "From formulas alone. Binomial selection has the smallest delta where rho > n_s; where rho < n_s it is above "
        "bagging with replacement, and at rho = n_s equal to it. Without replacement is always the largest.",
    )
    return Table("Figure 2 in numbers", columns, tuple(rows), notes=notes)


def _rigorous(votes: Votes) -> Certificate:
    return certify_votes(votes, alpha=ALPHA, kinds=["data"], poisoning="P6")[0]


def _curve(name: str, votes: Votes, *, dash: int = 0, color: int | None = None) -> Series:
    curve = _rigorous(votes).curve(labels_of(votes))
    return Series.of(name, np.arange(len(curve)), curve, dash=dash, color=color)


def _plot(title: str, series: Sequence[Series]) -> LinePlot:
    return LinePlot(title, f"rho, poisoned {EXAMPLES}", "certified accuracy (%)", tuple(series), steps=True)


def _trusted_only(runs: Runs[Scale], arm: str, length: float) -> list[Series]:
    """The model on trusted data alone, which no poisoning moves."""
    accuracy = runs.reports[arm].trusted_only_accuracy
    if accuracy is None:
        return []
    trusted = runs.scale.arms()[arm].trusted
    words = f" (n_c = {int(trusted.rpartition('-')[2]) + 1})" if trusted else ""
    return [Series.of(f"trusted data only{words}", [0, length], [accuracy] * 2, color=7, dash=2)]


def _figure4(runs: Runs[Scale]) -> Plots:
    """One plot per data set and scheme: sizes of selections, and trusted examples with their baseline."""
    plots = []
    for row in runs.scale.sets:
        for scheme in SCHEMES:
            series: list[Series] = []
            for number, curve in enumerate(curve for curve in runs.scale.curves[row] if curve.scheme == scheme):
                arm = curve.arm(row)
                if runs.has(arm):
                    words = f"n_s = {curve.size}" + (f", n_c = {curve.trusted}" if curve.trusted else "")
                    series.append(_curve(words, runs.votes(arm), dash=int(curve.trusted > 0), color=number % 7))
                    series += _trusted_only(runs, arm, series[-1].x[-1])
            if series:
                plots.append(
                    (f"figure-4-{row}-{scheme}", _plot(f"Figure 4: {ROW_NAMES[row]}, {SCHEME_NAMES[scheme]}", series))
                )
    return plots


def _figure5(runs: Runs[Scale]) -> Plots:
    """How large binomial selections come out, and how accurate classifiers are at each size."""
    arm = runs.scale.distribution
    if not runs.has(arm):
        return []
    votes = runs.votes(arm)
    sizes, accuracy = sizes_and_accuracies(votes)
    shown = np.arange(sizes.max() + 1)
    p = float(votes.design.p or 0)
    expected = votes.n_models * binom.pmf(shown, votes.design.n, p)
    drawn = np.bincount(sizes, minlength=len(shown))
    mean = [accuracy[sizes == size].mean() if (sizes == size).any() else np.nan for size in shown]
    words = f"{votes.n_models:,} binomial selections, p = {p:g}"
    counts = (Series.of("drawn", shown, drawn), Series.of("expected (formula)", shown, expected, dash=1))
    by_size = (Series.of("mean accuracy of the classifiers", shown, mean),)
    return [
        (
            "figure-5-top",
            LinePlot(f"Figure 5, top: {words}", "size of the selection", "selections", counts, percent=False),
        ),
        ("figure-5-bottom", LinePlot(f"Figure 5, bottom: {words}", "size of the selection", "accuracy (%)", by_size)),
    ]


def _figure6(runs: Runs[Scale]) -> tuple[Plots, Table | None]:
    """Two-phase classifiers against ordinary ones at the same sizes, where one class is not trusted."""
    plots: Plots = []
    rows: list[tuple[str, ...]] = []
    values: list[tuple[object, ...]] = []
    for kind, words in (("two-phase", "Figure 6, left: two-phase"), ("one-phase", "Figure 6, right: ordinary")):
        series = []
        for size in runs.scale.phase_sizes:
            arm = f"{kind}-{size}"
            if not runs.has(arm):
                continue
            votes = runs.votes(arm)
            series.append(_curve(f"n_s = {size}", votes))
            certificate, alone = _rigorous(votes), runs.reports[arm].trusted_only_accuracy
            found = (votes.design.n, certificate.certified_accuracy(labels_of(votes), 0), certificate.max_radius)
            rows.append((arm, f"{found[0]:,}", f"{100 * found[1]:.1f}", str(found[2]), _percent(alone)))
            values.append((arm, *found, alone))
        if series:
            longest = max(curve.x[-1] for curve in series)
            baseline = _trusted_only(runs, rows[-1][0], longest) if kind == "two-phase" else []
            plots.append((f"figure-6-{kind}", _plot(words, [*series, *baseline])))
    if not rows:
        return plots, None
    columns = ("run", "n (untrusted)", "certified accuracy at 0 (%)", "largest rho", "trusted data only (%)")
    notes = (
        "Two-phase runs are certified against poisoning of the untrusted class only, so their n is smaller: rho counts "
        "other examples than in ordinary runs. The model on trusted data alone is certified for every rho.",
    )
    return plots, Table("Figure 6 in numbers", columns, tuple(rows), tuple(values), notes)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}"


def _accuracies(runs: Runs[Scale]) -> Table | None:
    """Figure 4 in numbers: certified accuracy of every run, always with the model on trusted data alone beside it."""
    rows, values = [], []
    arms = [arm for row, curves in runs.scale.curves.items() for c in curves if runs.has(arm := c.arm(row))]
    if not arms:
        return None
    found = {arm: _rigorous(runs.votes(arm)) for arm in arms}
    top = max(certificate.max_radius for certificate in found.values())
    levels = [m for m in _LEVELS if m <= max(top, 0)]
    for arm, certificate in found.items():
        shares = [certificate.certified_accuracy(labels_of(runs.votes(arm)), m) for m in levels]
        alone = runs.reports[arm].trusted_only_accuracy
        rows.append((arm, *(f"{100 * share:.1f}" for share in shares), str(certificate.max_radius), _percent(alone)))
        values.append((arm, *shares, certificate.max_radius, alone))
    columns = ("run", *(f"rho={m}" for m in levels), "largest rho", "trusted only")
    notes = (
        f"certified accuracy (%) under P6, rigorous, alpha = {ALPHA:g} shared by all inputs; "
        "the model on trusted data alone is certified for every rho",
    )
    return Table("Figure 4 in numbers", columns, tuple(rows), tuple(values), notes)


def _times(runs: Runs[Scale]) -> Table | None:
    """What every run took."""
    rows, values = [], []
    for arm in filter(runs.has, runs.arms):
        told = runs.manifest(arm)
        cpu, memory = told["timings"]["training, this session, CPU"], told["peak_memory_mib"]
        models, inputs = told["design"]["models"], told["data"]["n_test"]
        steps = told["config"]["steps"]
        rows.append((arm, f"{models:,}", str(steps), f"{inputs:,}", f"{cpu:.0f}", f"{memory or 0:,.0f}"))
        values.append((arm, models, steps, inputs, cpu, memory))
    if not rows:
        return None
    columns = ("run", "models", "steps of each", "inputs", "CPU-seconds", "peak MiB")
    notes = ("Training and voting in the session that finished the run, the models beside the ensemble included.",)
    return Table("What the runs took", columns, tuple(rows), tuple(values), notes)
