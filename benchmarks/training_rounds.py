"""How fast are FedAvg rounds? The same rounds as a plain PyTorch loop, by Flower, by pfl-research and by holdfast.

One round is 10 clients x 5 SGD steps x 32 examples from one global model; the networks are those of Cao et al. (2021).
The machine may be busy, so what counts is processor time: contenders take turns, and a ratio compares neighbors of
the same turn. Start-up (Ray, compilation) is left out. The fraction of peak is the arithmetic of the rounds over
what this machine's float32 units can do, measured in the same turn.

    python benchmarks/training_rounds.py --flower-python FLOWER/bin/python --pfl-python PFL/bin/python

with environments of the peers' own, made by `pip install -c constraints.txt torch==2.13.0 'flwr[simulation]'` and
`pip install -c constraints.txt torch==2.13.0 pfl`. A peer that is not there is reported as not run.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from holdfast.training import FedAvg, make_trainer
from peak import peak_flops
from peers.rounds_task import (
    BATCH,
    CLIENTS,
    LR,
    MARK,
    NETWORKS,
    SAMPLES_PER_ROUND,
    STEPS,
    client_data,
    flops_per_sample,
)

AIMS = {"cnn": {"plain": 4, "flower": 6, "pfl": 4, "peak": 0.5}, "har": {"plain": 5, "flower": 18, "pfl": 4}}
ROUNDS = {"cnn": {"plain": 2, "torch": 2, "compiled": 8, "flower": 10, "pfl": 4}}
ROUNDS["har"] = {"plain": 20, "torch": 40, "compiled": 120, "flower": 40, "pfl": 40}
OFFLINE = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "OMP_NUM_THREADS": "1",
}


@dataclass(frozen=True)
class Turn:
    """One measurement: samples per processor-second and per second, and the share of one core's float32 peak."""

    cpu_rate: float
    wall_rate: float
    peak: float


@dataclass
class Row:
    """What one contender did on one network; a turn is None where it failed, and `problem` says how."""

    network: str
    contender: str
    version: str = ""
    turns: list[Turn | None] = field(default_factory=list)
    problem: str = ""

    def add(self, rounds: float, cpu: float, wall: float, peak: float) -> None:
        """One turn: how many rounds, in how much time, at what peak of the machine."""
        samples = rounds * SAMPLES_PER_ROUND
        flops = samples * flops_per_sample(self.network)
        self.turns.append(Turn(samples / cpu, samples / wall, flops / cpu / peak))

    def fail(self, problem: str) -> None:
        """A turn that did not work."""
        self.turns.append(None)
        self.problem = problem

    def values(self, quantity: str) -> list[float]:
        """Of the turns that worked."""
        return [getattr(turn, quantity) for turn in self.turns if turn is not None]

    def content(self) -> dict[str, object]:
        """For the results file."""
        facts = {"network": self.network, "contender": self.contender, "version": self.version}
        return (
            facts | {"problem": self.problem} | {name: self.values(name) for name in ("cpu_rate", "wall_rate", "peak")}
        )


def plain_loop(name: str) -> Callable[[int], float]:
    """Modules, `torch.optim.SGD`, and loops over clients and steps: what one writes without a library."""
    build, _, _ = NETWORKS[name]
    module, data = build(), [client_data(name, client) for client in range(CLIENTS)]
    state = copy.deepcopy(module.state_dict())

    def run(rounds: int) -> float:
        nonlocal state
        for _ in range(rounds):
            sent = []
            for x, y in data:
                module.load_state_dict(state)
                optimizer = torch.optim.SGD(module.parameters(), lr=LR)
                for rows in torch.randint(len(x), (STEPS, BATCH)):
                    optimizer.zero_grad()
                    torch.nn.functional.cross_entropy(module(x[rows]), y[rows]).backward()
                    optimizer.step()
                sent.append(copy.deepcopy(module.state_dict()))
            state = {key: torch.stack([one[key] for one in sent]).mean(0) for key in state}
        return rounds

    return run


