"""How the aggregation benchmarks measure: processor time, contenders taking turns, and what the machine could do."""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import json
import platform
import sys
import time
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.aggregation.kernels import emit
from holdfast.aggregation.kernels.coordinate import row_pointers

RESULTS = Path(__file__).parent / "results"


def contest(contenders: Mapping[str, Callable[[], Any]], *, turns: int = 7, budget: float = 6.0) -> dict[str, float]:
    """Best processor seconds of one call per contender; they take turns, the slow ones fewer (at least one)."""
    best = dict.fromkeys(contenders, float("inf"))
    spent = dict.fromkeys(contenders, 0.0)
    for name, call in contenders.items():  # compile, load, touch the memory; too slow to be run twice: counts
        start = time.process_time()
        call()
        spent[name] = time.process_time() - start
        if spent[name] > budget / 2:
            best[name] = spent[name]
    for _ in range(turns):
        for name, call in contenders.items():
            if spent[name] > budget / 2:
                continue
            start = time.process_time()
            call()
            took = time.process_time() - start
            best[name] = min(best[name], took)
            spent[name] += took
    return best


def read_bandwidth(megabytes: int = 256) -> float:
    """Bytes per second of one core reading memory in order: BLAS, or ten streams asked for ahead, whichever is faster.

    The ten streams are our own median's access pattern with nothing to do for each value but one multiply-add.
    """
    rows = np.ones((10, megabytes * (1 << 20) // 40), np.float32)
    calls: dict[str, Callable[[], Any]] = {"BLAS": lambda: np.dot(rows.ravel(), rows.ravel())}
    if emit.available():
        run, sums = _reader(len(rows)), np.zeros(emit.lanes("float32"), np.float32)
        pointers = row_pointers(list(rows))
        calls["streams"] = lambda: run(pointers, rows.shape[1] // len(sums), sums.ctypes.data)
    return rows.nbytes / min(contest(calls, turns=7).values())


def _reader(streams: int) -> Callable[..., None]:
    """Compiled code that reads so many rows side by side and adds up their squares."""
    e = emit.Emitter("float32", emit.lanes("float32"))
    e.label("entry")
    starts = [e.row_pointer("%rows", k) for k in range(streams)]

    def body(i: str, before: list[str]) -> list[str]:
        sums = list(before)
        at = e.binary("mul", i, str(e.lanes), "i64")
        for k, start in enumerate(starts):
            pointer = e.at(start, at)
            e.prefetch(pointer, 512)
            value = e.load(pointer)
            sums[k % 4] = e.multiply_add(value, value, sums[k % 4])
        return sums

    for total in e.loop("%count", body, [(e.vector, e.constant(0.0))] * 4):
        e.store(total, "%sums")
    e.do("ret void")
    text = e.function("read_rows", ["ptr %rows", "i64 %count", "ptr %sums"])
    return emit.compile_function(text, "read_rows", [ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p])


def minmax_rate() -> float | None:
    """Minima and maxima of float32 numbers per second of one core, all operands in registers."""
    if not emit.available():
        return None
    e = emit.Emitter("float32", emit.lanes("float32"))
    chains, unrolled, rounds = 12, 8, 100_000
    e.label("entry")
    start = [(e.vector, e.load(e.at("%data", k * e.lanes))) for k in range(chains)]
    other = e.load(e.at("%data", chains * e.lanes))

    def body(_: str, values: list[str]) -> list[str]:
        for step in range(unrolled):
            values = [(e.minimum if (step + k) % 2 else e.maximum)(v, other) for k, v in enumerate(values)]
        return values

    for k, value in enumerate(e.loop(rounds, body, start)):
        e.store(value, e.at("%data", k * e.lanes))
    e.do("ret void")
    run = emit.compile_function(e.function("minmax", ["ptr %data"]), "minmax", [ctypes.c_void_p])
    data = np.random.default_rng(0).normal(size=(chains + 1) * e.lanes).astype(np.float32)
    seconds = contest({"minmax": lambda: run(data.ctypes.data)})["minmax"]
    return chains * unrolled * rounds * e.lanes / seconds


def version(package: str) -> str | None:
    """The installed version of a peer, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def byzfl_aggregators() -> Any | None:
    """ByzFL's rules, without the training half of the package (which wants torchvision); None if not installed."""
    if "byzfl" not in sys.modules:
        spec = importlib.util.find_spec("byzfl")
        if spec is None or spec.submodule_search_locations is None:
            return None
        package = types.ModuleType("byzfl")
        package.__path__ = list(spec.submodule_search_locations)
        sys.modules["byzfl"] = package
    from byzfl.aggregators import aggregators

    return aggregators


def flower_aggregate() -> Any | None:
    """Flower's aggregation functions, or None if Flower is not installed."""
    try:
        from flwr.server.strategy import aggregate
    except ImportError:
        return None
    return aggregate


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    names = ("holdfast", "numpy", "torch", "llvmlite", "flwr", "byzfl")
    cpu = [line for line in _cpuinfo() if line.startswith("model name")]
    return {
        "cpu": cpu[0].split(":")[1].strip() if cpu else platform.processor(),
        "registers": f"{emit.lanes('float32') * 32} bit" if emit.available() else "no compiler",
        "python": platform.python_version(),
        "versions": {name: version(name) or "not installed" for name in names},
    }


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def save(claim: str, rows: list[dict[str, Any]], **more: Any) -> Path:
    """Write what was measured beside the benchmarks."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{claim}.json"
    path.write_text(json.dumps({"machine": machine(), **more, "rows": rows}, indent=1) + "\n")
    return path


def ratio(peer: float | None, ours: float) -> str:
    """How many times the peer takes, for a table."""
    return "not installed" if peer is None else f"{peer / ours:.0f}x"
