"""What the experiments of the residual-reweighting paper are, at three scales.

Paper: Fu, Xie, Li and Chen, "Attack-Resistant Federated Learning with Residual-based Reweighting", 2019
(arXiv 1912.11464), §4 and appendix.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from holdfast.experiments.attacked import SimulateConfig
from holdfast.experiments.experiment import Experiment
from holdfast.types import ConfigError

OURS = "ours"
LAMBDAS = (0.5, 1, 2, 3, 5)
DELTAS = (0.01, 0.05, 0.1, 0.2)
MIX_RATES = (0.5, 0.3, 0.1, 0.03, 0.01, 0.001, 0.0001)
STDS = (0, 1, 2, 3)


def ours(**params: Any) -> dict[str, Any]:
    """The paper's rule with its settings."""
    return {"name": "residual-reweighting", "lam": 2, "delta": 0.01, "label": OURS, **params}


RULES: tuple[Any, ...] = (
    {"name": "mean", "label": "FedAvg"},
    {"name": "median", "label": "Median"},
    {"name": "trimmed-mean", "label": "Trimmed Mean"},
    {"name": "repeated-median", "label": "Repeated Median"},
    {"name": "foolsgold", "label": "FoolsGold"},
    ours(),
)
NAMES = tuple(rule["label"] for rule in RULES)
# Where the numbers of Table 4 and Figure 5 have nobody malicious, its trimmed mean still trims: 87.59 against 93.17.
TOLD: tuple[Any, ...] = tuple({**rule, "f": 10} if rule["name"] == "trimmed-mean" else rule for rule in RULES)

VARIANTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("median line", {"line": "median"}),
    ("Theil-Sen line", {"line": "theil-sen"}),
    ("Gaussian weighting", {"weighting": "gaussian"}),
)


@dataclass(frozen=True)
class Scale:
    """The experiments at one scale.

    Attributes:
        name: "smoke", "cpu" or "paper".
        arms: every experiment by name.
        comparable: arms whose data, model and sizes are the paper's, so that its numbers may be set beside ours.
    """

    name: str
    arms: Mapping[str, Experiment]
    comparable: tuple[str, ...]


def scale(name: str, *, data_dir: str | None = None, reviews: str = "reviews", loan: str = "loan") -> Scale:
    """The experiments at a scale.

    `smoke` runs small forms of them on embedded digits, to show that it works. `cpu` has the paper's MNIST
    experiments with a part of its grids and one seed, most for 40 of its 200 rounds and backdoors for 20, and reviews
    and loans from whatever file is there; what needs ResNet-18 is left out. `paper` is everything, three seeds each.

    Args:
        name: "smoke", "cpu" or "paper".
        data_dir: folder with the official files.
        reviews: "reviews", or a file of reviews.
        loan: "loan", or a file of loans.

    Raises:
        ConfigError: there is no such scale.
    """
    if name not in ("smoke", "cpu", "paper"):
        raise ConfigError(f"scale {name!r} is not one of smoke, cpu, paper")
    if name == "smoke":
        return Scale(name, _smoke(), ())
    arms = _mnist(data_dir, full=name == "paper") | _tables(data_dir, reviews, loan, full=name == "paper")
    comparable = [arm for arm in arms if arm.startswith("mnist")]
    if name == "paper":
        arms |= _residual_networks(data_dir)
        comparable = [*arms]
    return Scale(name, arms, tuple(comparable))


def hyper_parameters(lambdas: tuple[float, ...] = LAMBDAS, deltas: tuple[float, ...] = DELTAS) -> tuple[Any, ...]:
    """The grid of Table 6 as rules."""
    return tuple(ours(lam=lam, delta=delta, label=f"{lam:g}/{delta:g}") for lam in lambdas for delta in deltas)


def variants(lambdas: tuple[float, ...] = LAMBDAS[1:], deltas: tuple[float, ...] = DELTAS) -> tuple[Any, ...]:
    """The grid of Table 7 as rules."""
    return tuple(
        ours(lam=lam, delta=delta, label=f"{words} {lam:g}/{delta:g}", **params)
        for words, params in VARIANTS
        for lam in lambdas
        for delta in deltas
    )


