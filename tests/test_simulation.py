"""One attacked federation: it is what a plain loop computes, the same in any company, and measured right."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from holdfast.data import load, partition
from holdfast.experiments import simulation
from holdfast.experiments.attacked import SimulateConfig, load_attacked
from holdfast.experiments.checkpoint import load_checkpoint, pack, unpack
from holdfast.experiments.measures import RoundRecord
from holdfast.experiments.simulation import simulate
from holdfast.experiments.threat import make_threat
from holdfast.training import model_factory
from holdfast.training.batches import batch_rows, derive_seed
from holdfast.types import ArtifactError, ConfigError
from tests.conftest import shared

SMALL = SimulateConfig(clients=8, rounds=4, attackers=3, attack="sign-flip", rule="median", local_steps=2, seed=5)


def same(a, b):
    np.testing.assert_array_equal(a.model, b.model)
    assert a.records == b.records


# -- what is computed ---------------------------------------------------------------------------------------------


def plain_client(module, x, y, offsets, indices, client, round_number, *, steps, lr, batch, seed):
    """One client's training by autograd, on the rows the batch hash names."""
    before = nn.utils.parameters_to_vector(module.parameters()).detach().clone()
    rows = batch_rows(seed, [0], [client], round_number, offsets, indices, steps, batch)[0]
    for step in range(steps):
        module.zero_grad()
        nn.functional.cross_entropy(module(torch.from_numpy(x[rows[step]])), torch.from_numpy(y[rows[step]])).backward()
        with torch.no_grad():
            for p in module.parameters():
                p -= lr * p.grad
    update = nn.utils.parameters_to_vector(module.parameters()).detach() - before
    nn.utils.vector_to_parameters(before, module.parameters())
    return update.numpy()


def test_an_attacked_federation_is_a_plain_loop():
    """Label flips with double effort and an own learning rate, uploaded boosted, from round 1 on, under averaging."""
    attack = {
        "name": "label-flip",
        "pairs": [[1, 7], [7, 1]],
        "effort": 2.0,
        "lr": 0.05,
        "wrappers": [{"name": "boost", "factor": 3.0}, {"name": "schedule", "rounds": "from", "at": 1}],
    }
    config = SimulateConfig(
        clients=5, rounds=3, attackers=2, attack=attack, local_steps=2, batch_size=16, lr=0.1, model="logistic", seed=3
    )
    found = simulate(config)

    data, seed = load("digits"), derive_seed(3, "training")
    parts = partition("iid", data.y_train, n=5, seed=derive_seed(3, "partition"))
    torch.manual_seed(derive_seed(seed, "init", 0))
    module = model_factory("logistic", (1, 8, 8), 10)()
    flipped = np.where(data.y_train == 1, 7, np.where(data.y_train == 7, 1, data.y_train))
    offsets = np.zeros(6, dtype=np.int64)
    for client in range(5):
        offsets[client + 1] = offsets[client] + (len(parts.rows(client)) if client in found.malicious else 0)
    own = np.concatenate([parts.rows(client) for client in found.malicious])
    for number in range(3):
        updates = []
        for client in range(5):
            options = {"batch": 16, "seed": seed}
            if client in found.malicious and number >= 1:
                x, y = data.x_train[own], flipped[own]
                sent = plain_client(
                    module, x, y, offsets, np.arange(len(own)), client, number, steps=4, lr=0.05, **options
                )
                updates.append(3.0 * sent)
            else:
                x, y, mine = data.x_train, data.y_train, (parts.offsets, parts.indices)
                updates.append(plain_client(module, x, y, *mine, client, number, steps=2, lr=0.1, **options))
        vector = nn.utils.parameters_to_vector(module.parameters()) + torch.from_numpy(np.mean(updates, axis=0))
        nn.utils.vector_to_parameters(vector.detach(), module.parameters())
    np.testing.assert_allclose(
        found.model, nn.utils.parameters_to_vector(module.parameters()).detach().numpy(), atol=2e-6
    )


def test_model_replacement_replaces_the_model_under_averaging(monkeypatch):
    attack = {"name": "model-replacement", "knowledge": "all", "factor": None, "at": 2, "target": 1, "effort": 3.0}
    config = SimulateConfig(clients=7, rounds=3, attackers=2, attack=attack, seed=1)
    seen = {}
    crafted = simulation.RoundLoop._crafted

    def spy(self, params, state, number, clients, malicious, honest, own):
        seen[number] = params + own.mean(axis=0)
        return crafted(self, params, state, number, clients, malicious, honest, own)

    monkeypatch.setattr(simulation.RoundLoop, "_crafted", spy)
    found = simulate(config)
    assert list(seen) == [2], "the schedule has one round"
    np.testing.assert_allclose(found.model, seen[2], atol=1e-5)


