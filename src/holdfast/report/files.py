"""Writing a report's files: whole or not at all, and never over an earlier one unless told to."""

from __future__ import annotations

from pathlib import Path

from holdfast.files import write_atomically
from holdfast.types import ArtifactError


def write_whole(path: Path, content: bytes, *, overwrite: bool = False) -> Path:
    """Write a file at once; its folder is made if needed.

    Raises:
        ArtifactError: the file exists and `overwrite` is False, or it cannot be written.
    """
    if path.exists() and not overwrite:
        raise ArtifactError(f"{path} exists already; choose another name or allow it to be replaced")
    write_atomically(path, content)
    return path
