"""Red team: the attacks of `holdfast.attacks` as Flower client mods, to see on your own federation what a rule stands.

FOR DRILLS ONLY. A mod turns the node it is installed on into an attacker; every poisoned reply carries a record that
says so, and the node logs a warning each time.

A node sees its own update alone, so only attacks with knowledge "nothing" or "own" can run here. Those that look at
other clients' rows ("mimic", "adaptive") or need them to be of any use run in `holdfast simulate`, and attacks on data
("label-flip" and its kin) are called on the node's training data.
"""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Context, Message
from flwr.clientapp.typing import ClientAppCallable, Mod

from holdfast.aggregation.models import Layout, flatten, unflatten
from holdfast.attacks import ModelAttack, View, make
from holdfast.flower.decoding import encode
from holdfast.flower.grid import LOG
from holdfast.types import ConfigError

MARK = "holdfast.red-team"
"""The record by which a poisoned reply can be known: `{"attack": ...}`. The strategy does not look at it."""


def poison_mod(
    attack: Any, *, clients: int, attackers: int = 1, seed: int = 0, round_key: str = "server-round", **parameters: Any
) -> Mod:
    """A client mod that poisons what this node uploads: `ClientApp(mods=[poison_mod("sign-flip", clients=10)])`.

    The node trains as it would; then the attack replaces its update (new minus received model). Integer arrays stay.

    Args:
        attack: an attack on the model, or its name; one that can do with less takes knowledge "own".
        clients: nodes in the federation, as far as the attacker knows.
        attackers: how many of them attack; those that share a factor n/f, or estimate the others from their own rows,
            take it that all attackers trained as this one did.
        seed: of the attack's randomness; the node's id and the round are mixed in.
        round_key: where the config holds the round's number.
        parameters: of the attack, if it is a name.

    Raises:
        ConfigError: an attack on data, or one that needs to see other clients' rows.

    >>> poison_mod("mimic", clients=10)
    Traceback (most recent call last):
    ...
    holdfast.types.ConfigError: 'mimic' needs to see other clients' updates, a node sees its own: use holdfast simulate
    """
    chosen = _node_attack(attack, parameters)
    if not 1 <= attackers <= clients:
        raise ConfigError(f"attackers must be between 1 and clients = {clients}, got {attackers}")

    def mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        reply = call_next(message, context)
        if not message.metadata.message_type.startswith("train") or reply.has_error():
            return reply
        told: list[Any] = [c[round_key] for c in message.content.config_records.values() if round_key in c]
        number = int(told[0]) - 1 if told else 0
        if not chosen.active(number):
            return reply
        received, _ = _only_model(message)
        trained, layout = _only_model(reply)
        own = np.repeat((trained - received)[None], attackers, axis=0)
        rng = np.random.default_rng([seed, context.node_id % 2**63, number])
        view = View(clients, attackers, received[None], own, None, layout=_slices(layout), round=number)
        crafted = received + np.asarray(chosen.craft(view.seen_by(chosen.knowledge), rng))[0]
        name = next(iter(reply.content.array_records))
        reply.content[name] = encode(unflatten(crafted.astype(trained.dtype), layout))
        reply.content[MARK] = ConfigRecord({"attack": repr(chosen)})
        LOG.warning("RED TEAM: this node poisons its reply in round %d with %r", number + 1, chosen)
        return reply

    return mod


def _node_attack(attack: Any, parameters: dict[str, Any]) -> ModelAttack:
    """The attack with knowledge that a node has."""
    if not isinstance(attack, str):
        if parameters:
            raise ConfigError(f"parameters go with an attack's name, got {attack!r} and {next(iter(parameters))!r}")
        made, name = attack, type(attack).__name__
    else:
        made, name = make(attack, **parameters), attack
        if getattr(made, "knowledge", None) == "all":
            with contextlib.suppress(ConfigError):  # some cannot do with less
                made = make(attack, **{**parameters, "knowledge": "own"})
    if not isinstance(made, ModelAttack):
        raise ConfigError(f"{name!r} is an attack on data: call it on the node's training data, attack(x, y, rng)")
    if made.knowledge not in ("nothing", "own"):
        raise ConfigError(f"{name!r} needs to see other clients' updates, a node sees its own: use holdfast simulate")
    return made


def _only_model(message: Message) -> tuple[Any, Layout]:
    record = next(iter(message.content.array_records.values()))
    return flatten({name: array.numpy() for name, array in record.items()})


def _slices(layout: Layout) -> list[slice]:
    return [entry.where for entry in layout.floats if entry.size]
