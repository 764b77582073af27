"""Where does the compiled engine's time go? Each layer of the paper's networks, in GFLOP/s and share of the peak.

One SGD step on 32 examples, layer by layer, in one thread, by processor time; the peak is measured in the same run.

    python benchmarks/engine_peak.py [--quick]
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent / "peers")]
from rounds_task import NETWORKS  # noqa: E402

from holdfast.training.compiled.crew import Workspace  # noqa: E402
from holdfast.training.compiled.engine import programs  # noqa: E402
from holdfast.training.compiled.layers import layer_backward, layer_forward  # noqa: E402
from holdfast.training.compiled.plan import CONV, LINEAR, POOL, make_plan  # noqa: E402
from holdfast.training.compiled.spec import read_layers  # noqa: E402
from holdfast.training.compiled.weights import place_weights  # noqa: E402
from peak import peak_flops  # noqa: E402

BATCH = 32
KINDS = {CONV: "convolution", LINEAR: "linear", POOL: "pooling"}


@njit
def forward_often(mem, tab, codes, ops, nets, index, times):  # type: ignore[no-untyped-def]
    for _ in range(times):
        layer_forward(mem, tab, codes, ops[index], nets[0])


@njit
def backward_often(mem, tab, codes, ops, nets, index, times):  # type: ignore[no-untyped-def]
    for _ in range(times):
        layer_backward(mem, tab, codes, ops[index], nets[0])


def seconds(run: Callable[[int], None], budget: float) -> float:
    """Processor seconds of one call, best of some stretches."""
    run(1)
    began = time.process_time()
    run(4)
    times = max(1, int(4 * budget / 5 / max(time.process_time() - began, 1e-6)))
    best = float("inf")
    for _ in range(5):
        began = time.process_time()
        run(times)
        best = min(best, (time.process_time() - began) / times)
    return best


def parts(op: Any) -> dict[str, tuple[float, Callable[..., None], bool]]:
    """What a layer does in one step: name -> (operations, program, with input gradient)."""
    area = (
        int(op["kernel_height"] * op["kernel_width"] * op["height_out"] * op["width_out"]) if op["kind"] == CONV else 1
    )
    flops = 2.0 * BATCH * area * int(op["channels"] * op["channels_out"])
    if op["kind"] not in (CONV, LINEAR):
        return {"forward": (0, forward_often, True), "backward": (0, backward_often, True)}
    found = {"forward": (flops, forward_often, True), "update": (flops, backward_often, False)}
    if op["gx"] >= 0:
        found["input gradient and update"] = (2 * flops, backward_often, True)
    return found


def profile(name: str, budget: float) -> list[dict[str, Any]]:
    """One row per layer and part."""
    build, shape, _ = NETWORKS[name]
    layers = read_layers(build())
    plan = make_plan(layers, shape, place_weights(layers), BATCH)
    space = Workspace(plan, programs())
    space.memory[:] = np.random.default_rng(0).normal(size=len(space.memory)) / 100
    peak = peak_flops()
    rows = []
    for index, op in enumerate(plan.ops):
        for part, (flops, program, with_input) in parts(op).items():
            ops = plan.ops.copy()
            if not with_input:
                ops[index]["gx"] = -1

            def run(times: int, program: Any = program, ops: Any = ops, index: int = index) -> None:
                program(space.memory, space.table, space.codes, ops, plan.net, index, times)

            took = seconds(run, budget)
            kind = f"{index} {KINDS.get(int(op['kind']), 'ReLU')}"
            rows.append({"network": name, "layer": kind, "part": part, "microseconds": took * 1e6})
            rows[-1] |= {"gflops": flops / took / 1e9, "of_peak": flops / took / peak} if flops else {}
    return rows


def main() -> None:
    """Print the table and write it beside the script."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the time")
    options = parser.parse_args()
    rows = [row for name in NETWORKS for row in profile(name, 0.1 if options.quick else 1.0)]
    for row in rows:
        rate = f"{row['gflops']:8.0f} GFLOP/s {row['of_peak']:6.0%} of peak" if "gflops" in row else ""
        print(f"{row['network']:5}{row['layer']:16}{row['part']:28}{row['microseconds']:9.1f} us{rate}")
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    facts = {"machine": platform.processor() or platform.machine(), "python": platform.python_version()}
    facts |= {"peak_gflops": peak_flops() / 1e9, "rows": rows}  # type: ignore[dict-item]
    (results / "engine_peak.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
