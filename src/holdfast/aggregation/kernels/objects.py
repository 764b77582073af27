"""Compiled kernels kept on disk: what one process compiled in seconds, the next one loads in milliseconds.

A file holds its checksum and then machine code; one that is damaged, or another user's, is as good as none.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from holdfast.files import cache_folder, write_atomically
from holdfast.types import HoldfastError

_DIGEST = sha256().digest_size


def kept(parts: tuple[str, ...], build: Callable[[], bytes]) -> bytes:
    """The object code that `build` makes, from disk if an earlier process made it.

    Args:
        parts: all that the code depends on.
        build: compiles it.
    """
    try:
        path = cache_folder() / "kernels" / f"{sha256(chr(0).join(parts).encode()).hexdigest()}.o"
    except RuntimeError:  # nobody's home
        return build()
    found = _read(path)
    if found is None:
        found = build()
        with suppress(HoldfastError, OSError):  # a cache that cannot be written to is no reason to fail
            write_atomically(path, sha256(found).digest() + found, mode=0o600)
    return found


def _read(path: Path) -> bytes | None:
    try:
        if hasattr(os, "getuid") and path.stat().st_uid != os.getuid():
            return None
        content = path.read_bytes()
    except OSError:
        return None
    code = content[_DIGEST:]
    return code if code and sha256(code).digest() == content[:_DIGEST] else None
