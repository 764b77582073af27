"""The randomized-selection paper's printed numbers beside ours: those that formulas give, and those that need training.

At the paper's own settings (alpha for each input on its own), so that its numbers can be compared; the figures show the
corrected, rigorous certificates.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from holdfast.certification import Certificate, certify_ideal, clopper_pearson_lower, radius
from holdfast.ensemble import Votes
from holdfast.experiments.certificates import SCHEMES as SCHEME_OF_DESIGN
from holdfast.experiments.paper_selection import PUBLISHED, SCHEMES, Curve, Scale
from holdfast.experiments.reproduction import ALPHA, Runs
from holdfast.report import Comparison

MODELS = 1000
PAIR, PAIR_SIZE = 13_007, 10
"""MNIST 1/7 and the selection size behind the paper's printed numbers."""


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


def measured(runs: Runs[Scale]) -> list[Comparison]:
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
            sizes, accuracy = sizes_and_accuracies(runs.votes(runs.scale.distribution))
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
    labels = labels_of(votes)
    nine = labels == 9
    second = runs.reports[arm].trusted_only_accuracy
    assert second is not None  # a run of case 3 always has it
    return 100 * float(((votes.votes == 9) == nine).mean()), 100 * second * len(labels) / int((~nine).sum())


def _as_published(votes: Votes) -> Certificate:
    """Algorithm 1 as printed, per input; only its Corollary 1 for insertions is replaced by the correct one."""
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


def labels_of(votes: Votes) -> NDArray[np.int64]:
    """The labels of the test inputs."""
    assert votes.labels is not None  # every run of a reproduction is on labeled data
    return votes.labels


def sizes_and_accuracies(votes: Votes) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Per classifier: how many examples it saw, and its accuracy on its own."""
    return votes.design.membership.sum(axis=1), (votes.votes == labels_of(votes)).mean(axis=1)
