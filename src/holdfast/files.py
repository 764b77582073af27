"""Writing files so that a crash, a full disk or kill -9 never leaves half of one under its final name."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from holdfast.types import ArtifactError


def write_atomically(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Write a file so that, whatever happens, either the whole of it is there, durably, or nothing changed.

    The content goes to a temporary file in the same folder, is flushed to the disk and then takes the name in one
    step; the folder is flushed too, so that the name itself survives a power cut.

    Raises:
        ArtifactError: the folder cannot be written to, or the disk is full.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(mode)
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as problem:
        raise ArtifactError(f"cannot write {path}: {problem.strerror or problem}") from problem
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def cache_folder() -> Path:
    """Where holdfast keeps what can be had again: holdfast/ in $XDG_CACHE_HOME or ~/.cache.

    >>> cache_folder().name
    'holdfast'
    """
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache").absolute() / "holdfast"


def _sync_folder(folder: Path) -> None:
    """Make a new name in a folder durable, where the system lets folders be opened."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
