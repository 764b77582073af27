"""Chunks for the tests of places: functions that worker processes can import, and what keeps clusters alive."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from holdfast.types import ConfigError


def scaled(shared, chunk):
    """Something to compute, slow enough that every worker gets some, and who did it."""
    time.sleep(0.05)
    return chunk, float((shared["x"] * chunk).sum()), os.getpid()


def dies_once(shared, chunk):
    """Chunk 2 takes its worker with it, the first time."""
    if chunk == 2 and first_time(shared["folder"], "died"):
        os.kill(os.getpid(), signal.SIGKILL)
    return scaled(shared, chunk)


def deadly(shared, chunk):
    """Chunk 1 always takes its worker with it."""
    if chunk == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return scaled(shared, chunk)


def refuses(shared, chunk):
    """Something is wrong with what the user asked for."""
    raise ConfigError(f"chunk {chunk} is not to our liking")


def breaks(shared, chunk):
    """A bug."""
    return chunk / 0


def card(shared, chunk):
    """Which GPU this worker sees."""
    time.sleep(0.05)
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def company(shared, chunk):
    """How many chunks this worker does at a time."""
    mine = Path(shared["folder"]) / f"{os.getpid()}-{chunk}"
    mine.touch()
    time.sleep(0.1)
    count = len(list(mine.parent.glob(f"{os.getpid()}-*")))
    mine.unlink()
    return count


def tells_and_waits(shared, chunk):
    """Say who works on it, and take long."""
    (Path(shared["folder"]) / f"{chunk}").write_text(str(os.getpid()))
    time.sleep(shared["seconds"])
    return chunk


def first_time(folder, name):
    """True for the first one who asks, in whatever process."""
    try:
        (Path(folder) / name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def alive(pid):
    """Whether a process is there and not a zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def eventually(condition, *, seconds=20.0):
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)
