"""The residual-reweighting paper's numbers: transcribed whole, compared fairly, and every claim has a verdict."""

import json
from dataclasses import replace

import numpy as np
import pytest

from holdfast.data import load
from holdfast.experiments import numbers_reweighting as numbers
from holdfast.experiments import paper_reweighting as paper
from holdfast.experiments import reproduce_reweighting as reproduce
from holdfast.experiments import sweep as sweeping
from holdfast.experiments.attacked import SimulateConfig
from holdfast.experiments.claims_reweighting import CLAIMS
from holdfast.experiments.paper_reweighting import scale
from holdfast.experiments.reproduce_reweighting import reproduce_reweighting
from holdfast.experiments.threat import make_threat
from holdfast.types import ConfigError
from tests.conftest import SHARED

PRINTED = SHARED / "papers" / "residual-reweighting.txt"


def test_published_averages_are_those_of_the_rows():
    """The paper prints the mean of each row, to two digits: a check on every number."""
    averages = {
        numbers.TABLE_1: (84.33, 86.16, 86.47, 86.19, 10.28, 87.27),
        numbers.TABLE_2: (45.20, 91.60, 91.64, 44.90, 49.47, 91.66),
        numbers.TABLE_4: (58.74, 68.26, 77.99, 69.69, 88.48, 90.58),
    }
    for table, means in averages.items():
        np.testing.assert_allclose(np.mean(table, axis=1), means, atol=0.0101)


@pytest.mark.skipif(not PRINTED.exists(), reason="the paper's text is not beside this checkout")
def test_every_number_stands_in_the_paper():
    text = PRINTED.read_text()
    for claim, *_, value in numbers.published_numbers():
        assert f"{value:.2f}%" in text, claim


def test_every_number_belongs_to_a_cell_of_the_paper_scale():
    arms = scale("paper").arms
    every = list(numbers.published_numbers())
    assert len(every) == 30 + 30 + 24 + 24 + 5 + 24 + 120 + 96 + 7
    for claim, arm, rule, row, _, _ in every:
        assert rule in arms[arm].rule_labels, claim
        assert row in arms[arm].rows(), claim
    for claim in CLAIMS:
        assert set(claim.needs) <= set(arms), claim.text
    with pytest.raises(ConfigError, match="scale 'large' is not one of smoke, cpu, paper"):
        scale("large")


def test_the_papers_settings_are_the_papers():
    """§4 and A.2, A.6, A.7: the sizes that every experiment of scale "paper" must have, and "cpu" for Figure 3."""
    arms, cpu = scale("paper").arms, scale("cpu").arms
    for found in (arms["mnist-label-flip"].federation, cpu["mnist-label-flip"].federation):
        sizes = (found.clients, found.partition, found.rounds, found.local_epochs, found.batch_size, found.lr)
        assert sizes == (100, "two-labels", 200, 5, 128, 0.01)
    assert arms["mnist-label-flip"].attackers == tuple(range(11))
    assert cpu["mnist-label-flip"].rules == arms["mnist-label-flip"].rules
    for name, rounds in (("mnist-backdoor", 200), ("cifar-backdoor", 100), ("cifar-label-flip", 100)):
        found = arms[name].federation
        sizes = (found.clients, found.partition, found.concentration, found.rounds, found.batch_size, found.lr)
        assert sizes == (10, "dirichlet", 0.9, rounds, 64, 0.01)
    for name, lr in (("reviews", 0.05), ("reviews-blended", 0.01)):
        found = arms[name].federation
        assert (found.clients, found.rounds, found.optimizer, found.lr) == (10, 10, "adam", lr)
    assert (arms["loan"].federation.partition, arms["loan"].federation.clients_per_round) == ("user", 10)
    assert [arms[f"mnist-drop-{gone}"].federation.drop_holders for gone in range(21)] == list(range(21))

    data = load("digits")
    behavior = {
        arm: [make_threat(attack, data, seed=0).adversary.behavior for attack in arms[arm].attacks]
        for arm in ("mnist-label-flip", "mnist-backdoor", "reviews", "reviews-blended")
    }
    for arm, effort, lr in (
        ("mnist-label-flip", 2.0, None),  # 5 more epochs
        ("mnist-backdoor", 2.0, 0.1),
        ("reviews", 2.0, None),
        ("reviews-blended", 1.4, 0.1),  # 2 more
    ):
        assert {(found.effort, found.lr) for found in behavior[arm]} == {(effort, lr)}, arm


def test_what_two_experiments_share_is_run_once(tmp_path, monkeypatch):
    """Figure 5 without removals is Table 4 without noise, to the trimmed mean too."""
    ran = []
    real = sweeping._run_cell
    monkeypatch.setattr(sweeping, "_run_cell", lambda cell, *rest: (ran.append(cell), real(cell, *rest)))
    small = replace(paper._smoke()["mnist-noise"], federation=SimulateConfig(clients=12, rounds=1), attackers=(0, 1))
    arms = {"mnist-noise": small, "mnist-drop-0": paper._dropped(small.federation, 0, (0,))}
    arms = {name: replace(arm, rules=("mean", {"name": "trimmed-mean", "f": 3})) for name, arm in arms.items()}
    monkeypatch.setattr(reproduce, "scale", lambda *_, **__: paper.Scale("smoke", arms, ()))
    reproduce_reweighting(tmp_path, threads=1)
    assert len(ran) == 4
    assert len(list((tmp_path / "cells").glob("*.json"))) == 4


@pytest.mark.parametrize("name", ["smoke", "cpu", "paper"])
def test_experiments_of_every_scale_can_be_made(name):
    for experiment in scale(name).arms.values():
        assert experiment.cells()


def test_smoke_runs_one_experiment_and_judges_nothing(tmp_path):
    with pytest.raises(ConfigError, match="only names 'table-9'"):
        reproduce_reweighting(tmp_path, only=("table-9",))
    only = ("mnist-drop-0", "mnist-drop-3")
    found = reproduce_reweighting(tmp_path, only=only, threads=1)
    verdicts = {row[2] for row in found.tables[0].rows}
    assert verdicts == {"not run at this scale"}
    assert {path.name for path in found.figures} == {"figure-5.png", "figure-5.svg"}
    written = json.loads((tmp_path / "reproduction-reweighting-smoke.json").read_text())
    assert [row["where"] for row in written["tables"][0]["rows"]] == [claim.where for claim in CLAIMS]


def test_claims_are_judged_on_results(tmp_path, monkeypatch):
    """At a scale that counts, the verdict follows from the numbers: averaging under label flips, both ways round."""
    from holdfast.experiments import claims_reweighting as claims

    class Found:
        class experiment:
            attackers = (0, 4)

        def __init__(self, best):
            self.best = best

        def interval(self, rule, row, measure="accuracy"):
            return type("I", (), {"mean": 0.9 if rule == self.best else 0.7})

    best = next(claim for claim in CLAIMS if claim.test is claims._flip_best)
    assert best.verdict({"mnist-label-flip": Found("ours")}, at_scale=True)[0] == "agrees"
    verdict, evidence = best.verdict({"mnist-label-flip": Found("Median")}, at_scale=True)
    assert verdict == "differs"
    assert evidence.startswith("Median 90.0, ")
    assert best.verdict({"mnist-label-flip": Found("ours")}, at_scale=False)[0] == "not run at this scale"
    assert best.verdict({}, at_scale=True)[0] == "not run at this scale"
