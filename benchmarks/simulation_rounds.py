"""How fast are rounds of an attacked federation? `holdfast simulate` beside a plain PyTorch loop and Flower.

One round is every client's 5 SGD steps of 32 examples with the CNN of Fu et al. (2019), Table 5, for 10 and for 100
clients; a tenth of ours are malicious and flip the sign of their update, the others' clients are all honest. What
counts is processor time, since the machine may be busy; contenders take turns. Start-up (Ray, compilation) and
evaluation are left out. The rule's share is that of the round's wall time in one thread.

    python benchmarks/simulation_rounds.py --flower-python FLOWER/bin/python

with an environment of Flower's own, made by `pip install -c constraints.txt torch==2.13.0 'flwr[simulation]'`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent / "peers")]
RESULT = Path(__file__).parent / "results" / "simulation_rounds.json"
NETWORK = "small-cnn"
AIM = 6
RULES = ("mean", "median", "trimmed-mean", "residual-reweighting", "multi-krum", "geometric-median", "romoa")


def plain_loop(clients: int) -> Callable[[int], None]:
    """Modules, `torch.optim.SGD` and loops over clients and steps, averaged: what one writes without a library."""
    import torch
    from rounds_task import BATCH, LR, NETWORKS, STEPS, client_data

    module = NETWORKS[NETWORK][0]()
    data = [client_data(NETWORK, client) for client in range(clients)]
    state = {key: value.clone() for key, value in module.state_dict().items()}

    def run(rounds: int) -> None:
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
                sent.append({key: value.clone() for key, value in module.state_dict().items()})
            state = {key: torch.stack([one[key] for one in sent]).mean(0) for key in state}

    return run


def loop_of(clients: int, rule: str) -> Any:
    """Our round loop on the same rows, a tenth of the clients malicious."""
    from rounds_task import BATCH, LR, NETWORKS, ROWS, STEPS, client_data

    from holdfast.data import Dataset, Partition
    from holdfast.experiments.attacked import AttackedFederation, SimulateConfig, make_rule
    from holdfast.experiments.local_work import Machinery
    from holdfast.experiments.simulation import RoundLoop
    from holdfast.experiments.threat import make_threat
    from holdfast.training import model_factory

    _, shape, n_labels = NETWORKS[NETWORK]
    parts = [client_data(NETWORK, client) for client in range(clients)]
    x, y = (np.concatenate([part[side].numpy() for part in parts]) for side in (0, 1))
    names = tuple(map(str, range(n_labels)))
    dataset = Dataset("random", x, y, x[:10], y[:10], n_labels, names, image_shape=shape)
    held = Partition(np.arange(clients + 1) * ROWS, np.arange(clients * ROWS))
    config = SimulateConfig(attack="sign-flip", rule=rule, local_steps=STEPS, batch_size=BATCH, lr=LR)
    malicious = np.arange(clients // 10, dtype=np.int64)
    federation = AttackedFederation(config, dataset, held, malicious, make_rule(rule, f=len(malicious)))
    factory = model_factory(NETWORK, shape, n_labels)
    return RoundLoop(federation, make_threat("sign-flip", dataset, seed=0), Machinery(factory, threads=1))


def our_rounds(loop: Any) -> Callable[[int], None]:
    """Rounds of a loop, from where it stands."""
    params, state = loop.trainer.init([0])[0], None
    number = 0

    def run(rounds: int) -> None:
        nonlocal params, state, number
        for _ in range(rounds):
            params, state, _, _ = loop.round(params, state, number)
            number += 1

    return run


def flower(python: str | None, clients: int, rounds: int) -> tuple[float | None, str]:
    """(processor seconds per round, version or what went wrong), in Flower's own environment."""
    from rounds_task import MARK

    from training_rounds import OFFLINE, run_alone

    if python is None:
        return None, "--flower-python was not given"
    script = Path(__file__).parent / "peers" / "flower_rounds.py"
    environment = os.environ | OFFLINE | {MARK: uuid.uuid4().hex, "HOLDFAST_BENCHMARK_CLIENTS": str(clients)}
    try:
        output = run_alone([python, str(script), NETWORK, "--rounds", str(rounds)], environment, 900)
        (line,) = [line for line in output.splitlines() if line.startswith('{"rounds"')]
    except subprocess.TimeoutExpired as error:
        return None, f"it did not finish in {error.timeout:.0f} s"
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        return None, (getattr(error, "stderr", None) or str(error)).strip().splitlines()[-1]
    told = json.loads(line)
    return told["cpu"] / told["rounds"], told["version"]


