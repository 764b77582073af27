"""One object in one file, its arrays mapped rather than read: processes of one machine share a single copy."""

from __future__ import annotations

import mmap
import os
import pickle
from pathlib import Path
from typing import Any

_LINE = 64  # arrays begin at multiples of a cache line


def pack(content: Any, path: Path) -> None:
    """Write an object; NumPy arrays in it follow its pickle as they lie in memory. Only the owner may read the file.

    Raises:
        pickle.PicklingError, AttributeError, TypeError: something in it cannot leave this process.
    """
    buffers: list[pickle.PickleBuffer] = []
    body = pickle.dumps(content, protocol=5, buffer_callback=buffers.append)
    parts = [memoryview(body), *(buffer.raw() for buffer in buffers)]
    head = pickle.dumps([part.nbytes for part in parts])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(head)
        for part in parts:
            file.write(bytes(-file.tell() % _LINE))
            file.write(part)


def unpack(path: Path) -> Any:
    """The object that `pack` wrote; its arrays are read-only and live in the file.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> path = Path(tempfile.mkdtemp()) / "content"
        >>> pack({"x": np.arange(3), "name": "three"}, path)
        >>> unpack(path)
        {'x': array([0, 1, 2]), 'name': 'three'}
    """
    with path.open("rb") as file:
        sizes = pickle.load(file)
        at = file.tell()
        whole = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    parts = []
    for size in sizes:
        at += -at % _LINE
        parts.append(whole[at : at + size])
        at += size
    return pickle.loads(parts[0], buffers=parts[1:])
