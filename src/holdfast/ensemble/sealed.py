"""Sealed files: one `.npz` of plain arrays that tells when it was truncated, edited or is something else.

Inside lies a manifest (JSON) with the file's format, its facts and the SHA-256 of every array, and a seal, the
SHA-256 of the manifest. Hashes find accidents and careless edits; they do not stop a forger who recomputes them.
Keep the seal, which `Votes.save` returns, elsewhere to notice that too.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.files import write_atomically
from holdfast.types import ArtifactError

Array = NDArray[Any]
# All that NumPy and zipfile are known to raise on bytes that are not, or no longer, an archive of plain arrays.
DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    AttributeError,
    KeyError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


def array_hash(array: Array) -> str:
    """SHA-256 over dtype, shape and values of an array, in little-endian C order; the same on every machine."""
    plain = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return hashlib.sha256(f"{plain.dtype.str} {plain.shape} ".encode() + plain.tobytes()).hexdigest()


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
    arrays = _read_arrays(path)
    if not {"manifest", "seal"} <= arrays.keys():
        raise ArtifactError(f"{path} was not written by holdfast: it has no manifest")
    manifest, seal = arrays.pop("manifest").tobytes(), arrays.pop("seal").tobytes().decode("ascii", "replace")
    if hashlib.sha256(manifest).hexdigest() != seal:
        raise ArtifactError(f"{path} was edited: the SHA-256 of its manifest is not the one in its seal")
    try:
        content = json.loads(manifest)
        found = content["format"]
    except (ValueError, KeyError, TypeError):
        raise ArtifactError(f"{path} was not written by holdfast: its manifest cannot be read") from None
    if found != form:
        raise ArtifactError(f"{path} holds {found}, not {form}")
    for name in sorted(content["sha256"].keys() | arrays.keys()):
        if name not in arrays or name not in content["sha256"] or array_hash(arrays[name]) != content["sha256"][name]:
            raise ArtifactError(f"{path} was edited: the SHA-256 of its array {name!r} is not the one in its manifest")
    return content["facts"], arrays, seal


def _read_arrays(path: Path) -> dict[str, Array]:
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise ArtifactError(f"{path} does not exist") from None
    except DAMAGE as problem:
        raise ArtifactError(f"{path} is truncated, damaged or not a holdfast file ({problem})") from None
