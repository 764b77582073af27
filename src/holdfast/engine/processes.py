"""A pool of processes on this machine in which a worker may die: its chunk goes to a new one, the others go on.

`concurrent.futures` gives up all chunks in flight when one worker dies, cannot stop workers in the middle of one, and
leaves them behind when the driver is killed; each of that matters where a chunk takes minutes.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import shutil
import signal
import tempfile
import threading
import traceback
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import connection, resource_tracker
from pathlib import Path
from typing import Any, TypeVar

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from holdfast.engine.packing import pack, unpack
from holdfast.types import ConfigError, EngineError, HoldfastError

Shared = TypeVar("Shared")
Chunk = TypeVar("Chunk")
Result = TypeVar("Result")

_DEATHS = 3
"""Workers that may die on one chunk before it counts as deadly."""

_context = multiprocessing.get_context("spawn")  # a forked child of a process with threads may hang


@dataclass(frozen=True)
class Processes:
    """Worker processes on this machine, started afresh for every call of `map_chunks`.

    Workers share one copy of the data, through a file in TMPDIR that is deleted at the end. Each costs what importing
    torch costs: some seconds of processor time and some hundred MB.

    Attributes:
        workers: how many; None takes one per `threads` cores, or one per card.
        threads: threads per worker.
        cards: the GPUs, as CUDA_VISIBLE_DEVICES names them; each worker sees one. Empty: no worker is given any.

    Raises:
        ConfigError: numbers below 1, or more workers than cards.

    Example:
        >>> Processes(workers=2).count
        2
    """

    workers: int | None = None
    threads: int = 1
    cards: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("workers", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, but is {value}")
        if self.cards and self.workers is not None and self.workers > len(self.cards):
            raise ConfigError(f"workers = {self.workers}, but there are {len(self.cards)} cards; a card takes one")

    def __str__(self) -> str:
        return f"{self.count} processes" if self.count > 1 else "1 process"

    @property
    def count(self) -> int:
        """How many processes work."""
        return self.workers or len(self.cards) or max(1, _cores() // self.threads)

    def map_chunks(
        self, work: Callable[[Shared, Chunk], Result], shared: Shared, chunks: Sequence[Chunk]
    ) -> Generator[Result, None, None]:
        """`work(shared, chunk)` of every chunk, in the order in which they finish.

        A worker that dies is replaced, and its chunk done again; closing the iterator ends all workers at once.

        Raises:
            EngineError: three workers died on the same chunk.
            ConfigError: `work`, `shared` or a chunk cannot be sent to another process.
        """
        if not chunks:
            return
        waiting, deaths = deque(range(len(chunks))), Counter[int]()
        environments = [{"CUDA_VISIBLE_DEVICES": card} for card in self.cards] or [{}] * self.count
        with _packed(shared) as path, contextlib.ExitStack() as stack:

            def hire(environment: Mapping[str, str]) -> _Worker:
                worker = _Worker(work, path, self.threads, environment)
                stack.callback(worker.stop)
                return worker

            workers = [hire(environment) for environment in environments[: min(self.count, len(chunks))]]
            while waiting or any(worker.number is not None for worker in workers):
                for worker in workers:
                    if worker.number is None and waiting:
                        worker.give(number := waiting.popleft(), chunks[number])
                ready = connection.wait([worker.pipe for worker in workers if worker.number is not None])
                for place, worker in enumerate(workers):
                    if worker.pipe not in ready:
                        continue
                    try:
                        result = worker.take()
                    except (EOFError, OSError):
                        lost, end = worker.number, worker.end()
                        assert lost is not None
                        deaths[lost] += 1
                        if deaths[lost] == _DEATHS:
                            raise EngineError(_deadly(end)) from None
                        waiting.appendleft(lost)
                        workers[place] = hire(worker.environment)
                    else:
                        yield result


class _Worker:
    """One process, and the chunk it has."""

    def __init__(
        self, work: Callable[[Any, Any], Any], path: Path, threads: int, environment: Mapping[str, str]
    ) -> None:
        self.environment = environment
        self.number: int | None = None
        self.pipe, theirs = _context.Pipe()
        self._process = _context.Process(target=_serve, args=(theirs, work, path, threads, environment), daemon=True)
        with _without_ctrl_c():
            self._process.start()
        theirs.close()

    def give(self, number: int, chunk: Any) -> None:
        """Send a chunk; a worker that is dead already is found out by `take`."""
        self.number = number
        try:
            self.pipe.send(chunk)
        except OSError:
            return

    def take(self) -> Any:
        """The result of its chunk, or the error that `work` raised.

        Raises:
            EOFError, OSError: the process is dead.
        """
        result, error = self.pipe.recv()
        self.number = None
        if error is not None:
            raise error
        return result

    def end(self) -> int | None:
        """How a process that is dying came to its end."""
        self._process.join(1.0)
        self.stop()
        return self._process.exitcode

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        self.pipe.close()
        self._process.kill()
        self._process.join()


def _serve(
    pipe: connection.Connection,
    work: Callable[[Any, Any], Any],
    path: Path,
    threads: int,
    environment: Mapping[str, str],
) -> None:
    """The life of a worker: it ends when the driver closes the pipe or is no more."""
    os.environ.update(environment)
    threading.Thread(target=_end_with_the_driver, args=(path,), daemon=True).start()
    with threadpool_limits(threads), contextlib.suppress(EOFError, BrokenPipeError):
        shared = unpack(path)
        while True:
            chunk = pipe.recv()
            result: Any = None
            failure: Exception | None = None
            try:
                result = work(shared, chunk)
            except HoldfastError as error:
                failure = error
            except Exception:  # not every error can be sent as it is
                failure = RuntimeError(f"in a worker process:\n{traceback.format_exc()}")
            pipe.send((result, failure))


def _end_with_the_driver(path: Path) -> None:
    """A driver killed with -9 can neither tell its workers nor clean up."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    shutil.rmtree(path.parent, ignore_errors=True)
    os._exit(1)


@contextlib.contextmanager
def _packed(shared: Any) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="holdfast-") as folder:
        path = Path(folder) / "shared"
        try:
            pack(shared, path)
        except OSError as problem:
            raise EngineError(f"cannot write {path}: {problem.strerror}; set TMPDIR to a folder with room") from problem
        except (pickle.PicklingError, AttributeError, TypeError, ValueError) as problem:
            raise ConfigError(
                f"cannot be sent to other processes: {problem}; a model must be a function of an importable module"
            ) from problem
        yield path


@contextlib.contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """What starts inside never hears Ctrl-C, which reaches all processes of a terminal; the driver ends its workers."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # else `start` does it, and lets Ctrl-C through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _deadly(exitcode: int | None) -> str:
    how = f"exit code {exitcode}"
    if exitcode is not None and exitcode < 0:
        how = signal.Signals(-exitcode).name
    hint = " (the system kills so when memory runs out; try fewer --workers)" if how == "SIGKILL" else ""
    return f"{_DEATHS} worker processes died on the same models, the last one by {how}{hint}"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
