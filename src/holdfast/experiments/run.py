"""A run's folder: every stage is a file, and the manifest says what each file was made from.

`RUN/run.json` (manifest), `RUN/secret.json` (the seed behind the assignment, readable by its owner only, revealed
for audit), `RUN/models/`, `RUN/votes.npz`, `RUN/certificates.parquet`, `RUN/report.html`. Everything right of the
votes needs neither torch nor the data.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import holdfast
from holdfast.files import write_atomically
from holdfast.types import ArtifactError, ConfigError

FORMAT = 1
_VERSIONED = ("numpy", "scipy", "numba", "torch", "scikit-learn")


def write_json(path: Path, content: Mapping[str, Any], *, private: bool = False) -> None:
    """Write a JSON file atomically; `private` makes it readable by its owner only."""
    text = json.dumps(content, indent=2, default=str) + "\n"
    write_atomically(path, text.encode(), mode=0o600 if private else 0o644)


def fingerprint(content: Mapping[str, Any]) -> str:
    """SHA-256 of a configuration in canonical JSON: what `--resume` compares.

    Example:
        >>> fingerprint({"k": 10, "n": 100}) == fingerprint({"n": 100, "k": 10})
        True
    """
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def versions() -> dict[str, str]:
    """What the results were computed with."""
    found = {name: metadata.version(name) for name in _VERSIONED}
    return {"holdfast": holdfast.__version__, "python": platform.python_version(), **found}


@dataclass(frozen=True)
class Run:
    """One run's folder and its manifest."""

    path: Path

    @property
    def manifest_path(self) -> Path:
        """`run.json`: configuration, seed commitment, versions, hashes, assumptions."""
        return self.path / "run.json"

    @property
    def votes_path(self) -> Path:
        """`votes.npz`: everything a certificate needs."""
        return self.path / "votes.npz"

    @property
    def certificates_path(self) -> Path:
        """`certificates.parquet`: per input label, prediction, margin and a radius per kind."""
        return self.path / "certificates.parquet"

    @property
    def report_path(self) -> Path:
        """`report.html`: the self-contained page."""
        return self.path / "report.html"

    def manifest(self) -> dict[str, Any]:
        """Read the manifest; a missing, damaged or foreign one is refused in one sentence."""
        try:
            content = json.loads(self.manifest_path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            raise ArtifactError(f"{self.path} is no run: it has no run.json; name a folder of a run") from None
        except (json.JSONDecodeError, UnicodeDecodeError, OSError) as problem:
            raise ArtifactError(f"{self.manifest_path} cannot be read ({problem}); the file is damaged") from problem
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ArtifactError(f"{self.manifest_path} is not a manifest of format {FORMAT} that this version can read")
        return content

    def update(self, **entries: Any) -> None:
        """Add entries to the manifest, atomically."""
        write_json(self.manifest_path, {**self.manifest(), **entries})

    def secret(self) -> dict[str, Any]:
        """The private part: the seed behind the assignment, to be revealed for audit."""
        path = self.path / "secret.json"
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as problem:
            raise ArtifactError(
                f"{path} cannot be read ({problem}); without the seed this run cannot be resumed"
            ) from problem
        return content


def _leftover(entry: Path) -> bool:
    """What a start that was killed before its manifest was written may have left behind."""
    return entry.name == "secret.json" or entry.name.startswith((".secret.json.", ".run.json."))


def start(path: Path, job: str, config: Mapping[str, Any], secret: Mapping[str, Any] | None, **entries: Any) -> Run:
    """Make a new run's folder; one that holds a run already is never overwritten. A job may have no secret."""
    run = Run(path)
    if run.manifest_path.exists():
        raise ConfigError(f"--out {path} already holds a run; continue it with --resume or name another folder")
    if path.exists() and (not path.is_dir() or any(not _leftover(entry) for entry in path.iterdir())):
        raise ConfigError(f"--out {path} exists and is not an empty folder; name another one")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise ConfigError(f"--out {path} cannot be made ({problem.strerror}); name another folder") from problem
    if secret is not None:
        write_json(path / "secret.json", secret, private=True)
    manifest = {
        "format": FORMAT,
        "job": job,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "config": dict(config),
        "config_sha256": fingerprint(config),
        **entries,
    }
    write_json(run.manifest_path, manifest)
    return run


def resume(path: Path, job: str, given: Mapping[str, Any]) -> Run:
    """Open an unfinished (or finished) run; options given now must be those it was started with."""
    run = Run(path)
    manifest = run.manifest()
    if manifest.get("job") != job:
        raise ConfigError(f"--resume: {path} holds a {manifest.get('job')} run, not a {job} run")
    config = manifest["config"]
    if fingerprint(config) != manifest.get("config_sha256"):
        raise ArtifactError(f"{run.manifest_path}: the configuration does not match its hash; the file was edited")
    for name, value in given.items():
        if config.get(name) != json.loads(json.dumps(value)):
            option = "--" + name.replace("_", "-")
            raise ConfigError(f"--resume: {option} is {value!r} now but {config.get(name)!r} in {path}; leave it out")
    return run
