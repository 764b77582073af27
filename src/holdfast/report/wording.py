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
    strength: str
    object: str
    adversary: str
    limits: tuple[str, ...]


KIND_TEXT = {
    "deployed": KindText(
        name="Deployed ensemble",
        strength="This holds whoever these clients are and whatever they send. It is a proof about the recorded votes: "
        "no failure probability.",
        object="The vote of exactly the models that answer queries.",
        adversary="Knows which client trains which model and picks the worst possible clients.",
        limits=(),
    ),
    "secret": KindText(
        name="Deployed ensemble, secret groups",
        strength="This holds for clients chosen without knowing the secret groups, whatever they send.",
        object="The vote of exactly the models that answer queries, provided the grouping is secret.",
        adversary="Chooses its clients without knowing the random groups; afterwards they may do anything.",
        limits=(
            "A grouping, or a seed of it, that leaks before enrollment closes; a client that can leave and enroll "
            "again after seeing its group.",
            "Another drawing of the groups: each one spends the failure probability again.",
        ),
    ),
    "ideal": KindText(
        name="Ideal ensemble",
        strength="This holds whoever these clients are and whatever they send, for the vote over all possible groups.",
        object="The vote over all possible groups, of which only a sample was trained.",
        adversary="Any set of clients of that size.",
        limits=(
            "The trained models themselves. The statement is about the vote over all possible groups; under attack the "
            "trained sample that answers queries can still differ from it.",
            "Inputs certified later: each further set spends the failure probability again.",
        ),
    ),
    "data": KindText(
        name="Poisoned training data",
        strength="This holds whichever training examples these are, within the stated poisoning model.",
        object="The vote over all random selections of training examples, estimated from a sample of them.",
        adversary="Changes any training examples of that number, within the stated poisoning model.",
        limits=("Inputs certified later: each further set spends the failure probability again.",),
    ),
}

# The same two promises where the models are trained on selections of training examples.
KIND_TEXT_OF_EXAMPLES = {
    "deployed": KindText(
        name="Deployed models",
        strength="This holds whichever training examples these are and however they are changed. It is a proof about "
        "the recorded votes: no failure probability.",
        object="The vote of exactly the models that answer queries.",
        adversary="Knows which example is in which selection and modifies the worst possible examples in place.",
        limits=("Examples inserted or deleted so that the selections of others change (deployed models).",),
    ),
    "secret": KindText(
        name="Deployed models, secret selections",
        strength="This holds for examples chosen without knowing the secret selections, however they are changed.",
        object="The vote of exactly the models that answer queries, provided the selections are secret.",
        adversary="Chooses its examples without knowing the selections; then modifies them in place at will.",
        limits=(
            "Selections, or a seed of them, that leak before the last example is in.",
            "Another drawing of the selections: each one spends the failure probability again.",
        ),
    ),
}

ALWAYS_LIMITS = (
    "Inputs that are manipulated when they are classified (adversarial examples). Only training is covered.",
    "A malicious server, or anyone who can change the models after training.",
    "Privacy. Robustness says nothing about what a model reveals about its training data.",
    "Predictions that are wrong with nobody malicious: a certificate keeps a prediction, it does not make it right.",
)

MANY_NAMES = "One attacker under many names: each name counts as a malicious participant of its own."
MANY_EXAMPLES = "One attacker with many examples: examples are counted, not attackers."


def kind_text(report: CertifyReport, kind: str) -> KindText:
    """How a kind of certificate is explained, in terms of what m counts."""
    others = {} if report.unit == "clients" else KIND_TEXT_OF_EXAMPLES
    return others.get(kind, KIND_TEXT[kind])


def single_model(report: CertifyReport) -> str:
    """The name of the model without an ensemble."""
    return "single FedAvg model" if report.unit == "clients" else "single model on all examples"


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
    held, n = summary.guaranteed(m), number(report.n_clients)
    if not held:
        known = "its correct label" if summary.labeled else "its label"
        return f"With {number(m)} of {n} {report.unit} {_bad_word(report)}, no test input provably keeps {known}."
    keep = "keep their correct label" if summary.labeled else "keep their label"
    count = f"up to {number(m)} of {n}" if m else f"none of the {n}"
    kept = f"at least {share(held, summary.guaranteed_base)}% of the test inputs provably {keep}"
    return f"With {count} {report.unit} {_bad_word(report)}, {kept}{_condition(summary)}."


def what_is_bad(report: CertifyReport) -> str:
    """What m counts: 'malicious clients' or 'poisoned training examples'."""
    return f"{_bad_word(report)} {report.unit}"


def _bad_word(report: CertifyReport) -> str:
    return "malicious" if report.unit == "clients" else "poisoned"


def _condition(summary: CertificateSummary) -> str:
    sure = f"{100 * (1 - summary.alpha):.10g}%"
    parts = [
        " under the vote over all possible groups" if summary.kind == "ideal" else "",
        f", with probability at least {sure} over the secret grouping" if summary.kind == "secret" else "",
        f", with confidence {sure}" if summary.alpha and summary.kind != "secret" else "",
    ]
    return "".join(parts)


def survival(report: CertifyReport, radius: int) -> str:
    """What one radius means: 'survives 3 malicious clients'."""
    if radius < 0:
        return "no certificate"
    bad = what_is_bad(report)
    return f"survives {number(radius) if radius else 'no'} {bad if radius > 1 else singular(bad)}"


def headline(report: CertifyReport) -> str:
    """The answer in one sentence: the strongest kind of certificate at a telling m."""
    if report.headline.max_radius < 1:
        return (
            f"No prediction is certified against even one {_bad_word(report)} {singular(report.unit)}: "
            "this run gives no guarantee under attack."
        )
    return promise(report, report.headline, report.headline_m())


def limits(report: CertifyReport) -> tuple[tuple[str, str], ...]:
    """What is not covered: the run's own limits, those of every certificate, and those of one kind with its name."""
    counted = MANY_NAMES if report.unit == "clients" else MANY_EXAMPLES
    general = [(text, "") for text in (*report.not_covered, counted, *ALWAYS_LIMITS)]
    kinds = dict.fromkeys(s.kind for s in report.kinds)
    return tuple(
        dict.fromkeys([*general, *((text, kind) for kind in kinds for text in kind_text(report, kind).limits)])
    )


def assumptions(report: CertifyReport) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Each assumption once, with the certificates that need it: (sentence, names); shared ones first."""
    needed: dict[str, list[str]] = {}
    for s in report.kinds:
        for sentence in s.assumptions:
            needed.setdefault(sentence, []).append(report.name_of(s))
    return tuple(sorted(((a, tuple(names)) for a, names in needed.items()), key=lambda item: -len(item[1])))
