"""A Flower grid on which no reply can cost anybody but its sender.

Flower's own `send_and_receive` pulls all replies in one call: one that cannot be decoded ends the run, one that is
announced but never uploaded takes the honest ones with it. `SafeGrid` pulls each reply on its own.
"""

from __future__ import annotations

import heapq
import logging
import math
import queue
import secrets
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import httpx
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from holdfast.types import ConfigError

NONCE_RECORD = "holdfast.nonce"
"""The record of a message that holds its secret random number."""

LONGEST_POLL = 3.0
"""Seconds between two looks for a reply, at most: Flower's own interval."""

LOG = logging.getLogger("flwr.holdfast")
"""Below Flower's logger, so that its lines appear where the run's do."""

Kind = Literal["answered", "silent", "error", "malformed"]


@dataclass(frozen=True)
class Outcome:
    """What became of one message.

    Attributes:
        node: whom it was sent to: the identity of whatever came back, whoever the reply says it is from.
        kind: "answered"; "silent" (nothing in time); "error" (the node or the SuperLink reports a failure);
            "malformed" (it cannot be decoded, never arrived in full, names another sender, or came twice).
        reply: the reply, for "answered".
        reason: one sentence on what went wrong, else empty.
        seconds: from sending to the end of waiting.
    """

    node: int
    kind: Kind
    reply: Message | None = field(default=None, repr=False)
    reason: str = ""
    seconds: float = 0.0


class SafeGrid(Grid):
    """Another grid, with every reply pulled on its own: `strategy.start(SafeGrid(grid), ...)`.

    - *Identity.* A reply belongs to the node its message was sent to: the map from message id to node is kept here. A
      reply that names another sender, or another message, counts as malformed. Every message gets a secret random
      number, so that nobody can guess an id and answer for somebody else; ids are never logged.
    - *Isolation.* What raises while one reply is pulled (hostile bytes, a memory limit) costs that reply alone. So does
      a reply that is announced and not uploaded: it holds one thread until Flower gives up on it.
      A SuperLink that cannot be reached for a while costs nobody anything but time.
    - *Time.* `timeout` must be given. A reply is looked for at once, then ever more rarely: after s seconds every
      `max(poll, s / 20)` seconds, at most every 3, so waiting adds no more than a twentieth to a round.

    - *Memory.* Flower decodes a reply before anybody can look at it, and a small upload may name one chunk a thousand
      times. `memory` bounds the process: the pull that goes beyond it fails, and costs its sender.

    It uses Flower's public calls only.

    Args:
        grid: the grid Flower hands to the ServerApp.
        poll: shortest time between two looks for the same reply, in seconds.
        threads: pulls at the same time. More nodes than this that stall their uploads on purpose delay the others.
        memory: bytes of address space this process may take beyond what it has now, from here on (POSIX; threads
            reserve about 0.1 GB each). It should hold all replies of a round several times. None: no limit.

    Raises:
        ConfigError: `poll`, `threads` or `memory` out of range or not possible here, and sending without a timeout.
    """

    def __init__(self, grid: Grid, *, poll: float = 0.1, threads: int = 64, memory: int | None = None) -> None:
        if not 0 < poll < math.inf:
            raise ConfigError(f"poll must be a time in seconds above 0, got {poll!r}")
        if threads < 1:
            raise ConfigError(f"threads must be at least 1, got {threads!r}")
        if memory is not None:
            limit_memory(memory)
        self.grid = grid
        self.poll = poll
        self.threads = threads
        self.outcomes: tuple[Outcome, ...] = ()
        """What became of the messages of the last `send_and_receive`, in their order."""

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """The replies that came whole and in time; `outcomes` says what became of the others."""
        self.outcomes = tuple(self.exchange(messages, timeout=timeout))
        return [outcome.reply for outcome in self.outcomes if outcome.reply is not None]

    def exchange(self, messages: Iterable[Message], *, timeout: float | None) -> list[Outcome]:
        """Send messages and wait for their replies: one outcome per message, in the same order.

        Raises:
            ConfigError: no timeout, or one that is not a positive number of seconds.
        """
        if timeout is None or not 0 < timeout < math.inf:
            raise ConfigError(f"timeout must be a number of seconds above 0, got {timeout!r}: nodes may never answer")
        asked = list(messages)
        start = time.monotonic()
        ids = [self._send(message) for message in asked]
        pending = {i: message_id for i, message_id in enumerate(ids) if message_id}
        pulled = _pull_all(self, pending, start, start + timeout)
        return [_outcome(message, ids[i], pulled.get(i), timeout) for i, message in enumerate(asked)]

    def _send(self, message: Message) -> str | None:
        """Send one message with its secret; its id, or None if the SuperLink did not take it."""
        secret = ConfigRecord({"nonce": secrets.token_hex(16)})
        message.content = RecordDict({**message.content, NONCE_RECORD: secret})
        return next(iter(self.grid.push_messages([message])), None)

    def set_run(self, run: Any) -> None:
        """As the grid's."""
        self.grid.set_run(run)

    @property
    def run(self) -> Any:
        """As the grid's."""
        return self.grid.run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A new message."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """As the grid's."""
        return self.grid.get_node_ids()

    def get_nodes(self) -> Iterable[Any]:
        """As the grid's."""
        return self.grid.get_nodes()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """As the grid's: no secret is added, and nothing keeps track."""
        return self.grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """As the grid's."""
        return self.grid.pull_messages(message_ids)


