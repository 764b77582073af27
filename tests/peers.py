"""ByzFL and Flower as the tests and benchmarks call them; see requirements-peers.txt for how to install them."""

import importlib.util
import sys
import types
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest


def byzfl() -> Any:
    """The library, or a skip. Its benchmark half wants torchvision and seaborn at import; rules do not need them."""
    for name in ("torchvision", "torchvision.transforms", "seaborn"):
        if name not in sys.modules and _absent(name.partition(".")[0]):
            sys.modules[name] = MagicMock()
    return pytest.importorskip("byzfl", reason="peers are not installed (tests/requirements-peers.txt)")


def _absent(name: str) -> bool:
    return isinstance(sys.modules.get(name), MagicMock) or importlib.util.find_spec(name) is None


def flower(name: str, rows: np.ndarray, *, examples: list[float] | None = None, **params: Any) -> np.ndarray:
    """One round of a Flower strategy on mocked replies, as Flower's own unit tests do it."""
    strategy = pytest.importorskip(
        "flwr.serverapp.strategy", reason="peers are not installed (tests/requirements-peers.txt)"
    )
    from flwr.app import ArrayRecord, MetricRecord, RecordDict

    replies = []
    for i, row in enumerate(rows):
        count = 1.0 if examples is None else examples[i]
        content = RecordDict({"arrays": ArrayRecord([row]), "metrics": MetricRecord({"num-examples": count})})
        metadata = types.SimpleNamespace(src_node_id=i)
        replies.append(types.SimpleNamespace(has_error=lambda: False, content=content, metadata=metadata))
    arrays, _ = getattr(strategy, name)(**params).aggregate_train(1, replies)
    return np.asarray(arrays.to_numpy_ndarrays()[0])
