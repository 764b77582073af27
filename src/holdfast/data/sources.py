"""Where official files come from and where they are kept: a cache folder, mirrors, checksums."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import os
import tempfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from holdfast.files import cache_folder
from holdfast.types import DataError

TIMEOUT = 20.0
"""Seconds without a byte after which a mirror is given up."""

Progress = Callable[[str, int, int | None], None]
_SIGNATURES = {".zip": b"PK", ".gz": b"\x1f\x8b"}


@dataclass(frozen=True)
class RemoteFile:
    """One official file: its name, the mirrors that have it, and the MD5 that proves it is the right one.

    Attributes:
        name: the file's name in the cache folder.
        urls: mirrors, tried in this order.
        md5: hex digest, or None where the publisher gives none (the reader then checks the content itself).
        of_content: the digest is that of the decompressed content (.gz files differ by compressor).
    """

    name: str
    urls: tuple[str, ...]
    md5: str | None = None
    of_content: bool = False


def cache_dir() -> Path:
    """The folder data sets are kept in: $HOLDFAST_DATA, or holdfast/ in $XDG_CACHE_HOME or ~/.cache.

    Example:
        >>> cache_dir().is_absolute()
        True
    """
    chosen = os.environ.get("HOLDFAST_DATA")
    if chosen:
        return Path(chosen).expanduser().absolute()
    return cache_folder()


def read_bytes(path: Path) -> bytes:
    """A file's content, decompressed where its name ends in .gz."""
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}); delete it and get it again") from error


def check_md5(path: Path, content: bytes, expected: str) -> None:
    """Raise a `DataError` that names the file and both digests unless `content` has the expected MD5."""
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != expected:
        raise DataError(
            f"{path} is not the official file (md5 {found}, expected {expected}): delete it and fetch it again, "
            "or give your own folder as a path if it holds other data"
        )


def download(
    file: RemoteFile,
    folder: Path,
    *,
    wanted: str | None = None,
    progress: Progress | None = None,
    timeout: float = TIMEOUT,
) -> Path:
    """Fetch one file from the first mirror that has it, check it, and put it into `folder` in one step.

    Args:
        file: what to fetch.
        folder: where to; made if missing.
        wanted: what the error tells the user to put there by hand; the file's name by default.
        progress: called with the file's name, the bytes so far and the bytes in all (None if the mirror won't say).
        timeout: seconds without a byte before a mirror is given up.

    Raises:
        DataError: no mirror answered, or what came is not the official file; says where to put it by hand.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"the folder {folder} cannot be made ({error}); set HOLDFAST_DATA to one that can") from error
    problems = []
    for url in file.urls:
        handle, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=folder)
        part = Path(name)
        try:
            with os.fdopen(handle, "wb") as stream:
                _copy(url, stream.write, partial(progress, file.name) if progress else None, timeout)
                stream.flush()
                os.fsync(stream.fileno())
            problem = _mismatch(file, part)
            if problem is None:
                part.chmod(0o644)
                part.replace(folder / file.name)
                return folder / file.name
            problems.append(f"{url}: {problem}")
        except (OSError, http.client.HTTPException) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            problems.append(f"{url}: {reason or type(error).__name__}")
        finally:
            part.unlink(missing_ok=True)
    raise DataError(
        f"could not download {file.name} ({'; '.join(problems)}): put {wanted or file.name} into {folder} and run again"
    )


def _copy(
    url: str, write: Callable[[bytes], object], report: Callable[[int, int | None], None] | None, timeout: float
) -> None:
    request = urllib.request.Request(url, headers={"User-Agent": "holdfast"})
    with urllib.request.urlopen(request, timeout=timeout) as response:
        length = response.headers.get("Content-Length", "")
        total = int(length) if length.isdigit() else None
        done = 0
        while block := response.read(1 << 16):
            write(block)
            done += len(block)
            if report:
                report(done, total)
    if total is not None and done != total:
        raise OSError(f"the connection broke after {done:,} of {total:,} bytes")


def _mismatch(file: RemoteFile, part: Path) -> str | None:
    """What is wrong with a downloaded file, or None."""
    if file.md5 is None:  # at least no web page in place of an archive
        signature = _SIGNATURES.get(Path(file.name).suffix, b"")
        with part.open("rb") as stream:
            return None if stream.read(len(signature)) == signature else f"not a {Path(file.name).suffix} file"
    try:
        content = gzip.decompress(part.read_bytes()) if file.of_content else part.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        return f"damaged on the way ({error})"
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    return None if found == file.md5 else f"md5 {found} instead of {file.md5}"
