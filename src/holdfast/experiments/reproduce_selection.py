"""`holdfast reproduce selection`: Figures 2, 4, 5 and 6 of the randomized-selection paper, beside its numbers.

Figure 2 and the places where certified accuracy reaches zero follow from formulas alone; the rest is trained, every
run in an ordinary run folder under `OUT/runs`. Curves are the corrected, rigorous certificates (all inputs share
alpha); the comparison with printed numbers uses the paper's own settings, and says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from holdfast.certification import Certificate, certify_ideal, clopper_pearson_lower, delta, radius
from holdfast.ensemble import Votes
from holdfast.experiments.certificates import EXAMPLES, certify_votes
from holdfast.experiments.events import Events, Silent
from holdfast.experiments.paper_selection import (
    PANELS,
    PUBLISHED,
    ROW_NAMES,
    SCHEME_NAMES,
    SCHEMES,
    Curve,
    DeltaPanel,
    Scale,
    scale,
)
from holdfast.experiments.reproduction import ALPHA, Reproduction, Runs
from holdfast.report import Comparison, LinePlot, Series, Table, comparison_table

MODELS = 1000
PAIR, PAIR_SIZE = 13_007, 10
"""MNIST 1/7 and the selection size behind the paper's printed numbers."""
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
        comparison_table("Published numbers beside ours", [*formulas(), *_measured(runs)]),
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


def formulas() -> list[Comparison]:
    """The printed numbers that follow from formulas, at unanimous votes unless the note says otherwise."""
    gap = {count: 2 * Fraction(float(clopper_pearson_lower(count, MODELS, ALPHA))) - 1 for count in (997, MODELS)}

    def zero(scheme: str, count: int) -> int:
        return radius(scheme, "P6", PAIR, PAIR_SIZE, gap[count]) + 1

    expected, low, high = _larger_than_3()
    one_sided = f"formula: T = {MODELS:,}, one-sided alpha = {ALPHA:g} per input"
    return [
        _compare("zero-without", zero("without", MODELS), note=f"{one_sided}, all votes equal"),
        _compare(
            "zero-with",
            zero("with", MODELS),
            note=f"{one_sided}, all votes equal; 857 needs alpha between 0.0020 and 0.0029, no votes give it at 0.001",
        ),
        _compare("zero-binomial", zero("binomial", 997), note=f"{one_sided}, 997 of 1,000 votes; 884 if all are equal"),
        Comparison(
            PUBLISHED["sizes"].claim,
            PUBLISHED["sizes"].value,
            expected,
            low,
            high,
            note="formula: the expected number, and where 99% of draws fall",
        ),
    ]


def _larger_than_3() -> tuple[float, float, float]:
    """Of 1,000 binomial selections, how many are larger than 3: the expected number, and where 99% of draws fall."""
    share = float(binom.sf(3, PAIR, PAIR_SIZE / PAIR))
    low, high = (float(binom.ppf(tail, MODELS, share)) for tail in (0.005, 0.995))
    return MODELS * share, low, high


def _compare(key: str, ours: float | None, *, note: str = "") -> Comparison:
    told = PUBLISHED[key]
    return Comparison(
        told.claim,
        told.value,
        None if ours is None else float(ours),
        unit=told.unit,
        precision=told.precision,
        note="" if ours is None else note,
    )


def _as_published(votes: Votes) -> Certificate:
    """Algorithm 1 as printed, per input; only its Corollary 1 for insertions is replaced by the correct one."""
    from holdfast.experiments.certificates import SCHEMES as SCHEME_OF_DESIGN

    design = votes.design
    return certify_ideal(
        votes.counts(),
        n=design.n,
        k=design.expected_size,
        alpha=ALPHA,
        simultaneous=False,
        method="as-published-selection",
        scheme=SCHEME_OF_DESIGN[design.kind],
        poisoning="P6",
        kind="data",
    )


def _rigorous(votes: Votes) -> Certificate:
    return certify_votes(votes, alpha=ALPHA, kinds=["data"], poisoning="P6")[0]


def _labels(votes: Votes) -> NDArray[np.int64]:
    assert votes.labels is not None  # every run of a reproduction is on labeled data
    return votes.labels


def _curve(name: str, votes: Votes, *, dash: int = 0, color: int | None = None) -> Series:
    curve = _rigorous(votes).curve(_labels(votes))
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
    sizes, accuracy = _sizes_and_accuracies(votes)
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


def _sizes_and_accuracies(votes: Votes) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Per classifier: how many examples it saw, and its accuracy on its own."""
    return votes.design.membership.sum(axis=1), (votes.votes == _labels(votes)).mean(axis=1)


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
            found = (votes.design.n, certificate.certified_accuracy(_labels(votes), 0), certificate.max_radius)
            rows.append((arm, f"{found[0]:,}", f"{100 * found[1]:.1f}", str(found[2]), _percent(alone)))
            values.append((arm, *found, alone))
        if series:
            alone_lines = _trusted_only(runs, arm, max(s.x[-1] for s in series)) if kind == "two-phase" else []
            plots.append((f"figure-6-{kind}", _plot(words, [*series, *alone_lines])))
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
        shares = [certificate.certified_accuracy(_labels(runs.votes(arm)), m) for m in levels]
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


def _measured(runs: Runs[Scale]) -> list[Comparison]:
    """The printed numbers that only training gives, in the paper's own settings; without a value where none was run."""
    made, accurate, phases = [], None, None
    if runs.scale.comparable:
        for scheme in SCHEMES:
            arm = Curve(scheme, PAIR_SIZE).arm("mnist-1-7")
            if runs.has(arm):
                votes = runs.votes(arm)
                zero = _as_published(votes).max_radius + 1
                note = f"measured: Algorithm 1 as printed (two-sided alpha/2, per input), T = {votes.n_models:,}"
                made.append(_compare(f"zero-{scheme}", zero, note=note))
        if runs.has(runs.scale.distribution):
            sizes, accuracy = _sizes_and_accuracies(runs.votes(runs.scale.distribution))
            told, larger = PUBLISHED["sizes"], float((sizes > 3).sum())
            words = "measured: our draw, and where 99% of draws fall"
            made.append(Comparison(told.claim, told.value, larger, *_larger_than_3()[1:], note=words))
            accurate = int((accuracy > 0.8).sum())
        if runs.has(arm := f"two-phase-{PAIR_SIZE}"):
            phases = _phase_accuracies(runs, arm)
    made.append(_compare("accurate", accurate, note="measured"))
    notes = ("mean over classifiers, on all test inputs", "on the test inputs of its nine classes")
    for key, value, note in zip(("first-phase", "second-phase"), phases or (None, None), notes, strict=True):
        made.append(_compare(key, value, note=f"measured: {note}"))
    return made


def _phase_accuracies(runs: Runs[Scale], arm: str) -> tuple[float, float]:
    """Of the first phase (is it a nine?) and of the second (which of the others is it?), in percent."""
    votes = runs.votes(arm)
    labels = _labels(votes)
    nine = labels == 9
    second = runs.reports[arm].trusted_only_accuracy
    assert second is not None  # a run of case 3 always has it
    return 100 * float(((votes.votes == 9) == nine).mean()), 100 * second * len(labels) / int((~nine).sum())
