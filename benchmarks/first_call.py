"""Seconds until the first result: in a process that must compile, and in one that finds compiled code on disk.

python benchmarks/first_call.py [--quick]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np

from measure import machine, save

RULES = ("median", "trimmed-mean", "mean-around-median", "residual-reweighting")
SIZES = (10, 50, 100, 200)


def one(rule: str, n: int) -> float:
    """Processor seconds of the first call in this process, imports not included."""
    from holdfast.aggregation import make

    made = make(rule, **({} if rule in ("median", "residual-reweighting") else {"f": n // 5}))
    rows = np.random.default_rng(n).standard_normal(size=(n, 64), dtype=np.float32)
    begin = time.process_time()
    made(rows)
    return time.process_time() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="10 clients only, nothing saved")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.one[0], int(options.one[1]))))
        return
    rows: list[dict[str, Any]] = []
    for n in SIZES[:1] if options.quick else SIZES:
        for rule in RULES:
            with tempfile.TemporaryDirectory() as cache:
                command = [sys.executable, __file__, "--one", rule, str(n)]
                fresh = {**os.environ, "XDG_CACHE_HOME": cache}
                first, later = (
                    json.loads(subprocess.run(command, check=True, capture_output=True, env=fresh).stdout)
                    for _ in range(2)
                )
            rows.append({"rule": rule, "n": n, "first": first, "later": later})
            print(f"{rule:22} n={n:<4} first {first:.2f} s, later {later:.2f} s", flush=True)
    if not options.quick:
        print(machine(), "saved", save("first_call", rows))


if __name__ == "__main__":
    main()