def test_epochs_are_steps_in_proportion_to_rows():
    config = SimulateConfig(clients=6, partition="dirichlet", concentration=0.1, local_epochs=2, batch_size=16)
    federation = load_attacked(config)
    sizes = federation.partition.sizes
    assert len({config.steps_of(int(size)) for size in sizes}) > 2
    assert [config.steps_of(int(size)) for size in sizes] == [max(1, round(2 * size / 16)) for size in sizes]
    assert simulate(replace(config, rounds=2)).last.accuracy > 0.2


def test_rules_with_memory_know_clients_by_their_number(tmp_path):
    config = SimulateConfig(clients=9, clients_per_round=3, rounds=5, rule="foolsgold", seed=2)
    simulate(config, checkpoint=tmp_path / "run")
    loop = load_attacked(config)
    drawn = set(np.concatenate([loop.sample(number) for number in range(5)]).tolist())
    from safetensors import safe_open

    with safe_open(tmp_path / "run", framework="pt") as file:
        identity = file.metadata()["run"]
    state = load_checkpoint(tmp_path / "run", identity)[2]
    assert set(state) == drawn
    assert len(drawn) > 3


def test_reviews_are_read_by_fasttext_and_all_labels_flipped():
    config = SimulateConfig(
        data=str(shared("data/reviews")),
        **{"clients": 3, "attackers": 1, "attack": "all-label-flip", "rounds": 1, "local_steps": 1},
        train_rows=200,
        test_inputs=50,
    )
    found = simulate(config)
    assert len(found.model) == 2_500_202
    assert found.last.success == pytest.approx(1 - found.last.accuracy), "with two labels, wrong is what they want"


@pytest.mark.slow
@pytest.mark.parametrize("model", ["resnet18", "resnet18-bn"])
def test_pictures_are_learned_by_a_residual_network(model):
    config = SimulateConfig(
        data=str(shared("data/cifar10")),
        **{
            "clients": 2,
            "attackers": 1,
            "rounds": 1,
            "local_steps": 1,
            "batch_size": 4,
            "rule": "residual-reweighting",
        },
        attack={"name": "naive-backdoor", "target": 2},
        model=model,
        train_rows=64,
        test_inputs=40,
    )
    found = simulate(config)
    assert np.isfinite(found.model).all()
    assert found.engine == "torch"


# -- who is malicious ----------------------------------------------------------------------------------------------


def test_more_attackers_include_fewer_and_holders_of_the_flipped_label_come_first():
    config = SimulateConfig(clients=40, partition="two-labels", seed=4)
    chosen = [set(load_attacked(replace(config, attackers=m), flipped=(1,)).malicious.tolist()) for m in range(6)]
    assert [len(ids) for ids in chosen] == list(range(6))
    assert all(few <= more for few, more in pairwise(chosen))
    federation = load_attacked(replace(config, attackers=3), flipped=(1,))
    counts = federation.partition.label_counts(federation.dataset.y_train, 10)
    assert (counts[federation.malicious, 1] > 0).all()
    holders = int((counts[:, 1] > 0).sum())
    crowd = load_attacked(replace(config, attackers=holders + 1), flipped=(1,))
    assert f"only {holders} clients hold a label" in crowd.notes[0]


def test_holders_of_a_label_are_removed_one_by_one():
    config = SimulateConfig(clients=20, partition="two-labels", drop_label=0, seed=4)
    whole = load_attacked(config)
    rows = [int((whole.dataset.y_train[whole.partition.indices] == 0).sum())]
    for gone in (1, 2):
        less = load_attacked(replace(config, drop_holders=gone))
        assert less.n == 20 - gone
        rows.append(int((less.dataset.y_train[less.partition.indices] == 0).sum()))
    assert rows[0] > rows[1] > rows[2]
    holders = int((whole.partition.label_counts(whole.dataset.y_train, 10)[:, 0] > 0).sum())
    assert simulate(replace(config, drop_holders=holders, rounds=2)).last.by_label[0] == 0
    with pytest.raises(ConfigError, match=f"drop_holders is {holders + 1}, but only {holders} clients hold label 0"):
        load_attacked(replace(config, drop_holders=holders + 1))


