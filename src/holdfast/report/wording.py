"""The report's plain words: what each kind of certificate promises, against whom, and what it leaves open.

One place for every sentence, shared by the terminal and the HTML page, so that the two cannot promise different things.
"""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.report.content import CertificateSummary, CertifyReport


@dataclass(frozen=True)
class KindText:
    """How one kind of certificate is explained to someone who has not read the papers."""

    name: str
    object: str
    adversary: str
    limits: tuple[str, ...]


KIND_TEXT = {
    "deployed": KindText(
        name="Deployed ensemble",
        object="The vote of exactly the models that answer queries.",
        adversary="Knows which client trains which model and picks the worst possible clients.",
        limits=(),
    ),
    "secret": KindText(
        name="Deployed ensemble, secret groups",
        object="The vote of exactly the models that answer queries, provided the grouping is secret.",
        adversary="Chooses its clients without knowing the random groups; afterwards they may do anything.",
        limits=(
            "It ends when the grouping or its seed leaks before enrolment closes, or when a client can leave and "
            "enrol again after seeing its group.",
            "Each new drawing of the groups spends the failure probability again.",
        ),
    ),
    "ideal": KindText(
        name="Ideal ensemble",
        object="The vote over all possible groups, of which only a sample was trained.",
        adversary="Any set of clients of that size.",
        limits=(
            "It speaks about the vote over all possible groups, not about the trained sample of models that "
            "answers queries.",
            "Certifying further inputs later spends the failure probability again.",
        ),
    ),
    "data": KindText(
        name="Poisoned training data",
        object="The vote over all random selections of training examples, estimated from a sample of them.",
        adversary="Changes any training examples of that number, within the stated poisoning model.",
        limits=("Certifying further inputs later spends the failure probability again.",),
    ),
}

ALWAYS_LIMITS = (
    "Inputs that are manipulated when they are classified (adversarial examples). Only training is covered.",
    "A malicious server, or anyone who can change the models after training.",
    "One attacker who enrolls under many names counts as that many; keep one identity per participant.",
    "Privacy. Robustness says nothing about what a model reveals about its training data.",
    "Predictions that are wrong with nobody malicious: a certificate keeps a prediction, it does not make it right.",
)


def share(count: int, total: int) -> str:
    """A share in percent with one decimal, rounded down so that no certificate is overstated.

    Example:
        >>> share(8839, 10000), share(1, 10000), share(0, 10000), share(3, 3)
        ('88.3', '<0.1', '0.0', '100.0')
    """
    tenths = 1000 * count // total
    return "<0.1" if count and not tenths else f"{tenths // 10}.{tenths % 10}"


def percent(value: float | None) -> str:
    """A measured accuracy in percent, rounded to nearest; an en dash where there is none."""
    return "–" if value is None else f"{100 * value:.1f}"


def number(value: int) -> str:
    """An integer with thousands separators."""
    return f"{value:,}"


def probability(alpha: float) -> str:
    """The failure probability in words.

    Example:
        >>> probability(0), probability(0.001)
        ('none', '0.001')
    """
    return f"{alpha:g}" if alpha else "none"


def singular(unit: str) -> str:
    """'clients' -> 'client'."""
    return unit.removesuffix("s")


def promise(report: CertifyReport, summary: CertificateSummary, m: int) -> str:
    """What one certificate guarantees at m, as one sentence.

    Example:
        >>> s = CertificateSummary("deployed", "100 groups", "degree", 0.0, (), (1, 2, 7), (0, 2, 7), abstained=0)
        >>> promise(CertifyReport("t", "mnist", 1000, 100, (s,)), s, 2)
        'With up to 2 of 1,000 clients malicious, at least 70.0% of the test inputs provably keep their correct label.'
    """
    held = summary.guaranteed(m)
    if not held:
        known = "its correct label" if summary.labeled else "its label"
        return f"With {number(m)} of {number(report.n_clients)} {_bad(report)}, no test input provably keeps {known}."
    keep = "keep their correct label" if summary.labeled else "keep their label"
    if m == 0:
        who = f"With none of the {number(report.n_clients)} {_bad(report)}"
    else:
        who = f"With up to {number(m)} of {number(report.n_clients)} {_bad(report)}"
    return f"{who}, at least {share(held, summary.n_inputs)}% of the test inputs provably {keep}{_condition(summary)}."


def _bad(report: CertifyReport) -> str:
    return f"{report.unit} {'malicious' if report.unit == 'clients' else 'poisoned'}"


def _condition(summary: CertificateSummary) -> str:
    if not summary.alpha:
        return "" if summary.kind != "ideal" else " under the vote over all possible groups"
    sure = f"{100 * (1 - summary.alpha):.10g}%"
    if summary.kind == "secret":
        return f", with probability at least {sure} over the secret grouping"
    return (
        f" under the vote over all possible groups, with confidence {sure}"
        if summary.kind == "ideal"
        else (f", with confidence {sure}")
    )


def headline(report: CertifyReport) -> str:
    """The answer in one sentence: the strongest kind of certificate at a telling m."""
    if report.headline.max_radius < 1:
        return (
            f"No prediction is certified against even one {'malicious ' if report.unit == 'clients' else 'poisoned '}"
            f"{singular(report.unit)}: this run gives no guarantee under attack."
        )
    return promise(report, report.headline, report.headline_m())


def limits(report: CertifyReport) -> tuple[str, ...]:
    """What is not covered: the run's own limits, those of its kinds of certificate, and those of every certificate."""
    by_kind = [text for s in report.kinds for text in KIND_TEXT[s.kind].limits]
    return tuple(dict.fromkeys([*report.not_covered, *by_kind, *ALWAYS_LIMITS]))


def assumptions(report: CertifyReport) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Each assumption once, with the certificates that need it: (sentence, names); shared ones first."""
    needed: dict[str, list[str]] = {}
    for s in report.kinds:
        for sentence in s.assumptions:
            needed.setdefault(sentence, []).append(report.name_of(s))
    return tuple(sorted(((a, tuple(names)) for a, names in needed.items()), key=lambda item: -len(item[1])))
