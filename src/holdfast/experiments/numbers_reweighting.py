"""The numbers that the tables of the residual-reweighting paper print, and which experiment each belongs to.

Paper: Fu, Xie, Li and Chen, "Attack-Resistant Federated Learning with Residual-based Reweighting", 2019
(arXiv 1912.11464), §4 and appendix.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from holdfast.experiments.paper_reweighting import DELTAS, LAMBDAS, MIX_RATES, NAMES, OURS, STDS, VARIANTS

Row = tuple[str, int]

# Tables 1, 2 and 4: accuracy in percent, a row per rule in the order of RULES.
TABLE_1 = (
    (88.96, 85.74, 82.49, 82.35, 82.11),
    (88.11, 87.69, 87.15, 85.85, 82.01),
    (88.70, 88.52, 87.44, 85.36, 82.35),
    (88.60, 87.76, 86.97, 85.77, 81.82),
    (9.70, 9.57, 10.72, 11.42, 9.98),
    (89.17, 88.60, 86.66, 86.09, 85.81),
)
TABLE_2 = (
    (91.81, 86.91, 24.97, 12.52, 9.78),
    (91.73, 91.87, 91.79, 91.43, 91.17),
    (91.81, 91.82, 91.82, 91.49, 91.26),
    (91.55, 88.41, 23.22, 11.70, 9.62),
    (50.79, 49.45, 47.44, 49.71, 49.95),
    (91.71, 91.79, 91.76, 91.67, 91.38),
)
TABLE_4 = (
    (93.17, 78.80, 53.74, 9.26),
    (73.92, 64.35, 71.54, 63.24),
    (87.59, 74.87, 73.76, 75.74),
    (61.86, 75.53, 67.76, 73.63),
    (86.72, 90.31, 86.96, 89.94),
    (90.06, 90.91, 89.06, 92.28),
)
# Table 3: (accuracy, attack success) of the naive approach, then of model replacement. Its success counts test
# images that are of the target class already.
TABLE_3_MNIST = (
    (99.08, 99.71, 98.75, 17.85),
    (98.91, 10.34, 98.87, 10.35),
    (98.97, 10.34, 98.81, 10.34),
    (98.96, 10.36, 98.82, 10.32),
    (96.20, 12.51, 97.96, 10.27),
    (98.97, 10.35, 98.88, 10.31),
)
TABLE_3_CIFAR = (
    (87.44, 99.91, 69.72, 38.59),
    (88.58, 73.06, 87.22, 10.01),
    (88.38, 84.56, 87.30, 9.85),
    (88.22, 75.25, 87.57, 9.79),
    (10.00, 0.00, 10.00, 0.00),
    (88.89, 9.65, 87.43, 9.56),
)
# §4.3: loans, (accuracy, attack success) under the naive approach; None where the text prints none.
LOAN: Mapping[str, tuple[float | None, float]] = MappingProxyType(
    {"FedAvg": (93.65, 99.71), "FoolsGold": (None, 99.96), OURS: (94.50, 0.0)}
)
# Table 6: accuracy with 0, 5 and 9 attackers, i.i.d. and then not, for each lambda and delta in turn.
TABLE_6 = (
    (97.58, 97.71, 97.81, 93.63, 95.22, 94.93),
    (97.70, 97.00, 97.39, 86.22, 82.66, 91.89),
    (97.68, 97.38, 97.76, 83.61, 87.90, 87.70),
    (97.74, 97.15, 98.05, 79.87, 87.64, 88.86),
    (97.72, 97.68, 97.44, 94.41, 94.92, 94.54),
    (97.75, 97.65, 97.94, 93.36, 93.99, 91.15),
    (97.69, 97.60, 97.26, 86.93, 92.20, 89.39),
    (97.31, 97.45, 97.26, 84.77, 84.91, 91.40),
    (97.59, 97.68, 97.75, 94.95, 94.21, 94.86),
    (97.64, 97.85, 97.51, 91.45, 93.39, 93.14),
    (97.94, 97.97, 97.76, 93.08, 92.84, 91.84),
    (97.39, 97.26, 97.98, 86.09, 90.83, 91.43),
    (97.70, 97.70, 97.51, 93.83, 91.67, 94.89),
    (97.50, 97.90, 97.56, 93.76, 95.37, 95.68),
    (97.39, 97.49, 97.65, 94.74, 91.93, 94.13),
    (97.44, 97.79, 97.57, 89.11, 92.03, 93.25),
    (97.63, 97.82, 97.60, 92.62, 94.90, 93.77),
    (97.83, 97.61, 97.86, 94.53, 93.91, 95.28),
    (97.69, 97.68, 97.65, 94.23, 94.57, 94.47),
    (97.26, 97.55, 97.39, 92.60, 93.05, 94.23),
)
# Table 7: accuracy with 0 and 9 attackers for the median, the Theil-Sen line and Gaussian weighting, for each lambda
# from 1 on and each delta in turn.
TABLE_7 = (
    (94.46, 95.19, 93.76, 92.87, 84.32, 92.22),
    (93.37, 93.79, 94.43, 92.70, 87.33, 90.65),
    (83.77, 90.93, 92.77, 94.31, 88.31, 89.23),
    (70.84, 80.79, 93.28, 93.63, 83.22, 90.28),
    (93.34, 94.36, 94.38, 49.28, 91.07, 92.70),
    (93.41, 94.86, 95.62, 91.65, 90.85, 93.00),
    (94.02, 93.48, 92.29, 93.07, 88.61, 93.15),
    (88.84, 92.68, 92.21, 91.70, 90.54, 90.80),
    (94.67, 94.68, 94.45, 75.83, 92.46, 93.18),
    (93.67, 94.52, 94.86, 94.72, 93.30, 94.25),
    (93.11, 91.30, 92.32, 94.70, 92.09, 93.65),
    (93.67, 93.76, 94.00, 93.20, 90.88, 93.26),
    (93.68, 84.26, 94.69, 93.27, 94.10, 93.58),
    (94.23, 94.72, 93.67, 79.91, 92.78, 93.69),
    (94.88, 94.69, 94.60, 92.85, 92.81, 93.83),
    (92.90, 93.87, 93.51, 91.41, 91.72, 92.93),
)
TABLE_8 = (92.50, 92.58, 92.71, 92.60, 92.42, 92.66, 92.56)


def published_numbers() -> Iterator[tuple[str, str, str, Row, str, float]]:
    """(claim, sweep, rule, row, measure, value) of every published number."""
    flips = (
        ("Table 1", "cifar-label-flip", "cat to dog", TABLE_1),
        ("Table 2", "reviews", "all-label-flip", TABLE_2),
    )
    for title, arm, attack, table in flips:
        for rule, values in zip(NAMES, table, strict=True):
            for m, value in enumerate(values):
                yield f"{title}: {rule}, {m} attackers", arm, rule, (attack if m else "none", m), "accuracy", value
    for title, arm, table3 in (
        ("Table 3, MNIST", "mnist-backdoor", TABLE_3_MNIST),
        ("Table 3, CIFAR-10", "cifar-backdoor", TABLE_3_CIFAR),
    ):
        for rule, four in zip(NAMES, table3, strict=True):
            for place, value in enumerate(four):
                attack, measure = ("naive", "replacement")[place // 2], ("accuracy", "success")[place % 2]
                yield f"{title}: {rule}, {attack}, {measure}", arm, rule, (attack, 1), measure, value
    for rule, (accuracy, success) in LOAN.items():
        if accuracy is not None:
            yield f"Loans: {rule}, accuracy", "loan", rule, ("naive", 5), "accuracy", accuracy
        yield f"Loans: {rule}, success", "loan", rule, ("naive", 5), "success", success
    for rule, noisy in zip(NAMES, TABLE_4, strict=True):
        for std, value in zip(STDS, noisy, strict=True):
            row = (f"std {std}", 10) if std else ("none", 0)
            yield f"Table 4: {rule}, std {std}", "mnist-noise", rule, row, "accuracy", value
    settings = [f"{lam:g}/{delta:g}" for lam in LAMBDAS for delta in DELTAS]
    for setting, six in zip(settings, TABLE_6, strict=True):
        for place, value in enumerate(six):
            arm, m = ("mnist-lambda-iid", "mnist-lambda")[place // 3], (0, 5, 9)[place % 3]
            words = f"Table 6{', i.i.d.' if place < 3 else ''}: lambda/delta {setting}, {m} attackers"
            yield words, arm, setting, ("label-flip" if m else "none", m), "accuracy", value
    for setting, seven in zip(settings[len(DELTAS) :], TABLE_7, strict=True):
        for place, value in enumerate(seven):
            rule, m = f"{VARIANTS[place // 2][0]} {setting}", (0, 9)[place % 2]
            row = ("label-flip" if m else "none", m)
            yield f"Table 7: {rule}, {m} attackers", "mnist-variants", rule, row, "accuracy", value
    for rate, value in zip(MIX_RATES, TABLE_8, strict=True):
        words = f"mix rate {rate:g}"
        yield f"Table 8: {words}", "reviews-blended", OURS, (words, 4), "accuracy", value
