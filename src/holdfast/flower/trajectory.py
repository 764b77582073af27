"""Romoa over Flower: replies that hold a client's path of local steps, or one message for each step.

Romoa watches every local step. Steps are claims either way (nothing proves that a client made them), so by default one
reply carries all of them: every array with a leading axis of length tau. With one message per step, the client keeps
its local model between messages in Flower's context.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Context, Message

from holdfast.aggregation.models import aggregate_models, lookahead_models
from holdfast.aggregation.romoa.schedule import Syncing
from holdfast.flower.decoding import Field, NDArray, Spec, encode
from holdfast.types import Aggregate, ConfigError

STEPS_KEY = "holdfast-steps"
"""In the config: how many local steps a reply must hold."""

STEP_KEY = "holdfast-step"
"""In the config, with one message per step: the local step that is due, from 1; only step 1 brings a model."""

LOCAL_RECORD = "holdfast.local"
"""In the client's context: its local model between steps."""

Model = dict[str, NDArray]


@dataclass(frozen=True)
class Steps:
    """How local steps reach the server.

    Attributes:
        tau: local steps between two syncing points; 1: a reply is a model, as for every other rule.
        per_message: one message for each step; else one reply holds tau of them.
    """

    tau: int = 1
    per_message: bool = False

    def __post_init__(self) -> None:
        Syncing(self.tau)  # checks tau

    def check(self, rule: Any) -> None:
        """Refuse a rule that cannot look ahead.

        Raises:
            ConfigError: tau above 1 with another rule than Romoa.
        """
        if self.tau > 1 and not hasattr(rule, "lookahead"):
            raise ConfigError(f"local_steps = {self.tau} needs a rule that watches local steps (romoa), got {rule!r}")

    def due(self, round_number: int) -> bool:
        """Whether this round ends with a sync."""
        return not self.per_message or Syncing(self.tau).due(round_number)

    def step(self, round_number: int) -> int:
        """The local step of a round, from 1."""
        return (round_number - 1) % self.tau + 1

    def config(self, round_number: int) -> dict[str, int]:
        """What a message tells the client."""
        if self.tau == 1:
            return {}
        return {STEP_KEY: self.step(round_number)} if self.per_message else {STEPS_KEY: self.tau}

    def spec(self, spec: Spec) -> Spec:
        """What a reply must hold, given the global model's spec."""
        if self.tau == 1 or self.per_message:
            return spec
        return Spec(tuple(Field(f.name, (self.tau, *f.shape), f.dtype) for f in spec.fields))


def aggregate_path(rule: Any, models: Sequence[Model | None], steps: Steps, **given: Any) -> Aggregate:
    """Aggregate replies: those that hold tau steps are watched up to the last, which is aggregated.

    `models` has `None` where `faults` says that a reply is unusable.
    """
    last = models
    if steps.tau > 1 and not steps.per_message:
        for step in range(steps.tau - 1):
            given["state"] = watch(rule, [_at(model, step) for model in models], **given)
        last = [_at(model, steps.tau - 1) for model in models]
    return aggregate_models(rule, last, **given)


def watch(rule: Any, models: Sequence[Model | None], **given: Any) -> Any:
    """Let the rule see one local step; its memory after it."""
    given.pop("weights", None)
    return lookahead_models(rule, models, **given)


def _at(model: Model | None, step: int) -> Model | None:
    return None if model is None else {name: value[step] for name, value in model.items()}


def encode_path(models: Sequence[Mapping[str, Any]]) -> ArrayRecord:
    """For the client: its models after each local step, as the arrays of one reply.

    >>> encode_path([{"w": np.zeros(3)}, {"w": np.ones(3)}])["w"].shape
    (2, 3)
    """
    return encode({name: np.stack([np.asarray(model[name]) for model in models]) for name in models[0]})


def local_model(message: Message, context: Context) -> ArrayRecord:
    """For the client, with one message per step: the model to go on from, the synced one or its own of the last step.

    Raises:
        ConfigError: the node has no model of its own yet (it joined between two syncing points).
    """
    sent = next(iter(message.content.array_records.values()), None)
    if sent:
        return sent
    if LOCAL_RECORD not in context.state.array_records:
        raise ConfigError("this node has no local model yet: it waits for the next syncing point")
    return context.state.array_records[LOCAL_RECORD]


def keep_local(arrays: ArrayRecord, context: Context) -> None:
    """For the client, with one message per step: remember the model after this step."""
    context.state[LOCAL_RECORD] = arrays
