"""The torch engine against FedAvg written the plain way, for every kind of module and stack."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from holdfast.training import FedAvg, make_trainer
from holdfast.training.local_training import Dense, OneByOne, Stacked
from holdfast.training.torch_engine import TorchTrainer
from holdfast.types import ConfigError, DataError
from tests.training_cases import federation, plain_fedavg

FEDAVG = FedAvg(rounds=2, lr=0.1, local_steps=3, batch_size=8)
MEMBERS = [np.array([0, 3]), np.array([1, 2, 4]), np.array([4])]
IDS = [5, 0, 9]


def dense():
    return nn.Sequential(
        nn.Flatten(), nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, 5, bias=False), nn.ReLU(), nn.Linear(5, 3)
    )


def smooth():
    return nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 3))


def normalized():
    return nn.Sequential(nn.Linear(6, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Linear(7, 3))


def convolution():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3))


class Branching(nn.Module):
    """Its flow depends on values, which `torch.func.vmap` cannot map."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 3), nn.Linear(6, 3)

    def forward(self, x):
        return self.first(x) if float(x.sum()) > 0 else self.second(x)


class PartlyFrozen(nn.Module):
    """One layer that must not learn, and one that is never used."""

    def __init__(self):
        super().__init__()
        self.frozen, self.head, self.unused = nn.Linear(6, 6), nn.Linear(6, 3), nn.Linear(2, 2)
        self.frozen.requires_grad_(False)

    def forward(self, x):
        return self.head(torch.relu(self.frozen(x)))


CASES = {
    "dense": (dense, (6,), Dense),
    "smooth": (smooth, (6,), Stacked),
    "batch-norm": (normalized, (6,), Stacked),
    "convolution": (convolution, (1, 8, 8), Stacked),
    "branching": (Branching, (6,), OneByOne),
    "partly-frozen": (PartlyFrozen, (6,), Stacked),
}


def trainer_for(factory, shape, **options):
    x, y, rows = federation(shape)
    return TorchTrainer(factory, x, y, rows, options.pop("fedavg", FEDAVG), n_labels=3, seed=11, **options), (
        x,
        y,
        rows,
    )


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("stack_size", [None, 1, 2, 64])
def test_equals_plain_loops(name, stack_size):
    factory, shape, _ = CASES[name]
    trainer, (x, y, rows) = trainer_for(factory, shape, stack_size=stack_size)
    start = trainer.init(IDS)
    untouched = start.copy()
    ours = trainer.run(start, IDS, MEMBERS)
    np.testing.assert_array_equal(start, untouched)
    plain = plain_fedavg(factory, x, y, rows, FEDAVG, seed=11, params=start, model_ids=IDS, members=MEMBERS)
    moved = np.abs(plain - start).max()
    assert moved > 1e-3
    np.testing.assert_allclose(ours, plain, atol=1e-4 * moved)


# A bias below a batch normalization has no gradient but rounding, of which Adam's steps have the sign.
@pytest.mark.parametrize("name", [name for name in CASES if name != "batch-norm"])
@pytest.mark.parametrize("stack_size", [None, 1])
def test_adam_equals_plain_loops(name, stack_size):
    """`torch.optim.Adam`, made anew by every client in every round."""
    factory, shape, way = CASES[name]
    fedavg = FedAvg(rounds=2, lr=0.02, local_steps=3, batch_size=8, optimizer="adam")
    trainer, (x, y, rows) = trainer_for(factory, shape, fedavg=fedavg, stack_size=stack_size)
    assert type(trainer._local) is (Stacked if way is Dense else way)
    start = trainer.init(IDS)
    plain = plain_fedavg(factory, x, y, rows, fedavg, seed=11, params=start, model_ids=IDS, members=MEMBERS)
    moved = np.abs(plain - start).max()
    assert moved > 0.04
    np.testing.assert_allclose(trainer.run(start, IDS, MEMBERS), plain, atol=2e-3 * moved)


