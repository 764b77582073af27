"""Tables of the rules' speed and memory: the fastest form of every peer in the README, all pairs in docs/speed.md."""

from __future__ import annotations

from collections.abc import Mapping

from tables import RESULTS, markdown, result

README_SIZES = ((10, 1_000_000), (100, 1_000_000))
NOT_YET = "Not measured on this machine yet."


def rules_speed() -> str:
    """Nanoseconds per coordinate of the rules, and how many times slower each peer's fastest form is."""
    cells = []
    for row in result("coordinate_wise_rules")["rows"]:
        if (row["n"], row["d"]) in README_SIZES:
            shown = [_fastest(row["ns_peers"], peer, row["ns_rule"]) for peer in ("Flower", "ByzFL", "torch")]
            cells.append([row["rule"], str(row["n"]), f"{row['ns_rule']:.1f}", *shown, "–"])
    for row in result("residual_reweighting")["rows"]:
        if row["n"] in (10, 100):
            published = f"{row['us_published'] / row['us_ours']:.0f}x"
            cells.append(
                ["residual reweighting", str(row["n"]), f"{1000 * row['us_ours']:.1f}", "–", "–", "–", published]
            )
    return markdown(
        ["rule", "clients", "ns per coordinate", "Flower", "ByzFL", "torch", "the authors' algorithm"], cells
    )


def elsewhere() -> str:
    """The same benchmarks on a machine whose memory is slower: the fastest peer of each kind."""
    cells = []
    for row in result("coordinate_wise_rules_xeon")["rows"]:
        if row["rule"] != "mean around median":
            shown = [_fastest(row["ns_peers"], peer, row["ns_rule"]) for peer in ("Flower", "ByzFL", "torch")]
            of = (f"{row['of_bandwidth']:.0%}", _share(row["of_minmax"]))
            cells.append([row["rule"], f"{row['n']}", f"{row['d']:,}", f"{row['ns_rule']:.1f}", *shown, "–", *of])
    for row in result("residual_reweighting_xeon")["rows"]:
        published = f"{row['us_published'] / row['us_ours']:.0f}x"
        cells.append(
            ["residual reweighting", f"{row['n']}", f"{row['d']:,}", f"{1e3 * row['us_ours']:.1f}", "–", "–", "–",
             published, "–", _share(row["of_minmax"])]
        )  # fmt: skip
    head = ["rule", "n", "d", "ours, ns per coordinate", "Flower", "ByzFL", "torch", "the authors' algorithm"]
    return markdown([*head, "of memory", "of min/max"], cells)


def machines() -> str:
    """What the numbers were measured on."""
    cells = []
    for words, suffix in (("all other tables", ""), ("on slower memory", "_xeon")):
        found = result(f"coordinate_wise_rules{suffix}")
        read, rate = (found[name] / 1e9 for name in ("bytes_per_second", "minmax_per_second"))
        versions = ", ".join(f"{name} {number}" for name, number in found["machine"]["versions"].items())
        cells.append([words, found["machine"]["cpu"], f"{read:.0f} GB/s", f"{rate:.0f} G/s", versions])
    return markdown(["tables", "processor", "one core reads", "minima and maxima", "versions"], cells, left=2)


def _fastest(peers: Mapping[str, float | None], name: str, ours: float) -> str:
    times = [time for peer, time in peers.items() if peer.startswith(name) and time is not None]
    return f"{min(times) / ours:.0f}x" if times else "–"


def coordinate_pairs() -> str:
    """Every pair of coordinate-wise rule and peer."""
    cells = [
        [row["rule"], peer, f"{row['n']}", f"{row['d']:,}", f"{row['ns_rule']:.2f}", f"{time:.1f}",
         f"{time / row['ns_rule']:.1f}x", f"{row['of_bandwidth']:.0%}", _share(row["of_minmax"])]
        for row in result("coordinate_wise_rules")["rows"]
        for peer, time in row["ns_peers"].items()
        if time is not None
    ]  # fmt: skip
    head = ["rule", "peer", "n", "d", "ours, ns per coordinate", "peer, ns", "slower by", "of memory", "of min/max"]
    return markdown(head, cells, left=2)


def residual_pairs() -> str:
    """Residual reweighting and both forms it was published in."""
    cells = []
    for row in result("residual_reweighting")["rows"]:
        for peer, ours, theirs in (
            ("the authors' algorithm", row["us_ours"], row["us_published"]),
            ("FedML's (Gaussian weights)", row["us_ours_gaussian"], row["us_fedml"]),
        ):
            cells.append(
                [peer, f"{row['n']}", f"{row['d']:,}", f"{1e3 * ours:.1f}", f"{1e3 * theirs:.0f}",
                 f"{theirs / ours:.0f}x", _share(row["of_minmax"]), f"{row['largest_difference']:.0e}"]
            )  # fmt: skip
    head = ["peer", "n", "d", "ours, ns per coordinate", "peer, ns", "slower by", "of min/max", "results differ by"]
    return markdown(head, cells)


def matrix_pairs() -> str:
    """Every pair of a rule that compares whole rows, and a peer."""
    if not (RESULTS / "aggregation_rules.json").exists():
        return NOT_YET
    cells = [
        [row["rule"], peer, f"{row['n']}", f"{row['d']:,}", f"{row['ms']:.2f}", f"{time:.1f}",
         f"{time / row['ms']:.1f}x", f"{row['of_bandwidth']:.0%}", f"{row['of_gram']:.0%}"]
        for row in result("aggregation_rules")["rows"]
        for peer, time in row["ms_peers"].items()
        if time is not None
    ]  # fmt: skip
    head = ["rule", "peer", "n", "d", "ours, ms", "peer, ms", "slower by", "reading once", "one Gram matrix"]
    return markdown(head, cells, left=2)


def files_memory() -> str:
    """Peak memory of `holdfast aggregate`'s streaming, 200 clients of ResNet-18's size."""
    if not (RESULTS / "aggregation_memory.json").exists():
        return NOT_YET
    cells = [
        [row["rule"], f"{row['n']}", f"{row['d']:,}", f"{4 * row['n'] * row['d'] / 2**30:.1f} GiB",
         f"{row['peak_bytes'] / 2**30:.2f} GiB", f"{row['share_of_updates']:.1%}", f"{row['cpu_seconds']:.0f}"]
        for row in result("aggregation_memory")["rows"]
    ]  # fmt: skip
    return markdown(["rule", "n", "d", "updates", "peak memory", "of the updates", "CPU-seconds"], cells)


def first_call() -> str:
    """Seconds until the first result, compiled and loaded."""
    if not (RESULTS / "first_call.json").exists():
        return NOT_YET
    cells = [
        [row["rule"], f"{row['n']}", f"{row['first']:.2f} s", f"{row['later']:.2f} s"]
        for row in result("first_call")["rows"]
    ]
    return markdown(["rule", "n", "first call of all", "first call of a later process"], cells)


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"
