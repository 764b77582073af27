"""Radii of a million items, exactly: how long one takes, for every scheme and kind of poisoning; and both delta panels.

    python benchmarks/certificates_at_scale.py [--quick]

n = 1,000,000 items, selections of k = 1 to 100,000, gaps from 1e-9 to the largest below 1. Every radius is decided in
integers; the benchmark checks that delta at the radius is below the gap and one further is not, wherever delta can be
written out in less than a thousand factors. P4, P5 and P6 are P3. Processor milliseconds, the best of three.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics

os.environ.setdefault("OMP_NUM_THREADS", "1")

import time
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Any

from holdfast.certification import delta, radius
from holdfast.certification.selection import max_rho
from holdfast.experiments.reproduce_selection import figure2
from measure import save

N = 10**6
SIZES = (1, 10, 100, 1000, 3000, 6000, 8000, 10_000, 30_000, 100_000)
GAPS = (Fraction(1, 10**9), 0.01, Fraction(1, 3), 0.5, 0.9, 0.97, 0.999, 1 - 2**-53, 1.0)
SCHEMES = ("without", "with", "binomial")


def milliseconds(call: Callable[[], Any], turns: int = 3) -> tuple[float, Any]:
    """Fewest processor milliseconds of some turns, and the result."""
    best, result = float("inf"), None
    for _ in range(turns):
        began = time.process_time()
        result = call()
        best = min(best, time.process_time() - began)
    return 1000 * best, result


def check(scheme: str, poisoning: str, k: int, gap: float | Fraction, found: int) -> bool:
    """Whether the radius is the right one by delta itself; False if that would take too long to write out."""
    long = {"without": min(k, found + 1), "with": k, "binomial": found + 1}[scheme]
    if long > 1000 or gap == 1:
        return False
    limit = max_rho(scheme, poisoning, N, k)
    further = found == limit or gap <= delta(scheme, poisoning, N, k, found + 1)
    if not (delta(scheme, poisoning, N, k, found) < gap and further):
        raise SystemExit(f"radius({scheme!r}, {poisoning!r}, {N}, {k}, {gap}) = {found} is wrong")
    return True


def measure(sizes: tuple[int, ...]) -> list[dict[str, Any]]:
    """One row per scheme and kind of poisoning, over all sizes and gaps."""
    rows = []
    for scheme, poisoning in itertools.product(SCHEMES, ("P1", "P2", "P3")):
        times, checked, worst = [], 0, (0, 0.0)
        for k, gap in itertools.product(sizes, GAPS):
            took, found = milliseconds(partial(radius, scheme, poisoning, N, k, gap))
            if took > max(times, default=0):
                worst = (k, float(gap))
            times.append(took)
            checked += check(scheme, poisoning, k, gap, found)
        rows.append(
            {"scheme": scheme, "poisoning": poisoning, "questions": len(times), "checked": checked,
             "median_ms": statistics.median(times), "worst_ms": max(times), "worst_k": worst[0], "worst_gap": worst[1]}
        )  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="four sizes instead of ten")
    quick = parser.parse_args().quick
    rows = measure(SIZES[::3] if quick else SIZES)
    print(f"{'scheme':10} {'poisoning':9} {'radii':>6} {'checked':>8} {'median ms':>10} {'worst ms':>9}  worst at")
    for row in rows:
        print(
            f"{row['scheme']:10} {row['poisoning']:9} {row['questions']:6} {row['checked']:8} {row['median_ms']:10.3f} "
            f"{row['worst_ms']:9.2f}  k = {row['worst_k']}, gap = {row['worst_gap']:g}"
        )
    panels, _ = milliseconds(figure2)
    print(f"both panels of Figure 2 (n = 13,007 and 50,000, all schemes, exact): {panels:.0f} ms")
    save("certificates_at_scale" + ("_quick" if quick else ""), rows, n=N, figure_2_ms=panels)


if __name__ == "__main__":
    main()
