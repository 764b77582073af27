"""Attacks as client mods: exactly what the attack makes of the node's own update, marked, and only where it can run."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("flwr", reason="Flower is not installed: pip install 'holdfast[flower]'")

from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message, MessageType, RecordDict
from flwr.clientapp import ClientApp

from holdfast.attacks import ATTACKS, LabelFlip, ModelAttack, SignFlip, make
from holdfast.flower import RobustStrategy, poison_mod
from holdfast.flower.decoding import encode
from holdfast.flower.mods import MARK
from holdfast.types import ConfigError
from tests.flower_link import Link, grid_of
from tests.flower_replies import MODEL, answer, honest, initial, trained

CANNOT = {
    "mimic": "other clients",
    "adaptive": "other clients",
    "label-flip": "on data",
    "all-label-flip": "on data",
    "pixel-backdoor": "on data",
    "feature-backdoor": "on data",
    "targeted-samples": "on data",
}
PARAMETERS: dict[str, dict[str, Any]] = {
    "feature-backdoor": {"columns": (0,), "values": (1.0,), "target": 0},
    "targeted-samples": {"samples": np.zeros((1, 2)), "target": 0},
}


def context(node: int = 5) -> Context:
    return Context(run_id=1, node_id=node, node_config={}, state=RecordDict(), run_config={})


def asked(round_number: int = 1, kind: str = MessageType.TRAIN) -> Message:
    grid_of(Link({}))  # sets the identity messages are made with
    config = ConfigRecord({"server-round": round_number})
    return Message(RecordDict({"arrays": received(), "config": config}), 5, kind)


def received() -> ArrayRecord:
    return encode({name: (value + 0.5).astype(value.dtype) for name, value in MODEL.items()})


def app_with(mod: Any) -> ClientApp:
    app = ClientApp(mods=[mod])
    app.train()(lambda message, _: honest(message))
    app.evaluate()(lambda message, _: honest(message))
    return app


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_every_attack_runs_on_a_node_or_says_why_not(name: str) -> None:
    parameters = PARAMETERS.get(name, {})
    if name in CANNOT:
        with pytest.raises(ConfigError, match=CANNOT[name]):
            poison_mod(name, clients=10, **parameters)
        return
    reply = app_with(poison_mod(name, clients=10, attackers=2, **parameters))(asked(), context())
    arrays = reply.content["arrays"]
    assert [(n, a.shape, a.dtype) for n, a in arrays.items()] == [(n, a.shape, a.dtype) for n, a in initial().items()]
    assert all(np.isfinite(a.numpy()).all() for a in arrays.values())
    assert arrays["seen"].numpy() == 1
    assert "attack" in reply.content[MARK]


def test_it_uploads_what_the_attack_makes_of_the_own_update() -> None:
    reply = app_with(poison_mod("sign-flip", clients=10, scale=3.0))(asked(), context())
    base, honest_step = np.float32(0.5), trained(asked())["w"] - np.float32(0.5)
    np.testing.assert_array_equal(reply.content["arrays"]["w"].numpy(), base - 3 * honest_step)
    reply = app_with(poison_mod(make("boost"), clients=10, attackers=2))(asked(), context())
    np.testing.assert_allclose(reply.content["arrays"]["w"].numpy(), base + 5 * honest_step, rtol=1e-6)


def test_randomness_is_the_node_s_and_the_round_s() -> None:
    app = app_with(poison_mod("random-update", clients=10))
    draws = [app(asked(r), context(n)).content["arrays"]["w"].numpy() for r, n in ((1, 5), (1, 5), (2, 5), (1, 6))]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])
    assert not np.array_equal(draws[0], draws[3])


def test_evaluation_errors_and_quiet_rounds_pass_through() -> None:
    mod = poison_mod(make("schedule", attack=SignFlip(), rounds="from", at=1), clients=10)
    app = app_with(mod)
    assert MARK not in app(asked(1), context()).content
    assert MARK in app(asked(2), context()).content
    assert MARK not in app(asked(2, MessageType.EVALUATE), context()).content
    assert mod(asked(2), context(), lambda m, _: Message(Error(2, "x"), reply_to=m)).has_error()


def test_a_drill_against_a_robust_rule() -> None:
    app = app_with(poison_mod("sign-flip", clients=7, scale=1e6))
    nodes: dict[int, Any] = dict.fromkeys(range(1, 7), honest) | {7: lambda m: app(m, context(7))}
    for name, holds in (("mean", False), ("median", True)):
        strategy = RobustStrategy(name, min_available_nodes=7, fraction_evaluate=0.0)
        result = strategy.start(grid_of(Link(nodes)), initial(), 1, 5.0)
        assert bool((abs(result.arrays["w"].numpy() - 1) < 0.2).all()) == holds


def test_bad_arguments_are_one_sentence() -> None:
    with pytest.raises(ConfigError, match="attackers must be between 1 and clients = 3"):
        poison_mod("sign-flip", clients=3, attackers=4)
    with pytest.raises(ConfigError, match="parameters go with an attack's name"):
        poison_mod(SignFlip(), clients=3, scale=2)
    with pytest.raises(ConfigError, match="'LabelFlip' is an attack on data"):
        poison_mod(LabelFlip(), clients=3)
    assert isinstance(SignFlip(), ModelAttack)


def test_answers_are_unchanged_without_an_attack() -> None:
    reply = app_with(poison_mod("none", clients=4))(asked(), context())
    expected = answer(asked(), trained(asked()))
    for name, array in expected.content["arrays"].items():
        np.testing.assert_allclose(reply.content["arrays"][name].numpy(), array.numpy(), rtol=1e-6)
