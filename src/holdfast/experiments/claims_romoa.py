"""What the Romoa paper concludes, sentence by sentence, each as a test on results."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from holdfast.experiments.claims_reweighting import Claim, Sweeps, Verdict
from holdfast.experiments.paper_romoa import ATTACKS, BASELINE, KRUM, NAMES, OURS, RFA
from holdfast.experiments.sweep_result import SweepResult
from holdfast.experiments.tables_romoa import LAST, MARGIN, Row, order, rate, values_text
from holdfast.report import Table


def _needed(found: SweepResult, rule: str, row: Row, *, targeted: bool | None = None) -> float:
    value = rate(found, rule, row, targeted=targeted)
    return float("nan") if value is None else value


def _upa(arm: str, m: int, rules: tuple[str, ...] = NAMES) -> Callable[[Sweeps], dict[str, float]]:
    return lambda sweeps: {rule: _needed(sweeps[arm], rule, ("UPA", m)) for rule in rules}


def _nearly_perfect(sweeps: Sweeps) -> Verdict:
    found = sweeps["mnist-10"]
    lost = {rule: _needed(found, rule, ("UPA", 1)) - _needed(found, BASELINE, ("none", 0)) for rule in (OURS, RFA)}
    return max(lost.values()) < 2 * MARGIN, f"error beyond averaging without attack: {values_text(lost)}"


def _better_on_photos(sweeps: Sweeps) -> Verdict:
    values = _upa("cifar-10-10", 1, (OURS, RFA))(sweeps)
    return order(values[OURS], values[RFA]) == "below", values_text(values)


def _baseline_falls_early(sweeps: Sweeps) -> Verdict:
    curve = sweeps["mnist-10"].curve(BASELINE, ("UPA", 1))
    first = 1.0 - float(curve.y[0])
    return first > 0.6, f"error {first:.3f} after {int(curve.x[0])} of {int(curve.x[-1])} syncing points"


def _krum_broken(sweeps: Sweeps) -> Verdict:
    values = _upa("mnist-10", 4, (KRUM,))(sweeps)
    return values[KRUM] > 0.5, f"with 4 of 10: {values_text(values)}"


def _confidence_kept(sweeps: Sweeps) -> Verdict:
    found = sweeps["mnist-10"]
    values = {rule: _needed(found, rule, ("TPA", 1)) for rule in NAMES}
    return values[BASELINE] > 0.5 and max(values[OURS], values[KRUM]) < 0.1, f"with 1 of 10: {values_text(values)}"


def _targeted(other: str) -> Callable[[Sweeps], Verdict]:
    def test(sweeps: Sweeps) -> Verdict:
        row = ("TPA", 4)
        values = {rule: _needed(sweeps["mnist-10"], rule, row) for rule in (OURS, other)}
        return order(values[OURS], values[other]) == "below", f"with 4 of 10: {values_text(values)}"

    return test


def _accuracies(found: SweepResult, rule: str, row: Row) -> dict[str, float]:
    """Training and test accuracy, each the mean of the last evaluations and the seeds."""
    records = [record for seed in found.experiment.seeds for record in found.records[rule, *row, seed][-LAST:]]
    return {
        "training": float(np.mean([np.nan if r.training_accuracy is None else r.training_accuracy for r in records])),
        "test": float(np.mean([record.accuracy for record in records])),
    }


def _lost(found: SweepResult, rule: str, attack: str) -> dict[str, float]:
    """What one adversary costs of averaging's accuracy without attack, by half of the figure."""
    whole, left = _accuracies(found, BASELINE, ("none", 0)), _accuracies(found, rule, (attack, 1))
    return {half: whole[half] - left[half] for half in whole}


def _baseline_loses(attack: str, *, much: bool) -> Callable[[Sweeps], Verdict]:
    def test(sweeps: Sweeps) -> Verdict:
        lost = _lost(sweeps["mnist-10"], BASELINE, attack)
        seen = min(lost.values()) > 0.3 if much else max(lost.values()) < 2 * MARGIN
        return seen, f"accuracy that averaging loses: {values_text(lost)}"

    return test


