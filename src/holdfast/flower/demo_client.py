"""The ClientApp of `holdfast flower demo`: softmax regression in NumPy, honest unless the node is told otherwise.

Small on purpose: every message starts a process, and one that does not import torch starts twice as fast.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from holdfast.flower.client import watched

Model = dict[str, npt.NDArray[np.float32]]

STEPS, RATE = 20, 0.5

BEHAVIORS: dict[str, Callable[[Model], Model]] = {
    "honest": lambda model: model,
    "renamed key": lambda model: {"wieght" if name == "weight" else name: value for name, value in model.items()},
    "NaN": lambda model: {name: np.full_like(value, np.nan) for name, value in model.items()},
    "scaled model": lambda model: {name: np.float32(-1000) * value for name, value in model.items()},
}
"""What a node makes of its trained model before it sends it."""

app = ClientApp()


@app.train()
@watched(seconds=120.0)
def train(message: Message, context: Context) -> Message:
    """Train on the node's own rows; send what its behavior makes of the result."""
    with np.load(str(context.node_config["data"]), allow_pickle=False) as rows:
        x, y = rows["x"].reshape(len(rows["y"]), -1), rows["y"]
    arrays = message.content.array_records["arrays"]
    model = descend({name: array.numpy() for name, array in arrays.items()}, x, y)
    sent = BEHAVIORS[str(context.node_config["behavior"])](model)
    content = RecordDict(
        {
            "arrays": ArrayRecord({name: Array(value) for name, value in sent.items()}),
            "metrics": MetricRecord({"num-examples": len(y)}),
        }
    )
    return Message(content, reply_to=message)


def descend(model: Model, x: npt.NDArray[np.float32], y: npt.NDArray[np.int64]) -> Model:
    """Some steps of gradient descent on the mean cross-entropy of softmax(x W + b)."""
    weight, bias = model["weight"].copy(), model["bias"].copy()
    for _ in range(STEPS):
        scores = x @ weight + bias
        scores -= scores.max(axis=1, keepdims=True)
        slope = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        slope[np.arange(len(y)), y] -= 1
        weight -= RATE / len(y) * (x.T @ slope)
        bias -= RATE / len(y) * slope.sum(axis=0)
    return {"weight": weight, "bias": bias}
