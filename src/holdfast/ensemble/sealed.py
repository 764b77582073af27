"""Sealed files: one `.npz` of plain arrays that tells when it was truncated, edited or is something else.

Inside lies a manifest (JSON) with the file's format, its facts and the SHA-256 of every array, and a seal, the
SHA-256 of the manifest. Hashes find accidents and careless edits; they do not stop a forger who recomputes them.
Keep the seal elsewhere (`Votes.seal`) to notice that too.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.types import ArtifactError

Array = NDArray[Any]


def array_hash(array: Array) -> str:
    """SHA-256 over dtype, shape and values of an array, in little-endian C order; the same on every machine."""
    plain = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return hashlib.sha256(f"{plain.dtype.str} {plain.shape} ".encode() + plain.tobytes()).hexdigest()


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that, whatever happens, either the whole of it is there or nothing changed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def write_sealed(path: Path, form: str, facts: Mapping[str, Any], arrays: Mapping[str, Array]) -> str:
    """Write arrays and facts as one sealed file; returns the seal. Never replaces a file with other content.

    Raises:
        ArtifactError: if the path already holds something else.
    """
    hashes = {name: array_hash(array) for name, array in arrays.items()}
    manifest = json.dumps({"format": form, "facts": dict(facts), "sha256": hashes}, sort_keys=True).encode()
    seal = hashlib.sha256(manifest).hexdigest()
    if path.exists():
        if read_sealed(path, form)[2] == seal:
            return seal
        raise ArtifactError(f"{path} already holds other results; choose a new path or move them away")
    buffer = io.BytesIO()
    as_bytes = {"manifest": np.frombuffer(manifest, dtype=np.uint8), "seal": np.frombuffer(seal.encode(), np.uint8)}
    np.savez_compressed(buffer, **as_bytes, **arrays)  # type: ignore[arg-type]
    write_atomically(path, buffer.getvalue())
    return seal


def read_sealed(path: Path, form: str) -> tuple[dict[str, Any], dict[str, Array], str]:
    """The facts, arrays and seal of a sealed file of the given format.

    Raises:
        ArtifactError: naming what is wrong: missing, truncated, of another program or format, or which hash differs.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise ArtifactError(f"{path} does not exist") from None
    except (
        OSError,
        EOFError,
        ValueError,
        zipfile.BadZipFile,
        KeyError,
        NotImplementedError,
        zlib.error,
    ) as error:
        raise ArtifactError(f"{path} is truncated, damaged or not a holdfast file ({error})") from None
    if not {"manifest", "seal"} <= arrays.keys():
        raise ArtifactError(f"{path} was not written by holdfast: it has no manifest")
    manifest, seal = arrays.pop("manifest").tobytes(), arrays.pop("seal").tobytes().decode("ascii", "replace")
    if hashlib.sha256(manifest).hexdigest() != seal:
        raise ArtifactError(f"{path} was edited: the SHA-256 of its manifest is not the one in its seal")
    content = json.loads(manifest)
    if content["format"] != form:
        raise ArtifactError(f"{path} holds {content['format']}, not {form}")
    for name in sorted(content["sha256"].keys() | arrays.keys()):
        if name not in arrays or name not in content["sha256"] or array_hash(arrays[name]) != content["sha256"][name]:
            raise ArtifactError(f"{path} was edited: the SHA-256 of its array {name!r} is not the one in its manifest")
    return content["facts"], arrays, seal


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
