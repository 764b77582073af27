"""Both engines compute the same FedAvg, and the choice between them is automatic."""

from __future__ import annotations

import numpy as np
import pytest
from torch import nn

from holdfast.training import FedAvg, make_trainer, model_factory
from holdfast.training.compiled import CompiledTrainer
from holdfast.training.torch_engine import TorchTrainer
from holdfast.types import ConfigError
from tests.training_cases import federation, plain_fedavg

FEDAVG = FedAvg(rounds=3, lr=0.05, local_steps=3, batch_size=16)
MEMBERS = [np.array([0, 3]), np.array([1, 2, 4]), np.array([4])]
IDS = [5, 0, 9]
CASES = {"logistic": (6,), "mlp": (2, 3), "har": (9,), "cnn": (1, 17, 16)}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("weighting", ["size", "uniform"])
def test_engines_agree_with_plain_loops(name, weighting):
    shape = CASES[name]
    x, y, rows = federation(shape)
    factory = model_factory(name, shape, 3)
    fedavg = FedAvg(rounds=3, lr=0.05, local_steps=3, batch_size=16, weighting=weighting)
    arguments = (factory, x, y, rows, fedavg)
    trainers = {engine: make_trainer(*arguments, seed=2, engine=engine, threads=1) for engine in ("compiled", "torch")}
    start = trainers["torch"].init(IDS)
    np.testing.assert_array_equal(trainers["compiled"].init(IDS), start)
    plain = plain_fedavg(*arguments, seed=2, params=start, model_ids=IDS, members=MEMBERS)
    moved = np.abs(plain - start).max()
    for trainer in trainers.values():
        trained = trainer.run(start, IDS, MEMBERS)
        np.testing.assert_allclose(trained, plain, atol=1e-3 * moved, err_msg=trainer.engine)
        np.testing.assert_array_equal(trainer.predict(plain, x), trainers["torch"].predict(plain, x))


@pytest.mark.parametrize("engine", ["compiled", "torch"])
def test_what_the_callback_sees_is_the_same(engine):
    x, y, rows = federation()
    trainer = make_trainer(model_factory("mlp", (6,), 3), x, y, rows, FEDAVG, seed=2, engine=engine)
    start = trainer.init(IDS)
    calls = []

    def keep_the_first(model, number, clients, updates, old):
        calls.append((model, number, clients.tolist(), updates.shape, old.shape))
        return old + updates[0]

    ours = trainer.run(start, IDS, MEMBERS, intervene=keep_the_first)
    assert calls.count(next(c for c in calls if c[:2] == (0, 2))) == 1
    assert len(calls) == 9
    for model, _, clients, updates, old in calls:
        assert clients == MEMBERS[IDS.index(model)].tolist()
        assert (updates, old) == ((len(clients), trainer.n_params), (trainer.n_params,))
    plain = plain_fedavg(
        model_factory("mlp", (6,), 3), x, y, rows, FEDAVG, seed=2, params=start, model_ids=IDS,
        members=[group[:1] for group in MEMBERS],
    )  # fmt: skip
    np.testing.assert_allclose(ours, plain, atol=1e-4)


def test_auto_takes_the_engine_that_applies():
    x, y, rows = federation()
    arguments = (x, y, rows, FEDAVG)
    assert type(make_trainer(model_factory("mlp", (6,), 3), *arguments, seed=1)) is CompiledTrainer
    smooth = lambda: nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3))  # noqa: E731
    assert type(make_trainer(smooth, *arguments, seed=1)) is TorchTrainer
    adam = FedAvg(rounds=1, lr=0.1, optimizer="adam")
    assert type(make_trainer(model_factory("mlp", (6,), 3), x, y, rows, adam, seed=1)) is TorchTrainer
    with pytest.raises(ConfigError, match="engine 'compiled' does not apply: optimizer is 'adam'"):
        make_trainer(model_factory("mlp", (6,), 3), x, y, rows, adam, seed=1, engine="compiled")
    with pytest.raises(ConfigError, match=r"engine 'compiled' does not apply: .*Tanh"):
        make_trainer(smooth, *arguments, seed=1, engine="compiled")


@pytest.mark.parametrize("engine", ["compiled", "torch"])
def test_chunks_rounds_and_company_do_not_matter(engine):
    x, y, rows = federation()
    trainer = make_trainer(model_factory("har", (6,), 3), x, y, rows, FEDAVG, seed=2, engine=engine)
    start = trainer.init(IDS)
    whole = trainer.run(start, IDS, MEMBERS)
    for place, model in enumerate(IDS):
        alone = trainer.init([model])
        for number in range(3):
            alone = trainer.run(alone, [model], [MEMBERS[place]], rounds=1, start_round=number)
        if engine == "compiled":
            np.testing.assert_array_equal(alone[0], whole[place])
        np.testing.assert_allclose(alone[0], whole[place], atol=1e-6)