# -- what is measured ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "attack", ["label-flip", "all-label-flip", {"name": "naive-backdoor", "target": 4}, "tpa", "sign-flip"]
)
def test_measures_by_brute_force(attack):
    config = replace(SMALL, attack=attack, rounds=3)
    found = simulate(config, engine="torch")
    data = load("digits")
    module = model_factory("mlp", (1, 8, 8), 10)()
    nn.utils.vector_to_parameters(torch.from_numpy(found.model), module.parameters())
    threat = make_threat(attack, data, seed=derive_seed(config.seed, "targets"))

    def answers(x):
        return [int(module(torch.from_numpy(x[i : i + 1])).argmax()) for i in range(len(x))]

    predicted, truth = answers(data.x_test), data.y_test.tolist()
    kept = range(len(truth))
    if attack == "tpa":
        kept = threat.kept.tolist()
        assert len(kept) == len(truth) - 10
        targets = [i for i in range(len(truth)) if i not in kept]
        assert {truth[i] for i in targets} == {6}
        scores = torch.softmax(module(torch.from_numpy(data.x_test[targets])).detach(), dim=1)
        assert found.last.target_confidence == pytest.approx(float(scores[:, 3].mean()), abs=1e-6)
        assert found.last.true_confidence == pytest.approx(float(scores[:, 6].mean()), abs=1e-6)
        assert found.last.target_error == sum(predicted[i] != 6 for i in targets) / 10
        assert found.last.success == sum(predicted[i] == 3 for i in targets) / 10
    assert found.last.accuracy == sum(predicted[i] == truth[i] for i in kept) / len(kept)
    for label in range(10):
        mine = [i for i in kept if truth[i] == label]
        assert found.last.by_label[label] == sum(predicted[i] == label for i in mine) / len(mine)
    if attack == "label-flip":
        ones = [i for i in kept if truth[i] == 1]
        assert found.last.success == sum(predicted[i] == 7 for i in ones) / len(ones)
    elif attack == "all-label-flip":
        assert found.last.success == sum(p == (t + 1) % 10 for p, t in zip(predicted, truth, strict=True)) / len(truth)
    elif isinstance(attack, dict):
        stamped = data.x_test.copy()
        stamped[:, 0, [0, 0, 0, 0, 0, 0, 2, 2, 2, 2, 2, 2], [0, 1, 2, 4, 5, 6, 0, 1, 2, 4, 5, 6]] = 1.0
        others = [i for i in kept if truth[i] != 4]
        said = answers(stamped[others])
        assert found.last.success == sum(label == 4 for label in said) / len(others)
    elif attack == "sign-flip":
        assert found.last.success is None


def test_influence_and_replaced_rows():
    krum = simulate(replace(SMALL, rule="krum", clients=12, attack="random-update")).last
    assert (krum.malicious_influence, krum.honest_influence) == (0.0, 1.0)
    mean = simulate(replace(SMALL, rule="mean")).last
    assert mean.malicious_influence == pytest.approx(3 / 8)
    assert mean.malicious_in_round == 3
    assert simulate(replace(SMALL, rule="theil-sen")).last.malicious_influence is None
    absurd = simulate(replace(SMALL, attack={"name": "sign-flip", "scale": 1e30}))
    assert (absurd.last.replaced_malicious, absurd.last.replaced_honest) == (3, 0)
    assert np.abs(absurd.model).max() < 10


# -- the same in any company -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["foolsgold", "romoa", {"name": "bucketing", "rule": "median"}, "mean"])
def test_interrupted_is_uninterrupted(tmp_path, monkeypatch, rule):
    config = replace(SMALL, rule=rule, attack="gaussian-noise", clients_per_round=6)
    whole = simulate(config)
    monkeypatch.setattr(simulation, "_CHECKPOINT_SECONDS", 0.0)

    class Stop:
        def note(self, text):
            pass

        def progress(self, stage, done, total, left=None):
            if done == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(config, checkpoint=tmp_path / "run", events=Stop())
    rounds = []
    resumed = simulate(config, checkpoint=tmp_path / "run", events=type("E", (Stop,), {
        "progress": lambda self, stage, done, total, left=None: rounds.append(done),
    })())  # fmt: skip
    assert rounds == [3, 4], "the first two rounds were done again"
    same(whole, resumed)
    with pytest.raises(ArtifactError, match="belongs to another run"):
        simulate(replace(config, seed=6), checkpoint=tmp_path / "run")


def test_equal_configurations_give_equal_bits_whatever_ran_before():
    first = simulate(SMALL, threads=1)
    simulate(replace(SMALL, seed=9))
    np.random.default_rng().random()
    torch.rand(3)
    same(first, simulate(SMALL, threads=2))
    other = simulate(replace(SMALL, seed=6))
    assert not np.array_equal(first.model, other.model)


def test_measuring_less_often_changes_nothing_else():
    often, seldom = simulate(SMALL), simulate(replace(SMALL, evaluate_every=3))
    np.testing.assert_array_equal(often.model, seldom.model)
    assert [record.round for record in seldom.records] == [3, 4]
    assert seldom.records == (often.records[2], often.records[3])


def test_records_and_states_survive_the_disk():
    record = RoundRecord(3, 0.5, (0.25, float("nan")), success=0.1)
    again = RoundRecord.from_json(record.to_json())
    assert again.by_label[0] == 0.25
    assert np.isnan(again.by_label[1])
    assert replace(again, by_label=()) == replace(record, by_label=())
    aside = {}
    state = (3, {7: np.arange(3), "name": None}, 2.5)
    tree = pack(state, aside)
    back = unpack(tree, aside)
    assert back[0] == 3
    np.testing.assert_array_equal(back[1][7], [0, 1, 2])
    assert list(back[1]) == [7, "name"]
    with pytest.raises(TypeError, match="cannot keep"):
        pack(object(), {})
