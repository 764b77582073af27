"""What the experiments of the randomized-selection paper are: its settings, at three scales, and its printed numbers.

Paper: Chen et al., "A Framework of Randomized Selection Based Certified Defenses Against Data Poisoning Attacks".
The paper prints no list of selection sizes and trusted examples for its Figures 4 and 6; those below span its range.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from holdfast.experiments.examples import ExamplesConfig
from holdfast.experiments.paper_ensemble import Published
from holdfast.types import ConfigError

SCHEMES = ("without", "with", "binomial")
SCHEME_NAMES = MappingProxyType(
    {"without": "bagging without replacement", "with": "bagging with replacement", "binomial": "binomial selection"}
)
ROW_NAMES = MappingProxyType(
    {"mnist-1-7": "MNIST 1/7", "mnist": "MNIST", "cifar10": "CIFAR-10", "digits-1-7": "digits 1/7"}
)

PUBLISHED: Mapping[str, Published] = MappingProxyType(
    {
        "zero-without": Published("Figure 4: MNIST 1/7, n_s = 10, scheme 1, first zero", 855, "", 0),
        "zero-with": Published("Figure 4: MNIST 1/7, n_s = 10, scheme 2, first zero", 857, "", 0),
        "zero-binomial": Published("Figure 4: MNIST 1/7, n_s = 10, scheme 3, first zero", 868, "", 0),
        "sizes": Published("Figure 5: of 1,000 binomial selections, larger than 3", 994, "", 0),
        "accurate": Published("Figure 5: of 1,000 classifiers, accuracy above 80%", 994, "", 0),
        "first-phase": Published("Figure 6: accuracy of the first phase at n_s = 10, above", 95, "%", 0.5),
        "second-phase": Published("Figure 6: accuracy of the second phase on its nine classes", 99.1, "%", 0.05),
    }
)


@dataclass(frozen=True)
class DeltaPanel:
    """One panel of Figure 2: how delta grows with rho under P6, for all schemes."""

    name: str
    n: int
    size: int
    largest: int


PANELS = (DeltaPanel("figure-2-left", 13_007, 10, 900), DeltaPanel("figure-2-right", 50_000, 1_000, 36))
"""Both end just beyond delta = 1, above which nothing is ever certified."""


@dataclass(frozen=True)
class Curve:
    """One curve of Figure 4: how selections are drawn, how large they are, and how many examples are trusted."""

    scheme: str
    size: int
    trusted: int = 0

    def arm(self, row: str) -> str:
        """The name of its run."""
        return f"{row}-{self.scheme}-{self.size}" + (f"-trusted-{self.trusted}" if self.trusted else "")


@dataclass(frozen=True)
class Scale:
    """The experiments at one scale.

    Attributes:
        name: "smoke", "cpu" or "paper".
        sets: the rows of Figure 4 by name, each a configuration of scheme "without".
        curves: per row, its curves.
        distribution: the run whose binomial selections Figure 5 shows.
        phases: the configuration of Figure 6, two-phase; `phase_sizes` its n_s.
        phase_sizes: see `phases`.
        comparable: whether data and sizes are the paper's, so that its numbers may be set beside ours.
    """

    name: str
    sets: Mapping[str, ExamplesConfig]
    curves: Mapping[str, tuple[Curve, ...]]
    distribution: str
    phases: ExamplesConfig
    phase_sizes: tuple[int, ...]
    comparable: bool

    def arms(self) -> dict[str, ExamplesConfig]:
        """Every run of this scale by name; figures share runs."""
        arms = {
            curve.arm(row): _drawn(config, curve, _examples(row))
            for row, config in self.sets.items()
            for curve in self.curves[row]
        }
        for size in self.phase_sizes:
            arms[f"two-phase-{size}"] = replace(self.phases, scheme="with", size=size)
            arms[f"one-phase-{size}"] = replace(self.phases, scheme="with", size=size, trusted_classes=())
        return arms


def _drawn(config: ExamplesConfig, curve: Curve, n: int) -> ExamplesConfig:
    """The configuration of a curve; for binomial selection p is n_s over the published n, a constant."""
    if curve.trusted:
        config = replace(config, trusted=f"0-{curve.trusted - 1}")
    if curve.scheme == "binomial":
        return replace(config, scheme=curve.scheme, size=None, p=round(curve.size / (n - curve.trusted), 12))
    return replace(config, scheme=curve.scheme, size=curve.size)


def _curves(sizes: tuple[int, ...], trusted: tuple[int, ...] = ()) -> tuple[Curve, ...]:
    """Every scheme at every size, and at the first size with trusted examples."""
    settings = [*((size, 0) for size in sizes), *((sizes[0], count) for count in trusted)]
    return tuple(Curve(scheme, *setting) for setting in settings for scheme in SCHEMES)


def _examples(row: str) -> int:
    """Training examples of a data set, as the paper states them (CIFAR-10 has 50,000, not 60,000)."""
    return {"mnist-1-7": 13_007, "mnist": 60_000, "cifar10": 50_000, "digits-1-7": 272}[row]


def scale(name: str, *, data_dir: str | None = None) -> Scale:
    """The experiments at a scale.

    `smoke` runs everything on embedded digits, to show that it works; `cpu` has the paper's MNIST halves with 1,000
    classifiers each, and a CIFAR-10 run that shows that the way is whole; `paper` adds the large selections and the
    whole of CIFAR-10, for which a GPU is needed.

    Args:
        name: "smoke", "cpu" or "paper".
        data_dir: folder with the official files (`mnist/`, `cifar10/`).

    Raises:
        ConfigError: there is no such scale.
    """
    if name not in _SCALES:
        raise ConfigError(f"scale {name!r} is not one of {', '.join(_SCALES)}")
    chosen = _SCALES[name]
    if name == "smoke":
        return chosen
    sets = {row: replace(config, data_dir=data_dir) for row, config in chosen.sets.items()}
    return replace(chosen, sets=sets, phases=replace(chosen.phases, data_dir=data_dir))


_DIGITS = ExamplesConfig(data="digits", models=40, steps=40, long_steps=200, baseline=False)
_MNIST = ExamplesConfig(data="mnist", models=1000, baseline=False)
_PAIR = replace(_MNIST, classes=("1", "7"))
_CIFAR = ExamplesConfig(data="cifar10", models=500, steps=500, batch_size=64, lr=0.05, long_steps=5000, baseline=False)
_FEW = replace(_CIFAR, models=24, steps=40, batch_size=16, test_inputs=100)
_ALL_BUT_NINE = tuple(str(digit) for digit in range(9))

_SCALES: Mapping[str, Scale] = MappingProxyType(
    {
        "smoke": Scale(
            name="smoke",
            sets={"digits-1-7": replace(_DIGITS, classes=("1", "7"))},
            curves={"digits-1-7": _curves((10,), trusted=(20,))},
            distribution="digits-1-7-binomial-10",
            phases=replace(_DIGITS, trusted_classes=_ALL_BUT_NINE),
            phase_sizes=(10, 20),
            comparable=False,
        ),
        "cpu": Scale(
            name="cpu",
            sets={"mnist-1-7": _PAIR, "mnist": replace(_MNIST, steps=200), "cifar10": _FEW},
            curves={
                "mnist-1-7": (*_curves((10,)), Curve("without", 50), Curve("without", 10, trusted=100)),
                "mnist": (*_curves((100,)), Curve("without", 500), Curve("without", 100, trusted=100)),
                "cifar10": (Curve("without", 500),),
            },
            distribution="mnist-1-7-binomial-10",
            phases=replace(_MNIST, trusted_classes=_ALL_BUT_NINE, long_steps=12_000),
            phase_sizes=(10, 100),
            comparable=True,
        ),
        "paper": Scale(
            name="paper",
            sets={"mnist-1-7": _PAIR, "mnist": replace(_MNIST, steps=400), "cifar10": _CIFAR},
            curves={
                "mnist-1-7": _curves((10, 50, 100, 1000), trusted=(100, 1000)),
                "mnist": _curves((100, 500, 1000), trusted=(100, 1000)),
                "cifar10": _curves((500, 1000), trusted=(1000,)),
            },
            distribution="mnist-1-7-binomial-10",
            phases=replace(_MNIST, trusted_classes=_ALL_BUT_NINE, steps=200, long_steps=12_000),
            phase_sizes=(10, 50, 100, 1000),
            comparable=True,
        ),
    }
)
