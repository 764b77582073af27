"""Attacks on federated learning: on the data, on the model, aimed at a rule, and wrappers around them.

`make("upa-trimmed-mean", b=2.0)` gives a value that is called once a round; `ATTACKS` and `WRAPPERS` list the names.
No rule is imported here: an attack that knows the rule is given it as a function.
"""

from __future__ import annotations

from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from holdfast.attacks.adaptive import Adaptive, Search
from holdfast.attacks.adversary import ADVERSARIES, Adversary, ClientBehavior, as_adversary
from holdfast.attacks.backdoors import LOAN_FEATURES, FeatureBackdoor, PixelBackdoor
from holdfast.attacks.data_poisoning import AllLabelFlip, DataAttack, LabelFlip, TargetedSamples
from holdfast.attacks.mimicry import Disguise, Mimic
from holdfast.attacks.model_poisoning import (
    AsTrained,
    GaussianNoise,
    ModelReplacement,
    RandomUpdate,
    Scaling,
    SignFlip,
)
from holdfast.attacks.statistical import ALittleIsEnough, InnerProductManipulation, MinMax, MinSum
from holdfast.attacks.untargeted import UPAKrum, UPAMean, UPATrimmedMean
from holdfast.attacks.view import Knowledge, ModelAttack, View
from holdfast.attacks.wrappers import Blend, Boost, Collusion, Schedule, Stealth
from holdfast.types import ConfigError

ATTACKS: dict[str, type[Any]] = {
    "label-flip": LabelFlip,
    "all-label-flip": AllLabelFlip,
    "pixel-backdoor": PixelBackdoor,
    "feature-backdoor": FeatureBackdoor,
    "targeted-samples": TargetedSamples,
    "none": AsTrained,
    "gaussian-noise": GaussianNoise,
    "random-update": RandomUpdate,
    "sign-flip": SignFlip,
    "scaling": Scaling,
    "boost": Boost,
    "model-replacement": ModelReplacement,
    "upa-mean": UPAMean,
    "upa-trimmed-mean": UPATrimmedMean,
    "upa-median": UPATrimmedMean,  # the same attack: the paper's construction does not tell the two rules apart
    "upa-krum": UPAKrum,
    "inner-product-manipulation": InnerProductManipulation,
    "a-little-is-enough": ALittleIsEnough,
    "min-max": MinMax,
    "min-sum": MinSum,
    "mimic": Mimic,
    "disguise": Disguise,
    "adaptive": Adaptive,
}

WRAPPERS: dict[str, type[ModelAttack]] = {
    "stealth": Stealth,
    "blend": Blend,
    "boost": Boost,
    "schedule": Schedule,
    "collusion": Collusion,
}


def make(name: str, **params: Any) -> Any:
    """The attack or wrapper of that name; wrappers take the wrapped attack as `attack=`.

    Raises:
        ConfigError: an unknown name or parameter (with the nearest known one), or a value out of range.

    Example:
        >>> make("stealth", attack=make("upa-mean"), alpha=0.3).knowledge
        'all'
    """
    known = {**ATTACKS, **WRAPPERS}
    if name not in known:
        raise ConfigError(f"unknown attack {name!r}{_nearest(name, known)}")
    allowed = [field.name for field in fields(known[name])]
    for param in params:
        if param not in allowed:
            raise ConfigError(f"attack {name!r} has no parameter {param!r}{_nearest(param, allowed)}")
    try:
        return known[name](**params)
    except TypeError as problem:  # a required parameter is missing, or a value is of the wrong kind
        raise ConfigError(f"attack {name!r}: {str(problem).split('() ')[-1]}") from problem


def _nearest(word: str, known: Any) -> str:
    close = get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; choose one of {', '.join(sorted(known))}"


__all__ = [
    "ADVERSARIES",
    "ATTACKS",
    "LOAN_FEATURES",
    "WRAPPERS",
    "ALittleIsEnough",
    "Adaptive",
    "Adversary",
    "AllLabelFlip",
    "AsTrained",
    "Blend",
    "Boost",
    "ClientBehavior",
    "Collusion",
    "DataAttack",
    "Disguise",
    "FeatureBackdoor",
    "GaussianNoise",
    "InnerProductManipulation",
    "Knowledge",
    "LabelFlip",
    "Mimic",
    "MinMax",
    "MinSum",
    "ModelAttack",
    "ModelReplacement",
    "PixelBackdoor",
    "RandomUpdate",
    "Scaling",
    "Schedule",
    "Search",
    "SignFlip",
    "Stealth",
    "TargetedSamples",
    "UPAKrum",
    "UPAMean",
    "UPATrimmedMean",
    "View",
    "as_adversary",
    "make",
]