def cpu_per_round(run: Callable[[int], None], rounds: int) -> float:
    """Processor seconds of one round."""
    began = time.process_time()
    run(rounds)
    return (time.process_time() - began) / rounds


def compare(clients: int, options: argparse.Namespace) -> dict[str, Any]:
    """All contenders for one number of clients, in turns; ratios are taken within a turn."""
    loop, plain = our_rounds(loop_of(clients, "mean")), plain_loop(clients)
    many = max(2, (40 if options.quick else 200) // clients)
    loop(2)
    plain(1)
    turns: dict[str, list[float]] = {"holdfast": [], "plain loop": [], "flower": []}
    problem = ""
    for _ in range(options.turns):
        turns["holdfast"].append(cpu_per_round(loop, 4 * many))
        turns["plain loop"].append(cpu_per_round(plain, many))
        took, problem = flower(options.flower_python, clients, many)
        if took is None and options.flower_python:  # on a busy machine, its nodes may not all come up in time
            took, problem = flower(options.flower_python, clients, many)
        if took is not None:
            turns["flower"].append(took)
    found: dict[str, Any] = {
        "clients": clients,
        "cpu_seconds_per_round": turns,
        "flower_says": problem,
        "faster_by": {},
    }
    for peer in ("plain loop", "flower"):
        ratios = [theirs / ours for ours, theirs in zip(turns["holdfast"], turns[peer], strict=False)]
        if ratios:
            found["faster_by"][peer] = [statistics.median(ratios), min(ratios), max(ratios)]
    found["rule_share"] = {rule: rule_share(clients, rule) for rule in RULES}
    return found


def rule_share(clients: int, rule: str) -> float:
    """The rule's share of a round, in one thread."""
    loop = loop_of(clients, rule)
    run = our_rounds(loop)
    run(2)
    loop.seconds = dict.fromkeys(loop.seconds, 0.0)
    run(max(5, 400 // clients))
    return float(loop.seconds["rule"] / sum(loop.seconds.values()))


def show(found: dict[str, Any]) -> None:
    """The table for one number of clients."""
    print(f"\n{found['clients']} clients: processor milliseconds per round")
    for name, values in found["cpu_seconds_per_round"].items():
        middle = f"{1e3 * statistics.median(values):10.1f}" if values else f"   not run: {found['flower_says']}"
        ratio = found["faster_by"].get(name)
        print(f"{name:14}{middle}" + (f"   holdfast is faster by {ratio[0]:.1f}" if ratio else ""))
    print("the rule's share: " + ", ".join(f"{rule} {share:.1%}" for rule, share in found["rule_share"].items()))


def main() -> None:
    """Measure, print, and write `benchmarks/results/simulation_rounds.json`, which quick runs leave alone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flower-python", help="Python of an environment with flwr[simulation]")
    parser.add_argument("--clients", nargs="+", type=int, default=[10, 100])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one turn of few rounds")
    options = parser.parse_args()
    options.turns = 1 if options.quick else options.turns
    import torch

    from measure import machine

    torch.set_num_threads(1)
    results = []
    for clients in options.clients:
        results.append(compare(clients, options))
        show(results[-1])
    if options.quick:
        return
    facts = {"machine": machine(), "load_average": os.getloadavg()[0], "aim_flower": AIM}
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps({**facts, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
