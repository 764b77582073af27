"""Attacked federations on files as users have them: Amazon reviews, Kaggle loans, tables and arrays of their own."""

import numpy as np
import pandas as pd
import pytest

from holdfast.attacks import LOAN_FEATURES
from holdfast.data import load
from holdfast.experiments.attacked import SimulateConfig, load_attacked
from holdfast.experiments.simulation import simulate
from holdfast.experiments.threat import make_threat
from holdfast.types import ConfigError, DataError
from tests.test_data_sets import REVIEWS, kaggle_table, write_har, write_reviews

SHORT = {"rounds": 2, "local_steps": 1, "batch_size": 8}


@pytest.mark.parametrize("name", ["reviews_Kindle_Store_5.json", "mine.json.gz"])
def test_reviews_in_amazons_form_train_fasttext_by_adam(tmp_path, name):
    write_reviews(tmp_path / name, REVIEWS)
    data = {"data": "reviews", "data_dir": str(tmp_path)} if "Kindle" in name else {"data": str(tmp_path / name)}
    config = SimulateConfig(
        **data, **SHORT, clients=4, attackers=1, attack="all-label-flip", optimizer="adam", lr=0.05, rule="median"
    )
    found = simulate(config)
    assert len(found.model) == 25_000 * 100 + 100 * 2 + 2
    assert found.engine == "torch"
    assert found.last.success == pytest.approx(1 - found.last.accuracy)
    np.testing.assert_array_equal(found.model, simulate(config).model)


def test_kaggles_loans_by_state_with_the_papers_backdoor_and_network(tmp_path):
    kaggle_table(400).to_csv(tmp_path / "loan.csv", index=False)
    config = SimulateConfig(
        data=str(tmp_path / "loan.csv"),
        **SHORT,
        partition="user",
        attackers=1,
        attack={"name": "naive-backdoor", "target": 7},
        rule="residual-reweighting",
    )
    federation = load_attacked(config)
    assert federation.n == 3, "one participant per state"
    goal = make_threat(config.attack, federation.dataset, seed=0).goal
    columns = [federation.dataset.feature_names.index(name) for name in LOAN_FEATURES]
    assert (goal.inputs[:, columns] > federation.dataset.x_train[:, columns].max(axis=0)).all()
    untouched = np.setdiff1d(np.arange(91), columns)
    rows = federation.dataset.y_test != 7
    np.testing.assert_array_equal(goal.inputs[:, untouched], federation.dataset.x_test[rows][:, untouched])
    found = simulate(config)
    assert len(found.model) == 91 * 46 + 46 + 46 * 23 + 23 + 23 * 9 + 9
    assert 0 <= found.last.success <= 1


def test_har_from_its_official_folder_by_person(tmp_path):
    write_har(tmp_path)
    config = SimulateConfig(
        data="har", data_dir=str(tmp_path), **SHORT, partition="user", attackers=1, attack="sign-flip", rule="median"
    )
    assert load_attacked(config).n == 4
    assert np.isfinite(simulate(config).model).all()


def test_a_table_of_ones_own_with_a_column_of_clients(tmp_path):
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(120, 3)), columns=["age", "dose", "weight"])
    table["label"] = np.where(table["dose"] > 0, "ill", "well")
    table["client"] = [f"hospital {i}" for i in rng.integers(0, 5, 120)]
    table.to_csv(tmp_path / "mine.csv", index=False)
    attack = {"name": "feature-backdoor", "columns": [2], "values": [9.0], "target": 1}
    options = {"data": str(tmp_path / "mine.csv"), "partition": "user", "attackers": 1, "rule": "trimmed-mean"}
    config = SimulateConfig(**options, attack=attack, rounds=20, local_steps=5, batch_size=16)
    federation = load_attacked(config)
    assert federation.n == 5
    goal = make_threat(attack, federation.dataset, seed=0).goal
    assert (goal.inputs[:, 2] == 9).all()
    assert simulate(config).last.accuracy > 0.8
    by_name = {"name": "naive-backdoor", "features": ["age"], "target": 0}
    assert simulate(SimulateConfig(**options, attack=by_name, rounds=1)).last.success is not None
    with pytest.raises(ConfigError, match="must be told its features"):
        simulate(SimulateConfig(**options, attack={"name": "naive-backdoor", "target": 0}))


def test_pictures_of_ones_own_with_a_model_of_ones_own(tmp_path):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 90)
    x = 255 * (rng.random((90, 12, 12, 3)) * 0.3 + y[:, None, None, None] / 3)
    np.savez(tmp_path / "mine.npz", x=x.astype(np.uint8), y=y)
    config = SimulateConfig(
        data=str(tmp_path / "mine.npz"),
        model="tests.test_simulate_own_data:own_model",
        clients=8,
        attackers=2,
        attack={"name": "naive-backdoor", "target": 1},
        rule="multi-krum",
        rounds=10,
    )
    assert load(tmp_path / "mine.npz").image_shape == (3, 12, 12)
    assert simulate(config).last.accuracy > 0.5
    with pytest.raises(DataError, match="n is 90 clients but there are only"):
        simulate(SimulateConfig(data=str(tmp_path / "mine.npz"), clients=90))


def own_model():
    """What `package.module:factory` may name."""
    from torch import nn

    return nn.Sequential(nn.Flatten(), nn.Linear(432, 3))
