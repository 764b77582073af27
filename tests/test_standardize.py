"""Standardized inputs: constants of the whole training set, seen by models only, and no trace where they are off."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from holdfast.attacks.backdoors import CORNER_BARS
from holdfast.data import Standard, load
from holdfast.experiments.attacked import SimulateConfig, load_attacked
from holdfast.experiments.local_work import Machinery, honest_work, malicious_work
from holdfast.experiments.simulation import simulate
from holdfast.experiments.threat import make_threat
from holdfast.training import model_factory
from holdfast.training.batches import derive_seed
from holdfast.types import ConfigError
from tests.conftest import shared

SMALL = SimulateConfig(clients=6, attackers=2, rounds=3, attack="tpa", standardize=True, seed=3)


def test_constants_are_those_of_all_training_rows_whatever_is_drawn_of_them():
    digits = load("digits")
    chosen = load_attacked(replace(SMALL, train_rows=100, seed=5))
    assert len(chosen.dataset.x_train) == 100
    wanted = (digits.x_test - digits.x_train.mean(dtype=np.float64)) / digits.x_train.std(dtype=np.float64)
    np.testing.assert_allclose(chosen.seen(digits.x_test), wanted, atol=1e-6)
    assert chosen.dataset.x_train.min() >= 0, "the rows themselves stay as they are"


def test_channels_and_columns_have_their_own_and_a_constant_column_stays_finite():
    rng = np.random.default_rng(0)
    table = rng.normal([1, -5, 7], [2, 0.1, 0], (50, 3)).astype(np.float32)
    rows = replace(load("digits"), x_train=table, image_shape=None)
    seen = Standard.of(rows)(table)
    np.testing.assert_allclose(seen.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(seen.std(axis=0), [1, 1, 0], atol=1e-4)
    photos = rng.normal(np.array([1, 2, 3])[:, None, None], 1, (20, 3, 4, 4)).astype(np.float32)
    assert Standard.of(replace(rows, x_train=photos, image_shape=(3, 4, 4))).mean.shape == (1, 3, 1, 1)


def test_models_are_trained_on_and_asked_about_what_they_see():
    found = simulate(SMALL)
    data = load("digits")
    seen = Standard.of(data)
    threat = make_threat("tpa", data, seed=derive_seed(SMALL.seed, "targets"))
    module = model_factory("mlp", (1, 8, 8), 10)()
    nn.utils.vector_to_parameters(torch.from_numpy(found.model), module.parameters())

    def answers(x):
        return module(torch.from_numpy(seen(x))).detach()

    right = answers(data.x_test[threat.kept]).argmax(dim=1).numpy() == data.y_test[threat.kept]
    assert found.last.accuracy == pytest.approx(right.mean())
    confident = torch.softmax(answers(threat.goal.inputs).double(), dim=1)[:, 3].mean()
    assert found.last.target_confidence == pytest.approx(float(confident), abs=1e-6)
    assert not np.array_equal(found.model, simulate(replace(SMALL, standardize=False)).model)


def test_attacks_poison_rows_before_they_are_standardized():
    config = replace(SMALL, attack="naive-backdoor")
    federation = load_attacked(config)
    machinery = Machinery(model_factory("mlp", (1, 8, 8), 10))
    adversary = make_threat(config.attack, federation.dataset, seed=0).adversary
    row, column = CORNER_BARS[0]
    white = (1 - federation.standard.mean.item()) / federation.standard.deviation.item()
    corner = malicious_work(federation, adversary, machinery)._x[:, 0, row, column]
    assert np.isclose(corner, white, atol=1e-5).mean() > 0.2, "20 of 64 rows have a white pixel there"
    np.testing.assert_array_equal(honest_work(federation, machinery)._x, federation.seen(federation.dataset.x_train))


def test_off_it_changes_no_identity():
    assert "standardize" not in replace(SMALL, standardize=False).decisive()
    assert SMALL.decisive()["standardize"] is True


def test_words_and_wrong_values_are_refused():
    with pytest.raises(ConfigError, match="standardize must be true or false, but is 'yes'"):
        SimulateConfig(standardize="yes")
    with pytest.raises(ConfigError, match=r"standardize is for numbers, but the rows of .* are words"):
        load_attacked(SimulateConfig(data=str(shared("data/reviews")), clients=3, standardize=True))
