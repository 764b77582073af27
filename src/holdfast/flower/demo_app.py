"""The ServerApp of `holdfast flower demo`: one federation with Flower's FedAvg, or with a robust rule."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from holdfast.flower.ensemble import wait_for_nodes
from holdfast.flower.jobs import Journal
from holdfast.flower.strategy import RobustStrategy

server = ServerApp()


@server.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds, and tell the accuracy after each."""
    path = Path(str(context.run_config["job"]))
    journal = Journal(path)
    journal.tell(pid=os.getpid())
    job = json.loads(path.read_text(encoding="utf-8"))
    try:
        federate(grid, job, journal)
    except BaseException as problem:  # Flower's own strategies raise what ends the whole app
        journal.tell(done="aborted", reason=f"{type(problem).__name__}: {problem}".splitlines()[0])
        raise
    journal.tell(done="finished")


def federate(grid: Grid, job: Mapping[str, Any], journal: Journal) -> None:
    """All rounds of one strategy on the grid as Flower gives it."""
    with np.load(job["inputs"], allow_pickle=False) as inputs:
        x, y = inputs["x"].reshape(len(inputs["y"]), -1), inputs["y"]
    labels = int(y.max()) + 1
    start = {"weight": np.zeros((x.shape[1], labels), np.float32), "bias": np.zeros(labels, np.float32)}
    wait_for_nodes(grid, job["nodes"], seconds=job["wait"])

    def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        model = {name: array.numpy() for name, array in arrays.items()}
        with np.errstate(all="ignore"):
            scores = x @ model["weight"] + model["bias"]
        accuracy = float((scores.argmax(axis=1) == y).mean()) if np.isfinite(scores).all() else 0.0
        journal.tell(progress=["rounds", server_round, job["rounds"], None])
        journal.tell(accuracy=accuracy, round=server_round)
        return MetricRecord({"accuracy": accuracy})

    given: dict[str, Any] = {"fraction_evaluate": 0.0, "min_available_nodes": len(job["nodes"])}
    rule = job["rule"]
    strategy = FedAvg(**given) if rule is None else RobustStrategy(rule, **given, **job["parameters"])
    strategy.start(
        grid,
        ArrayRecord({name: Array(value) for name, value in start.items()}),
        num_rounds=job["rounds"],
        timeout=job["timeout"],
        evaluate_fn=evaluate,
    )
