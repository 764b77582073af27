"""A lookahead step of Romoa: processor time and memory beside the uploads, in memory and from a mapped file.

    python benchmarks/romoa_step.py [--quick]

The plain loop is the same step in NumPy without the element-wise term: mean, then dot products per client and layer.
"rest" is what NumPy allocates at its peak beside the uploads. The 200 clients are 8.8 GB in a temporary file that is
mapped, not read; pages the system caches are not counted, the process' own memory is.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.aggregation import make
from measure import contest, machine, save

LAYERS = 12


def layout(d: int) -> list[slice]:
    """Layers of equal size."""
    return [slice(i * d // LAYERS, (i + 1) * d // LAYERS) for i in range(LAYERS)]


def fill(rows: np.ndarray[Any, Any]) -> None:
    """Updates with a common part and a part of their own, cheaply."""
    d = rows.shape[1]
    rng = np.random.default_rng(0)
    common, noise = (rng.standard_normal(d, dtype=np.float32) for _ in range(2))
    for i in range(len(rows)):
        np.multiply(np.roll(noise, 7919 * i + 1), np.float32(0.5 + 0.01 * i), out=rows[i])
        rows[i] += common
        rows[i] *= np.float32(1e-2)


def plain_step(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Layer-wise cosine and correlation as one would write them."""
    mean = rows.mean(axis=0)
    found = np.empty((2, len(rows), LAYERS))
    for g, part in enumerate(layout(rows.shape[1])):
        m = mean[part]
        for i, row in enumerate(rows):
            u = row[part]
            found[0, i, g] = np.dot(u, m) / np.sqrt(np.dot(u, u) * np.dot(m, m))
            found[1, i, g] = np.corrcoef(u, m)[0, 1]
    return found


def peak_of(call: Callable[[], Any]) -> int:
    """Bytes allocated at the peak of a call."""
    tracemalloc.start()
    call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def in_memory(n: int, d: int) -> list[dict[str, Any]]:
    """Every way to take the step, on the same uploads, taking turns."""
    rows = np.empty((n, d), np.float32)
    fill(rows)
    fast, full = make("romoa", elementwise=False), make("romoa")
    state = {rule: rule.lookahead(rows, layout=layout(d)) for rule in (fast, full)}
    calls = {
        "mean of the rows (NumPy)": lambda: rows.mean(axis=0),
        "plain loop (NumPy)": lambda: plain_step(rows),
        "lookahead, layers": lambda: fast.lookahead(rows, state=state[fast], layout=layout(d)),
        "lookahead, layers and elements": lambda: full.lookahead(rows, state=state[full], layout=layout(d)),
        "syncing, layers": lambda: fast.aggregate(rows, state=state[fast], layout=layout(d)),
        "syncing, layers and elements": lambda: full.aggregate(rows, state=state[full], layout=layout(d)),
    }
    seconds = contest(calls, turns=5, budget=12.0)
    return [
        {"what": name, "n": n, "d": d, "seconds": seconds[name], "rest_bytes": peak_of(call), "uploads": rows.nbytes}
        for name, call in calls.items()
    ]


def from_a_file(n: int, d: int) -> list[dict[str, Any]]:
    """Many clients whose uploads lie in a mapped file."""
    results = []
    with tempfile.TemporaryDirectory(prefix="romoa-step-") as folder:
        path = Path(folder) / "uploads"
        writable = np.memmap(path, np.float32, "w+", shape=(n, d))
        fill(writable)
        writable.flush()
        del writable
        rows = np.memmap(path, np.float32, "r", shape=(n, d))
        for words, rule in (("layers", make("romoa", elementwise=False)), ("layers and elements", make("romoa"))):
            rule.aggregate(rows[:, :1000])  # compile for arrays that may not be written to
            for name, call in (("lookahead", rule.lookahead), ("syncing", rule.aggregate)):
                began, wall = time.process_time(), time.perf_counter()
                rest = peak_of(lambda call=call: call(rows, layout=layout(d)))  # type: ignore[misc]
                took, waited = time.process_time() - began, time.perf_counter() - wall
                results.append(
                    {"what": f"{name}, {words} (mapped)", "n": n, "d": d, "seconds": took, "wall": waited,
                     "rest_bytes": rest, "uploads": rows.nbytes}
                )  # fmt: skip
    return results


def own_memory() -> float:
    """The process' own memory at this moment, without mapped files, in bytes (Linux; else 0)."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((float(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")), 0.0)


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    small, many = ((10, 300_000), (200, 100_000)) if quick else ((10, 11_000_000), (200, 11_000_000))
    rows = in_memory(*small)
    rows += from_a_file(*many)
    loop = next(row["seconds"] for row in rows if row["what"].startswith("plain"))
    print(f"{'':42}{'n':>5}{'d':>12}{'CPU s':>9}{'plain loop':>12}{'rest MB':>9}{'uploads MB':>12}")
    for row in rows:
        times = f"{loop / row['seconds']:.1f}x" if row["n"] == small[0] else ""
        print(
            f"{row['what']:42}{row['n']:>5}{row['d']:>12,}{row['seconds']:>9.3f}{times:>12}"
            f"{row['rest_bytes'] / 1e6:>9.0f}{row['uploads'] / 1e6:>12,.0f}"
        )
    print(machine())
    save("romoa_step" + ("_quick" if quick else ""), rows, own_memory_at_end=own_memory())


if __name__ == "__main__":
    main()
