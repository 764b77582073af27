"""200 clients of ResNet-18 (d = 1.1e7, 8.8 GB on disk) aggregated from files, each rule in its own process.

    python benchmarks/aggregation_memory.py [--quick] [--folder DIR]

Peak resident memory is the process's own high-water mark (getrusage), and is set against the updates' size. The updates
are random; one client's file is truncated and one holds NaN, so the screen works too.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from measure import machine, save

RULES = (
    "mean",
    "median",
    "trimmed-mean",
    "mean-around-median",
    "krum",
    "multi-krum",
    "bulyan",
    "geometric-median",
    "centered-clipping",
    "foolsgold",
    "norm-clipping",
    "nearest-neighbor-mixing",
    "bucketing",
    "residual-reweighting",
)
"""All but the line fits that the reweighting paper compares with, which would take hours, and Romoa."""
PARAMETERS: dict[str, dict[str, Any]] = {
    "trimmed-mean": {"f": 20},
    "mean-around-median": {"f": 20},
    "krum": {"f": 20},
    "multi-krum": {"f": 20},
    "bulyan": {"f": 20},
    "centered-clipping": {"tau": 100.0},
    "norm-clipping": {"rule": "median"},
    "nearest-neighbor-mixing": {"rule": "median", "f": 20},
    "bucketing": {"rule": "median"},
}


def write_updates(folder: Path, n: int, d: int) -> None:
    """One file per client."""
    for i in range(n):
        update = np.random.default_rng(i).standard_normal(d, dtype=np.float32)
        if i == 1:
            update[d // 2] = np.nan
        save_file({"weights": update}, folder / f"{i:03}.safetensors")
    damaged = folder / "000.safetensors"
    with damaged.open("r+b") as file:
        file.truncate(damaged.stat().st_size // 2)


def one(folder: Path, rule: str) -> None:
    """Aggregate in this process and print what it took."""
    from holdfast.aggregation import make
    from holdfast.aggregation.streaming import aggregate_files

    paths = sorted(folder.glob("*.safetensors"))
    start, begun = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        result = aggregate_files(make(rule, **PARAMETERS.get(rule, {})), paths, Path(scratch) / "out.safetensors")
    found = {
        "rule": rule,
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - begun,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "replaced": sorted(result.diagnostics["replaced"]),
    }
    print(json.dumps(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="100 clients of d = 5e5, nothing saved")
    parser.add_argument("--folder", type=Path, help="where to put the updates (9 GB)")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--rules", nargs="+", default=RULES, choices=RULES, help="which rules (default: all)")
    options = parser.parse_args()
    if options.one:
        one(options.folder, options.one)
        return
    n, d = (100, 500_000) if options.quick else (200, 11_000_000)
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    print(f"{machine()}\nn={n} d={d}: {4 * n * d / 1e9:.1f} GB of updates in {folder}")
    rows: list[dict[str, Any]] = []
    try:
        write_updates(folder, n, d)
        for rule in options.rules:
            command = [sys.executable, __file__, "--one", rule, "--folder", str(folder)]
            row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            row |= {"n": n, "d": d, "share_of_updates": row["peak_bytes"] / (4 * n * d)}
            rows.append(row)
            if not options.quick:
                save("aggregation_memory", rows)  # after each: all of them take a while
            print(
                f"{rule:18} {row['seconds']:7.1f} s ({row['cpu_seconds']:.1f} s of CPU)  peak "
                f"{row['peak_bytes'] / 2**20:6.0f} MiB = {row['share_of_updates']:.3f} of the updates  "
                f"replaced {row['replaced']}",
                flush=True,
            )
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
