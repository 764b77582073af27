"""Live progress on the terminal: stages with an estimate, lines when the output is not a terminal."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

_LINE_EVERY = 15.0  # seconds between lines where the bar cannot be drawn


class Reporter:
    """Shows what a job does: `note` prints a line, `progress` moves the bar of a stage. Writes to stderr."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = Console(stderr=True, quiet=quiet)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
            TimeElapsedColumn(),
            console=self._console,
            disable=not self._console.is_terminal or quiet,
        )
        self._tasks: dict[str, TaskID] = {}
        self._last_line = 0.0

    def __enter__(self) -> Reporter:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def note(self, text: str) -> None:
        """Print one line of chatter."""
        self._console.print(text, highlight=False)

    def progress(self, stage: str, done: int, total: int, left: float | None = None) -> None:
        """Report that `done` of `total` steps of a stage are finished, with `left` seconds to go."""
        estimate = "" if left is None or done == total else f"about {duration(left)} left"
        if not self._bar.disable:
            if stage not in self._tasks:
                self._tasks[stage] = self._bar.add_task(stage, total=total, left="")
            self._bar.update(self._tasks[stage], completed=done, total=total, left=estimate)
        elif done == total or time.monotonic() - self._last_line > _LINE_EVERY:
            self._last_line = time.monotonic()
            self.note(f"{stage}: {done}/{total} {estimate}".rstrip())


def duration(seconds: float) -> str:
    """A duration as people say it.

    Example:
        >>> duration(42), duration(95), duration(7300)
        ('42 s', '1 min 35 s', '2 h 01 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
