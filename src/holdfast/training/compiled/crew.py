"""Threads that each own a workspace and take tasks: results may not depend on who takes which."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt

from holdfast.training.compiled.engine import Programs
from holdfast.training.compiled.plan import Plan

Task = TypeVar("Task")
Progress = Callable[[int, int], None]

_TICK = 0.2  # seconds between two looks at progress and Ctrl-C


class Workspace:
    """What one thread computes in: floats, table of offsets, and winners of pooling."""

    def __init__(self, plan: Plan, programs: Programs) -> None:
        line = 16  # floats per cache line
        block = np.zeros(plan.floats + line, np.float32)
        first = -block.ctypes.data // 4 % line
        self.memory = block[first : first + plan.floats]
        self.table = plan.table.copy()
        self.table[: len(programs.kernels)] = programs.kernels
        self.codes = np.zeros(plan.codes + 1, np.uint8)


class Workspaces:
    """The workspaces of one plan: made when first needed, kept for the next call."""

    def __init__(self, plan: Plan, programs: Programs) -> None:
        self.plan, self.programs = plan, programs
        self.ops, self.net, self.dual = frozen(plan.ops), frozen(plan.net), frozen(plan.dual)
        self._free: queue.SimpleQueue[Workspace] = queue.SimpleQueue()

    @contextmanager
    def one(self) -> Iterator[Workspace]:
        """A workspace that nobody else uses inside the block."""
        try:
            space = self._free.get_nowait()
        except queue.Empty:
            space = Workspace(self.plan, self.programs)
        try:
            yield space
        finally:
            self._free.put(space)


class Stopped(Exception):
    """Raised inside a task when another failed or the user pressed Ctrl-C; never leaves the crew."""


class Crew:
    """A pool of threads with their workspaces; use as a context manager.

    One thread means no thread at all: tasks then run in the caller's.
    """

    def __init__(self, threads: int, spaces: Workspaces, total: int = 0, on_progress: Progress | None = None) -> None:
        self.threads = threads
        self._spaces = spaces
        self._pool = ThreadPoolExecutor(threads, "holdfast") if threads > 1 else None
        self._total, self._on_progress = total, on_progress
        self._done, self._shown = 0, 0
        self._lock = threading.Lock()
        self._stop = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop = True
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def advance(self, units: int) -> None:
        """Tell that `units` of work are done; a task calls it between two compiled calls, where it may be stopped."""
        with self._lock:
            self._done += units
        if self._pool is None:
            self._show()
        elif self._stop:
            raise Stopped

    def map(self, work: Callable[[Workspace, Task], None], tasks: Iterable[Task]) -> None:
        """Do all tasks, each in a free workspace; the first error of a task is raised here."""
        if self._pool is None:
            for task in tasks:
                self._one(work, task)
            return
        waiting: set[Future[Any]] = {self._pool.submit(self._one, work, task) for task in tasks}
        while waiting:
            finished, waiting = wait(waiting, timeout=_TICK, return_when=FIRST_EXCEPTION)
            for future in finished:
                future.result()
            self._show()

    def _one(self, work: Callable[[Workspace, Task], None], task: Task) -> None:
        with self._spaces.one() as space:
            work(space, task)

    def _show(self) -> None:
        if self._on_progress is not None and self._done != self._shown:
            self._shown = self._done
            self._on_progress(self._done, self._total)


def frozen(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A read-only, C-contiguous view: compiled code sees one type, whether or not the caller's array is writable."""
    view = np.ascontiguousarray(np.asarray(array)).view()
    view.flags.writeable = False
    return view
