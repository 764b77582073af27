"""The ClientApp of a certified ensemble: `clientapp = "holdfast.flower.ensemble_client:app"`.

The node's configuration names its own rows: `--node-config 'data="/path/to/rows.npz"'`, an .npz with arrays x and y.
Own ways to load them: make an app of your own with `client_app(load)`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from holdfast.flower.client import watched
from holdfast.flower.decoding import encode
from holdfast.types import DataError

if TYPE_CHECKING:
    import numpy.typing as npt

Load = Callable[[Context], "tuple[npt.ArrayLike, npt.ArrayLike]"]

MODELS, UPDATES, ORDER, FAILED = "models", "updates", "order", "failed"
"""The records of a message and of its reply."""


def client_app(load: Load) -> ClientApp:
    """A ClientApp that takes part in certified ensembles.

    Args:
        load: gives the node's own inputs and labels; called once per message.
    """
    app = ClientApp()

    @app.train()
    @watched(seconds=3600.0)
    def train(message: Message, context: Context) -> Message:
        return answer(message, context, load)

    return app


def answer(message: Message, context: Context, load: Load) -> Message:
    """One round: the updates of all models that came, each with its own time and errors."""
    from holdfast.flower.work import LocalWork, Task  # imports torch: only in a process that trains

    order: Any = message.content[ORDER]
    start: Any = message.content[MODELS]
    models = [int(model) for model in order["models"]]
    work = LocalWork(Task.from_json(order["task"]), int(order["client"]), *load(context))
    updates, failed = work.updates(
        models, int(order["round"]), start["models"].numpy(), seconds=float(order["model-seconds"])
    )
    content = RecordDict(
        {
            UPDATES: encode({"updates": updates}),
            FAILED: ConfigRecord({"models": list(failed), "reasons": list(failed.values())}),
        }
    )
    return Message(content, reply_to=message)


def load_npz(context: Context) -> tuple[npt.ArrayLike, npt.ArrayLike]:
    """The rows of the file that the node's configuration names.

    Raises:
        DataError: no file named, or it cannot be read.
    """
    path = context.node_config.get("data")
    if not isinstance(path, str):
        raise DataError("the node's configuration names no data; start it with --node-config 'data=\"rows.npz\"'")
    try:
        with np.load(Path(path), allow_pickle=False) as rows:
            return rows["x"], rows["y"]
    except (OSError, ValueError, KeyError) as problem:
        raise DataError(f"{path} cannot be read as an .npz with arrays x and y") from problem


app = client_app(load_npz)
