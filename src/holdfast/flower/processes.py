"""Child processes that never outlive their owner: a SuperLink, its proxy, nodes."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sysconfig
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType

from holdfast.types import ConfigError, HoldfastError

_GRACE_SECONDS = 5.0


class ProcessError(HoldfastError):
    """A process ended, or did not get ready; the message names its log."""


class Processes:
    """Starts processes, each in a group of its own, and ends all of them on the way out of the `with` block.

    That happens after an error, Ctrl-C and SIGTERM too: inside the block SIGTERM raises KeyboardInterrupt.

    Args:
        logs: folder for one log per process.
    """

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._previous: signal.Handlers | Callable[[int, FrameType | None], object] | int | None = None

    def __enter__(self) -> Processes:
        self.logs.mkdir(parents=True, exist_ok=True)
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGTERM, _interrupt)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._previous is None:  # not the main thread, which alone may handle signals
            self.stop(*self._running)
            return
        impatient = signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave processes behind
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        try:
            self.stop(*self._running)
        finally:
            signal.signal(signal.SIGINT, impatient)
            signal.signal(signal.SIGTERM, self._previous)

    def start(self, name: str, command: Sequence[str], env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start a process under a name that is not running; its output goes to `logs/name.log`."""
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )
        self._running[name] = process
        return process

    def log(self, name: str) -> Path:
        """Where a process writes to."""
        return self.logs / f"{name}.log"

    def check(self) -> None:
        """Raise if a process has ended by itself.

        Raises:
            ProcessError: names it and the end of its log.
        """
        for name, process in self._running.items():
            if process.poll() is not None:
                raise ProcessError(
                    f"{name} ended with exit code {process.returncode}: {last_words(self.log(name))} "
                    f"(all of it: {self.log(name)})"
                )

    def wait_until(self, ready: Callable[[], bool], what: str, *, seconds: float, every: float = 0.2) -> None:
        """Wait for a condition while all processes live.

        Raises:
            ProcessError: a process has ended, or the time is up.
        """
        end = time.monotonic() + seconds
        while not ready():
            self.check()
            if time.monotonic() > end:
                raise ProcessError(f"{what} was not ready after {seconds:g} s; see the logs in {self.logs}")
            time.sleep(every)

    def stop(self, *names: str) -> None:
        """End these with all their children: first asked, then, after some seconds, killed."""
        stopping = [self._running.pop(name) for name in names]
        orphans = _descendants({process.pid for process in stopping})  # Flower's children leave their group
        for process in stopping:
            _signal(process, signal.SIGTERM)
        end = time.monotonic() + _GRACE_SECONDS
        for process in stopping:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, end - time.monotonic()))
            _signal(process, signal.SIGKILL)  # also what is left of its group
            process.wait()
        for orphan in orphans & _processes().keys():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(orphan[0], signal.SIGKILL)

    def kill(self, name: str) -> None:
        """End a process with all its children by SIGKILL, as a crash or a power cut would."""
        process = self._running.pop(name)
        _signal(process, signal.SIGKILL)
        process.wait()


def script(name: str) -> str:
    """The path of a program that was installed with a package of this environment.

    Raises:
        ConfigError: it is not there.
    """
    path = Path(sysconfig.get_path("scripts")) / name
    if not path.exists():
        raise ConfigError(f"{name} is not installed here; install it with: pip install 'holdfast[flower]'")
    return str(path)


def address(text: str, option: str) -> tuple[str, int]:
    """Host and port of an address such as 127.0.0.1:9093.

    Raises:
        ConfigError: it is none.

    Example:
        >>> address("0.0.0.0:9093", "--listen")
        ('0.0.0.0', 9093)
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(f"{option} is {text!r}, but must be host:port, for example 127.0.0.1:9093")
    return host.strip("[]"), int(port)


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nothing listens on."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def check_port(host: str, port: int) -> None:
    """Refuse a port that is taken or not ours to take.

    Raises:
        ConfigError: names the port and why.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as problem:
            raise ConfigError(
                f"port {port} of {host} cannot be listened on ({problem.strerror}); "
                "stop what uses it or choose another port"
            ) from problem


def listens(port: int) -> bool:
    """Whether something accepts connections on this port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def last_words(log: Path) -> str:
    """The last line of a log that says something."""
    try:
        lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        return "it left no log"
    return next((line for line in reversed(lines) if line), "it wrote nothing")


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _processes() -> dict[tuple[int, int], int]:
    """The parent of every process, by (pid, time of its start), where the system has a /proc to look into."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = entry.read_text(errors="replace").rpartition(")")[2].split()
            found[int(entry.parent.name), int(fields[19])] = int(fields[1])
    return found


def _descendants(parents: set[int]) -> set[tuple[int, int]]:
    """The children of these processes, and theirs."""
    processes, family, found = _processes(), set(parents), set()
    while new := {key for key, parent in processes.items() if parent in family and key not in found}:
        found |= new
        family |= {pid for pid, _ in new}
    return found


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
