"""The compiled engine: what torch.autograd computes, whatever the shapes, and the same bits in any company."""

import os
import platform
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from holdfast.training import FedAvg
from holdfast.training.compiled import CompiledTrainer
from holdfast.training.compiled.dual import FRESH, PLAIN
from holdfast.training.models import model_factory
from holdfast.types import ConfigError
from tests.training_cases import Rows, federation, plain_fedavg

EVERYONE = np.arange(5)


@pytest.fixture(autouse=True)
def one_torch_thread():
    """The plain loop is small: threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def small_cnn():
    return nn.Sequential(
        *(nn.Conv2d(2, 5, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(5, 7, (2, 3), bias=False), nn.MaxPool2d(2), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(14, 9), nn.ReLU(), nn.Linear(9, 3)),
    )


def small_mlp():
    return nn.Sequential(nn.Linear(7, 18, bias=False), nn.ReLU(), nn.Linear(18, 5), nn.ReLU(), nn.Linear(5, 3))


# Of the dense one's clients some hold few enough rows for the dual form of the first layer, and some do not.
KINDS = {"convolutional": {}, "dense": {"factory": small_mlp, "shape": (7,)}}
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def small_trainer(seed=1, threads=1, factory=small_cnn, shape=(2, 9, 12), n_labels=3, **numbers):
    x, y, rows = federation(shape, n_labels)
    fedavg = FedAvg(**{"rounds": 2, "lr": 0.05, "local_steps": 3, "batch_size": 5} | numbers)
    return CompiledTrainer(factory, x, y, rows, fedavg, seed=seed, threads=threads), x, y, rows


def distance(found, wanted, start):
    """How far apart two trained models are, in units of the way they have come."""
    return np.linalg.norm(found - wanted) / np.linalg.norm(wanted - start)


@st.composite
def architectures(draw):
    """A module, its input shape, and its number of labels: zero to two convolutions, one or two linear layers."""
    layers, shape = [], (draw(st.integers(1, 3)), draw(st.integers(3, 11)), draw(st.integers(3, 11)))
    size = shape
    for _ in range(draw(st.integers(0, 2))):
        kernel = (draw(st.integers(1, min(5, size[1]))), draw(st.integers(1, min(5, size[2]))))
        padding = (draw(st.integers(0, 2)), draw(st.integers(0, 2)))
        stride = draw(st.sampled_from([(1, 1), (1, 1), (2, 2), (1, 3), (2, 1)]))
        channels = draw(st.integers(1, 14))
        layers.append(nn.Conv2d(size[0], channels, kernel, stride, padding, bias=draw(st.booleans())))
        size = (channels, *((size[1 + a] + 2 * padding[a] - kernel[a]) // stride[a] + 1 for a in range(2)))
        pool = (draw(st.integers(1, min(3, size[1]))), draw(st.integers(1, min(3, size[2]))))
        parts = draw(st.sampled_from([[], ["r"], ["p"], ["r", "p"], ["p", "r"], ["r", "r", "p"], ["p", "p1", "r"]]))
        layers += [{"r": nn.ReLU(), "p": nn.MaxPool2d(pool), "p1": nn.MaxPool2d(1)}[part] for part in parts]
        if "p" in parts:
            size = (size[0], size[1] // pool[0], size[2] // pool[1])
    layers.append(nn.Flatten())
    width = int(np.prod(size))
    if draw(st.booleans()):
        hidden = draw(st.integers(1, 40))
        layers += [nn.Linear(width, hidden, bias=draw(st.booleans())), nn.ReLU()]
        width = hidden
    n_labels = draw(st.integers(1, 14))
    return nn.Sequential(*layers, nn.Linear(width, n_labels)), shape, n_labels


@given(architectures(), st.integers(1, 50), st.integers(0, 2**32 - 1))
@settings(max_examples=60)
def test_one_step_is_what_autograd_computes(architecture, batch_size, seed):
    """Weights and inputs are multiples of powers of two: scores are exact, so ties are ties on both sides."""
    module, shape, n_labels = architecture
    rng = np.random.default_rng(seed)
    x = rng.integers(-4, 5, (6, *shape)).astype(np.float32) / 4
    y, rows = rng.integers(0, n_labels, 6), Rows(np.array([0, 6]), np.arange(6))
    fedavg = FedAvg(rounds=1, lr=0.5, local_steps=1, batch_size=batch_size)
    trainer = CompiledTrainer(lambda: module, x, y, rows, fedavg, seed=seed, threads=1)
    start = rng.integers(-4, 5, (1, trainer.n_params)).astype(np.float32) / 32
    assert np.array_equal(trainer.scores(start[0], x), trainer.to_module(start[0])(torch.from_numpy(x)).detach())
    found = trainer.run(start, [0], [[0]])
    wanted = plain_fedavg(lambda: module, x, y, rows, fedavg, seed=seed, params=start, model_ids=[0], members=[[0]])
    assert np.linalg.norm(found - wanted) <= 1e-4 * np.linalg.norm(wanted - start) + 1e-6


@pytest.mark.parametrize("layers", [[nn.ReLU(), nn.MaxPool2d(2)], [nn.MaxPool2d((3, 2)), nn.ReLU()], [nn.MaxPool2d(2)]])
def test_of_equal_values_the_first_wins_as_in_torch(layers):
    """With zero weights all places of a window are equal, but they look at different parts of the image."""

    def factory():
        return nn.Sequential(nn.Conv2d(2, 4, 3), *layers, nn.Flatten(), nn.LazyLinear(3))

    module = factory()
    module(torch.zeros(1, 2, 9, 12))
    trainer, x, y, rows = small_trainer(factory=lambda: module, rounds=1, local_steps=1)
    start = trainer.init([0])
    start[0, trainer.layout["0.weight"]] = 0
    start[0, trainer.layout["0.bias"]] = [0.5, 0.0, -0.5, 2.0]
    wanted = plain_fedavg(
        lambda: module, x, y, rows, trainer.fedavg, seed=1, params=start, model_ids=[0], members=[[3]]
    )
    assert distance(trainer.run(start, [0], [[3]]), wanted, start) < 1e-4


CASES = {
    "logistic": ("logistic", (20,), 4, 32),
    "digits": ("mlp", (1, 8, 8), 10, 20),
    "activity": ("har", (561,), 6, 32),
    "mnist": ("cnn", (1, 28, 28), 10, 32),
    "color": ("cnn", (3, 19, 16), 10, 48),
}


@pytest.mark.parametrize("weighting", ["size", "uniform"])
@pytest.mark.parametrize("case", CASES)
def test_rounds_are_those_of_a_plain_loop(case, weighting):
    name, shape, n_labels, batch_size = CASES[case]
    x, y, rows = federation(shape, n_labels, seed=3)
    fedavg = FedAvg(rounds=2, lr=0.02, local_steps=2, batch_size=batch_size, weighting=weighting)
    factory = model_factory(name, shape, n_labels)
    trainer = CompiledTrainer(factory, x, y, rows, fedavg, seed=5, threads=2)
    members, ids = [np.array([4, 1, 2]), np.array([0, 3])], [7, 2]
    start = trainer.init(ids)
    found = trainer.run(start, ids, members)
    wanted = plain_fedavg(factory, x, y, rows, fedavg, seed=5, params=start, model_ids=ids, members=members)
    assert trainer.n_params == sum(p.numel() for p in factory().parameters())
    for row in range(2):
        assert distance(found[row], wanted[row], start[row]) < 1e-3


@every_kind
def test_a_model_is_the_same_in_any_company_order_and_number_of_threads(kind):
    members = [np.array([0, 1, 2, 3]), np.array([2]), np.array([4, 0]), np.array([3, 1, 2])]
    trainer = small_trainer(**kind)[0]
    start = trainer.init(range(4))
    together = trainer.run(start, range(4), members)
    assert not np.array_equal(together, start)
    for threads in (2, 3, 9):
        assert np.array_equal(small_trainer(threads=threads, **kind)[0].run(start, range(4), members), together)
    order = [2, 0, 3, 1]
    assert np.array_equal(trainer.run(start[order], order, [members[i] for i in order]), together[order])
    for model in range(4):
        alone = small_trainer(threads=1 + model, **kind)[0].run(start[[model]], [model], [members[model]])
        assert np.array_equal(alone[0], together[model])


@every_kind
def test_rounds_may_be_taken_in_pieces(kind):
    trainer = small_trainer(rounds=5, **kind)[0]
    start = trainer.init([0, 1])
    members = [EVERYONE, EVERYONE[:2]]
    first = trainer.run(start, [0, 1], members, rounds=2)
    rest = small_trainer(rounds=5, threads=3, **kind)[0].run(first, [0, 1], members, start_round=2)
    assert np.array_equal(rest, trainer.run(start, [0, 1], members))
    assert np.array_equal(trainer.run(start, [0, 1], members, rounds=0), start)


@pytest.mark.parametrize("bias", [True, False])
def test_the_dual_form_of_the_first_layer_changes_nothing_but_rounding(bias, monkeypatch):
    """Some clients in dual form and some not, in one model; beside a plain loop, and beside no dual form at all."""

    def factory():
        return nn.Sequential(nn.Flatten(), nn.Linear(7, 35, bias=bias), nn.ReLU(), nn.Linear(35, 3))

    numbers = {"factory": factory, "shape": (7,), "local_steps": 4, "batch_size": 20}
    trainer, x, y, rows = small_trainer(**numbers)
    dual = np.diff(rows.offsets) <= 7
    assert dual.any()
    assert not dual.all()
    assert np.array_equal(trainer._grams_at != PLAIN, dual)
    start, updates = trainer.init([0]), []
    found = trainer.run(start, [0], [EVERYONE], intervene=lambda *call: updates.append(call[3]))
    wanted = plain_fedavg(factory, x, y, rows, trainer.fedavg, seed=1, params=start, model_ids=[0], members=[EVERYONE])
    assert distance(found[0], wanted[0], start[0]) < 1e-4
    monkeypatch.setattr("holdfast.training.compiled.trainer.pays", lambda *_, **__: False)
    plain, plain_updates = small_trainer(**numbers)[0], []
    assert (plain._grams_at == PLAIN).all()
    plain.run(start, [0], [EVERYONE], intervene=lambda *call: plain_updates.append(call[3]))
    assert np.allclose(updates, plain_updates, atol=1e-6)
    assert np.array_equal(updates[0][~dual], plain_updates[0][~dual])
    assert not np.array_equal(updates[0][dual], plain_updates[0][dual])


def test_it_does_not_matter_when_the_products_of_rows_are_computed():
    """Overlapping clients, as in selections of one training set: all their Gram matrices would outgrow the data."""
    x, y, _ = federation((12,))
    indices = np.concatenate([np.random.default_rng(c).permutation(len(x))[: 12 - c % 3] for c in range(40)])
    rows = Rows(np.concatenate([[0], np.cumsum([12 - c % 3 for c in range(40)])]), indices)
    few = Rows(rows.offsets[:3], rows.indices[: rows.offsets[2]])
    fedavg = FedAvg(rounds=2, lr=0.05, batch_size=15)

    def factory():
        return nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 3))

    fresh, kept = (CompiledTrainer(factory, x, y, part, fedavg, seed=1, threads=1) for part in (rows, few))
    assert (fresh._grams_at == FRESH).all()
    assert (kept._grams_at >= 0).all()
    start = fresh.init([0])
    assert np.array_equal(fresh.run(start, [0], [[0, 1]]), kept.run(start, [0], [[0, 1]]))


def test_a_model_that_diverged_in_dual_form_leaves_no_trace():
    trainer = small_trainer(**KINDS["dense"])[0]
    start, members = trainer.init([0, 1]), [EVERYONE, EVERYONE]
    wanted = trainer.run(start, [0, 1], members)[1]
    start[0, ::3] = np.nan
    found = trainer.run(start, [0, 1], members)
    assert np.isnan(found[0]).all()
    assert np.array_equal(found[1], wanted)


def test_models_of_other_ids_seeds_or_rounds_differ():
    trainer = small_trainer(rounds=1)[0]
    start = np.repeat(trainer.init([0]), 2, axis=0)
    one, two = trainer.run(start, [0, 1], [EVERYONE, EVERYONE])
    assert not np.array_equal(one, two)
    assert not np.array_equal(one, small_trainer(seed=2, rounds=1)[0].run(start[:1], [0], [EVERYONE])[0])
    assert not np.array_equal(one, trainer.run(start[:1], [0], [EVERYONE], rounds=1, start_round=1)[0])


@every_kind
@pytest.mark.parametrize("threads", [1, 2, 7])
def test_clients_of_one_model_in_parallel_give_the_same_bits(threads, kind, monkeypatch):
    start = small_trainer(**kind)[0].init([3])
    wanted = small_trainer(**kind)[0].run(start, [3], [EVERYONE])
    trainer = small_trainer(threads=threads, **kind)[0]
    assert np.array_equal(trainer.run(start, [3], [EVERYONE]), wanted)
    assert np.array_equal(trainer.run(start, [3], [EVERYONE], intervene=lambda *_: None), wanted)
    monkeypatch.setattr("holdfast.training.compiled.trainer._KEPT_BYTES", 1)  # fewer updates kept than clients
    assert np.array_equal(trainer.run(start, [3], [EVERYONE]), wanted)


def test_intervention_sees_the_updates_and_has_the_last_word():
    trainer, x, y, rows = small_trainer(threads=2)
    start, seen = trainer.init([4, 6]), []

    def mean(model, number, clients, updates, old):
        seen.append((model, number, clients.tolist(), updates.copy(), old.copy()))
        return old + np.average(updates, axis=0, weights=np.diff(rows.offsets)[clients])

    members = [np.array([3, 0]), np.array([1])]
    found = trainer.run(start, [4, 6], members, intervene=mean)
    assert np.allclose(found, trainer.run(start, [4, 6], members), atol=1e-6)
    assert [entry[:3] for entry in seen] == [(4, 0, [3, 0]), (4, 1, [3, 0]), (6, 0, [1]), (6, 1, [1])]
    one_round = FedAvg(rounds=1, lr=0.05, local_steps=3, batch_size=5)
    for place, client in enumerate([3, 0]):
        alone = plain_fedavg(
            small_cnn, x, y, rows, one_round, seed=1, params=start[:1], model_ids=[4], members=[[client]]
        )
        assert distance(start[0] + seen[0][3][place], alone[0], start[0]) < 1e-3
    assert np.array_equal(seen[0][4], start[0])
    fixed = np.arange(trainer.n_params, dtype=np.float32)
    assert np.array_equal(trainer.run(start[:1], [4], members[:1], intervene=lambda *_: fixed)[0], fixed)
    with pytest.raises(ConfigError, match="intervene must return"):
        trainer.run(start[:1], [4], members[:1], intervene=lambda *_: fixed[:3])


@pytest.mark.parametrize("weighting", ["size", "uniform"])
def test_a_client_without_rows_has_no_weight(weighting):
    x, y, rows = federation((2, 9, 12))
    with_empty = Rows(np.concatenate([rows.offsets[:3], rows.offsets[2:]]), rows.indices)  # client 2 holds nothing
    fedavg = FedAvg(rounds=2, lr=0.05, batch_size=5, weighting=weighting)
    trainer = CompiledTrainer(small_cnn, x, y, with_empty, fedavg, seed=1, threads=2)
    start = trainer.init([0])
    updates = []
    with_all = trainer.run(start, [0], [[0, 2, 1]], intervene=lambda *call: updates.append(call[3]))
    assert np.array_equal(with_all, trainer.run(start, [0], [[0, 2, 1]]))
    assert np.array_equal(with_all, trainer.run(start, [0], [[0, 1]]))
    assert not updates[0][1].any()
    assert updates[0][0].any()
    assert np.array_equal(trainer.run(start, [0], [[2]]), start)


def test_labels_are_those_of_the_module():
    trainer, x, _, _ = small_trainer(threads=2)
    params = trainer.run(trainer.init(range(3)), range(3), [EVERYONE] * 3)
    inputs = np.random.default_rng(0).normal(size=(101, 2, 9, 12)).astype(np.float32)
    votes = trainer.predict(params, inputs)
    assert votes.dtype == np.uint8
    for row in range(3):
        scores = trainer.to_module(params[row])(torch.from_numpy(inputs)).detach()
        assert np.array_equal(votes[row], scores.argmax(1))
        assert np.allclose(trainer.scores(params[row], inputs), scores, atol=1e-6)
        assert np.array_equal(trainer.predict(params[row], inputs), votes[[row]])
        assert np.array_equal(small_trainer()[0].predict(params[[row]], inputs[13:50])[0], votes[row, 13:50])
    assert trainer.predict(params, x[:0]).shape == (3, 0)


def test_many_inputs_are_scored_in_stretches(monkeypatch):
    trainer, _, _, _ = small_trainer()
    inputs = np.random.default_rng(0).normal(size=(77, 2, 9, 12)).astype(np.float32)
    params = trainer.init([0, 1])
    whole, scores = trainer.predict(params, inputs), trainer.scores(params[0], inputs)
    monkeypatch.setattr("holdfast.training.compiled.scoring._STRETCH", 10)
    assert np.array_equal(trainer.predict(params, inputs), whole)
    assert np.array_equal(trainer.scores(params[0], inputs), scores)


def test_labels_of_equal_and_missing_scores():
    def factory():
        return nn.Sequential(nn.Linear(2, 300))

    x, y, rows = federation((2,), 300)
    trainer = CompiledTrainer(factory, x, y, rows, FedAvg(rounds=1, lr=0.1), seed=0)
    params = np.zeros((3, trainer.n_params), np.float32)
    bias = params[:, trainer.layout["0.bias"]]
    bias[1, [280, 290]] = 1
    bias[2, [5, 280, 290]] = 9, np.nan, np.nan
    votes = trainer.predict(params, x[:2])
    assert votes.dtype == np.uint16
    assert votes[:, 0].tolist() == [0, 280, 280]
    assert votes[2, 0] == int(torch.from_numpy(bias[2]).argmax())


def test_a_model_that_diverged_leaves_no_trace():
    trainer = small_trainer()[0]
    start = trainer.init([0, 1])
    members = [EVERYONE, EVERYONE]
    wanted = trainer.run(start, [0, 1], members)[1]
    broken = start.copy()
    broken[0] = np.inf
    found = trainer.run(broken, [0, 1], members)
    assert np.isnan(found[0]).any()
    assert np.array_equal(found[1], wanted)
    trainer.predict(broken, np.full((40, 2, 9, 12), np.nan, np.float32))
    assert np.array_equal(trainer.run(start[1:], [1], members[1:])[0], wanted)


def test_input_arrays_may_be_read_only_memory_maps_and_stay_as_they_are(tmp_path):
    trainer, x, y, rows = small_trainer()
    start = trainer.init([0, 1])
    wanted = trainer.run(start, [0, 1], [EVERYONE] * 2)
    for name, array in {"x": x, "y": y, "offsets": rows.offsets, "indices": rows.indices, "params": start}.items():
        np.save(tmp_path / f"{name}.npy", array)
    mapped = {path.stem: np.load(path, mmap_mode="r") for path in tmp_path.glob("*.npy")}
    rows = Rows(mapped["offsets"], mapped["indices"])
    again = CompiledTrainer(small_cnn, mapped["x"], mapped["y"], rows, trainer.fedavg, seed=1, threads=1)
    assert np.array_equal(again.run(mapped["params"], [0, 1], [EVERYONE] * 2), wanted)
    assert np.array_equal(again.predict(mapped["params"], mapped["x"]), trainer.predict(start, x))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_progress_reaches_the_total_and_an_interrupt_gets_through(threads):
    trainer = small_trainer(threads=threads)[0]
    start, members = trainer.init([0, 1]), [EVERYONE, EVERYONE[:3]]
    seen = []
    wanted = trainer.run(start, [0, 1], members, on_progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (16, 16)
    assert seen == sorted(seen)

    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer.run(start, [0, 1], members, on_progress=interrupt)
    assert np.array_equal(trainer.run(start, [0, 1], members), wanted)


def test_one_label_teaches_nothing():
    trainer = small_trainer(factory=lambda: nn.Sequential(nn.Flatten(), nn.Linear(216, 1)), n_labels=1)[0]
    start = trainer.init([0])
    assert np.array_equal(trainer.run(start, [0], [EVERYONE]), start)


REASONS = [
    (nn.Linear(2, 2), "not a torch.nn.Sequential"),
    (nn.Sequential(nn.Linear(2, 2), nn.Tanh()), "layer 1 .Tanh. is not among"),
    (nn.Sequential(nn.Sequential(nn.Dropout()), nn.Linear(2, 2)), "layer 0.0 .Dropout. is not among"),
    (nn.Sequential(nn.Conv2d(1, 2, 3, dilation=2)), "dilation"),
    (nn.Sequential(nn.Conv2d(2, 2, 3, groups=2)), "groups"),
    (nn.Sequential(nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular")), "pads with circular"),
    (nn.Sequential(nn.Conv2d(1, 2, 4, padding="same")), "lopsided"),
    (nn.Sequential(nn.MaxPool2d(3, stride=2), nn.Linear(2, 2)), "stride"),
    (nn.Sequential(nn.MaxPool2d(2, padding=1), nn.Linear(2, 2)), "padding"),
    (nn.Sequential(nn.MaxPool2d(2, dilation=2), nn.Linear(2, 2)), "dilation"),
    (nn.Sequential(nn.MaxPool2d(2, ceil_mode=True), nn.Linear(2, 2)), "rounds sizes up"),
    (nn.Sequential(nn.MaxPool2d(16), nn.Linear(2, 2)), "more than 254 places"),
    (nn.Sequential(nn.Flatten(0), nn.Linear(2, 2)), "flatten"),
    (nn.Sequential(nn.Flatten(), nn.ReLU()), "no weights"),
    (nn.Sequential(nn.Linear(2, 2)).double(), "not all weights are float32"),
    (nn.Sequential(nn.Linear(2, 2)).requires_grad_(False), "frozen"),
]


@pytest.mark.parametrize(("module", "reason"), REASONS)
def test_what_is_not_covered_is_said(module, reason):
    assert re.search(reason, CompiledTrainer.supports(module))
    with pytest.raises(ConfigError, match=reason):
        CompiledTrainer(lambda: module, *federation(), FedAvg(rounds=1, lr=0.1), seed=0)


def test_shared_layers_and_hooks_are_not_covered():
    layer = nn.Linear(2, 2)
    assert "twice" in CompiledTrainer.supports(nn.Sequential(layer, nn.ReLU(), layer))
    tied = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    tied[1].weight = tied[0].weight
    assert "share a weight" in CompiledTrainer.supports(tied)
    hooked = nn.Sequential(nn.Linear(2, 2))
    hooked[0].register_forward_hook(lambda *_: None)
    assert "hooks" in CompiledTrainer.supports(hooked)


def test_nested_sequentials_and_same_padding_are_covered():
    def factory():
        return nn.Sequential(
            nn.Sequential(nn.Conv2d(2, 3, (3, 5), padding="same"), nn.ReLU()), nn.Flatten(), nn.Linear(324, 3)
        )

    trainer, x, y, rows = small_trainer(factory=factory)
    start = trainer.init([0])
    wanted = plain_fedavg(factory, x, y, rows, trainer.fedavg, seed=1, params=start, model_ids=[0], members=[EVERYONE])
    assert distance(trainer.run(start, [0], [EVERYONE])[0], wanted[0], start[0]) < 1e-3


def test_what_does_not_fit_is_refused():
    trainer, x, _, _ = small_trainer()
    start = trainer.init([0])
    with pytest.raises(ConfigError, match="params has shape"):
        trainer.run(start[:, 1:], [0], [EVERYONE])
    with pytest.raises(ConfigError, match="model_ids has 2"):
        trainer.run(start, [0, 1], [EVERYONE])
    with pytest.raises(ConfigError, match="client 5, but clients are numbered 0 to 4"):
        trainer.run(start, [0], [[1, 5]])
    with pytest.raises(ConfigError, match="client -1"):
        trainer.run(start, [0], [[-1]])
    with pytest.raises(ConfigError, match="is empty"):
        trainer.run(start, [0], [[]])
    with pytest.raises(ConfigError, match="x has inputs of shape"):
        trainer.predict(start, x[:, :1])
    with pytest.raises(ConfigError, match="threads must be at least 1"):
        small_trainer(threads=0)
    for module, shape, words in [
        (nn.Sequential(nn.Linear(5, 3)), (6,), "Linear layer for .5. inputs"),
        (nn.Sequential(nn.Conv2d(3, 2, 2), nn.Flatten(), nn.Linear(2, 3)), (1, 2, 2), "inputs have shape"),
        (nn.Sequential(nn.Conv2d(1, 2, 4)), (1, 2, 2), "larger than its inputs"),
        (nn.Sequential(nn.Conv2d(1, 3, 2)), (1, 2, 2), "must end in scores"),
    ]:
        with pytest.raises(ConfigError, match=words):
            small_trainer(factory=lambda module=module: module, shape=shape)


BASE = "+64bit,+cmov,+cx16,+cx8,+fxsr,+mmx,+popcnt,+sse,+sse2,+sse3,+sse4.1,+sse4.2,+ssse3"
OLDER = {"haswell": f"{BASE},+avx,+avx2,+bmi,+bmi2,+f16c,+fma,+lzcnt,+movbe", "nehalem": BASE}


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="names x86 processors")
@pytest.mark.parametrize("cpu", OLDER)
def test_older_processors_compute_the_same(cpu, tmp_path):
    """The blocks for vectors of 256 and 128 bits, which numba can be told to compile for."""
    environment = os.environ | {
        "NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": OLDER[cpu], "NUMBA_CACHE_DIR": str(tmp_path),
    }  # fmt: skip
    tests = [
        f"{__file__}::test_one_step_is_what_autograd_computes",
        f"{__file__}::test_rounds_are_those_of_a_plain_loop",
    ]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