@dataclass(frozen=True)
class _Pulled:
    """What one pull brought: replies, or what it raised."""

    replies: Sequence[Message]
    problem: BaseException | None
    seconds: float


def _pull_all(grid: SafeGrid, pending: dict[int, str], start: float, deadline: float) -> dict[int, _Pulled]:
    """Pull every reply on its own until all are there or time is up.

    A thread that is still inside a pull then is left behind (it cannot be interrupted); what it brings is dropped.
    """
    due = [(start, i) for i in pending]
    heapq.heapify(due)
    lock, closed = threading.Lock(), threading.Event()
    arrived: queue.Queue[tuple[int, _Pulled]] = queue.Queue()

    def work() -> None:
        while not closed.is_set():
            with lock:
                if not due:  # every reply still missing is in the hands of another thread
                    return
                when, i = heapq.heappop(due)
            if closed.wait(max(0.0, when - time.monotonic())):
                return
            try:
                replies, problem = list(grid.grid.pull_messages([pending[i]])), None
            except (OSError, httpx.TransportError):  # the SuperLink cannot be reached: nobody's fault, look again
                replies, problem = [], None
            except BaseException as raised:  # whatever a hostile reply makes Flower raise
                replies, problem = [], raised
            waited = time.monotonic() - start
            if replies or problem:
                arrived.put((i, _Pulled(replies, problem, waited)))
                continue
            with lock:
                heapq.heappush(due, (start + waited + min(max(grid.poll, waited / 20), LONGEST_POLL), i))

    for _ in range(min(grid.threads, len(pending))):
        threading.Thread(target=work, name="holdfast-pull", daemon=True).start()
    pulled: dict[int, _Pulled] = {}
    try:
        while len(pulled) < len(pending) and (left := deadline - time.monotonic()) > 0:
            try:
                i, what = arrived.get(timeout=left)
            except queue.Empty:
                break
            pulled[i] = what
    finally:
        closed.set()
    return pulled


def _outcome(message: Message, message_id: str | None, pulled: _Pulled | None, timeout: float) -> Outcome:
    """Judge what one message brought, by what we know and not by what the reply says."""
    node = message.metadata.dst_node_id
    if message_id is None:
        return Outcome(node, "error", reason="the SuperLink did not accept the message")
    if pulled is None:
        return Outcome(node, "silent", reason=f"no reply within {timeout:g} s", seconds=timeout)
    if pulled.problem is not None:
        reason = f"the reply cannot be decoded: {plain(pulled.problem)}"
        return Outcome(node, "malformed", reason=reason, seconds=pulled.seconds)
    if len(pulled.replies) > 1:
        reason = f"{len(pulled.replies)} replies came to one message"
        return Outcome(node, "malformed", reason=reason, seconds=pulled.seconds)
    reply = pulled.replies[0]
    if reply.has_error():
        return Outcome(node, "error", reason=error_of(reply), seconds=pulled.seconds)
    if reply.metadata.reply_to_message_id != message_id or reply.metadata.src_node_id != node:
        reason = "the reply names another sender or another message"
        return Outcome(node, "malformed", reason=reason, seconds=pulled.seconds)
    return Outcome(node, "answered", reply, seconds=pulled.seconds)


def limit_memory(extra: int) -> None:
    """Let this process take so many bytes of address space beyond what it has now; more is a MemoryError.

    Raises:
        ConfigError: not a positive number, or a system that cannot.
    """
    if extra < 1:
        raise ConfigError(f"memory must be a number of bytes above 0, got {extra!r}")
    try:
        import resource

        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        soft = taken + extra if most == resource.RLIM_INFINITY else min(taken + extra, most)
        resource.setrlimit(resource.RLIMIT_AS, (soft, most))
    except (ImportError, OSError, ValueError) as problem:
        raise ConfigError(f"memory = {extra}: this system cannot limit a process's memory ({problem})") from problem


def error_of(reply: Message) -> str:
    """What an error reply says, safe to print."""
    return f"error {reply.error.code}: {plain(reply.error.reason or 'no reason given')}"


def plain(text: object, longest: int = 200) -> str:
    """What somebody else wrote, safe to print: one line of printable characters, not too long, without any ids.

    >>> plain("no such file" + chr(10) + "x" * 300)[:30]
    'no such file xxxxxxxxxxxxxxxxx'
    """
    said = f"{type(text).__name__}: {text}" if isinstance(text, BaseException) else str(text)
    words = ("<id>" if len(word.strip("'\".,:")) == 64 else word for word in said[: 20 * longest].split())
    line = "".join(c if c.isprintable() else "?" for c in " ".join(words))
    return line if len(line) <= longest else line[: longest - 3] + "..."