def _mnist(data_dir: str | None, *, full: bool) -> dict[str, Experiment]:
    """Figures 3 and 5, Tables 3 (left), 4, 6 and 7; experiments that share a federation share its cells."""
    seeds = (0, 1, 2) if full else (0,)
    every = 1 if full else 10
    hundred = SimulateConfig(
        data="mnist",
        data_dir=data_dir,
        clients=100,
        partition="two-labels",
        rounds=200,
        local_epochs=5,
        batch_size=128,
        lr=0.01,
        evaluate_every=every,
    )
    ten = replace(hundred, clients=10, partition="dirichlet", batch_size=64)
    short = hundred if full else replace(hundred, rounds=40)
    lambdas, deltas = (LAMBDAS, DELTAS) if full else ((2,), (0.01, 0.2))
    dropped = range(21) if full else (0, 15, 20)
    arms = {
        "mnist-label-flip": Experiment(
            "Figure 3", hundred, RULES, ("label-flip",), tuple(range(11)) if full else (10,), seeds
        ),
        "mnist-backdoor": Experiment(
            "Table 3, MNIST", ten if full else replace(ten, rounds=20), RULES, _backdoors(), (1,), seeds
        ),
        "mnist-noise": Experiment("Table 4", short, TOLD, _noises(STDS[1:] if full else (2,)), (0, 10), seeds),
        "mnist-lambda-iid": Experiment(
            "Table 6, i.i.d.",
            replace(short, partition="iid"),
            hyper_parameters(lambdas, deltas),
            ("label-flip",),
            (0, 5, 9) if full else (9,),
            seeds,
        ),
        "mnist-lambda": Experiment(
            "Table 6, not i.i.d.",
            short,
            hyper_parameters(lambdas, deltas),
            ("label-flip",),
            (0, 5, 9) if full else (9,),
            seeds,
        ),
        "mnist-variants": Experiment(
            "Table 7",
            short,
            variants() if full else variants((2,), (0.01,)),
            ("label-flip",),
            (0, 9) if full else (9,),
            seeds,
        ),
    }
    return arms | {f"mnist-drop-{holders}": _dropped(short, holders, seeds) for holders in dropped}


def _dropped(whole: SimulateConfig, holders: int, seeds: tuple[int, ...]) -> Experiment:
    """One place of Figure 5; without removals, it is the federation of Table 4 without noise."""
    less = replace(whole, drop_label=0, drop_holders=holders) if holders else whole
    return Experiment(f"Figure 5, {holders} holders removed", less, TOLD, seeds=seeds)


def _tables(data_dir: str | None, reviews: str, loan: str, *, full: bool) -> dict[str, Experiment]:
    """Tables 2 and 8, and the loans of §4.3."""
    seeds = (0, 1, 2)
    texts = SimulateConfig(
        data=reviews,
        data_dir=data_dir if reviews == "reviews" else None,
        clients=10,
        rounds=10,
        local_epochs=5,
        batch_size=64,
        lr=0.05,
        optimizer="adam",
        model="fasttext",
    )
    states = SimulateConfig(
        data=loan,
        data_dir=data_dir if loan == "loan" else None,
        partition="user",
        clients_per_round=10,
        rounds=100,
        local_epochs=5,
        batch_size=64,
        lr=0.01,
        model="loan",
        evaluate_every=1 if full else 5,
    )
    target = 7  # "Does not meet the credit policy. Status:Fully Paid"
    stamped = {"name": "naive-backdoor", "target": target, "lr": 0.002, "label": "naive"}
    return {
        "reviews": Experiment(
            "Table 2",
            texts,
            RULES,
            ({"name": "all-label-flip", "effort": 2.0, "label": "all-label-flip"},),
            (0, 1, 2, 3, 4) if full else (0, 4),
            seeds if full else (0,),
        ),
        "reviews-blended": Experiment(
            "Table 8",
            replace(texts, lr=0.01),  # A.7 has another learning rate than A.2
            (ours(),),
            tuple(
                {
                    "name": "all-label-flip",
                    "effort": 1.4,
                    "lr": 0.1,
                    "wrappers": [{"name": "blend", "mix_rate": rate}],
                    "label": f"mix rate {rate:g}",
                }
                for rate in (MIX_RATES if full else (0.5, 0.03, 0.0001))
            ),
            (4,),
            seeds if full else (0,),
        ),
        "loan": Experiment("Loans", states, RULES, (stamped,), (5,), seeds),
    }


