"""What a strategy itself costs per round: 10 replies of 1,000,000 parameters in, the next global model out, one core.

    python benchmarks/flower_strategy.py [--quick]

Ours: identify, check and decode every reply, screen, run the rule with its verdict, encode (`aggregate_train`, with
the next round's `configure_train`). Flower's: `aggregate_train` of its own strategies on the same replies, in the same
run. What a real round takes is measured by benchmarks/flower_round.py.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import logging
import time
import tracemalloc
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import strategy as stock
from flwr.supercore.task_identity import TaskIdentity

from holdfast.aggregation import RULES, make
from holdfast.flower import RobustStrategy, encode_path
from holdfast.flower.decoding import encode
from measure import contest, machine, save

LAYERS = {
    "conv1.weight": (32, 1, 5, 5),
    "conv1.bias": (32,),
    "conv2.weight": (64, 32, 5, 5),
    "conv2.bias": (64,),
    "fc1.weight": (900, 1024),
    "fc1.bias": (900,),
    "fc2.weight": (26, 900),
    "fc2.bias": (26,),
}
COORDINATE_WISE = (
    "median",
    "trimmed-mean",
    "mean-around-median",
    "repeated-median",
    "theil-sen",
    "residual-reweighting",
)
OTHERS = ("mean", "krum", "multi-krum", "geometric-median", "foolsgold", "centered-clipping", "romoa")
TAU = 4
"""Local steps between Romoa's syncs."""


def model(rng: np.random.Generator, scale: float) -> ArrayRecord:
    """A model of about a million parameters."""
    return ArrayRecord({name: Array(rng.normal(0, scale, shape).astype(np.float32)) for name, shape in LAYERS.items()})


def replies_to(messages: Iterable[Message], models: list[ArrayRecord]) -> list[Message]:
    """One reply per message; the records are new, the arrays the same bytes."""
    replies = []
    for message, arrays in zip(messages, models, strict=True):
        message.metadata.__dict__["_message_id"] = f"id of {message.metadata.dst_node_id}"
        content = RecordDict({"arrays": ArrayRecord(dict(arrays)), "metrics": MetricRecord({"num-examples": 10})})
        replies.append(Message(content, reply_to=message))
    return replies


def contender(strategy: Any, start: ArrayRecord, models: list[ArrayRecord]) -> Callable[[], Any]:
    """One round of a strategy; nothing is sent."""
    held = [start]
    grid: Any = SimpleNamespace(get_node_ids=lambda: range(1, len(models) + 1))

    def one_round() -> None:
        messages = strategy.configure_train(1, held[0], ConfigRecord(), grid)
        arrays, _ = strategy.aggregate_train(1, replies_to(messages, models))
        if isinstance(strategy, RobustStrategy):
            held[0] = arrays

    return one_round


def romoa_sync(per_step: bool, start: ArrayRecord, models: list[ArrayRecord]) -> dict[str, Any]:
    """One sync of Romoa after TAU local steps: bytes each node sends and is sent, time, and memory at its peak.

    The peak is everything that is allocated from the first reply to the next model, replies included.
    """
    strategy = RobustStrategy(rule("romoa", 0), local_steps=TAU, per_step=per_step)
    grid: Any = SimpleNamespace(get_node_ids=lambda: range(1, len(models) + 1))
    plain = [{name: array.numpy() for name, array in record.items()} for record in models]
    measured: dict[str, Any] = {"messages": TAU if per_step else 1, "up": 0, "down": 0, "seconds": 0.0, "peak": 0}
    for turn in range(4):  # the first compiles; the last is under the eyes of tracemalloc, which takes time
        if turn == 3:
            tracemalloc.start()
        took, sent, received = 0.0, 0, 0
        for step in range(1, measured["messages"] + 1):
            messages = strategy.configure_train(turn * measured["messages"] + step, start, ConfigRecord(), grid)
            received += payload(next(iter(messages)))
            made = [encode(m) if per_step else encode_path([m] * TAU) for m in plain]
            replies = replies_to(messages, made)
            sent += payload(replies[0])
            began = time.process_time()
            start = strategy.aggregate_train(turn * measured["messages"] + step, replies)[0]
            took += time.process_time() - began
            del made, replies
        measured |= {"up": sent, "down": received}
        if turn in (1, 2):
            measured["seconds"] = took if turn == 1 else min(took, measured["seconds"])
    measured["peak"] = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return {"way": "per step" if per_step else "path", **measured}


def payload(message: Message) -> int:
    """Bytes of the arrays of a message."""
    return sum(len(array.data) for record in message.content.array_records.values() for array in record.values())


def rule(name: str, f: int) -> Any:
    """A rule that expects f."""
    fields = RULES[name].__dataclass_fields__
    extra = {"elementwise": False} if name == "romoa" else {}
    return make(name, **({"f": f} if "f" in fields else {}), **extra)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two turns, nothing saved")
    options = parser.parse_args()
    logging.getLogger("flwr").setLevel(logging.ERROR)
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    n, f, rng = 10, 2, np.random.default_rng(0)
    start, models = model(rng, 0.1), [model(rng, 0.1) for _ in range(n)]
    theirs = {
        "FedAvg": stock.FedAvg(),
        "FedMedian": stock.FedMedian(),
        "FedTrimmedAvg": stock.FedTrimmedAvg(beta=f / n),
        "Krum": stock.Krum(num_malicious_nodes=f),
    }
    ours = {name: RobustStrategy(rule(name, f)) for name in (*COORDINATE_WISE, *OTHERS)}
    calls = {f"Flower {name}": contender(strategy, start, models) for name, strategy in theirs.items()}
    calls |= {name: contender(strategy, start, models) for name, strategy in ours.items()}
    seconds = contest(calls, turns=2 if options.quick else 15, budget=30.0)
    d = sum(int(np.prod(shape)) for shape in LAYERS.values())
    print(f"{machine()}\nn = {n}, d = {d:,}, processor seconds per round, one core")
    median = seconds["Flower FedMedian"]
    for name, took in seconds.items():
        kind = " (coordinate-wise)" if name in COORDINATE_WISE else ""
        print(f"{name + kind:42} {took:7.3f} s  {took / median:5.2f} of FedMedian")
    ways = [romoa_sync(per_step, start, models) for per_step in (False, True)]
    for way in ways:
        print(
            f"romoa, {TAU} steps per sync, {way['way']:8} {way['messages']} messages, {way['up'] / 1e6:.0f} MB up and "
            f"{way['down'] / 1e6:.0f} MB down per node, {way['seconds']:.2f} s, peak {way['peak'] / 1e6:.0f} MB"
        )
    if not options.quick:
        rows = [
            {"strategy": name, "seconds": took, "coordinate_wise": name in COORDINATE_WISE}
            for name, took in seconds.items()
        ]
        print("saved", save("flower_strategy", rows, n=n, d=d, tau=TAU, romoa=ways))


if __name__ == "__main__":
    main()
