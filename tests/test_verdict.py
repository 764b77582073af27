"""The verdict of every round: who weighs how much and why, kept with the result and drawn as the paper does."""

import json
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from holdfast.aggregation.romoa import Romoa
from holdfast.cli import app
from holdfast.experiments.attacked import SimulateConfig
from holdfast.experiments.measures import RoundRecord
from holdfast.experiments.simulation import simulate
from holdfast.experiments.verdict import FACTOR_EDGES, SIMILARITY_EDGES, participant_verdict
from holdfast.experiments.verdict_report import PARTICIPANTS, factor_map, figure_4, suppressed_table
from holdfast.report.ridges import HONEST, MALICIOUS, RidgePlot, ridge_chart, ridge_figure
from holdfast.types import ConfigError

ATTACKED = SimulateConfig(
    clients=10, rounds=8, mode="async", tau=5, lr=0.3, attackers=4, attack="upa-mean", rule="romoa", train_rows=600
)
LAYOUT = [slice(0, 30), slice(30, 40)]


def uploads(seed, n=6):
    rng = np.random.default_rng(seed)
    return rng.normal(size=40) + 0.3 * rng.normal(size=(n, 40))


def test_shares_by_hand():
    rows = uploads(0)
    rows[4] = -rows[4]
    rule = Romoa()
    result = rule.aggregate(rows, layout=LAYOUT, state=rule.lookahead(rows, layout=LAYOUT))
    found = participant_verdict(result)
    assert found.clients == tuple(range(6))
    for client in range(6):
        factors = result.state.factors(client)
        assert found.factors[client] == pytest.approx(factors.mean(), abs=1e-4)
        expected = np.histogram(np.minimum(6 * factors, 2.999), FACTOR_EDGES)[0] / 40
        np.testing.assert_allclose(found.factor_shares[client], expected, atol=1e-4)
        cosine = np.repeat(result.state.verdict.cosine[client], [30, 10])
        np.testing.assert_allclose(
            found.similarity_shares[client], np.histogram(cosine, SIMILARITY_EDGES)[0] / 40, atol=1e-4
        )
        assert sum(found.factor_shares[client]) == pytest.approx(1, abs=1e-3)
    assert found.suppressed == ((4, 1),)
    np.testing.assert_allclose(found.weights, result.client_weights, atol=1e-4)


def test_only_rules_with_factors_have_one():
    assert participant_verdict(None) is None
    assert all(r.verdict is None for r in simulate(replace(ATTACKED, rule="median", rounds=2)).records)
    assert "verdict" not in simulate(replace(ATTACKED, rule="median", rounds=2)).last.to_json()


def test_the_attackers_are_suppressed_from_the_first_round_and_stay_so():
    found = simulate(ATTACKED)
    for record in found.records:
        verdict = record.verdict
        assert set(found.malicious) <= {client for client, _ in verdict.suppressed}
        assert sum(verdict.weights) == pytest.approx(1, abs=1e-3)
    assert all(step == 1 for client, step in found.last.verdict.suppressed if client in found.malicious)
    again = RoundRecord.from_json(json.loads(json.dumps(found.last.to_json())))
    assert again == found.last


def test_who_is_not_in_the_sample_is_not_in_the_verdict():
    found = simulate(replace(ATTACKED, clients_per_round=5, attackers=2))
    for record in found.records:
        assert len(record.verdict.clients) == len(record.verdict.factors) == 5
    plot = figure_4(found.records, found.malicious)
    assert np.isnan(plot.heights).any()
    assert ridge_chart(plot).count("<polygon") == 2 * plot.heights[..., 0].size


class TestPictures:
    def test_figure_4_has_an_attacker_in_the_first_row(self):
        found = simulate(ATTACKED)
        plot = figure_4(found.records, found.malicious)
        assert len(plot.rows) == PARTICIPANTS
        assert plot.colors == (MALICIOUS, HONEST, HONEST, HONEST)
        assert plot.rows[0] == f"participant {found.malicious[0]}, malicious"
        assert plot.times[0] == "round 1"
        assert plot.times[-1] == "round 8"
        last = found.last.verdict
        np.testing.assert_array_equal(plot.heights[0, 1, -1], last.factor_shares[found.malicious[0]])
        root = ET.fromstring(f"<p>{ridge_chart(plot)}</p>")
        assert len(root.findall(".//polygon")) == 2 * plot.heights[..., 0].size
        figure = ridge_figure(plot)
        assert len(figure.axes) == 2 * PARTICIPANTS

    def test_an_outline_is_the_histogram(self):
        heights = np.zeros((1, 1, 2, 3))
        heights[0, 0] = [[0.2, 0.8, 0.0], [0.0, 0.4, 0.6]]
        plot = RidgePlot("t", ("a",), (0,), ("x",), (np.array([0.0, 1.0, 2.0, 3.0]),), ("1", "2"), heights)
        xs, ys = plot.outline(0, 0, 0)
        np.testing.assert_array_equal(xs, [0, 0, 1, 1, 2, 2, 3, 3])
        assert ys[3] == ys.max() > 0
        np.testing.assert_allclose(ys / ys.max(), np.array([0, 0.2, 0.2, 0.8, 0.8, 0, 0, 0]) / 0.8)
        with pytest.raises(ConfigError, match="heights have shape"):
            replace(plot, rows=("a", "b"))

    def test_the_map_holds_every_participant_once(self):
        found = simulate(ATTACKED)
        heat = factor_map(found.records, found.malicious)
        assert len(heat.rows) == 10
        assert heat.columns[-1] == "8"
        np.testing.assert_allclose(np.nansum(heat.values, axis=0), 1.0, atol=2e-3)
        assert factor_map(simulate(replace(ATTACKED, rule="mean", rounds=1)).records, ()) is None


def test_suppressed_since_is_a_round():
    attack = {"name": "upa-mean", "wrappers": [{"name": "schedule", "rounds": "from", "at": 4}]}
    found = simulate(replace(ATTACKED, attack=attack))
    table = suppressed_table(found.records, found.malicious, tau=5)
    since = {row[0]: row[2] for row in table.values if row[1] == "malicious"}
    assert since.keys() == set(found.malicious)
    assert sorted(since.values())[1:] == [5, 5, 5], "rounds count from 1, the schedule from 0; one was odd before"


def test_the_terminal_the_page_and_the_json_tell(tmp_path):
    options = ("--clients", "10", "--mode", "async", "--tau", "5", "--lr", "0.3", "--rounds", "5", "--attackers", "4")
    rule = ("--rule", "romoa", "--attack", "upa-mean")
    done = CliRunner().invoke(app, ["simulate", *options, *rule, "--out", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    assert "Suppressed" in done.output
    assert "participants earn less than half an equal share" in done.output
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Distribution of similarity and sanitizing factors" in page
    assert "Mean sanitizing factor of each participant" in page
    told = json.loads((tmp_path / "run" / "result.json").read_text())
    assert len(told["last"]["verdict"]["suppressed"]) >= 4
    assert told["last"]["verdict"]["suppressed"][0].keys() == {"client", "since_step"}
    drawn = {path.name for path in (tmp_path / "run" / "figures").iterdir()}
    assert {"distributions.png", "distributions.svg", "factors.png"} <= drawn
