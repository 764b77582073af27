"""For ClientApps: a watchdog, so that a training step that hangs cannot take its node with it.

A SuperNode handles one message at a time and sets no limit: a ClientApp that hangs keeps its node silent for this run
and the next ones. Each message has a process of its own, so ending that process is safe, and the node then goes on
with the next message.
"""

from __future__ import annotations

import faulthandler
import functools
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flwr.app import ConfigRecord, Context, Message

from holdfast.types import ConfigError

Handler = Callable[[Message, Context], Message]

DEADLINE = "deadline"
"""The entry of a message's ConfigRecords that says how many seconds the client has."""


def watched(*, seconds: float = 600.0) -> Callable[[Handler], Handler]:
    """Decorate a ClientApp's function: it returns in time, or its process ends.

    The time is the entry `deadline` (seconds) of one of the message's ConfigRecords, where the server sent one:
    `train_config=ConfigRecord({"deadline": 120.0})`. The clock starts when the function is called.

    Args:
        seconds: the time where the message names none; a message cannot ask for more than ten times this.

    Raises:
        ConfigError: `seconds` is not a positive number.

    Example:
        >>> from flwr.clientapp import ClientApp
        >>> app = ClientApp()
        >>> @app.train()
        ... @watched(seconds=300)
        ... def train(message: Message, context: Context) -> Message:
        ...     return Message(message.content, reply_to=message)
    """
    _check(seconds)

    def decorate(function: Handler) -> Handler:
        @functools.wraps(function)
        def within(message: Message, context: Context) -> Message:
            with watchdog(min(_deadline(message, seconds), 10 * seconds)):
                return function(message, context)

        return within

    return decorate


@contextmanager
def watchdog(seconds: float) -> Iterator[None]:
    """End this process, with a traceback of all its threads on stderr, unless the block is left in time.

    The clock runs in a thread of C code: it also ends a step that holds Python's global lock. One watchdog at a
    time: an inner one replaces the outer one.

    Raises:
        ConfigError: `seconds` is not a positive number.
    """
    _check(seconds)
    faulthandler.dump_traceback_later(seconds, exit=True, file=sys.__stderr__ or 2)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def _check(seconds: float) -> None:
    if not 0 < seconds < math.inf:
        raise ConfigError(f"seconds must be a time above 0, got {seconds!r}")


def _deadline(message: Message, otherwise: float) -> float:
    """What the message says, if that is a positive number."""
    for record in message.content.values():
        said = record.get(DEADLINE) if isinstance(record, ConfigRecord) else None
        if isinstance(said, int | float) and 0 < said < math.inf:
            return float(said)
    return otherwise
