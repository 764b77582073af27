"""What the Romoa paper concludes, each as a test on results: order by order in its tables, and its sentences.

Error rates are as the paper counts: the share of test inputs misclassified under untargeted poisoning, the confidence
in the poisoned label under targeted poisoning; the mean of the last three evaluations, over the seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from holdfast.experiments.claims_reweighting import Claim, Sweeps, Verdict
from holdfast.experiments.paper_romoa import (
    ADVERSARIES,
    BASELINE,
    CONDITIONS,
    KRUM,
    NAMES,
    OURS,
    RFA,
    TABLE_1,
    TABLE_2,
    arm_of,
    printed_twice,
)
from holdfast.experiments.sweep_result import SweepResult
from holdfast.report import Table

MARGIN = 0.02
"""Two error rates closer than this are level: seeds differ by as much."""
LAST = 3
ABSENT = "not run at this scale"
Row = tuple[str, int]


def rates(found: SweepResult | None, rule: str, row: Row, *, targeted: bool | None = None) -> list[float]:
    """The error rate of every seed; none where it was not run. `targeted`: confidence, not error; None: by attack."""
    if found is None or rule not in found.experiment.rule_labels or row not in found.experiment.rows():
        return []
    confident = row[0] == "TPA" if targeted is None else targeted
    values = []
    for seed in found.experiment.seeds:
        last = found.records[rule, *row, seed][-LAST:]
        wanted = [record.target_confidence if confident else 1.0 - record.accuracy for record in last]
        values.append(float(np.mean([value for value in wanted if value is not None])))
    return values


def rate(found: SweepResult | None, rule: str, row: Row, *, targeted: bool | None = None) -> float | None:
    """The mean over the seeds, or None where it was not run."""
    values = rates(found, rule, row, targeted=targeted)
    return float(np.mean(values)) if values else None


def order(a: float, b: float) -> str:
    """How a stands to b: "below", "level" or "above".

    Example:
        >>> order(0.10, 0.11), order(0.1, 0.3)
        ('level', 'below')
    """
    return "level" if abs(a - b) < MARGIN else "below" if a < b else "above"


def judged(printed: tuple[float, float], ours: tuple[float | None, float | None]) -> str:
    """Whether the printed order of two numbers is ours, too."""
    if ours[0] is None or ours[1] is None:
        return ABSENT
    return "agrees" if order(*printed) == order(ours[0], ours[1]) else "differs"


def table_1(sweeps: Sweeps, *, at_scale: bool) -> Table:
    """Every cell of Table 1 beside ours; a verdict on Romoa against Krum and against RFA for each setting."""
    rows, values = [], []
    for (data, attack, n), printed in TABLE_1.items():
        found = sweeps.get(arm_of(data, n)) if at_scale else None
        for place, m in enumerate(ADVERSARIES[n]):
            paper = dict(zip(NAMES, (cells[place] for cells in printed), strict=True))
            ours = {rule: rate(found, rule, (attack, m)) for rule in NAMES}
            verdicts = [judged((paper[OURS], paper[other]), (ours[OURS], ours[other])) for other in (RFA, KRUM)]
            cells = [f"{paper[rule]:.3f}{'*' if printed_twice(paper[rule]) else ''}" for rule in NAMES]
            mine = ["–" if ours[rule] is None else f"{ours[rule]:.3f}" for rule in NAMES]
            words = (data, attack, str(n), str(m))
            rows.append((*words, *(f"{a} / {b}" for a, b in zip(cells, mine, strict=True)), *verdicts))
            pairs = ({"printed": paper[rule], "ours": ours[rule]} for rule in NAMES)
            values.append((data, attack, n, m, *pairs, *verdicts))
    notes = (
        "printed / ours: error rate (UPA) or confidence in the poisoned label (TPA).",
        f"The verdict says whether Romoa lies below, level with (closer than {MARGIN}) or above the other, as printed.",
        "*: printed in several cells of Table 1, so no target.",
    )
    columns = ("data", "attack", "n", "adversaries", *NAMES, "against RFA", "against Krum")
    return Table("Table 1: error rates, printed / ours", columns, tuple(rows), tuple(values), notes, left=2)


def table_2(sweeps: Sweeps, *, at_scale: bool) -> Table:
    """Table 2 beside ours: one label each, one adversary; a verdict on Romoa against the baseline."""
    rows, values = [], []
    for data in ("MNIST", "CIFAR-10"):
        found = sweeps.get(arm_of(data, "one-label")) if at_scale else None
        for place, condition in enumerate(CONDITIONS):
            row = (condition, 0 if condition == "none" else 1)
            paper = {rule: TABLE_2[data, rule][place] for rule in (BASELINE, OURS)}
            ours = {rule: rate(found, rule, row) for rule in (BASELINE, OURS)}
            verdict = judged((paper[OURS], paper[BASELINE]), (ours[OURS], ours[BASELINE]))
            mine = {rule: "–" if value is None else f"{value:.3f}" for rule, value in ours.items()}
            name = "no attack" if condition == "none" else condition
            rows.append((data, name, *(f"{paper[r]:.3f} / {mine[r]}" for r in (BASELINE, OURS)), verdict))
            pairs = ({"printed": paper[rule], "ours": ours[rule]} for rule in (BASELINE, OURS))
            values.append((data, name, *pairs, verdict))
    columns = ("data", "attack", BASELINE, OURS, "against the baseline")
    return Table("Table 2: one label each, printed / ours", columns, tuple(rows), tuple(values), left=2)


def _text(values: Mapping[str, float | None]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in values.items() if value is not None)


def _needed(found: SweepResult, rule: str, row: Row, *, targeted: bool | None = None) -> float:
    value = rate(found, rule, row, targeted=targeted)
    return float("nan") if value is None else value


def _upa(arm: str, m: int, rules: tuple[str, ...] = NAMES) -> Callable[[Sweeps], dict[str, float]]:
    return lambda sweeps: {rule: _needed(sweeps[arm], rule, ("UPA", m)) for rule in rules}


def _nearly_perfect(sweeps: Sweeps) -> Verdict:
    found = sweeps["mnist-10"]
    lost = {rule: _needed(found, rule, ("UPA", 1)) - _needed(found, BASELINE, ("none", 0)) for rule in (OURS, RFA)}
    return max(lost.values()) < 2 * MARGIN, f"error beyond averaging without attack: {_text(lost)}"


def _better_on_photos(sweeps: Sweeps) -> Verdict:
    values = _upa("cifar-10-10", 1, (OURS, RFA))(sweeps)
    return order(values[OURS], values[RFA]) == "below", _text(values)


def _baseline_falls_early(sweeps: Sweeps) -> Verdict:
    curve = sweeps["mnist-10"].curve(BASELINE, ("UPA", 1))
    first = 1.0 - float(curve.y[0])
    return first > 0.6, f"error {first:.3f} after {int(curve.x[0])} of {int(curve.x[-1])} syncing points"


def _krum_broken(sweeps: Sweeps) -> Verdict:
    values = _upa("mnist-10", 4, (KRUM,))(sweeps)
    return values[KRUM] > 0.5, f"with 4 of 10: {_text(values)}"


def _confidence_kept(sweeps: Sweeps) -> Verdict:
    found = sweeps["mnist-10"]
    values = {rule: _needed(found, rule, ("TPA", 1)) for rule in NAMES}
    return values[BASELINE] > 0.5 and max(values[OURS], values[KRUM]) < 0.1, f"with 1 of 10: {_text(values)}"


def _targeted(other: str) -> Callable[[Sweeps], Verdict]:
    def test(sweeps: Sweeps) -> Verdict:
        row = ("TPA", 4)
        values = {rule: _needed(sweeps["mnist-10"], rule, row) for rule in (OURS, other)}
        return order(values[OURS], values[other]) == "below", f"with 4 of 10: {_text(values)}"

    return test


def _accuracy_kept(sweeps: Sweeps) -> Verdict:
    found = sweeps["mnist-10"]
    lost = _needed(found, BASELINE, ("TPA", 1), targeted=False) - _needed(found, BASELINE, ("none", 0))
    return lost < 2 * MARGIN, f"error of averaging beyond that without attack: {lost:+.3f}"


def _skewed_frustrated(sweeps: Sweeps) -> Verdict:
    found = sweeps["mnist-one-label"]
    values = {f"{attack}, {r}": _needed(found, r, (attack, 1)) for attack in ("TPA", "UPA") for r in (BASELINE, OURS)}
    below = [order(values[f"{a}, {OURS}"], values[f"{a}, {BASELINE}"]) == "below" for a in ("TPA", "UPA")]
    return all(below), _text(values)


def _printed_equations(sweeps: Sweeps) -> Verdict:
    found = sweeps["presets"]
    rows = {"UPA": ("UPA", 4), "TPA": ("TPA", 4)}
    values = {f"literal, {name}": _needed(found, "literal", row) for name, row in rows.items()}
    return max(values.values()) < 0.2, f"with 4 of 10: {_text(values)}"


CLAIMS = (
    Claim("Figure 5", "UPA: Romoa and RFA are nearly perfect on MNIST", ("mnist-10",), _nearly_perfect),
    Claim("Figure 5", "UPA: Romoa outperforms RFA on CIFAR-10", ("cifar-10-10",), _better_on_photos),
    Claim("Figure 5", "UPA: the baseline's error is high in the early stage", ("mnist-10",), _baseline_falls_early),
    Claim("Figure 5", "UPA breaks Krum", ("mnist-10",), _krum_broken),
    Claim("Figure 6", "TPA takes the baseline; Romoa and Krum protect strongly", ("mnist-10",), _confidence_kept),
    Claim("Figure 6", "TPA: Romoa has an explicit advantage over RFA", ("mnist-10",), _targeted(RFA)),
    Claim("Figure 6", "TPA: Romoa outperforms Krum in poisoned-label confidence", ("mnist-10",), _targeted(KRUM)),
    Claim("Figure 8", "TPA barely influences accuracy", ("mnist-10",), _accuracy_kept),
    Claim("Table 2", "One label each: UPA and TPA are frustrated", ("mnist-one-label",), _skewed_frustrated),
    Claim("Eq. 5-11", "The equations as printed defend", ("presets",), _printed_equations),
)


def claims_table(sweeps: Sweeps, *, at_scale: bool) -> Table:
    """A verdict per sentence of the paper, with the numbers it rests on."""
    rows = tuple((c.where, c.text, *c.verdict(sweeps, at_scale=at_scale)) for c in CLAIMS)
    return Table("The paper's sentences", ("where", "claim", "verdict", "evidence"), rows, left=4)


@dataclass(frozen=True)
class Target:
    """What this implementation promises on MNIST, as a bound on every seed.

    Attributes:
        text: what is promised.
        arm: the sweep it is measured on.
        rule: whose number.
        row: under which attack.
        limit: the most it may be, or the least if `open_hole`.
        targeted: a confidence, not an error.
        open_hole: the number shows that a hole is open: it must be above the limit.
        rivals: also at most the better of these rules' means, plus the margin.
    """

    text: str
    arm: str
    rule: str
    row: Row
    limit: float
    targeted: bool = False
    open_hole: bool = False
    rivals: tuple[str, ...] = ()

    def judge(self, sweeps: Sweeps) -> tuple[str, list[float], str]:
        """(reached, missed or not run; the seeds' numbers; the rivals')."""
        found = sweeps.get(self.arm)
        values = rates(found, self.rule, self.row, targeted=self.targeted)
        if not values:
            return ABSENT, [], ""
        good = min(values) > self.limit if self.open_hole else max(values) <= self.limit
        others = {rule: rate(found, rule, self.row, targeted=self.targeted) for rule in self.rivals}
        best = min((value for value in others.values() if value is not None), default=np.inf)
        good = good and float(np.mean(values)) <= best + MARGIN
        return ("reached" if good else "missed"), values, _text(others)


TARGETS = (
    Target("error under UPA reverse, 4 of 10", "mnist-10", OURS, ("UPA", 4), 0.09, rivals=(RFA, KRUM)),
    Target("error under UPA trim, 4 of 10", "trim", OURS, ("UPA trim", 4), 0.09, rivals=(RFA, KRUM)),
    Target("error under TPA, 4 of 10", "mnist-10", OURS, ("TPA", 4), 0.09, rivals=(RFA, KRUM)),
    Target("confidence under TPA, 4 of 10", "mnist-10", OURS, ("TPA", 4), 0.02, targeted=True),
    Target("averaging under UPA reverse, 4 of 10", "mnist-10", BASELINE, ("UPA", 4), 0.8, open_hole=True),
    Target("averaging under UPA trim, 4 of 10", "trim", BASELINE, ("UPA trim", 4), 0.8, open_hole=True),
    Target("averaging under TPA, 4 of 10", "mnist-10", BASELINE, ("TPA", 4), 0.8, targeted=True, open_hole=True),
    *(
        Target(f"{words}: {rule}", arm, rule, row, 0.2, open_hole=bare)
        for words, arm, row, closing in (
            ("poison when syncing only, 1 of 10", "hole-memory", ("UPA when syncing only", 1), "cap only"),
            ("20 times too long, 4 of 10", "hole-length", ("20 times too long", 4), "clip only"),
        )
        for rule, bare in (("without cap and clip", True), (closing, False), ("default", False))
    ),
)


def targets_table(sweeps: Sweeps, *, at_scale: bool) -> Table:
    """What must be reached on MNIST, seed by seed."""
    rows, values = [], []
    for target in TARGETS:
        verdict, found, rivals = target.judge(sweeps if at_scale else {})
        bound = f"{'above' if target.open_hole else 'at most'} {target.limit:g}"
        rows.append((target.text, bound, " ".join(f"{value:.3f}" for value in found) or "–", rivals or "–", verdict))
        values.append((target.text, bound, found, rivals, verdict))
    notes = (f"Every seed must keep the bound; with others named, the mean may exceed the better one's by {MARGIN}.",)
    columns = ("what", "bound", "seeds", "others", "verdict")
    return Table("Targets of this implementation", columns, tuple(rows), tuple(values), notes, left=5)


def rules_table(title: str, found: SweepResult) -> Table:
    """Every attack of a sweep against every rule: error, and the confidence where somebody is targeted."""
    rows, values = [], []
    for row in found.experiment.rows():
        name = "no attack" if not row[1] else f"{row[0]}, {row[1]} of {found.experiment.federation.clients}"
        for targeted, what in ((False, "error"), (True, "confidence")):
            if targeted and row[0] != "TPA":
                continue
            means = [rate(found, rule, row, targeted=targeted) for rule in found.experiment.rule_labels]
            rows.append((name, what, *("–" if value is None else f"{value:.3f}" for value in means)))
            values.append((name, what, *means))
    return Table(title, ("attack", "measure", *found.experiment.rule_labels), tuple(rows), tuple(values), left=2)
