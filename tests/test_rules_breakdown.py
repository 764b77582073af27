"""The defense is really on: each attack ruins the mean, and each rule that promises to withstand it does."""

from typing import Any

import numpy as np
import pytest

from holdfast.aggregation import FoolsGold, Mean
from tests.rules_under_test import MEAN_LIKE, ident, involves, rules

N, F, D = 15, 3, 400


def attacks(rng: np.random.Generator, honest: np.ndarray) -> dict[str, np.ndarray]:
    mean, spread = honest.mean(axis=0), honest.std(axis=0)
    return {
        "sign flip": np.tile(-10 * mean, (F, 1)),
        "noise": rng.normal(0, 50, size=(F, D)),
        "one far point": np.full((F, D), 1e6),
        "a few huge parameters": np.where(rng.random((F, D)) < 0.05, 1e5, mean),
        "far along one axis": np.tile(mean + 1e9 * np.eye(1, D), (F, 1)),
        "scaled": 100 * honest[:F],
        "float32 limit": np.full((F, D), 5e14),
        "shifted by forty spreads": np.tile(mean + 40 * spread, (F, 1)),
    }


def robust() -> list[Any]:
    """Rules that promise to bound f outliers of any kind."""
    return [
        rule for rule in rules(F) if not involves(rule, (*MEAN_LIKE, "Bucketing", "Romoa")) and rule.min_clients() <= N
    ]


@pytest.mark.parametrize("rule", robust(), ids=ident)
def test_error_stays_near_the_honest_spread_where_the_mean_is_ruined(rule: Any) -> None:
    rng = np.random.default_rng(7)
    honest = rng.normal(1.0, 0.2, size=(N - F, D))
    center = honest.mean(axis=0)
    for name, malicious in attacks(rng, honest).items():
        rows = np.concatenate([malicious, honest]).astype(np.float32)
        defended = np.linalg.norm(rule(rows) - center) / np.linalg.norm(center)
        undefended = np.linalg.norm(Mean()(rows) - center) / np.linalg.norm(center)
        clips = type(rule).__name__ in ("NormClipping", "CenteredClipping")
        assert undefended > 0.9, name
        assert defended < (0.6 if clips else 0.35), (name, defended)
        assert defended < 0.6 * undefended, name


def test_sybils_share_one_say_under_foolsgold() -> None:
    rng = np.random.default_rng(8)
    honest = rng.normal(size=(5, D))
    sybils = np.tile(rng.normal(size=D), (10, 1)) + 0.01 * rng.normal(size=(10, D))
    result = FoolsGold().aggregate(np.concatenate([honest, sybils]))
    assert result.client_weights[5:].sum() < 0.05
    assert Mean().aggregate(np.concatenate([honest, sybils])).client_weights[5:].sum() > 0.6


@pytest.mark.parametrize("rule", robust(), ids=ident)
def test_clean_rounds_are_not_harmed(rule: Any) -> None:
    honest = np.random.default_rng(9).normal(1.0, 0.2, size=(N, D))
    error = np.linalg.norm(rule(honest) - honest.mean(axis=0)) / np.linalg.norm(honest.mean(axis=0))
    assert error < 0.25
