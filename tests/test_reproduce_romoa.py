"""The Romoa paper's experiments: its printed numbers are held whole, and verdicts follow from results alone."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from holdfast.experiments import paper_romoa as paper
from holdfast.experiments.claims_romoa import CLAIMS, claims_table
from holdfast.experiments.measures import RoundRecord
from holdfast.experiments.reproduce_romoa import reproduce_romoa
from holdfast.experiments.tables_romoa import judged, order, rate, table_1, table_2
from holdfast.experiments.targets_romoa import TARGETS, Target, targets_table
from holdfast.types import ConfigError
from tests.conftest import SHARED


def found(errors, *, attack="UPA", m=4, seeds=(0, 1, 2), clients=10, n_rounds=5):
    """A sweep whose rules have these error rates (or confidences) in every seed; seeds differ by a thousandth."""
    experiment = SimpleNamespace(
        rule_labels=tuple(errors), seeds=seeds, rows=lambda: ((attack, m),), federation=SimpleNamespace(clients=clients)
    )
    records = {}
    for rule, value in errors.items():
        for seed in seeds:
            rounds = []
            for number in range(n_rounds):
                level = 0.9 if number < n_rounds - 3 else value + seed / 1000
                told = {"target_confidence": level} if attack == "TPA" else {}
                rounds.append(RoundRecord(number + 1, 0.93 if told else 1 - level, (), **told))
            records[rule, attack, m, seed] = tuple(rounds)
    return SimpleNamespace(experiment=experiment, records=records)


def accuracies(values, usual=(0.95, 0.94)):
    """A sweep with these (training, test) accuracies by rule and attack; early evaluations are worse."""
    records = {}
    for rule in paper.NAMES:
        for attack, m in (("none", 0), ("UPA", 1), ("TPA", 1)):
            training, test = values.get((rule, attack), usual)
            early, late = RoundRecord(1, 0.2, (), 0.2), RoundRecord(2, test, (), training)
            records[rule, attack, m, 0] = (early, late, late, late)
    return SimpleNamespace(experiment=SimpleNamespace(seeds=(0,)), records=records)


class TestPrintedNumbers:
    def test_table_1_is_whole(self):
        assert len(paper.TABLE_1) == 2 * 2 * 4
        values = [value for rows in paper.TABLE_1.values() for row in rows for value in row]
        assert len(values) == 192
        assert all(0 < value < 1 for value in values)
        assert {n for _, _, n in paper.TABLE_1} == set(paper.ADVERSARIES)
        assert all(m < n / 2 for n, ms in paper.ADVERSARIES.items() for m in ms)

    def test_it_is_the_paper_s(self):
        text = SHARED / "papers" / "romoa.txt"
        if not Path(text).exists():
            pytest.skip("the paper is not beside this checkout")
        words = text.read_text()
        for rows in (*paper.TABLE_1.values(), *paper.TABLE_2.values()):
            for value in np.ravel(rows):
                assert any(f"{value:.{digits}f}" in words for digits in (4, 5, 6)), value

    def test_what_is_printed_twice_is_marked(self):
        twice = {value for value in paper._PRINTED if paper.printed_twice(value)}
        assert {0.995910, 0.009044, 0.834114, 0.61265, 0.102102, 0.999547, 0.211517, 0.682731} <= twice
        assert not twice & set(paper.CHANCE)
        marked = "".join("".join(row) for row in table_1({}, at_scale=True).rows)
        assert marked.count("*") == sum(paper._PRINTED[value] for value in twice)


class TestScales:
    @pytest.mark.parametrize("name", ["smoke", "cpu", "paper"])
    def test_every_arm_can_be_laid_out(self, name):
        for arm in paper.scale(name).arms.values():
            assert arm.cells()
            assert arm.federation.mode == "async"

    def test_paper_is_the_paper_s_setting(self):
        arms = paper.scale("paper").arms
        for data in paper.SETS:
            for n, adversaries in paper.ADVERSARIES.items():
                arm = arms[paper.arm_of(data, n)]
                assert (arm.federation.clients, arm.attackers) == (n, (0, *adversaries))
                assert (arm.federation.lr, arm.federation.batch_size, arm.federation.syncing.tau) == (0.001, 64, 4)
        assert arms["cifar-10-10"].attacks[0]["target"] == 2, "bird, counted from 0"
        assert arms["mnist-10"].attacks[0]["target"] == 3
        assert arms["mnist-one-label"].federation.partition == "one-label"

    def test_cpu_has_three_seeds_where_targets_are_judged(self):
        arms = paper.scale("cpu").arms
        for target in TARGETS:
            assert arms[target.arm].seeds == (0, 1, 2)
            assert target.row in arms[target.arm].rows()
            assert target.rule in arms[target.arm].rule_labels
        for claim in CLAIMS:
            assert set(claim.needs) <= set(arms)

    def test_cpu_and_paper_have_every_setting_of_table_1(self):
        for name in ("cpu", "paper"):
            arms = paper.scale(name).arms
            for data, attack, n in paper.TABLE_1:
                rows = arms[paper.arm_of(data, n)].rows()
                assert {(attack, m) for m in paper.ADVERSARIES[n]} <= set(rows)

    def test_training_accuracy_is_measured_where_it_is_drawn_and_not_at_every_syncing_point(self):
        for name in ("smoke", "cpu", "paper"):
            assert paper.scale(name).arms["mnist-10"].federation.training_accuracy
            assert not paper.scale(name).figure_4.training_accuracy

    def test_unknown_names(self, tmp_path):
        with pytest.raises(ConfigError, match="scale 'big' is not one of"):
            paper.scale("big")
        with pytest.raises(ConfigError, match="only names 'mnist-11', which is not one of mnist-10"):
            reproduce_romoa(tmp_path, only=("mnist-11",))


class TestVerdicts:
    def test_the_rate_is_the_mean_of_the_last_three_evaluations_and_seeds(self):
        assert rate(found({"Romoa": 0.1}), "Romoa", ("UPA", 4)) == pytest.approx(0.101)
        assert rate(found({"Romoa": 0.3}, attack="TPA"), "Romoa", ("TPA", 4)) == pytest.approx(0.301)
        assert rate(found({"Romoa": 0.3}, attack="TPA"), "Romoa", ("TPA", 4), targeted=False) == pytest.approx(0.07)
        assert rate(found({"Romoa": 0.1}), "Krum", ("UPA", 4)) is None
        assert rate(None, "Krum", ("UPA", 4)) is None

    def test_orders(self):
        assert [order(0.1, 0.2), order(0.2, 0.1), order(0.1, 0.105)] == ["below", "above", "level"]
        assert judged((0.04, 0.88), (0.08, 0.9)) == "agrees"
        assert judged((0.04, 0.88), (0.9, 0.08)) == "differs"
        assert judged((0.04, 0.36), (0.001, 0.002)) == "differs", "a printed advantage that is not there"
        assert judged((0.04, 0.88), (None, 0.9)) == "not run at this scale"

    def test_table_1_judges_each_setting(self):
        ours = {"baseline": 0.9, "Romoa": 0.08, "RFA": 0.95, "Krum": 0.082}
        table = table_1({"mnist-10": found(ours)}, at_scale=True)
        verdicts = {row[:4]: row[-2:] for row in table.values}
        assert verdicts["MNIST", "UPA", 10, 4] == ("agrees", "differs")
        assert verdicts["MNIST", "UPA", 10, 3] == ("not run at this scale",) * 2
        assert len(verdicts) == 48
        cell = next(row for row in table.values if row[:4] == ("MNIST", "UPA", 10, 4))[5]
        assert cell == {"printed": 0.042849, "ours": pytest.approx(0.081)}
        assert {row[-1] for row in table_1({"mnist-10": found(ours)}, at_scale=False).rows} == {"not run at this scale"}

    def test_table_2_judges_against_the_baseline(self):
        sweeps = {"mnist-one-label": found({"baseline": 0.9, "Romoa": 0.3}, m=1)}
        rows = {row[:2]: row[-1] for row in table_2(sweeps, at_scale=True).rows}
        assert rows["MNIST", "UPA"] == "agrees"
        assert rows["MNIST", "TPA"] == "not run at this scale"
        worse = {"mnist-one-label": found({"baseline": 0.3, "Romoa": 0.9}, m=1)}
        assert table_2(worse, at_scale=True).rows[2][-1] == "differs"

    def test_sentences_both_ways(self):
        claim = next(c for c in CLAIMS if c.text == "UPA breaks Krum")
        assert claim.verdict({"mnist-10": found({"Krum": 0.9})}, at_scale=True)[0] == "agrees"
        assert claim.verdict({"mnist-10": found({"Krum": 0.1})}, at_scale=True)[0] == "differs"
        table = claims_table({}, at_scale=True)
        assert {row[2] for row in table.rows} == {"not run at this scale"}

    @pytest.mark.parametrize(
        ("text", "arm", "good", "bad"),
        [
            ("UPA influences accuracy seriously", "mnist-10", {}, {("baseline", "UPA"): (0.1, 0.8)}),
            ("TPA barely influences accuracy", "mnist-10", {}, {("baseline", "TPA"): (0.95, 0.8)}),
            ("Romoa protects accuracy on MNIST", "mnist-10", {}, {("Romoa", "UPA"): (0.5, 0.93)}),
            ("Romoa protects accuracy on CIFAR-10", "cifar-10-10", {}, {("Romoa", "TPA"): (0.95, 0.8)}),
            ("RFA is the best on MNIST", "mnist-10", {}, {("RFA", "TPA"): (0.95, 0.8)}),
            ("RFA and Krum fail on CIFAR-10", "cifar-10-10", {("RFA", a): (0, 0.5) for a in ("UPA", "TPA")}, {}),
        ],
    )
    def test_sentences_on_accuracy_both_ways(self, text, arm, good, bad):
        claim = next(c for c in CLAIMS if c.text == text)
        usual = {("baseline", "UPA"): (0.1, 0.1)} | {("Krum", a): (0.9, 0.85) for a in ("UPA", "TPA")}
        assert claim.verdict({arm: accuracies(usual | good)}, at_scale=True)[0] == "agrees"
        assert claim.verdict({arm: accuracies(usual | bad)}, at_scale=True)[0] == "differs"

    def test_targets_hold_for_every_seed(self):
        target = Target("t", "arm", "Romoa", ("UPA", 4), 0.09, rivals=("RFA", "Krum"))
        good = {"Romoa": 0.08, "RFA": 0.9, "Krum": 0.2}
        assert target.judge({"arm": found(good)})[0] == "reached"
        assert target.judge({"arm": found({**good, "Romoa": 0.0885})})[0] == "missed", "the third seed is above"
        assert target.judge({"arm": found({**good, "Krum": 0.05})})[0] == "missed", "Krum is better"
        hole = Target("t", "arm", "Romoa", ("UPA", 4), 0.2, open_hole=True)
        assert hole.judge({"arm": found({"Romoa": 0.5})})[0] == "reached"
        assert hole.judge({"arm": found({"Romoa": 0.1})})[0] == "missed"
        assert targets_table({}, at_scale=True).rows[0][-1] == "not run at this scale"


def test_smoke_runs_draws_and_judges_nothing(tmp_path):
    only = ("mnist-10", "figure-4")
    told = reproduce_romoa(tmp_path, only=only, threads=1)
    assert {row[-1] for row in told.tables[0].rows} == {"not run at this scale"}
    drawn = {path.stem for path in told.figures}
    numbers = ("1-mnist", "2-mnist", "4", "5-mnist", "6-true", "6-poisoned")
    numbers += tuple(f"{number}-mnist-{half}" for number in (7, 8) for half in ("training", "test"))
    assert drawn == {f"figure-{number}" for number in numbers}
    written = json.loads((tmp_path / "reproduction-romoa-smoke.json").read_text())
    assert written["tables"][0]["rows"][0]["Romoa"] == {"printed": 0.008289, "ours": None}
    assert written["tables"][-1]["title"] == "Table 1, digits for MNIST, n = 10"
