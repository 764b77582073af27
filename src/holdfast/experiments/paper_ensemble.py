"""What the experiments of the ensemble paper are: its settings, at three scales, and the numbers its text prints.

Paper: Cao, Jia and Gong, "Provably Secure Federated Learning against Malicious Clients", AAAI 2021.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from holdfast.experiments.federation import CertifyConfig
from holdfast.types import ConfigError

ALPHAS = (0.0001, 0.001, 0.01, 0.1)
"""Failure probabilities of Figure 5; its caption does not print the paper's own."""

LEVELS = (0, 10, 20, 30, 40, 50, 60)
"""The m at which the designs are compared."""


@dataclass(frozen=True)
class Published:
    """A number that the paper's text states."""

    claim: str
    value: float
    unit: str
    precision: float


PUBLISHED: Mapping[str, Published] = MappingProxyType(
    {
        "mnist-20": Published("Figure 2a: MNIST, certified accuracy at m = 20", 88, "%", 0.5),
        "mnist-zero": Published("Figure 2a: MNIST, first m with certified accuracy 0", 61, "", 0),
        "har-zero": Published("Figure 2b: HAR, first m with certified accuracy 0", 9, "", 0),
        "skew-10": Published("Figure 6: MNIST with q = 0.9, certified accuracy at m = 10", 83, "%", 0.5),
    }
)


@dataclass(frozen=True)
class Scale:
    """The experiments at one scale.

    Attributes:
        name: "smoke", "cpu" or "paper".
        images: the MNIST half: the paper's own design (random k-subsets).
        activity: the HAR half: all pairs of users.
        models: N of every figure but 4a; the images run may have more.
        image_ks: k of Figure 3a beside the default; `activity_ks` those of Figure 3b.
        skews: q of Figure 6 beside the default.
        side_models: N of the runs that only Figures 3a and 6 need.
        image_counts: N of Figure 4a, taken from one run's first models; `activity_counts` those of Figure 4b.
        disjoint: k of the disjoint designs that the paper's design is compared with.
        single_steps: q of runs with N models that train as far in rounds of one local step (very skewed clients drift
            apart in more).
        comparable: whether data and sizes are the paper's, so that its numbers may be set beside ours.
    """

    name: str
    images: CertifyConfig
    activity: CertifyConfig
    models: int
    image_ks: tuple[int, ...]
    activity_ks: tuple[int, ...]
    skews: tuple[float, ...]
    side_models: int
    image_counts: tuple[int, ...]
    activity_counts: tuple[int, ...]
    disjoint: tuple[int, ...]
    single_steps: tuple[float, ...]
    comparable: bool

    def arms(self) -> dict[str, CertifyConfig]:
        """Every run of this scale by name; figures share runs."""
        images, activity = replace(self.images, baseline=False), replace(self.activity, baseline=False)
        random = replace(images, models=self.side_models)
        arms = {
            "images": self.images,
            "images-partitions": replace(images, design="partitions", models=self.models),
            "activity": self.activity,
            "activity-random": replace(activity, design="random", k=4, models=max(self.activity_counts)),
        }
        arms |= {f"images-disjoint-{k}": replace(images, design="disjoint", k=k, models=None) for k in self.disjoint}
        arms |= {f"images-k-{k}": replace(random, k=k) for k in (images.k, *self.image_ks)}
        arms |= {f"images-q-{q}": replace(random, skew=q) for q in self.skews}
        arms |= {f"activity-k-{k}": replace(activity, k=k) for k in self.activity_ks}
        fedavg = images.fedavg()
        single = replace(images, models=self.models, rounds=fedavg.rounds * fedavg.local_steps, local_steps=1)
        arms |= {f"images-q-{q}-single-steps": replace(single, skew=q) for q in self.single_steps}
        return arms


def scale(name: str, *, data_dir: str | None = None, activity: str = "har") -> Scale:
    """The experiments at a scale.

    `smoke` runs everything on embedded digits in seconds, to show that it works; `cpu` has the paper's data, number
    of clients and main ensemble with the fast preset; `paper` has its training settings too.

    Args:
        name: "smoke", "cpu" or "paper".
        data_dir: folder with the official files.
        activity: "har", or a file with activity data and a client column.

    Raises:
        ConfigError: there is no such scale.
    """
    if name not in _SCALES:
        raise ConfigError(f"scale {name!r} is not one of {', '.join(_SCALES)}")
    chosen = _SCALES[name]
    if name == "smoke":
        return chosen
    return replace(
        chosen,
        images=replace(chosen.images, data_dir=data_dir),
        activity=replace(chosen.activity, data=activity, data_dir=data_dir if activity == "har" else None),
    )


_MNIST = CertifyConfig(data="mnist", clients=1000, partition="label-skew", skew=0.5, design="random", k=10, models=500)
_HAR = CertifyConfig(data="har", partition="user", design="exhaustive", k=2, model="har")
_DIGITS = CertifyConfig(
    data="digits", clients=60, skew=0.5, design="random", k=4, models=60, rounds=20, test_inputs=150
)

_SCALES: Mapping[str, Scale] = MappingProxyType(
    {
        "smoke": Scale(
            name="smoke",
            images=_DIGITS,
            activity=replace(_DIGITS, clients=16, partition="iid", design="exhaustive", k=2, models=None),
            models=60,
            image_ks=(2,),
            activity_ks=(1,),
            skews=(0.9,),
            side_models=30,
            image_counts=(30, 60),
            activity_counts=(30, 60),
            disjoint=(2,),
            single_steps=(),
            comparable=False,
        ),
        "cpu": Scale(
            name="cpu",
            images=_MNIST,
            activity=_HAR,
            models=500,
            image_ks=(5, 20),
            activity_ks=(1,),
            skews=(0.1, 0.9),
            side_models=100,
            image_counts=(100, 200, 500),
            activity_counts=(100, 200, 500),
            disjoint=(2, 4, 5),
            single_steps=(0.9,),
            comparable=True,
        ),
        "paper": Scale(
            name="paper",
            images=replace(_MNIST, models=1000, preset="paper"),
            activity=replace(_HAR, preset="paper"),
            models=500,
            image_ks=(5, 20),
            activity_ks=(1, 3),
            skews=(0.1, 0.9),
            side_models=500,
            image_counts=(100, 500, 1000),
            activity_counts=(100, 500, 1000),
            disjoint=(2, 4, 5),
            single_steps=(),
            comparable=True,
        ),
    }
)
