"""What the residual-reweighting paper concludes from its experiments, each as a test on results.

A claim is tested on the sweeps it is about; where one of them was not run, nothing is said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from holdfast.experiments.paper_reweighting import MIX_RATES, NAMES, OURS
from holdfast.experiments.sweep_result import SweepResult

Sweeps = Mapping[str, SweepResult]
Verdict = tuple[bool, str]
ROBUST = 2.0  # percentage points that count as "does not degrade"


@dataclass(frozen=True)
class Claim:
    """One conclusion of the paper.

    Attributes:
        where: table or figure.
        text: what is concluded.
        needs: the sweeps it is tested on.
        test: whether it holds there, and the numbers that say so.
    """

    where: str
    text: str
    needs: tuple[str, ...]
    test: Callable[[Sweeps], Verdict]

    def verdict(self, sweeps: Sweeps, *, at_scale: bool) -> tuple[str, str]:
        """("agrees" | "differs" | "not run at this scale", evidence)."""
        if not at_scale or any(name not in sweeps for name in self.needs):
            return "not run at this scale", ""
        holds, evidence = self.test(sweeps)
        return ("agrees" if holds else "differs"), evidence


def percent(found: SweepResult, rule: str, attack: str, attackers: int, measure: str = "accuracy") -> float:
    """A mean over the seeds, in percent; NaN where it was not measured."""
    interval = found.interval(rule, (attack if attackers else "none", attackers), measure)
    return float("nan") if interval is None else 100 * interval.mean


def _worst(found: SweepResult) -> int:
    return max(found.experiment.attackers)


def _best(values: Mapping[str, float]) -> Verdict:
    ordered = sorted(values, key=lambda name: -values[name])
    text = ", ".join(f"{name} {values[name]:.1f}" for name in ordered)
    return ordered[0] == OURS, text


def _by_rule(found: SweepResult, attack: str, attackers: int, measure: str = "accuracy") -> dict[str, float]:
    return {rule: percent(found, rule, attack, attackers, measure) for rule in NAMES}


def _averages(found: SweepResult, attack: str) -> dict[str, float]:
    counts = found.experiment.attackers
    return {rule: float(np.mean([percent(found, rule, attack, m) for m in counts])) for rule in NAMES}


def _flip_best(sweeps: Sweeps) -> Verdict:
    found = sweeps["mnist-label-flip"]
    return _best(_by_rule(found, "label-flip", _worst(found)))


def _flip_foolsgold(sweeps: Sweeps) -> Verdict:
    means = _averages(sweeps["mnist-label-flip"], "label-flip")
    gap = means[OURS] - means["FoolsGold"]
    return gap > 0, f"{gap:+.1f} points on average over the numbers of attackers run"


def _table_1(sweeps: Sweeps) -> Verdict:
    return _best(_averages(sweeps["cifar-label-flip"], "cat to dog"))


def _foolsgold_fails(sweeps: Sweeps) -> Verdict:
    value = percent(sweeps["cifar-label-flip"], "FoolsGold", "none", 0)
    return value < 20, f"FoolsGold without attackers: {value:.1f}%"


def _reviews_stable(sweeps: Sweeps) -> Verdict:
    found = sweeps["reviews"]
    drop = percent(found, OURS, "none", 0) - percent(found, OURS, "all-label-flip", _worst(found))
    return drop < ROBUST, f"{drop:.1f} points lost with {_worst(found)} of 10 attackers"


def _reviews_average_falls(sweeps: Sweeps) -> Verdict:
    found = sweeps["reviews"]
    value = percent(found, "FedAvg", "all-label-flip", _worst(found))
    return value < 50, f"FedAvg with {_worst(found)} of 10 attackers: {value:.1f}%"


def _mnist_backdoor(sweeps: Sweeps) -> Verdict:
    success = {a: percent(sweeps["mnist-backdoor"], OURS, a, 1, "success") for a in ("naive", "replacement")}
    told = ", ".join(f"{name} {value:.1f}%" for name, value in success.items())
    return max(success.values()) < 5, f"attack success against ours: {told}"


def _naive_takes_average(sweeps: Sweeps) -> Verdict:
    value = percent(sweeps["mnist-backdoor"], "FedAvg", "naive", 1, "success")
    return value > 90, f"attack success against FedAvg: {value:.1f}%"


def _only_ours(arm: str) -> Callable[[Sweeps], Verdict]:
    def test(sweeps: Sweeps) -> Verdict:
        success = _by_rule(sweeps[arm], "naive", 1, "success")
        others = [value for name, value in success.items() if name not in (OURS, "FoolsGold")]
        text = ", ".join(f"{name} {value:.1f}" for name, value in success.items())
        return success[OURS] < 15 and min(others) > 50, f"attack success: {text}"

    return test


def _loans(sweeps: Sweeps) -> Verdict:
    success = _by_rule(sweeps["loan"], "naive", _worst(sweeps["loan"]), "success")
    text = ", ".join(f"{name} {value:.1f}" for name, value in success.items())
    return success[OURS] < 5 and success["FedAvg"] > 90, f"attack success: {text}"


def _noise(sweeps: Sweeps) -> Verdict:
    found = sweeps["mnist-noise"]
    rows = found.experiment.rows()
    return _best({rule: float(np.mean([percent(found, rule, *row) for row in rows])) for rule in NAMES})


def _spread(found: SweepResult) -> float:
    values = [
        percent(found, rule, "label-flip", m)
        for rule in found.experiment.rule_labels
        for m in found.experiment.attackers
    ]
    return max(values) - min(values)


def _lambda_iid(sweeps: Sweeps) -> Verdict:
    spread = _spread(sweeps["mnist-lambda-iid"])
    return spread < ROBUST, f"{spread:.1f} points between the best and the worst setting"


def _delta(sweeps: Sweeps) -> Verdict:
    found = sweeps["mnist-lambda"]

    def mean_of(delta: str) -> float:
        rules = [rule for rule in found.experiment.rule_labels if rule.endswith(f"/{delta}")]
        return float(
            np.mean([percent(found, rule, "label-flip", m) for rule in rules for m in found.experiment.attackers])
        )

    low, high = mean_of("0.01"), mean_of("0.2")
    return low > high, f"delta = 0.01: {low:.1f}%, delta = 0.2: {high:.1f}%"


def _variants(sweeps: Sweeps) -> Verdict:
    found = sweeps["mnist-variants"]
    means = {
        words: float(
            np.mean(
                [
                    percent(found, rule, "label-flip", m)
                    for rule in found.experiment.rule_labels
                    if rule.startswith(words)
                    for m in found.experiment.attackers
                ]
            )
        )
        for words in ("median line", "Theil-Sen line", "Gaussian weighting")
    }
    text = ", ".join(f"{words} {value:.1f}" for words, value in means.items())
    return max(means.values()) - min(means.values()) < 5, f"means over all settings: {text}"


def _blended(sweeps: Sweeps) -> Verdict:
    found = sweeps["reviews-blended"]
    values = [percent(found, OURS, attack, 4) for attack, _ in found.experiment.rows()]
    return max(values) - min(values) < ROBUST, f"{min(values):.1f}% to {max(values):.1f}% over the mix rates run"


def _dropped(sweeps: Sweeps) -> Verdict:
    first, last = sweeps["mnist-drop-0"], sweeps["mnist-drop-20"]
    gone = {rule: percent(first, rule, "none", 0) - percent(last, rule, "none", 0) for rule in ("FedAvg", OURS)}
    text = ", ".join(f"{name} loses {value:.1f} points" for name, value in gone.items())
    return min(gone.values()) > 5, f"{text} when nobody holds the digit"


def _late(sweeps: Sweeps) -> Verdict:
    found = sweeps["cifar-backdoor"]
    curve = found.curve("Median", ("naive", 1), "success")
    early, end = float(curve.y[curve.x <= 20].max()), float(curve.y[-1])
    return end > early + 0.2, f"Median: {100 * early:.1f}% until round 20, {100 * end:.1f}% at the end"


CLAIMS: tuple[Claim, ...] = (
    Claim("Figure 3", "ours is the most accurate under label flips", ("mnist-label-flip",), _flip_best),
    Claim("Figure 3", "ours surpasses FoolsGold", ("mnist-label-flip",), _flip_foolsgold),
    Claim("Figure 5", "without holders of a digit every rule loses it", ("mnist-drop-0", "mnist-drop-20"), _dropped),
    Claim("Table 1", "ours is the most accurate on average", ("cifar-label-flip",), _table_1),
    Claim("Table 1", "FoolsGold fails where data is nearly alike", ("cifar-label-flip",), _foolsgold_fails),
    Claim("Table 2", "ours does not degrade below half attackers", ("reviews",), _reviews_stable),
    Claim("Table 2", "plain averaging falls below chance", ("reviews",), _reviews_average_falls),
    Claim("Table 3", "MNIST: ours stands both backdoors", ("mnist-backdoor",), _mnist_backdoor),
    Claim("Table 3", "MNIST: the naive backdoor takes plain averaging", ("mnist-backdoor",), _naive_takes_average),
    Claim(
        "Table 3, Figure 4",
        "CIFAR-10: only ours stands the naive backdoor",
        ("cifar-backdoor",),
        _only_ours("cifar-backdoor"),
    ),
    Claim(
        "Figure 7",
        "ResNet-18 on MNIST: only ours stands",
        ("mnist-resnet-backdoor",),
        _only_ours("mnist-resnet-backdoor"),
    ),
    Claim("Figure 8", "success rises only once the model has converged", ("cifar-backdoor",), _late),
    Claim("§4.3", "loans: the backdoor takes averaging, not ours", ("loan",), _loans),
    Claim("Table 4", "ours is the most accurate under noise, on average", ("mnist-noise",), _noise),
    Claim("Table 6", "i.i.d.: lambda and delta hardly matter", ("mnist-lambda-iid",), _lambda_iid),
    Claim("Table 6", "not i.i.d.: a larger delta costs accuracy", ("mnist-lambda",), _delta),
    Claim("Table 7", "other lines and weightings do about as well", ("mnist-variants",), _variants),
    Claim("Table 8", f"all {len(MIX_RATES)} mix rates are defended", ("reviews-blended",), _blended),
)
