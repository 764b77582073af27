"""A ClientApp whose nodes misbehave as their configuration says; for tests/test_flower_processes.py only."""

import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from holdfast.flower.client import watched
from holdfast.flower.ensemble_client import answer, load_npz

HUGE = 200 * 2**20

app = ClientApp()


@app.train()
@watched(seconds=3600.0)
def train(message: Message, context: Context) -> Message:
    """Honest, but for 200 MB or a first message that is never finished."""
    if context.node_config["behavior"] == "huge":
        noise = np.random.default_rng(0).integers(0, 256, HUGE, dtype=np.uint8)  # no two pieces are alike
        return Message(RecordDict({"updates": ArrayRecord({"updates": Array(noise)})}), reply_to=message)
    return answer(message, context, load)


def load(context: Context):
    """The rows; a node that hangs does so the first time."""
    asked = Path(str(context.node_config["data"]) + ".asked")
    if context.node_config["behavior"] == "hangs" and not asked.exists():
        asked.touch()
        time.sleep(10**6)
    return load_npz(context)