def _protected(arm: str) -> Callable[[Sweeps], Verdict]:
    def test(sweeps: Sweeps) -> Verdict:
        lost = {
            f"{attack} {half}": value for attack in ATTACKS for half, value in _lost(sweeps[arm], OURS, attack).items()
        }
        return max(lost.values()) < 2 * MARGIN, f"accuracy lost to averaging without attack: {values_text(lost)}"

    return test


def _tests(found: SweepResult, attack: str) -> dict[str, float]:
    return {rule: _accuracies(found, rule, (attack, 1))["test"] for rule in (OURS, RFA, KRUM)}


def _rfa_best(sweeps: Sweeps) -> Verdict:
    values = {attack: _tests(sweeps["mnist-10"], attack) for attack in ATTACKS}
    best = all(order(found[RFA], max(found[OURS], found[KRUM])) != "below" for found in values.values())
    return best, "; ".join(f"{attack}: {values_text(found)}" for attack, found in values.items())


def _others_fail(sweeps: Sweeps) -> Verdict:
    values = {attack: _tests(sweeps["cifar-10-10"], attack) for attack in ATTACKS}
    fail = all(order(max(found[RFA], found[KRUM]), found[OURS]) == "below" for found in values.values())
    return fail, "; ".join(f"{attack}: {values_text(found)}" for attack, found in values.items())


def _skewed_frustrated(sweeps: Sweeps) -> Verdict:
    found = sweeps["mnist-one-label"]
    values = {f"{attack}, {r}": _needed(found, r, (attack, 1)) for attack in ("TPA", "UPA") for r in (BASELINE, OURS)}
    below = [order(values[f"{a}, {OURS}"], values[f"{a}, {BASELINE}"]) == "below" for a in ("TPA", "UPA")]
    return all(below), values_text(values)


def _printed_equations(sweeps: Sweeps) -> Verdict:
    found = sweeps["presets"]
    rows = {"UPA": ("UPA", 4), "TPA": ("TPA", 4)}
    values = {f"literal, {name}": _needed(found, "literal", row) for name, row in rows.items()}
    return max(values.values()) < 0.2, f"with 4 of 10: {values_text(values)}"


CLAIMS = (
    Claim("Figure 5", "UPA: Romoa and RFA are nearly perfect on MNIST", ("mnist-10",), _nearly_perfect),
    Claim("Figure 5", "UPA: Romoa outperforms RFA on CIFAR-10", ("cifar-10-10",), _better_on_photos),
    Claim("Figure 5", "UPA: the baseline's error is high in the early stage", ("mnist-10",), _baseline_falls_early),
    Claim("Figure 5", "UPA breaks Krum", ("mnist-10",), _krum_broken),
    Claim("Figure 6", "TPA takes the baseline; Romoa and Krum protect strongly", ("mnist-10",), _confidence_kept),
    Claim("Figure 6", "TPA: Romoa has an explicit advantage over RFA", ("mnist-10",), _targeted(RFA)),
    Claim("Figure 6", "TPA: Romoa outperforms Krum in poisoned-label confidence", ("mnist-10",), _targeted(KRUM)),
    Claim("Figure 7", "UPA influences accuracy seriously", ("mnist-10",), _baseline_loses("UPA", much=True)),
    Claim("Figure 8", "TPA barely influences accuracy", ("mnist-10",), _baseline_loses("TPA", much=False)),
    Claim("Figures 7, 8", "Romoa protects accuracy on MNIST", ("mnist-10",), _protected("mnist-10")),
    Claim("Figures 7, 8", "Romoa protects accuracy on CIFAR-10", ("cifar-10-10",), _protected("cifar-10-10")),
    Claim("Figures 7, 8", "RFA is the best on MNIST", ("mnist-10",), _rfa_best),
    Claim("Figures 7, 8", "RFA and Krum fail on CIFAR-10", ("cifar-10-10",), _others_fail),
    Claim("Table 2", "One label each: UPA and TPA are frustrated", ("mnist-one-label",), _skewed_frustrated),
    Claim("Eq. 5-11", "The equations as printed defend", ("presets",), _printed_equations),
)


def claims_table(sweeps: Sweeps, *, at_scale: bool) -> Table:
    """A verdict per sentence of the paper, with the numbers it rests on."""
    rows = tuple((c.where, c.text, *c.verdict(sweeps, at_scale=at_scale)) for c in CLAIMS)
    return Table("The paper's sentences", ("where", "claim", "verdict", "evidence"), rows, left=4)
