"""Nodes for the in-process federation: one honest, and every hostile one of the failure table."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from tests.flower_link import Wire

MODEL = {"w": np.zeros((4, 4), np.float32), "b": np.zeros(3, np.float32), "seen": np.array(0, np.int64)}


def initial() -> ArrayRecord:
    return ArrayRecord({name: Array(value) for name, value in MODEL.items()})


def trained(message: Message) -> dict[str, np.ndarray]:
    """What an honest node makes of the model: one step of about 1, a little different at every node."""
    record = next(iter(message.content.array_records.values()))
    rng = np.random.default_rng(message.metadata.dst_node_id)
    model = {name: array.numpy() for name, array in record.items()}
    return {
        name: (value + rng.normal(1.0, 0.01, value.shape)).astype(value.dtype) if value.dtype.kind == "f" else value + 1
        for name, value in model.items()
    }


def answer(message: Message, arrays: dict[str, Any], **metrics: Any) -> Message:
    """A reply with these arrays (NumPy's or Flower's) and metrics."""
    made = {name: value if isinstance(value, Array) else Array(np.asarray(value)) for name, value in arrays.items()}
    told = {"num-examples": 10, "loss": 0.5} | metrics
    content = RecordDict({"metrics": MetricRecord({k: v for k, v in told.items() if v is not None})})
    if message.metadata.message_type == "train":
        content["arrays"] = ArrayRecord(made)
    return Message(content, reply_to=message)


def honest(message: Message) -> Message:
    return answer(message, trained(message))


def with_arrays(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Message], Message]:
    return lambda message: answer(message, change(trained(message)))


def with_metrics(**metrics: Any) -> Callable[[Message], Message]:
    return lambda message: answer(message, {k: v + 665 for k, v in trained(message).items()}, **metrics)


def only_metrics(**metrics: Any) -> Callable[[Message], Message]:
    return lambda message: answer(message, trained(message), **metrics)


def _w(value: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda arrays: arrays | {"w": value}


def _file(value: np.ndarray, **kwargs: Any) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, value, **kwargs)
    return buffer.getvalue()


def _raw(data: bytes) -> Array:
    return Array("float32", (4, 4), "numpy.ndarray", data)


def second_metric_record(message: Message) -> Message:
    reply = honest(message)
    reply.content["more"] = MetricRecord({"num-examples": 1})
    return reply


def raises(_: Message) -> Message:
    raise RuntimeError("training failed")


def silent(_: Message) -> None:
    return None


def malformed(message: Message) -> Wire:
    wire = Wire.of(only_metrics(mine=message.metadata.dst_node_id)(message))  # equal objects are stored once
    victim = next(name for name, content in wire.contents.items() if content.startswith(b"MetricRecord"))
    wire.contents[victim] = b"\xff not an object"
    return wire


def ghost(message: Message) -> Wire:
    wire = Wire.of(honest(message))
    wire.contents.clear()
    return wire


def twice(message: Message) -> list[Message | Wire]:
    return [honest(message), only_metrics(loss=0.6)(message)]


def another_sender(message: Message) -> Message:
    reply = honest(message)
    reply.metadata.__dict__["_src_node_id"] = message.metadata.dst_node_id - 1
    return reply


def no_arrays(message: Message) -> Message:
    return Message(RecordDict({"c": ConfigRecord({"x": 1})}), reply_to=message)


HUGE = _file(MODEL["w"]).replace(b"(4, 4)", b"(1000000000000, 1)")
BAD_ARRAYS = {
    "nan": with_arrays(lambda a: a | {"w": np.full((4, 4), np.nan, np.float32)}),
    "infinite": with_arrays(lambda a: a | {"w": np.full((4, 4), np.inf, np.float32)}),
    "other shape": with_arrays(_w(np.ones((3, 3), np.float32))),
    "broadcasts": with_arrays(_w(np.full((1, 1), 4e5, np.float32))),
    "missing key": with_arrays(lambda a: {"w": a["w"], "seen": a["seen"]}),
    "renamed key": with_arrays(lambda a: {"W": a["w"], "b": a["b"], "seen": a["seen"]}),
    "extra key": with_arrays(lambda a: a | {"more": np.ones(2)}),
    "text": with_arrays(_w(np.full((4, 4), "x"))),
    "float64": with_arrays(_w(np.ones((4, 4)))),
    "complex": with_arrays(_w(np.ones((4, 4), np.complex64))),
    "bad npy": with_arrays(_w(_raw(b"\x93NUMPY\x01\x00rubbish"))),
    "object npy": with_arrays(_w(_raw(_file(np.full((4, 4), None, object), allow_pickle=True)))),
    "3.6 TiB header": with_arrays(_w(_raw(HUGE))),
    "oversized": with_arrays(_w(_raw(_file(MODEL["w"]) + bytes(50_000)))),
    "huge norm": with_arrays(lambda a: {k: v * np.float32(1e30) if v.dtype.kind == "f" else v for k, v in a.items()}),
    "no arrays": no_arrays,
}
BAD_TRANSPORT = {"malformed": malformed, "twice": twice, "another sender": another_sender}
NOTHING = {"exception": raises}
BAD_METRICS = {
    "1e12 examples": with_metrics(**{"num-examples": 10**12}),
    "negative examples": with_metrics(**{"num-examples": -20}),
    "no num-examples": only_metrics(**{"num-examples": None}),
    "listed num-examples": only_metrics(**{"num-examples": [1, 2]}),
    "renamed metric": only_metrics(**{"loss": None, "lss": 0.1}),
    "extra metric": only_metrics(**{"more": 1.0}),
    "two MetricRecords": second_metric_record,
    "nan loss": only_metrics(loss=float("nan")),
    "1e30 loss": only_metrics(loss=1e30),
}
ALL_BAD = {**BAD_ARRAYS, **BAD_TRANSPORT, **NOTHING, **BAD_METRICS}
