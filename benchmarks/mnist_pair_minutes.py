"""MNIST 1/7 from the files to the certificates: T = 1,000 LeNets on selections of 10 to 50 examples, two threads.

    python benchmarks/mnist_pair_minutes.py --data-dir mnist/ [--sizes 10 50] [--quick]

Every size is a whole `holdfast certify-data` run of the paper's MNIST 1/7 (13,007 training examples, 2,163 test
inputs, bagging without replacement, alpha = 0.001 shared by all inputs): loading, training, voting, three
certificates, figures and report. Wall and processor minutes; certified accuracy against modification (P3 to P6).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from holdfast.experiments.certify import certify_run
from holdfast.experiments.examples import ExamplesConfig
from measure import save

SIZES = (10, 20, 30, 40, 50)
LEVELS = (0, 50, 100, 150, 200, 400, 600, 800)
THREADS = 2


def one(size: int, models: int, data_dir: str) -> dict[str, Any]:
    """One run: what it took, and what it proves."""
    config = ExamplesConfig(data="mnist", data_dir=data_dir, classes=("1", "7"), size=size, models=models)
    with tempfile.TemporaryDirectory() as folder:
        began, worked = time.monotonic(), time.process_time()
        result = certify_run(config, Path(folder) / "run", seed="benchmark", threads=THREADS, keep_models=False)
        wall, cpu = time.monotonic() - began, time.process_time() - worked
    labels = result.votes.labels
    assert labels is not None
    return {
        "size": size,
        "models": models,
        "wall_minutes": wall / 60,
        "cpu_minutes": cpu / 60,
        "certificates": [
            {
                "kind": certificate.kind,
                "accuracy": {str(m): certificate.certified_accuracy(labels, m) for m in LEVELS},
                "max_radius": certificate.max_radius,
            }
            for certificate in result.certificates
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", help="folder with the official files; by default the cache")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--quick", action="store_true", help="100 classifiers on selections of 10")
    told = parser.parse_args()
    rows = []
    print(f"{'n_s':>4} {'T':>5} {'wall min':>9} {'CPU min':>8}  certified accuracy in % of `data` at rho = {LEVELS}")
    for size in (10,) if told.quick else told.sizes:
        rows.append(one(size, 100 if told.quick else 1000, told.data_dir))
        row = rows[-1]
        data = row["certificates"][-1]
        shares = " ".join(f"{100 * data['accuracy'][str(m)]:5.1f}" for m in LEVELS)
        print(f"{size:4} {row['models']:5} {row['wall_minutes']:9.2f} {row['cpu_minutes']:8.2f}  {shares}", flush=True)
    save("mnist_pair_minutes" + ("_quick" if told.quick else ""), rows, threads=THREADS)


if __name__ == "__main__":
    main()
