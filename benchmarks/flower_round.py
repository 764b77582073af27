"""A real round on Flower, and the strategy's share of it: a SuperLink and nodes as processes on 127.0.0.1.

    python benchmarks/flower_round.py [--nodes N] [--rounds R] [--quick]

Nobody trains: what is measured is the least a round can take on this transport. The first round starts everything and
is left out where there are more.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

from holdfast.flower.processes import Processes, free_ports, listens, script
from measure import machine, save

APP = Path(__file__).parent / "flower_app"
OFFLINE = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "OMP_NUM_THREADS": "1",
}


def run(folder: Path, nodes: int, rounds: int) -> dict[str, Any]:
    """Start a federation, run the app, and give what its server wrote down."""
    link, *ports = free_ports(nodes + 1)
    out = folder / "rounds.json"
    (folder / "config.toml").write_text(
        f'[superlink]\ndefault = "dep"\n[superlink.dep]\naddress = "127.0.0.1:{link}"\ninsecure = true\n'
    )
    scripts = str(Path(script("flwr")).parent)
    env = {**OFFLINE, "FLWR_HOME": str(folder), "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    with Processes(folder / "logs") as processes:
        here = ["--insecure", "--host", "127.0.0.1"]
        processes.start("link", [script("flower-superlink"), *here, "--port", str(link)], env)
        processes.wait_until(lambda: listens(link), "the SuperLink", seconds=120)
        for i, port in enumerate(ports):
            node = [script("flower-supernode"), *here, "--port", str(port), "--superlink", f"127.0.0.1:{link}"]
            processes.start(f"node{i}", node, env)
        config = f"num-rounds={rounds} out='{out}'"
        processes.wait_until(lambda: all(map(listens, ports)), "a SuperNode", seconds=120)
        processes.start("run", [script("flwr"), "run", str(APP), "dep", "-c", config], env).wait(120)
        processes.stop("run")
        processes.wait_until(out.exists, "the run", seconds=120 + 120 * rounds, every=0.5)
        processes.wait_until(lambda: out.read_text().endswith("}"), "the result", seconds=10)
    return dict(json.loads(out.read_text()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one round, nothing saved")
    options = parser.parse_args()
    rounds = 1 if options.quick else options.rounds
    with tempfile.TemporaryDirectory() as folder:
        measured = run(Path(folder), options.nodes, rounds)
    assert abs(measured["mean"] - rounds) < 1e-5, measured
    rows = measured["rounds"][1:] or measured["rounds"]
    typical = {key: statistics.median(row[key] for row in rows) for key in ("round", "strategy", "processor")}
    print(
        f"{machine()}\n{options.nodes} nodes, 1,000,000 parameters: a round {typical['round']:.1f} s, of which the "
        f"strategy {typical['strategy']:.3f} s ({typical['strategy'] / typical['round']:.1%})"
    )
    if not options.quick:
        print("saved", save("flower_round", rows, nodes=options.nodes, parameters=1_000_000, **typical))


if __name__ == "__main__":
    main()
