"""Chunks as Dask tasks, on one or many machines; nobody but the driver needs to see a disk."""

from __future__ import annotations

import queue
import re
import time
import uuid
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any, TypeVar

import holdfast
from holdfast.types import ConfigError, EngineError

if TYPE_CHECKING:
    from distributed import Client

Shared = TypeVar("Shared")
Chunk = TypeVar("Chunk")
Result = TypeVar("Result")

TESTED = "2025.1.0", "2026.8.0"
"""The oldest and the newest distributed that the tests passed with."""

_LOSSES = 3
"""How often in a row everything may be lost before a single chunk is finished."""

_LOOK = 5.0
"""Seconds without a result between two looks at whether there is a worker at all."""


@dataclass(frozen=True)
class Dask:
    """The workers of a Dask scheduler.

    The data go to every worker once, chunks of models follow, votes and weights come back to the driver. A worker has
    as many chunks at a time as it has threads, or as it has of the resource "GPU" if `gpu`. When a worker or its
    machine dies, Dask gives its chunks to the others; when the data are lost with it, or the scheduler starts anew,
    the driver sends again what is not finished. TLS: an address `tls://...`, and certificates in Dask's own
    configuration.

    Attributes:
        address: of the scheduler, such as "tcp://10.0.0.1:8786".
        threads: threads per chunk.
        gpu: give each chunk one of the resource "GPU", which a worker has with `--resources GPU=1`.
        wait: seconds to wait for the scheduler, and for a worker when there is none.

    Raises:
        ConfigError: the extra `cluster` is not installed.
        EngineError: from `map_chunks`; no scheduler or no worker in time, or chunks that kill their workers.
    """

    address: str
    threads: int = 1
    gpu: bool = False
    wait: float = 60.0

    def __post_init__(self) -> None:
        try:
            import distributed  # noqa: F401  # only whether it is there
        except ImportError:
            raise ConfigError("engine dask needs the package distributed: pip install 'holdfast[cluster]'") from None
        if not re.fullmatch(r"(tcp|tls)://.+:\d+", self.address):
            raise ConfigError(f"address must look like tcp://10.0.0.1:8786 or tls://host:8786, but is {self.address!r}")
        if self.wait <= 0 or self.threads < 1:
            raise ConfigError(f"wait = {self.wait} must be above 0 and threads = {self.threads} at least 1")
        warn_if_untested(metadata.version("distributed"))

    def __str__(self) -> str:
        return f"Dask at {self.address}"

    def map_chunks(
        self, work: Callable[[Shared, Chunk], Result], shared: Shared, chunks: Sequence[Chunk]
    ) -> Generator[Result, None, None]:
        """`work(shared, chunk)` of every chunk, in the order in which they finish.

        Closing the iterator takes back what has not begun; what a worker is doing it finishes, for nobody.
        """
        left = dict(enumerate(chunks))
        losses = 0
        while left:
            try:
                with closing(self._attempt(work, shared, left)) as finished:
                    for number, result in finished:
                        del left[number]
                        losses = 0
                        yield result
            except CancelledError as loss:
                losses += 1
                if losses == _LOSSES:
                    raise EngineError(f"{self} lost all work {losses} times without finishing any ({loss})") from None

    def _attempt(
        self, work: Callable[[Shared, Chunk], Result], shared: Shared, left: Mapping[int, Chunk]
    ) -> Generator[tuple[int, Result], None, None]:
        """(number, result) of chunks as they finish; CancelledError when the data or the scheduler are lost."""
        from distributed import KilledWorker

        with self._connected() as client:
            data = self._hand_out(client, shared)
            done: queue.SimpleQueue[Any] = queue.SimpleQueue()
            resources = {"GPU": 1} if self.gpu else None
            run, futures = uuid.uuid4().hex, {}
            for number, chunk in left.items():
                future = client.submit(work, data, chunk, key=f"holdfast-{run}-{number}", resources=resources)
                future.add_done_callback(done.put)
                futures[future.key] = number, future
            while futures:
                number, future = futures.pop(self._next(client, done).key)
                try:
                    result = future.result()
                except KilledWorker as killed:
                    died = killed.allowed_failures + 1
                    raise EngineError(f"{died} workers of {self} died, one after another, on the same models") from None
                yield number, result

    @contextmanager
    def _connected(self) -> Iterator[Client]:
        from distributed import Client

        try:
            client = Client(self.address, timeout=self.wait, set_as_default=False)
        except (OSError, ValueError, TypeError) as problem:
            why = str(problem) or type(problem).__name__
            raise EngineError(
                f"no Dask scheduler answers at address {self.address} within {self.wait:g} s ({why})"
            ) from problem
        try:
            yield client
        finally:
            client.close()

    def _hand_out(self, client: Client, shared: Any) -> Any:
        """The data on all workers there are; later ones get them from these."""
        try:
            self._await_worker(client)
            self._check_versions(client)
            [data] = client.scatter([shared], broadcast=True, hash=False)
        except OSError as problem:
            raise CancelledError(f"the connection broke: {problem}") from problem
        return data

    def _await_worker(self, client: Client) -> None:
        """Return when there is a worker that may take chunks.

        Raises:
            EngineError: there is none in time.
        """
        deadline = time.monotonic() + self.wait
        while not self._workers(client):
            if time.monotonic() > deadline:
                raise EngineError(self._nobody())
            time.sleep(0.1)

    def _check_versions(self, client: Client) -> None:
        """Workers and scheduler must have this holdfast: one that cannot read what it is sent dies without a word."""

        def version() -> str | None:  # runs there, whatever is installed
            try:
                import holdfast
            except ImportError:
                return None
            return holdfast.__version__

        found = {"the scheduler": client.run_on_scheduler(version)}
        found |= {f"worker {worker}": there for worker, there in client.run(version).items()}
        for where, there in found.items():
            if there != holdfast.__version__:
                what = "no holdfast" if there is None else f"holdfast {there}"
                raise EngineError(f"{where} of {self} has {what}; install {holdfast.__version__}, which is here, there")

    def _next(self, client: Client, done: queue.SimpleQueue[Any]) -> Any:
        """The next future that is done, however that went; an error if there is no worker for too long."""
        seen = time.monotonic()
        while True:
            with suppress(queue.Empty):
                return done.get(timeout=min(_LOOK, self.wait))
            with suppress(OSError):  # the client tries to connect again, and cancels its futures
                if self._workers(client):
                    seen = time.monotonic()
            if time.monotonic() - seen > self.wait:
                raise EngineError(self._nobody())

    def _workers(self, client: Client) -> int:
        """How many workers may take chunks."""
        needed = "GPU" if self.gpu else None

        def count(dask_scheduler: Any) -> int:  # runs there, where holdfast need not be installed
            return sum(needed is None or needed in worker.resources for worker in dask_scheduler.workers.values())

        return int(client.run_on_scheduler(count))

    def _nobody(self) -> str:
        what = " with --resources GPU=1" if self.gpu else ""
        return f"{self} has no worker{what}, and none came within {self.wait:g} s"


def warn_if_untested(version: str) -> None:
    """Warn, naming the versions, if this one of distributed is outside the tested range.

    Example:
        >>> import warnings
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     warn_if_untested("2026.8.0"), warn_if_untested("2031.1.0")
        (None, None)
        >>> [str(warning.message) for warning in caught]
        ['distributed 2031.1.0 is outside the range that holdfast was tested with, 2025.1.0 to 2026.8.0']
    """
    oldest, newest = (_numbers(end) for end in TESTED)
    if not oldest <= _numbers(version) <= newest:
        text = f"distributed {version} is outside the range that holdfast was tested with, {' to '.join(TESTED)}"
        warnings.warn(text, stacklevel=3)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])
