"""Peak memory of an ensemble of 500 of the ensemble paper's CNNs: trained, scored, voted and certified by the command.

    python benchmarks/ensemble_memory.py --data-dir MNIST [--threads 1]

One round of training instead of sixty: what is held at a time does not depend on it. The peak is the process's own
high-water mark, as every run states it in `run.json`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from measure import machine, save

DESIGN = ["--clients", "1000", "--k", "10", "--design", "random", "--models", "500", "--rounds", "1", "--no-baseline"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", required=True, help="folder with the official files of MNIST")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], help="numbers of threads to try")
    options = parser.parse_args()
    print(machine())
    rows = []
    for threads in options.threads:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "run"
            command = [sys.executable, "-m", "holdfast", "certify", "--data", "mnist", "--data-dir", options.data_dir]
            command += [*DESIGN, "--test-inputs", "1000", "--threads", str(threads), "--out", str(out)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            manifest = json.loads((out / "run.json").read_text())
        rows.append({"models": 500, "threads": threads, "peak_memory_mib": manifest["peak_memory_mib"]})
        print(rows[-1], flush=True)
    print("saved", save("ensemble_memory", rows))


if __name__ == "__main__":
    main()
