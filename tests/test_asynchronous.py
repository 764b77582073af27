"""Asynchronous updating: it is what Algorithm 1 says in a plain loop, with any rule, interrupted or not."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from holdfast.aggregation import RULES, make
from holdfast.cli import app
from holdfast.data import load, partition
from holdfast.experiments import simulation
from holdfast.experiments.asynchronous import AsynchronousLoop
from holdfast.experiments.attacked import SimulateConfig, parse_config
from holdfast.experiments.experiment import parse_experiment
from holdfast.experiments.simulation import simulate
from holdfast.experiments.threat import check_attack
from holdfast.training import model_factory
from holdfast.training.batches import batch_rows, derive_seed
from holdfast.types import ConfigError, LookaheadRule

ASYNC = SimulateConfig(clients=7, rounds=3, mode="async", tau=3, attackers=2, attack="sign-flip", rule="mean", seed=5)


def same(a, b):
    np.testing.assert_array_equal(a.model, b.model)
    assert a.records == b.records


def plain(config, *, flip=-1.0, sync_only=False):
    """Algorithm 1 with sign flips by autograd, one participant and one step after the other; the rule by hand."""
    data, seed = load("digits"), derive_seed(config.seed, "training")
    parts = partition("iid", data.y_train, n=config.clients, seed=derive_seed(config.seed, "partition"))
    order = np.random.default_rng(derive_seed(config.seed, "malicious")).permutation(config.clients)
    malicious = order[: config.attackers]
    module = model_factory("logistic", (1, 8, 8), 10)()
    layout = [slice(0, 650)]
    torch.manual_seed(derive_seed(seed, "init", 0))
    base = nn.utils.parameters_to_vector(model_factory("logistic", (1, 8, 8), 10)().parameters()).detach().numpy()
    rule, state = make(config.rule), None
    models, ids = np.tile(base, (config.clients, 1)), list(range(config.clients))
    for t in range(1, config.rounds * config.tau + 1):
        for i in range(config.clients):
            rows = batch_rows(seed, [0], [i], t - 1, parts.offsets, parts.indices, 1, config.batch_size)[0, 0]
            nn.utils.vector_to_parameters(torch.from_numpy(models[i].copy()), module.parameters())
            module.zero_grad()
            x, y = torch.from_numpy(data.x_train[rows]), torch.from_numpy(data.y_train[rows])
            nn.functional.cross_entropy(module(x), y).backward()
            models[i] -= config.lr * np.concatenate([p.grad.numpy().ravel() for p in module.parameters()])
        uploads = models.copy()
        due = t % config.tau == 0
        if due or not sync_only:
            uploads[malicious] = base + flip * (models[malicious] - base)
        if config.rule == "mean":
            value = uploads.mean(axis=0) if due else None
        elif due:
            result = rule.aggregate(uploads, state=state, layout=layout, reference=base, clients=ids)
            state, value = result.state, result.value
        else:
            state = rule.lookahead(uploads, state=state, layout=layout, reference=base, clients=ids)
        if due:
            base = value.astype(np.float32)
            models = models - (config.moving_rate or 1.0) * (models - base)
    return base


@pytest.mark.parametrize("rule", ["mean", "romoa"])
@pytest.mark.parametrize(("rate", "sync_only"), [(None, False), (0.4, False), (None, True)])
def test_it_is_algorithm_1_in_a_plain_loop(rule, rate, sync_only):
    attack = {"name": "sign-flip", "sync_only": True} if sync_only else "sign-flip"
    config = replace(ASYNC, rule=rule, moving_rate=rate, model="logistic", attack=attack)
    np.testing.assert_allclose(simulate(config).model, plain(config, sync_only=sync_only), atol=3e-6)


def test_poison_at_the_syncing_step_is_not_poison_at_every_step():
    config = replace(ASYNC, rule="romoa")
    every = simulate(config).model
    once = simulate(replace(config, attack={"name": "sign-flip", "sync_only": True})).model
    assert np.abs(every - once).max() > 1e-3


def test_one_step_and_full_moves_are_fedavg():
    """The same rows, the same rule; only roundings differ."""
    config = replace(ASYNC, rounds=6, rule="median")
    alone = simulate(replace(config, tau=1))
    fedavg = simulate(replace(config, mode="fedavg", tau=None, local_steps=1))
    np.testing.assert_allclose(alone.model, fedavg.model, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in RULES if name not in ("krum", "multi-krum", "bulyan")])
def test_any_rule_at_the_syncing_points(name):
    inner = {"rule": "median"} if "rule" in RULES[name].__dataclass_fields__ else {}
    found = simulate(replace(ASYNC, rule={"name": name, **inner} if inner else name, attackers=1, rounds=2))
    assert np.isfinite(found.model).all()
    assert found.last.round == 2


def test_the_rule_with_lookahead_sees_every_local_step():

    config = replace(ASYNC, rule="romoa")
    assert isinstance(make("romoa"), LookaheadRule)
    assert not isinstance(make("median"), LookaheadRule)
    seen = []
    step = AsynchronousLoop._watched
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AsynchronousLoop, "_watched", lambda self, *given: seen.append(1) or step(self, *given))
        simulate(config)
    assert len(seen) == config.rounds * (config.tau - 1)


def test_attackers_see_the_honest_uploads_of_every_step(monkeypatch):
    seen = []
    crafted = simulation.RoundLoop._crafted

    def spy(self, params, state, number, clients, malicious, honest, own, *draws):
        seen.append((number, *draws, honest.copy(), own.copy()))
        return crafted(self, params, state, number, clients, malicious, honest, own, *draws)

    monkeypatch.setattr(simulation.RoundLoop, "_crafted", spy)
    simulate(replace(ASYNC, attack={"name": "scaling", "factor": 9.0}))
    assert [entry[:2] for entry in seen] == [(step // 3, step) for step in range(9)]
    lengths = [np.linalg.norm(entry[2], axis=1).mean() for entry in seen]
    assert lengths[0] < lengths[1] < lengths[2], "the honest paths lead away from the synced model"
    own = [np.linalg.norm(entry[3], axis=1).mean() for entry in seen]
    assert own[2] < 2 * lengths[2], "the attackers' own path does not add up their attack"


def test_fractional_effort_is_walked_over_the_steps(monkeypatch):
    walked = []
    walk = simulation.LocalWork.walk

    def spy(self, models, clients, step, steps=1):
        walked.append(steps)
        return walk(self, models, clients, step, steps)

    monkeypatch.setattr(simulation.LocalWork, "walk", spy)
    simulate(replace(ASYNC, rounds=2, tau=4, attack={"name": "label-flip", "effort": 1.5}))
    assert sum(walked[1::2]) == 12, "1.5 steps where honest clients take one, over eight steps"
    assert set(walked[::2]) == {1}


@pytest.mark.parametrize("rule", ["romoa", "mean", "foolsgold"])
@pytest.mark.parametrize("rate", [1.0, 0.5])
def test_interrupted_is_uninterrupted(tmp_path, monkeypatch, rule, rate):
    config = replace(ASYNC, rule=rule, moving_rate=rate, rounds=4, clients_per_round=5, attack="gaussian-noise")
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
    same(whole, simulate(config, checkpoint=tmp_path / "run"))


def test_equal_bits_on_any_number_of_threads():
    same(simulate(replace(ASYNC, rule="romoa"), threads=1), simulate(replace(ASYNC, rule="romoa"), threads=2))


def test_a_destroyed_model_does_not_stop_the_run():
    attack = {"name": "scaling", "factor": 1e5}
    found = simulate(replace(ASYNC, rule={"name": "romoa", "preset": "literal"}, attack=attack, rounds=8, lr=5.0))
    assert found.last.round == 8


def test_settings_of_the_other_mode_do_not_count():
    fedavg = SimulateConfig()
    assert "tau" not in fedavg.decisive()
    assert ASYNC.decisive()["tau"] == 3
    assert SimulateConfig(mode="async").syncing.tau == 4
    assert SimulateConfig(mode="async").syncing.moving_rate == 1.0
    grid = {"federation": {"mode": "async", "tau": 2}, "grid": {"rules": ["romoa"], "seeds": 1}}
    (cell,) = parse_experiment(grid, where="file", title="t").cells()
    assert cell.config.syncing.tau == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--mode", "async", "--tau", "0"), "tau must be a whole number of at least 1, got 0"),
        (("--mode", "async", "--moving-rate", "0"), "moving_rate (gamma) must be above 0 and at most 1, got 0"),
        (("--mode", "async", "--moving-rate", "1.5"), "moving_rate (gamma) must be above 0 and at most 1, got 1.5"),
        (("--mode", "async", "--moving-rate", "nan"), "moving_rate (gamma)"),
        (("--mode", "async", "--local-steps", "5"), "local_steps is 5, but mode is async; tau says"),
        (("--tau", "5"), "tau is 5, but mode is fedavg; it belongs to mode async"),
        (("--mode", "async", "--optimizer", "adam"), "optimizer is 'adam', but mode async takes single steps of sgd"),
        (("--mode", "later"), "mode must be fedavg or async, but is 'later'"),
    ],
)
def test_what_does_not_fit_is_one_sentence(tmp_path, options, said):
    done = CliRunner().invoke(app, ["simulate", *options, "--out", str(tmp_path / "run")])
    with pytest.raises(ConfigError) as refusal:
        raise done.exception
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "run").exists()


def test_wrong_kinds_are_one_sentence():
    with pytest.raises(ConfigError, match="tau must be a whole number"):
        parse_config({"mode": "async", "tau": 2.5}, where="file")
    with pytest.raises(ConfigError, match="moving_rate"):
        parse_config({"mode": "async", "moving_rate": "half"}, where="file")
    with pytest.raises(ConfigError, match="sync_only must be true or false, but is 3"):
        check_attack({"name": "sign-flip", "sync_only": 3})
