"""Jobs that a ServerApp does for a command: handed over in a file, followed line by line, stopped with the command."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from holdfast.files import write_atomically
from holdfast.flower.processes import ProcessError, script
from holdfast.flower.site import CONNECTION, Site
from holdfast.types import ConfigError

_APP = """[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "{name}"
version = "1.0.0"
description = "{name}"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "holdfast"

[tool.flwr.app.components]
serverapp = "{server}"
clientapp = "{client}"

[tool.flwr.app.config]
job = {job}
"""
_START_SECONDS = 180.0
_POLL = 0.2


class Listener(Protocol):
    """Who hears of a job's progress."""

    def note(self, text: str) -> None:
        """One line worth reading."""
        ...

    def progress(self, stage: str, done: int, total: int, left: float | None = None) -> None:
        """`done` of `total` steps of a stage are finished."""
        ...


class Journal:
    """What a ServerApp tells, one JSON object a line, beside its job file."""

    def __init__(self, job: Path) -> None:
        self.path = journal_of(job)

    def tell(self, **facts: Any) -> None:
        """Add one line."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(facts) + "\n")

    def note(self, text: str) -> None:
        """One line worth reading."""
        self.tell(note=text)

    def progress(self, stage: str, done: int, total: int, left: float | None = None) -> None:
        """`done` of `total` steps of a stage are finished."""
        self.tell(progress=[stage, done, total, left])


def journal_of(job: Path) -> Path:
    """Where the job in this file tells how it goes."""
    return job.with_suffix(".journal")


@contextmanager
def alone(folder: Path, what: str) -> Iterator[None]:
    """Hold the only right to work on something; it ends with the process, however that ends.

    Raises:
        ConfigError: another process holds it, for example a ServerApp whose command was killed.
    """
    name = hashlib.sha256(what.encode()).hexdigest()[:16]
    with (folder / f"{name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(f"another ServerApp still works on {what}; wait for it, or stop its run") from None
        yield


def run(
    site: Site,
    name: str,
    job: Mapping[str, Any],
    *,
    server: str,
    client: str,
    listener: Listener,
    fact: Callable[[Mapping[str, Any]], None] = lambda line: None,
    check: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Submit a job as a Flower run and follow it to its end.

    Args:
        site: the federation, whose server runs.
        name: names the app and the job's files.
        job: what the ServerApp reads; only the server's user can.
        server: the ServerApp, as `module:attribute`.
        client: the ClientApp.
        listener: hears what the job tells.
        fact: hears every other line of the job's.
        check: called now and then; raises if something else has failed.

    Returns:
        The job's last line: `{"done": ...}`, or `{"error": sentence}` for what the user can mend.

    Raises:
        ProcessError: the run cannot be submitted, or the ServerApp ended without a word.
    """
    folder = site.path / "jobs"
    path = folder / f"{name}.json"
    journal = journal_of(path)
    journal.unlink(missing_ok=True)
    write_atomically(path, json.dumps(job).encode(), mode=0o600)
    app = folder / name / "pyproject.toml"
    text = _APP.format(name=name, server=server, client=client, job=json.dumps(str(path)))
    write_atomically(app, text.encode())
    number = _submit(site, app.parent)
    try:
        return _follow(journal, listener, fact, check)
    except KeyboardInterrupt:
        listener.note("stopping the run")
        _flwr(site, "stop", str(number), CONNECTION)
        raise
    finally:
        path.unlink(missing_ok=True)  # it may hold the seed, whose place is the run's folder


def _submit(site: Site, app: Path) -> int:
    done = _flwr(site, "run", str(app), CONNECTION, "--format", "json")
    try:
        answer = json.loads(done.stdout[done.stdout.index("{") :])
        return int(answer["run-id"])
    except (ValueError, KeyError):
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise ProcessError(f"the SuperLink did not take the run: {said[-1] if said else 'no answer'}") from None


def _flwr(site: Site, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **site.environment()}
    return subprocess.run([script("flwr"), *arguments], env=env, capture_output=True, text=True, check=False)


def _follow(
    journal: Path, listener: Listener, fact: Callable[[Mapping[str, Any]], None], check: Callable[[], None]
) -> dict[str, Any]:
    """Pass on what the job tells, until it ends."""
    end = time.monotonic() + _START_SECONDS
    process: int | None = None
    place = 0
    while True:
        alive = process is None or _alive(process)  # before reading: the last line may come in between
        place, lines = _read(journal, place)
        for line in lines:
            if "note" in line:
                listener.note(line["note"])
            elif "progress" in line:
                listener.progress(*line["progress"])
            elif "pid" in line:
                process = line["pid"]
            elif "failed" in line:
                raise ProcessError(f"the ServerApp failed: {line['failed']}")
            elif "done" in line or "error" in line:
                return dict(line)
            else:
                fact(line)
        check()
        if not alive:
            raise ProcessError("the ServerApp ended without a word; continue the run with --resume")
        if process is None and time.monotonic() > end:
            raise ProcessError(f"the ServerApp did not start within {_START_SECONDS:g} s; see the log of the SuperLink")
        time.sleep(_POLL)


def _read(journal: Path, place: int) -> tuple[int, list[dict[str, Any]]]:
    """The whole lines from a place on, and where the next begin."""
    try:
        with journal.open("rb") as file:
            file.seek(place)
            content = file.read()
    except FileNotFoundError:
        return place, []
    whole = content[: content.rfind(b"\n") + 1]
    return place + len(whole), list(_parsed(whole))


def _parsed(content: bytes) -> Iterator[dict[str, Any]]:
    for line in content.splitlines():
        if line:
            yield json.loads(line)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
