"""What do worker processes and a Dask cluster cost beside training in one process? Processor time, same votes.

The same ensemble (the HAR network on digits) trains in one process with one thread, in one worker process, and on a
Dask cluster of a scheduler and one worker, all on this machine. Each contender runs in a process of its own, whose
processor time includes that of everything it started. Two sizes of the ensemble tell what is paid once from what is
paid per model; a model is a chunk here, the smallest there is.

    python benchmarks/cluster_overhead.py [--quick]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from measure import save

CLIENTS, K = 20, 5
PLACES = ("in process", "processes", "dask")


@contextmanager
def cluster() -> Iterator[str]:
    """A scheduler and one worker; gives its address."""
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "scheduler.json"
        dask = [sys.executable, "-m"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        where = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(told)]
        scheduler = subprocess.Popen([*dask, "distributed.cli.dask_scheduler", *where], **quiet)  # type: ignore[call-overload]
        while not (told.exists() and told.stat().st_size):
            time.sleep(0.05)
        address = json.loads(told.read_text())["address"]
        options = [address, "--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", folder]
        worker = subprocess.Popen([*dask, "distributed.cli.dask_worker", *options], **quiet)  # type: ignore[call-overload]
        try:
            yield address
        finally:
            for process in (worker, scheduler):
                process.terminate()
                process.wait()


def train(place: str, models: int, rounds: int) -> str:
    """Train an ensemble in one place; a hash of its votes."""
    import numpy as np

    from holdfast.data import load, partition
    from holdfast.engine import Dask, Processes
    from holdfast.ensemble import VoteLog
    from holdfast.training import FedAvg, model_factory, train_ensemble
    from holdfast.training.elsewhere import Elsewhere, Recipe

    digits = load("digits")
    rows = partition("iid", digits.y_train, n=CLIENTS, seed=0)
    fedavg = FedAvg(rounds=rounds, local_steps=5, batch_size=32, lr=0.1)
    recipe = Recipe(model_factory("har", digits.x_train.shape[1:], 10), digits.x_train, digits.y_train, rows, fedavg, 0)
    members = [np.random.default_rng(model).choice(CLIENTS, K, replace=False) for model in range(models)]
    trainer = recipe.trainer(engine="compiled", threads=1)

    def run(where: Any) -> str:
        elsewhere = None if where is None else Elsewhere(where, recipe, "compiled", "cpu", print)
        with tempfile.TemporaryDirectory() as folder:
            log = VoteLog(Path(folder) / "log", len(digits.x_test), 10, "benchmark")
            votes = train_ensemble(trainer, members, digits.x_test, log, run_dir=Path(folder), elsewhere=elsewhere)
        return hashlib.sha256(votes.tobytes()).hexdigest()

    if place == "dask":
        with cluster() as address:
            return run(Dask(address))
    return run(Processes(1) if place == "processes" else None)


def measured(place: str, models: int, rounds: int) -> tuple[float, float, str]:
    """Processor seconds, wall seconds and votes of one contender in a process of its own."""
    command = [sys.executable, __file__, "--only", place, str(models), str(rounds)]
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert process.stdout is not None
    votes = process.stdout.read().strip()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{place} failed with status {status}")
    return usage.ru_utime + usage.ru_stime, time.monotonic() - began, votes


def contest(models: int, rounds: int, turns: int) -> list[dict[str, Any]]:
    """One row per place: what a model costs, and what is paid once; the least of several turns."""
    least = {(place, count): (float("inf"), float("inf")) for place in PLACES for count in (1, models)}
    seen: dict[int, set[str]] = {1: set(), models: set()}
    for _ in range(turns):
        for place, count in least:
            cpu, wall, votes = measured(place, count, rounds)
            least[place, count] = min(least[place, count], (cpu, wall))
            seen[count].add(votes)
    if any(len(votes) != 1 for votes in seen.values()):
        raise SystemExit("the votes differ between places")
    rows = []
    for place in PLACES:
        (one, _), (many, wall) = least[place, 1], least[place, models]
        per_model = (many - one) / (models - 1)
        rows.append({"place": place, "cpu": many, "wall": wall, "cpu_per_model": per_model, "once": one - per_model})
    return rows


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few and small models; nothing is saved")
    parser.add_argument("--only", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        print(train(arguments.only[0], int(arguments.only[1]), int(arguments.only[2])))
        return
    models, rounds, turns = (5, 10, 1) if arguments.quick else (60, 50, 3)
    rows = contest(models, rounds, turns)
    base = rows[0]
    print(f"{models} models of {K} clients, {rounds} rounds each; least of {turns} turns; the votes are the same\n")
    print("place       CPU s  wall s  paid once, CPU s  per model, CPU ms  overhead per model, CPU ms")
    for row in rows:
        row["overhead_per_model"] = row["cpu_per_model"] - base["cpu_per_model"]
        row["overhead_once"] = row["once"] - base["once"]
        print(
            f"{row['place']:<10} {row['cpu']:6.1f}  {row['wall']:6.1f}  {row['once']:16.1f}  "
            f"{1000 * row['cpu_per_model']:17.1f}  {1000 * row['overhead_per_model']:27.1f}"
        )
    if not arguments.quick:
        print(f"\nwritten to {save('cluster_overhead', rows, models=models, rounds=rounds, turns=turns)}")


if __name__ == "__main__":
    main()