@pytest.mark.parametrize("name", CASES)
def test_takes_the_way_that_fits(name):
    factory, shape, way = CASES[name]
    trainer, _ = trainer_for(factory, shape)
    assert type(trainer._local) is way


def test_uniform_weighting():
    fedavg = FedAvg(rounds=2, lr=0.1, local_steps=2, batch_size=4, weighting="uniform")
    trainer, (x, y, rows) = trainer_for(smooth, (6,), fedavg=fedavg)
    start = trainer.init(IDS)
    ours = trainer.run(start, IDS, MEMBERS)
    plain = plain_fedavg(smooth, x, y, rows, fedavg, seed=11, params=start, model_ids=IDS, members=MEMBERS)
    np.testing.assert_allclose(ours, plain, atol=1e-5)
    by_size = trainer_for(smooth, (6,), fedavg=FedAvg(rounds=2, lr=0.1, local_steps=2, batch_size=4))[0]
    assert np.abs(by_size.run(start, IDS, MEMBERS) - ours).max() > 1e-4


def test_rounds_can_be_taken_in_parts():
    trainer, _ = trainer_for(smooth, (6,))
    start = trainer.init(IDS)
    first = trainer.run(start, IDS, MEMBERS, rounds=1)
    np.testing.assert_array_equal(trainer.run(first, IDS, MEMBERS, start_round=1), trainer.run(start, IDS, MEMBERS))


def with_dropout():
    return nn.Sequential(nn.Linear(6, 16), nn.Dropout(0.5), nn.Linear(16, 3))


def test_dropout_depends_on_identity_only():
    trainer, _ = trainer_for(with_dropout, (6,))
    assert trainer._local.needs_seeds
    start = trainer.init(IDS)
    together = trainer.run(start, IDS, MEMBERS)
    torch.manual_seed(99)
    for place, model in enumerate(IDS):
        alone = trainer.run(start[place : place + 1], [model], MEMBERS[place : place + 1])
        np.testing.assert_array_equal(alone[0], together[place])
    other = TorchTrainer(with_dropout, *federation(), FEDAVG, n_labels=3, seed=12)
    assert np.abs(other.run(start, IDS, MEMBERS) - together).max() > 1e-4


def test_global_generator_is_left_alone():
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    trainer, (x, _, _) = trainer_for(with_dropout, (6,))
    trainer.predict(trainer.run(trainer.init([1]), [1], MEMBERS[:1]), x)
    assert torch.equal(torch.rand(3), expected)


def test_batch_norm_statistics_travel_with_the_model():
    trainer, (x, _, _) = trainer_for(normalized, (6,))
    assert "1.running_mean" in trainer.layout
    weights = trainer.run(trainer.init([0]), [0], [np.array([0, 1, 2])])
    module = trainer.to_module(weights[0])
    assert not module.training
    assert module[1].running_mean.abs().max() > 0
    with torch.no_grad():
        expected = module(torch.from_numpy(x)).argmax(1).numpy()
    np.testing.assert_array_equal(trainer.predict(weights, x)[0], expected)


def test_intervention_replaces_the_mean():
    trainer, _ = trainer_for(smooth, (6,))
    start = trainer.init(IDS)
    seen = []

    def median_for_model_5(model, number, clients, updates, old):
        seen.append((model, number, tuple(clients)))
        assert updates.shape == (len(clients), trainer.n_params)
        return old + np.median(updates, axis=0) if model == 5 else None

    changed = trainer.run(start, IDS, MEMBERS, intervene=median_for_model_5)
    plain = trainer.run(start, IDS, MEMBERS)
    assert sorted(seen) == sorted((m, r, tuple(c)) for r in range(2) for m, c in zip(IDS, MEMBERS, strict=True))
    np.testing.assert_allclose(changed[1:], plain[1:], atol=1e-6)
    assert np.abs(changed[0] - plain[0]).max() > 1e-5


