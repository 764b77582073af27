"""What Romoa must reach in a federation that syncs asynchronously: on digits in the suite, on MNIST as a slow test."""

from dataclasses import replace
from functools import cache

import pytest

from holdfast.experiments.attacked import SimulateConfig
from holdfast.experiments.paper_romoa import AT_SYNC, LONG, UPA
from holdfast.experiments.reproduce_romoa import reproduce_romoa
from holdfast.experiments.simulation import simulate
from holdfast.experiments.targets_romoa import TARGETS
from tests.conftest import shared

DIGITS = SimulateConfig(clients=10, rounds=30, mode="async", tau=5, lr=0.3, evaluate_every=30, allow_unsound=True)
ATTACKS = {"reverse": "upa-mean", "trim": "upa-trimmed-mean", "tpa": "tpa"}
RULES = {"mean": "mean", "romoa": "romoa", "krum": "krum", "rfa": {"name": "geometric-median", "max_iter": 4}}
BARE = {"name": "romoa", "preset": "paper-momentum"}


@cache
def last(rule, attack, attackers, seed=0):
    found = simulate(replace(DIGITS, rule=RULES[rule], attack=ATTACKS[attack], attackers=attackers, seed=seed))
    return found.last


def error(rule, attack, attackers):
    return 1 - last(rule, attack, attackers).accuracy


def error_of(rule, attack, attackers):
    attack = {key: value for key, value in attack.items() if key != "label"}
    return 1 - simulate(replace(DIGITS, rule=rule, attack=attack, attackers=attackers)).last.accuracy


@pytest.mark.parametrize("attack", ["reverse", "trim"])
def test_untargeted_poison_by_four_of_ten(attack):
    assert error("mean", attack, 4) > 0.65
    ours = error("romoa", attack, 4)
    assert ours < 0.12
    assert ours < min(error("krum", attack, 4), error("rfa", attack, 4)) + 0.02


def test_targeted_poison_by_four_of_ten():
    assert last("mean", "tpa", 4).target_confidence > 0.7
    assert last("romoa", "tpa", 4).target_confidence < 0.02
    assert error("romoa", "tpa", 4) < 0.12


def test_poison_at_the_syncing_step_only_needs_the_cap():
    assert error_of(BARE, AT_SYNC, 1) > 0.25
    assert error_of({**BARE, "cap": True}, AT_SYNC, 1) < 0.15
    assert error_of("romoa", AT_SYNC, 1) < 0.15


def test_far_too_long_updates_need_the_clip():
    assert error_of(BARE, LONG, 4) > 0.6
    assert error_of({**BARE, "clip": 2.0}, LONG, 4) < 0.15
    assert error_of("romoa", LONG, 4) < 0.15


def test_partial_moves_to_the_synced_model_defend_too():
    moved = replace(DIGITS, rule="romoa", attack=UPA["name"], attackers=4, moving_rate=0.5)
    assert 1 - simulate(moved).last.accuracy < 0.15


MISSED = "averaging under TPA, 4 of 10"  # one of three seeds stays a little below the bound, at a confidence of 0.77


@pytest.mark.slow
def test_targets_on_mnist(tmp_path):
    """Every target of the reproduction at its cpu scale, three seeds each: minutes. The one missed is not Romoa's."""
    arms = tuple(dict.fromkeys(target.arm for target in TARGETS))
    found = reproduce_romoa(
        tmp_path, scale_name="cpu", data_dir=str(shared("data/mnist")), only=arms, threads=1
    ).to_json()
    table = next(table for table in found["tables"] if table["title"].startswith("Targets"))
    wanted = {target.text: "missed" if target.text == MISSED else "reached" for target in TARGETS}
    assert {row["what"]: row["verdict"] for row in table["rows"]} == wanted
