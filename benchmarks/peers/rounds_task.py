"""The task that every contender of `training_rounds.py` gets: networks, data and a clock. Imports torch only.

The peers run in virtual environments of their own, where holdfast is not installed; this file is all they share.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

CLIENTS = int(os.environ.get("HOLDFAST_BENCHMARK_CLIENTS", "10"))
STEPS, BATCH, LR, ROWS = 5, 32, 0.01, 160
SAMPLES_PER_ROUND = CLIENTS * STEPS * BATCH
MARK = "HOLDFAST_BENCHMARK"


def cnn() -> nn.Module:
    """The paper's CNN for MNIST, 440,812 parameters."""
    return nn.Sequential(
        *(nn.Conv2d(1, 20, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(800, 512), nn.ReLU(), nn.Linear(512, 10)),
    )


def har() -> nn.Module:
    """The paper's network for activity recognition, 211,206 parameters."""
    return nn.Sequential(nn.Linear(561, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 6))


def small_cnn() -> nn.Module:
    """The CNN of Fu et al. (2019), Table 5, 3,146 parameters."""
    return nn.Sequential(
        *(nn.Conv2d(1, 4, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 8, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(128, 16), nn.ReLU(), nn.Linear(16, 10)),
    )


NETWORKS = {
    "cnn": (cnn, (1, 28, 28), 10),
    "har": (har, (561,), 6),
    "small-cnn": (small_cnn, (1, 28, 28), 10),
}


def flops_per_sample(name: str) -> float:
    """Forward, gradient for the weights, gradient for the inputs (which the first layer does not need)."""
    layers: list[int] = []

    def note(layer: nn.Module, _: object, output: torch.Tensor) -> None:
        per_output = layer.weight[0].numel()
        layers.append(2 * output[0].numel() * per_output)

    build, shape, _ = NETWORKS[name]
    network = build()
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(note)
    network(torch.zeros(1, *shape))
    return 3 * sum(layers) - layers[0]


def client_data(name: str, client: int) -> tuple[torch.Tensor, torch.Tensor]:
    """One client's rows, drawn at random: only the time matters here."""
    _, shape, n_labels = NETWORKS[name]
    generator = torch.Generator().manual_seed(client)
    x = torch.rand(ROWS, *shape, generator=generator)
    return x, torch.randint(n_labels, (ROWS,), generator=generator)


@dataclass
class Clock:
    """Wall time and the processor time of every process that carries this run's mark, from `start` to `stop`."""

    wall: float = 0.0
    cpu: float = 0.0

    def start(self) -> None:
        """From now on."""
        self.wall, self.cpu = time.perf_counter(), processor_seconds()

    def stop(self) -> None:
        """Until now."""
        self.wall, self.cpu = time.perf_counter() - self.wall, processor_seconds() - self.cpu


def processor_seconds() -> float:
    """Processor seconds so far of all living processes with this run's mark, and of the children they have buried."""
    mark = f"{MARK}={os.environ[MARK]}".encode()
    ticks = 0
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                ticks += sum(map(int, fields[11:15]))
        except OSError:  # it ended meanwhile
            continue
    return ticks / os.sysconf("SC_CLK_TCK")


def report(rounds: int, clock: Clock, **facts: str) -> None:
    """Tell the driver, on the last line of standard output."""
    print("\n" + json.dumps({"rounds": rounds, "wall": clock.wall, "cpu": clock.cpu, **facts}), flush=True)