@pytest.mark.parametrize("stack_size", [1, 2, 64])
def test_intervention_sees_what_clients_send(stack_size):
    one_round = FedAvg(rounds=1, lr=0.1, local_steps=3, batch_size=8)
    trainer, (x, y, rows) = trainer_for(smooth, (6,), fedavg=one_round, stack_size=stack_size)
    start = trainer.init([3])
    caught = {}

    def catch(model, number, clients, updates, old):
        np.testing.assert_array_equal(old, start[0])
        caught.update(zip(clients.tolist(), np.array(updates), strict=True))

    trainer.run(start, [3], [np.array([4, 0, 1])], intervene=catch)
    for client in (0, 1, 4):
        alone = plain_fedavg(
            smooth, x, y, rows, one_round, seed=11, params=start, model_ids=[3], members=[np.array([client])]
        )
        np.testing.assert_allclose(caught[client], alone[0] - start[0], atol=1e-5)


@pytest.mark.parametrize("weighting", ["size", "uniform"])
def test_a_client_without_rows_counts_for_nothing(weighting):
    fedavg = FedAvg(rounds=2, lr=0.1, local_steps=2, batch_size=4, weighting=weighting)
    x, y, rows = federation()
    rows = type(rows)(np.append(rows.offsets, rows.offsets[-1]), rows.indices)  # client 5 holds nothing
    trainer = TorchTrainer(smooth, x, y, rows, fedavg, n_labels=3, seed=11)
    start = trainer.init([0, 1])
    with_it = trainer.run(start, [0, 1], [np.array([5, 0, 2]), np.array([5])])
    without = trainer.run(start, [0, 1], [np.array([0, 2]), np.array([1])])
    np.testing.assert_allclose(with_it[0], without[0], atol=1e-6)
    np.testing.assert_array_equal(with_it[1], start[1])
    seen = []
    trainer.run(start, [0, 1], [np.array([5, 0]), np.array([5])], intervene=lambda *a: seen.append(np.array(a[3])))
    assert all((updates[0] == 0).all() for updates in seen)


def test_a_broken_model_is_no_error():
    trainer, (x, _, _) = trainer_for(smooth, (6,))
    weights = trainer.run(trainer.init([0]), [0], MEMBERS[:1], intervene=lambda *_: np.full(trainer.n_params, np.nan))
    votes = trainer.predict(weights, x)
    assert votes.shape == (1, len(x))
    assert votes.max() < 3


def test_clear_sentences():
    trainer, (x, y, rows) = trainer_for(smooth, (6,))
    start = trainer.init([0])
    with pytest.raises(ConfigError, match="client 7, but clients are numbered 0 to 4"):
        trainer.run(start, [0], [np.array([7])])
    with pytest.raises(ConfigError, match="members of model 0 is empty"):
        trainer.run(start, [0], [np.array([], dtype=np.int64)])
    with pytest.raises(ConfigError, match="intervene must return"):
        trainer.run(start, [0], MEMBERS[:1], intervene=lambda *_: np.zeros(3))
    with pytest.raises(ConfigError, match="params has shape"):
        trainer.run(start[:, :-1], [0], MEMBERS[:1])
    with pytest.raises(ConfigError, match="momentum=None"):
        make_trainer(
            lambda: nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3, momentum=None)), x, y, rows, FEDAVG, seed=1
        )
    with pytest.raises(ConfigError, match="engine must be one of"):
        make_trainer(smooth, x, y, rows, FEDAVG, seed=1, engine="jax")
    with pytest.raises(ConfigError, match="device must be cpu, cuda"):
        make_trainer(smooth, x, y, rows, FEDAVG, seed=1, device="abacus")
    with pytest.raises(DataError, match="label 3, but the model tells apart labels 0 to 2"):
        make_trainer(smooth, x, np.full(len(y), 3), rows, FEDAVG, seed=1)
    with pytest.raises(DataError, match="one label per row"):
        make_trainer(smooth, x, y[1:], rows, FEDAVG, seed=1)
