"""The residual-reweighting paper's numbers: transcribed whole, compared fairly, and every claim has a verdict."""

import json

import numpy as np
import pytest

from holdfast.experiments import paper_reweighting as paper
from holdfast.experiments.claims_reweighting import CLAIMS
from holdfast.experiments.paper_reweighting import scale
from holdfast.experiments.reproduce_reweighting import _published, reproduce_reweighting
from holdfast.types import ConfigError
from tests.conftest import SHARED

PRINTED = SHARED / "papers" / "residual-reweighting.txt"


def test_published_averages_are_those_of_the_rows():
    """The paper prints the mean of each row, to two digits: a check on every number."""
    averages = {
        paper.TABLE_1: (84.33, 86.16, 86.47, 86.19, 10.28, 87.27),
        paper.TABLE_2: (45.20, 91.60, 91.64, 44.90, 49.47, 91.66),
        paper.TABLE_4: (58.74, 68.26, 77.99, 69.69, 88.48, 90.58),
    }
    for table, means in averages.items():
        np.testing.assert_allclose(np.mean(table, axis=1), means, atol=0.0101)


@pytest.mark.skipif(not PRINTED.exists(), reason="the paper's text is not beside this checkout")
def test_every_number_stands_in_the_paper():
    text = PRINTED.read_text()
    for claim, *_, value in _published():
        assert f"{value:.2f}%" in text, claim


def test_every_number_belongs_to_a_cell_of_the_paper_scale():
    arms = scale("paper").arms
    numbers = list(_published())
    assert len(numbers) == 30 + 30 + 24 + 24 + 5 + 24 + 120 + 96 + 7
    for claim, arm, rule, row, _, _ in numbers:
        assert rule in arms[arm].rule_labels, claim
        assert row in arms[arm].rows(), claim
    for claim in CLAIMS:
        assert set(claim.needs) <= set(arms), claim.text
    with pytest.raises(ConfigError, match="scale 'large' is not one of smoke, cpu, paper"):
        scale("large")


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