def holdfast_rounds(name: str, engine: str, models: int, threads: int) -> Callable[[int], float]:
    """Rounds of several models by one of our engines; counted per model."""
    data = [client_data(name, client) for client in range(CLIENTS)]
    x, y = (torch.cat(parts).numpy() for parts in zip(*data, strict=True))
    size = len(data[0][1])
    clients = SimpleNamespace(offsets=np.arange(CLIENTS + 1) * size, indices=np.arange(CLIENTS * size))
    fedavg = FedAvg(rounds=10**6, lr=LR, local_steps=STEPS, batch_size=BATCH)
    trainer = make_trainer(NETWORKS[name][0], x, y, clients, fedavg, seed=0, engine=engine, threads=threads)
    ids, members = list(range(models)), [np.arange(CLIENTS)] * models
    start = trainer.init(ids)

    def run(rounds: int) -> float:
        each = max(1, rounds // models)
        trainer.run(start, ids, members, rounds=each)
        return each * models

    return run


def measure_here(row: Row, run: Callable[[int], float], rounds: int, peak: float) -> None:
    """One turn of a contender in this process."""
    cpu, wall = time.process_time(), time.perf_counter()
    done = run(rounds)
    row.add(done, time.process_time() - cpu, time.perf_counter() - wall, peak)


def measure_peer(row: Row, python: str | None, script: str, rounds: int, peak: float) -> None:
    """One turn of a peer, in its own environment."""
    if python is None:
        row.fail(f"--{row.contender}-python was not given")
        return
    command = [python, str(Path(__file__).parent / "peers" / script), row.network, "--rounds", str(rounds)]
    environment = os.environ | OFFLINE | {MARK: uuid.uuid4().hex}
    try:
        output = run_alone(command, environment)
        (line,) = [line for line in output.splitlines() if line.startswith('{"rounds"')]
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        row.fail((getattr(error, "stderr", None) or str(error)).strip().splitlines()[-1])
        return
    told = json.loads(line)
    row.version = told["version"]
    row.add(told["rounds"], told["cpu"], told["wall"], peak)


def run_alone(command: list[str], environment: dict[str, str], seconds: float = 300) -> str:
    """Run a program to its end and give back its output; nothing that it started (Ray's daemons) survives it."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, start_new_session=True, **pipes) as process:  # type: ignore[call-overload]
        try:
            output, complaints = process.communicate(timeout=seconds)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, output, complaints)
    return str(output)


def compare(name: str, options: argparse.Namespace) -> list[Row]:
    """All contenders on one network, taking turns."""
    cores = len(os.sched_getaffinity(0))
    here = {
        "plain": plain_loop(name),
        "torch": holdfast_rounds(name, "torch", 2, 1),
        "compiled": holdfast_rounds(name, "compiled", 2, 1),
        f"compiled, {cores} threads": holdfast_rounds(name, "compiled", 2 * cores, cores),
    }
    rows = {contender: Row(name, contender, version=_versions()) for contender in (*here, "flower", "pfl")}
    rounds = {contender: max(1, number // (4 if options.quick else 1)) for contender, number in ROUNDS[name].items()}
    rounds[f"compiled, {cores} threads"] = rounds["compiled"] * 2
    for run in here.values():
        run(2)
    for turn in range(options.turns):
        peak = peak_flops()
        for contender, run in here.items():
            measure_here(rows[contender], run, rounds[contender], peak)
        measure_peer(rows["flower"], options.flower_python, "flower_rounds.py", rounds["flower"], peak)
        measure_peer(rows["pfl"], options.pfl_python, "pfl_rounds.py", rounds["pfl"], peak)
        print(f"{name}: turn {turn + 1} of {options.turns}", file=sys.stderr)
    return list(rows.values())


def ratios(rows: list[Row]) -> dict[str, dict[str, float]]:
    """Ours over each contender's samples per processor-second: median and range over turns."""
    ours = next(row for row in rows if row.contender == "compiled")
    table = {}
    for row in rows:
        pairs = [(a, b) for a, b in zip(ours.turns, row.turns, strict=True) if a is not None and b is not None]
        if pairs and row is not ours:
            faster = [mine.cpu_rate / theirs.cpu_rate for mine, theirs in pairs]
            table[row.contender] = {"median": statistics.median(faster), "low": min(faster), "high": max(faster)}
    return table


def show(name: str, rows: list[Row], table: dict[str, dict[str, float]]) -> None:
    """The table for one network."""
    print(f"\n{name}: {flops_per_sample(name) / 1e6:.2f} MFLOP per sample, {SAMPLES_PER_ROUND} samples per round")
    print(f"{'contender':24}{'samples/cpu-s':>14}{'samples/s':>12}{'of peak':>9}   ours is faster per cpu-second by")
    for row in rows:
        if not any(row.turns):
            print(f"{row.contender:24}not run: {row.problem}")
            continue
        rates = [statistics.median(row.values(quantity)) for quantity in ("cpu_rate", "wall_rate", "peak")]
        ratio = table.get(row.contender)
        by = f"{ratio['median']:.1f} ({ratio['low']:.1f}-{ratio['high']:.1f})" if ratio else ""
        aim = AIMS[name].get(row.contender)
        by += f"   aim {aim}" if aim else ""
        print(f"{row.contender:24}{rates[0]:14,.0f}{rates[1]:12,.0f}{rates[2]:9.0%}   {by}", flush=True)


def main() -> None:
    """Measure, print, and write `benchmarks/results/training_rounds.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=AIMS, default=list(AIMS))
    parser.add_argument("--flower-python", help="Python of an environment with flwr[simulation]")
    parser.add_argument("--pfl-python", help="Python of an environment with pfl")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a quarter of the rounds, two turns")
    parser.add_argument("--json", type=Path, help="default: benchmarks/results/training_rounds[_quick].json")
    options = parser.parse_args()
    default = Path(__file__).parent / "results" / f"training_rounds{'_quick' if options.quick else ''}.json"
    options.json = options.json or default
    options.turns = 2 if options.quick else options.turns
    torch.set_num_threads(1)
    for name in options.networks:
        rows = compare(name, options)
        table = ratios(rows)
        show(name, rows, table)
        measured = {"rows": [row.content() for row in rows], "faster_by": table, "aims": AIMS[name]}
        write(options, name, measured | {"quick": options.quick, "turns": options.turns})


def write(options: argparse.Namespace, name: str, measured: dict[str, object]) -> None:
    """One network's measurements; the other network keeps what an earlier run found."""
    machine = {"processor": _processor(), "cores": len(os.sched_getaffinity(0)), "python": platform.python_version()}
    machine |= {"load_average": os.getloadavg()[0], "peak_gflops_per_core": peak_flops() / 1e9}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    earlier = json.loads(options.json.read_text())["networks"] if options.json.exists() else {}
    content = {"networks": earlier | {name: measured | {"machine": machine}}}
    options.json.write_text(json.dumps(content, indent=1) + "\n")


def _versions() -> str:
    return ", ".join(f"{package} {version(package)}" for package in ("holdfast", "torch", "numba"))


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
