"""A caller's mistake is one sentence that names the parameter, its value and what would be right."""

from typing import Any

import numpy as np
import pytest
import torch

from holdfast.aggregation import (
    RULES,
    Bulyan,
    FoolsGold,
    Krum,
    Mean,
    Median,
    MultiKrum,
    NormClipping,
    TrimmedMean,
    make,
)
from holdfast.types import ConfigError, DataError, ThreatModelError
from tests.rules_under_test import rules


@pytest.mark.parametrize(
    ("rule", "n", "message"),
    [
        (TrimmedMean(f=2), 4, r"TrimmedMean\(f=2\) needs n >= 5 clients against f = 2 malicious ones, got n = 4"),
        (TrimmedMean(f=5), 10, "needs n >= 11"),
        (Krum(f=2), 6, "needs n >= 7"),
        (Krum(f=2, strict=False), 4, "needs n >= 5"),
        (MultiKrum(f=1, m=9), 9, "needs n >= 10"),
        (Bulyan(f=2), 10, "needs n >= 11"),
        (make("nearest-neighbor-mixing", rule=Median(), f=3), 6, "needs n >= 7"),
        (make("bucketing", rule=Krum(f=1), s=2), 8, "needs n >= 9"),
        (NormClipping(Krum(f=1)), 4, "needs n >= 5"),
    ],
)
def test_too_few_clients(rule: Any, n: int, message: str) -> None:
    with pytest.raises(ThreatModelError, match=message):
        rule(np.zeros((n, 3)))
    rule(np.zeros((rule.min_clients(), 3)))


@pytest.mark.parametrize(
    ("updates", "message"),
    [
        ([], "at least one row"),
        ([None, None], "only None"),
        (np.zeros((0, 3)), "at least one row"),
        (np.zeros((3, 0)), "at least one parameter"),
        ([[], []], "at least one parameter"),
        (np.zeros(3), "one row per client"),
        (3.0, "must be a list of vectors"),
        ({"a": 1}, "must be a list of vectors"),
        ("rows", "must be a list of vectors"),
        ([[1.0, 2.0], [3.0]], r"updates\[0\] has 2, updates\[1\] 1"),
        ([np.zeros((2, 2)), np.zeros((2, 2))], "aggregate_models"),
        ([np.zeros(2), torch.zeros(2)], "mixture"),
        ([["a"], ["b"]], "real numbers"),
        ([np.zeros(2, dtype=complex)], "real numbers"),
        (torch.zeros(2, 2, dtype=torch.complex64), "real numbers"),
        (torch.zeros(2, 2).to_sparse(), "dense"),
        ([[Ellipsis]], "vector of numbers"),
    ],
    ids=repr,
)
def test_updates_that_are_not_rows(updates: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Median()(updates)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"weights": [1, 2]}, "shape"),
        ({"weights": [1, -2, 1]}, "not negative, got -2"),
        ({"weights": [1, np.nan, 1]}, "finite"),
        ({"reference": np.zeros(5)}, "one number per parameter"),
        ({"reference": np.array([np.nan, 0.0])}, "server's own"),
        ({"clients": ["a", "b"]}, "3 different ids"),
        ({"clients": ["a", "b", "a"]}, "3 different ids"),
    ],
)
def test_what_comes_with_the_rows_must_fit(extra: dict[str, Any], message: str) -> None:
    for rule in (Mean(), FoolsGold()):
        with pytest.raises(DataError, match=message):
            rule.aggregate(np.ones((3, 2)), **extra)


def test_a_history_of_another_model_is_refused() -> None:
    state = FoolsGold().aggregate(np.eye(3)).state
    with pytest.raises(DataError, match="histories of 2 numbers, got 3"):
        FoolsGold().aggregate(np.eye(2), state=state)


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("krumm", {"f": 1}, "did you mean 'krum'"),
        ("Trimmed_Mean", {"f": 1}, "did you mean 'trimmed-mean'"),
        ("zzzz", {}, "it has bucketing"),
        ("krum", {"F": 1}, "did you mean 'f'"),
        ("krum", {}, "needs the parameter 'f'"),
        ("bucketing", {}, "needs the parameter 'rule'"),
        ("krum", {"f": -1}, "f must be a whole number of at least 0, got -1"),
        ("krum", {"f": 1.5}, "got 1.5"),
        ("krum", {"f": True}, "got True"),
        ("krum", {"f": 1, "strict": 1}, "True or False"),
        ("mean", {"cap": 0.5}, "cap must be a number of at least 1"),
        ("geometric-median", {"nu": 0}, "nu must be a number above 0"),
        ("geometric-median", {"start": "zero"}, "one of median, mean"),
        ("centered-clipping", {"tau": float("nan")}, "tau"),
        ("centered-clipping", {"tau": "big"}, "tau"),
        ("norm-clipping", {"rule": Median}, "a rule such as"),
        ("bucketing", {"rule": "medain"}, "did you mean 'median'"),
        ("median", {"f": 1}, "unknown parameter 'f' of 'median'; it has none"),
        ("residual-reweighting", {"variant": "papr"}, "variant"),
        ("residual-reweighting", {"varient": "paper"}, "did you mean 'variant'"),
    ],
)
def test_unknown_names_and_parameters(name: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(name, **params)


def test_published_forms_by_name() -> None:
    paper = make("residual-reweighting", variant="paper", delta=0.01)
    official = make("residual-reweighting", variant="official")
    assert (paper.power, paper.delta) == (1, 0.01)
    assert official.floor_abs == 1e-7
    assert paper != official != make("residual-reweighting")


def test_rules_are_values() -> None:
    for rule in rules(1):
        assert rule == type(rule)(**{k: getattr(rule, k) for k in rule.__dataclass_fields__})
        assert hash(rule) == hash(rule)
        with pytest.raises(AttributeError):
            rule.f = 3


def test_every_rule_of_the_registry_keeps_the_contract() -> None:
    from holdfast.types import Aggregator

    assert len(set(RULES.values())) == len(RULES)
    for rule in rules(1):
        assert isinstance(rule, Aggregator)
