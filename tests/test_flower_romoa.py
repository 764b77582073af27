"""Romoa over Flower: paths of local steps come out as the rule makes them of the same rows, in one message or many."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("flwr", reason="Flower is not installed: pip install 'holdfast[flower]'")

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict

from holdfast.aggregation import make
from holdfast.flower import RobustStrategy, encode_path, keep_local, local_model
from holdfast.flower.decoding import encode
from holdfast.flower.trajectory import STEP_KEY, STEPS_KEY
from holdfast.types import ConfigError
from tests.flower_link import Link, grid_of
from tests.flower_replies import MODEL, initial

NODES = (1, 2, 3, 4, 5)
BAD = 5
TAU = 3


def step(model: dict[str, np.ndarray], node: int) -> dict[str, np.ndarray]:
    """One local step: a pure function of the model and the node, so that all ways of sending give the same path."""
    direction = -3.0 if node == BAD else 1.0

    def moved(v: np.ndarray) -> np.ndarray:
        own = 0.6 * np.cos(node * np.arange(v.size)).reshape(v.shape) + 0.3 * np.cos(3 * v + node)
        return (v + direction + own).astype(v.dtype)

    return {k: moved(v) if v.dtype.kind == "f" else v + 1 for k, v in model.items()}


def path(model: dict[str, np.ndarray], node: int) -> list[dict[str, np.ndarray]]:
    made = []
    for _ in range(TAU):
        model = step(model, node)
        made.append(model)
    return made


def as_model(record: ArrayRecord) -> dict[str, np.ndarray]:
    return {k: v.numpy() for k, v in record.items()}


def reply(message: Message, arrays: ArrayRecord) -> Message:
    return Message(RecordDict({"arrays": arrays, "m": MetricRecord({"num-examples": 1})}), reply_to=message)


def whole_path(message: Message) -> Message:
    assert message.content["config"][STEPS_KEY] == TAU
    model = as_model(message.content["arrays"])
    return reply(message, encode_path(path(model, message.metadata.dst_node_id)))


def one_step_each(contexts: dict[int, Context], sent: list[int]) -> Any:
    def node(message: Message) -> Message:
        own = contexts[message.metadata.dst_node_id]
        sent.append(sum(len(a.data) for r in message.content.array_records.values() for a in r.values()))
        assert message.content["config"][STEP_KEY] in range(1, TAU + 1)
        model = step(as_model(local_model(message, own)), message.metadata.dst_node_id)
        arrays = encode(model)
        keep_local(arrays, own)
        return reply(message, arrays)

    return node


def run(nodes: Any, rounds: int, **options: Any) -> tuple[Any, RobustStrategy]:
    strategy = RobustStrategy(make("romoa"), min_available_nodes=5, local_steps=TAU, **options)
    return strategy.start(grid_of(Link(nodes)), initial(), rounds, 5.0), strategy


def by_hand(syncs: int) -> np.ndarray:
    """The same with the rule itself."""
    rule, state = make("romoa"), None
    base = dict(MODEL)
    layout = [slice(0, 16), slice(16, 19)]
    for _ in range(syncs):
        paths = [path(base, node) for node in NODES]
        reference = np.concatenate([base["w"].ravel(), base["b"]])
        for t in range(TAU):
            rows = np.stack([np.concatenate([p[t]["w"].ravel(), p[t]["b"]]) for p in paths])
            given: dict[str, Any] = {"state": state, "layout": layout, "reference": reference, "clients": NODES}
            if t < TAU - 1:
                state = rule.lookahead(rows, **given)
            else:
                result = rule.aggregate(rows, **given)
                state = result.state
                base = {"w": result.value[:16].reshape(4, 4), "b": result.value[16:], "seen": base["seen"] + TAU}
    return np.concatenate([base["w"].ravel(), base["b"]])


def vector(result: Any) -> np.ndarray:
    return np.concatenate([result.arrays["w"].numpy().ravel(), result.arrays["b"].numpy()])


def test_a_reply_with_the_path_equals_the_rule_by_hand() -> None:
    result, strategy = run(dict.fromkeys(NODES, whole_path), 2, fraction_evaluate=0.0)
    np.testing.assert_allclose(vector(result), by_hand(2), rtol=1e-6)
    assert result.arrays["seen"].numpy() == 2 * TAU
    last = {v.node: v.influence or 0.0 for v in strategy.history[-1].nodes}
    assert last[BAD] < 0.01 < min(last[n] for n in NODES if n != BAD)


def test_one_message_per_step_gives_the_same_and_sends_the_model_once() -> None:
    contexts = {n: Context(1, n, {}, RecordDict(), {}) for n in NODES}
    sent: list[int] = []
    result, strategy = run(dict.fromkeys(NODES, one_step_each(contexts, sent)), 2 * TAU, per_step=True)
    whole, _ = run(dict.fromkeys(NODES, whole_path), 2, fraction_evaluate=0.0)
    np.testing.assert_array_equal(vector(result), vector(whole))
    assert [bool(size) for size in sent[:: len(NODES)]].count(True) == 4  # two syncs, two evaluations
    assert [v.stage for v in strategy.history] == (["train"] * TAU + ["evaluate"]) * 2


def test_a_path_with_one_bad_step_is_unusable_as_a_whole() -> None:
    def bad(message: Message) -> Message:
        steps = path(as_model(message.content["arrays"]), 1)
        steps[0]["w"] = np.full((4, 4), np.nan, np.float32)
        return reply(message, encode_path(steps))

    def short(message: Message) -> Message:
        return reply(message, encode_path(path(as_model(message.content["arrays"]), 1)[:-1]))

    for hostile, said in ((bad, "a local step holds a value that is not finite"), (short, "shape (2, 4, 4)")):
        result, strategy = run(dict.fromkeys(NODES, whole_path) | {BAD: hostile}, 1, fraction_evaluate=0.0)
        assert np.isfinite(vector(result)).all()
        verdict = next(v for v in strategy.history[0].nodes if v.node == BAD)
        assert verdict.status == "replaced"
        assert said in verdict.reason


def test_a_node_without_a_local_model_says_so() -> None:
    grid_of(Link({}))
    message = Message(RecordDict({}), 1, "train")
    with pytest.raises(ConfigError, match="no local model yet"):
        local_model(message, Context(1, 1, {}, RecordDict(), {}))
