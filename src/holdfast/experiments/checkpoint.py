"""A federation in the making on the disk: the global model, the rule's memory, and what was measured so far.

One safetensors file, written atomically. A rule's state is a tree of numbers, texts, tuples, dicts and arrays; the
arrays become tensors, the rest JSON. Nothing is pickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from holdfast.aggregation.romoa.state import FactorState, Verdict
from holdfast.experiments.measures import RoundRecord
from holdfast.training.weights import read_weights, write_weights
from holdfast.types import ArtifactError

_KNOWN = {kind.__name__: kind for kind in (FactorState, Verdict)}


def save_checkpoint(
    path: Path,
    run: str,
    rounds: int,
    params: NDArray[np.float32],
    state: Any,
    records: Sequence[RoundRecord],
    local: NDArray[np.float32] | None = None,
) -> None:
    """Write everything that the next round needs.

    Args:
        path: the file, replaced at once.
        run: what it belongs to; see `load_checkpoint`.
        rounds: rounds done.
        params: the global model `[P]`.
        state: the rule's memory.
        records: what was measured so far.
        local: the clients' own models `[n, P]`, where they differ from the global one.
    """
    arrays: dict[str, torch.Tensor] = {}
    facts = {
        "format": "holdfast simulation 1",
        "run": run,
        "rounds": str(rounds),
        "state": json.dumps(pack(state, arrays)),
        "records": json.dumps([record.to_json() for record in records]),
    }
    if local is not None:
        arrays["local"] = torch.from_numpy(np.array(local))
    write_weights(path, {"params": torch.from_numpy(np.array(params)), **arrays}, facts)


def load_checkpoint(
    path: Path, run: str
) -> tuple[int, NDArray[np.float32], Any, list[RoundRecord], NDArray[np.float32] | None] | None:
    """(rounds done, global model, the rule's memory, records, clients' own models), or None without a checkpoint.

    Raises:
        ArtifactError: the file is damaged or belongs to another run.
    """
    if not path.exists():
        return None
    tensors, facts = read_weights(path)
    if facts.get("run") != run:
        raise ArtifactError(f"{path} belongs to another run; use a new folder or move it away")
    try:
        state = unpack(json.loads(facts["state"]), tensors)
        records = [RoundRecord.from_json(entry) for entry in json.loads(facts["records"])]
        local = tensors["local"].numpy() if "local" in tensors else None
        return int(facts["rounds"]), tensors["params"].numpy(), state, records, local
    except (KeyError, ValueError, TypeError) as problem:
        raise ArtifactError(f"{path} is damaged ({problem}); delete it to start over") from problem


def pack(value: Any, arrays: dict[str, torch.Tensor]) -> Any:
    """A state as JSON can hold it, its arrays put aside.

    Example:
        >>> aside = {}
        >>> pack((2, {0: np.zeros(3)}), aside), list(aside)
        ({'tuple': [2, {'dict': [[0, {'array': 'state.0'}]]}]}, ['state.0'])
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.integer | np.floating):
        return value.item()
    if isinstance(value, np.ndarray):
        name = f"state.{len(arrays)}"
        arrays[name] = torch.from_numpy(np.array(value))
        return {"array": name}
    if isinstance(value, tuple | list):
        return {"tuple": [pack(item, arrays) for item in value]}
    if isinstance(value, Mapping):
        return {"dict": [[pack(key, arrays), pack(item, arrays)] for key, item in value.items()]}
    if type(value).__name__ in _KNOWN:
        inside = {item.name: pack(getattr(value, item.name), arrays) for item in fields(value)}
        return {"kind": type(value).__name__, "fields": inside}
    raise TypeError(f"a rule's state holds a {type(value).__name__}, which a checkpoint cannot keep")


def unpack(tree: Any, arrays: Mapping[str, torch.Tensor]) -> Any:
    """The state that `pack` put away."""
    if not isinstance(tree, dict):
        return tree
    if "array" in tree:
        return arrays[tree["array"]].numpy()
    if "tuple" in tree:
        return tuple(unpack(item, arrays) for item in tree["tuple"])
    if "dict" in tree:
        return {unpack(key, arrays): unpack(item, arrays) for key, item in tree["dict"]}
    return _KNOWN[tree["kind"]](**{name: unpack(item, arrays) for name, item in tree["fields"].items()})
