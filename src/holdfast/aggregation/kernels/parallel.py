"""Chunks of coordinates over a small thread pool of our own.

The kernels release the interpreter lock, and coordinates are independent, so plain threads scale. Chunks have a
fixed size: what is summed together never depends on the number of threads, and results are reproducible.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

POOL_PAYS_NS = 500_000.0
"""A round trip through the pool costs some 50 microseconds; below half a millisecond one thread is faster."""


def default_threads() -> int:
    """As many threads as torch uses if it is loaded (one knob for the user), else the cores we may run on."""
    torch = sys.modules.get("torch")
    if torch is not None:
        return int(torch.get_num_threads())
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@lru_cache(maxsize=4)
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    # `process` is part of the key because threads do not survive a fork.
    return ThreadPoolExecutor(threads, thread_name_prefix="holdfast-kernel")


def for_chunks(
    task: Callable[[int, int, int], None], d: int, chunk: int, *, ns: float, threads: int | None = None
) -> None:
    """Call `task(index, begin, end)` for every chunk of `range(d)`; `ns` is a guess of the total time."""
    count = -(-d // chunk)
    if threads is None:
        threads = default_threads() if count > 1 and ns >= POOL_PAYS_NS else 1
    if count < 2 or threads < 2 or ns < POOL_PAYS_NS:
        for c in range(count):
            task(c, c * chunk, min(d, (c + 1) * chunk))
        return
    work = [(c, c * chunk, min(d, (c + 1) * chunk)) for c in range(count)]
    for _ in _pool(threads, os.getpid()).map(lambda args: task(*args), work):
        pass
