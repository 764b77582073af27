"""The tables of the Romoa paper beside ours: error rates, and a verdict on every order that is printed.

Error rates are as the paper counts: the share of test inputs misclassified under untargeted poisoning, the confidence
in the poisoned label under targeted poisoning; the mean of the last three evaluations, over the seeds.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from holdfast.experiments.claims_reweighting import Sweeps
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


def values_text(values: Mapping[str, float | None]) -> str:
    """Numbers by name, without those that were not run.

    Example:
        >>> values_text({"RFA": 0.5, "Krum": None})
        'RFA 0.500'
    """
    return ", ".join(f"{name} {value:.3f}" for name, value in values.items() if value is not None)


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