def _residual_networks(data_dir: str | None) -> dict[str, Experiment]:
    """Table 1, the right half of Table 3, Figures 4, 7 and 8: ResNet-18, for a GPU."""
    cifar = SimulateConfig(
        data="cifar10",
        data_dir=data_dir,
        clients=10,
        partition="dirichlet",
        rounds=100,
        local_epochs=5,
        batch_size=64,
        lr=0.01,
        model="resnet18-bn",
    )
    flip = {"name": "label-flip", "pairs": [[3, 5]], "label": "cat to dog"}
    digits = replace(cifar, data="mnist")
    return {
        "cifar-label-flip": Experiment("Table 1", cifar, RULES, (flip,), (0, 1, 2, 3, 4), (0, 1, 2)),
        "cifar-backdoor": Experiment("Table 3, CIFAR-10", cifar, RULES, _backdoors(), (1,), (0, 1, 2)),
        "mnist-resnet-backdoor": Experiment("Figure 7", digits, RULES, _backdoors()[:1], (1,), (0, 1, 2)),
    }


def _smoke() -> dict[str, Experiment]:
    """Every kind of experiment on embedded digits."""
    many = SimulateConfig(clients=30, partition="two-labels", rounds=15, local_epochs=2, batch_size=16, lr=0.1)
    few = replace(many, clients=10, partition="dirichlet")
    small = ((2,), (0.01, 0.2))
    wrong = {"name": "all-label-flip", "label": "all-label-flip"}
    arms = {
        "mnist-label-flip": Experiment("Figure 3", many, RULES, ("label-flip",), (0, 3), (0, 1)),
        "mnist-backdoor": Experiment("Table 3, MNIST", few, RULES, _backdoors(), (1,), (0, 1)),
        "mnist-noise": Experiment("Table 4", many, TOLD, _noises((2,)), (0, 3), (0,)),
        "mnist-lambda-iid": Experiment(
            "Table 6, i.i.d.", replace(many, partition="iid"), hyper_parameters(*small), ("label-flip",), (3,), (0,)
        ),
        "mnist-lambda": Experiment("Table 6, not i.i.d.", many, hyper_parameters(*small), ("label-flip",), (3,), (0,)),
        "mnist-variants": Experiment("Table 7", few, variants(*small), ("label-flip",), (0, 3), (0,)),
        "reviews": Experiment("Table 2", replace(few, partition="iid"), RULES, (wrong,), (0, 4), (0,)),
        "reviews-blended": Experiment(
            "Table 8",
            replace(few, partition="iid"),
            (ours(),),
            tuple(
                {**wrong, "wrappers": [{"name": "blend", "mix_rate": rate}], "label": f"mix rate {rate:g}"}
                for rate in (0.5, 0.01)
            ),
            (4,),
            (0,),
        ),
    }
    return arms | {f"mnist-drop-{holders}": _dropped(many, holders, (0,)) for holders in (0, 3)}


def _backdoors() -> tuple[Any, ...]:
    """Naive in every round, and model replacement in round 6 at a hundredfold."""
    return (
        {"name": "naive-backdoor", "target": 2, "label": "naive"},
        {"name": "model-replacement", "target": 2, "label": "replacement"},
    )


def _noises(stds: tuple[float, ...]) -> tuple[Any, ...]:
    return tuple({"name": "gaussian-noise", "std": float(std), "label": f"std {std}"} for std in stds)
