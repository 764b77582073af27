"""Training accuracy, an optional measure: the global model on the rows that honest clients train on."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from holdfast.cli import app
from holdfast.data import Standard, load
from holdfast.experiments.attacked import SimulateConfig, load_attacked
from holdfast.experiments.experiment import parse_experiment
from holdfast.experiments.measures import RoundRecord
from holdfast.experiments.simulate import curves, result_tables
from holdfast.experiments.simulation import simulate
from holdfast.experiments.sweep import sweep
from holdfast.training import model_factory
from holdfast.types import ConfigError

SMALL = SimulateConfig(clients=6, attackers=2, rounds=2, attack="label-flip", train_rows=400, training_accuracy=True)
FEDERATIONS = {
    "fedavg": SMALL,
    "async": replace(SMALL, mode="async", tau=2, attack="upa-mean", rule="romoa"),
    "standardized": replace(SMALL, standardize=True),
}


@pytest.mark.parametrize("name", FEDERATIONS)
def test_by_brute_force_on_the_honest_clients_rows(name):
    found = simulate(FEDERATIONS[name], engine="torch")
    federation = load_attacked(FEDERATIONS[name], flipped=(1,) if name != "async" else ())
    honest = [client for client in range(6) if client not in found.malicious]
    assert len(honest) == 4
    seen = Standard.of(load("digits")) if name == "standardized" else (lambda x: x)
    module = model_factory("mlp", (1, 8, 8), 10)()
    nn.utils.vector_to_parameters(torch.from_numpy(found.model), module.parameters())
    right = []
    for client in honest:
        rows = federation.partition.rows(client)
        answers = module(torch.from_numpy(seen(federation.dataset.x_train[rows]))).argmax(dim=1).numpy()
        right += (answers == federation.dataset.y_train[rows]).tolist()
    assert 200 < len(right) < 400
    assert found.last.training_accuracy == pytest.approx(np.mean(right))
    assert [record.training_accuracy is None for record in found.records] == [False, False]


def test_it_changes_nothing_else_and_is_off():
    asked, plain = simulate(SMALL), simulate(replace(SMALL, training_accuracy=False))
    np.testing.assert_array_equal(asked.model, plain.model)
    assert plain.records == tuple(replace(record, training_accuracy=None) for record in asked.records)
    assert SimulateConfig().training_accuracy is False
    assert "training_accuracy" not in SimulateConfig().decisive(), "no run or cell changes its name"
    assert SMALL.decisive()["training_accuracy"] is True


def test_nobody_honest_has_none():
    found = simulate(replace(SMALL, attackers=6, rounds=1))
    assert found.last.training_accuracy is None
    assert [line.name for line in curves(found)["accuracy"].series][:2] == ["accuracy", "attack success"]


def test_it_is_drawn_told_and_kept():
    found = simulate(SMALL)
    plot = curves(found)["accuracy"]
    assert [line.name for line in plot.series][:2] == ["accuracy", "training accuracy"]
    assert plot.y_label == "share of inputs (%)", "not of the test inputs alone"
    assert ("training accuracy", found.last.training_accuracy) in result_tables(found)[0].values
    again = RoundRecord.from_json(json.loads(json.dumps(found.last.to_json())))
    assert again.training_accuracy == found.last.training_accuracy
    unasked = replace(found.last, training_accuracy=None).to_json()
    assert "training_accuracy" not in unasked, "as in earlier versions"
    assert RoundRecord.from_json(unasked).training_accuracy is None


def test_sweeps_have_a_table_of_it_where_it_is_asked_for(tmp_path):
    federation = {"clients": 6, "rounds": 2, "train_rows": 400}
    grid = {"rules": ["mean"], "attacks": ["sign-flip"], "attackers": [0, 2], "seeds": 1}

    def tables(name, **more):
        content = {"federation": {**federation, **more}, "grid": grid}
        return {t.title: t for t in sweep(parse_experiment(content, where="f", title="T"), tmp_path / name).tables()}

    assert "T: training accuracy (%)" not in tables("without")
    table = tables("with", training_accuracy=True)["T: training accuracy (%)"]
    assert [row[0] for row in table.rows] == ["no attack", "sign-flip, m=2"]


def test_the_command_has_an_option(tmp_path):
    small = ("simulate", "--clients", "4", "--rounds", "1", "--json")
    told = json.loads(CliRunner().invoke(app, [*small, "--training-accuracy"]).stdout)
    assert told["config"]["training_accuracy"] is True
    assert 0 < told["last"]["training_accuracy"] <= 1
    assert "training_accuracy" not in json.loads(CliRunner().invoke(app, [*small]).stdout)["last"]


def test_a_wrong_value_is_one_sentence():
    with pytest.raises(ConfigError, match="training_accuracy must be true or false, but is 5000"):
        SimulateConfig(training_accuracy=5000)
