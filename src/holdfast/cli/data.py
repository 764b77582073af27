"""`holdfast data`: which data sets there are, fetching one, and looking at one with its partition."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.cli.options import AsJson, DataDir

if TYPE_CHECKING:
    from holdfast.data import Dataset, Partition

_HELP = """Data sets: list them, fetch one, look at one and at who would hold which rows.

Examples:

    holdfast data

    holdfast data fetch mnist

    holdfast data show mnist --partition label-skew --clients 1000 --skew 0.5

    holdfast data show phones.npz --partition user
"""

_SHADES = " ▁▂▃▄▅▆▇█"
_BINS = 12
_SHOWN_CLIENTS = 10


def register(app: typer.Typer) -> None:
    """Add the `data` group."""
    group = typer.Typer(help=_HELP, invoke_without_command=True, rich_markup_mode="markdown")
    group.callback()(list_data_sets)
    group.command()(fetch)
    group.command()(show)
    app.add_typer(group, name="data")


def list_data_sets(
    ctx: typer.Context,
    as_json: AsJson = False,
) -> None:
    """List the data sets and where they are kept."""
    if ctx.invoked_subcommand is not None:
        return
    from holdfast.data import DATASETS, cache_dir

    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "description": source.description,
            "license": source.license,
            "homepage": source.homepage,
            "folder": str(cache_dir() / name) if source.wanted else None,
            "ready": not source.wanted or source.find(cache_dir() / name),
            "download": bool(source.files),
        }
        for name, source in DATASETS.items()
    ]
    if as_json:
        typer.echo(json.dumps({"cache": str(cache_dir()), "data_sets": rows}, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("data set", "what", "license", "here?", box=None, pad_edge=False)
    for row in rows:
        missing = "holdfast data fetch" if row["download"] else f"by hand from {row['homepage']}"
        table.add_row(row["name"], row["description"], row["license"], "yes" if row["ready"] else missing)
    console = Console()
    console.print(table)
    console.print(
        f"\nKept in {cache_dir()} (set HOLDFAST_DATA to move it); --data-dir reads another folder. "
        "Your own data: a path to an .npz, Parquet or CSV file.",
        soft_wrap=True,
    )


def fetch(name: Annotated[str, typer.Argument(help="A data set's name, as `holdfast data` lists it.")]) -> None:
    """Download a data set's official files into the cache and check them."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    from holdfast.data import DATASETS
    from holdfast.data import fetch as fetch_files

    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def report(file: str, done: int, total: int | None) -> None:
            if file not in tasks:
                tasks[file] = bars.add_task(file)
            bars.update(tasks[file], completed=done, total=total)

        folder = fetch_files(name, progress=report)
    typer.echo(f"{name} is in {folder}" if DATASETS[name].wanted else f"{name} needs no download")


def show(
    data: Annotated[str, typer.Argument(help="A data set's name, or a path to a file or folder.")],
    data_dir: DataDir = None,
    partition: Annotated[
        str | None, typer.Option(help="Rows to clients: iid, label-skew, dirichlet, user, shards, ...")
    ] = None,
    clients: Annotated[int | None, typer.Option(help="Number of clients; `user` knows its own.")] = None,
    skew: Annotated[float | None, typer.Option(help="q of label-skew.")] = None,
    concentration: Annotated[float | None, typer.Option(help="beta of dirichlet.")] = None,
    seed: Annotated[int, typer.Option(help="Draws the partition.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Show a data set's shapes and labels and, with --partition, what every client would hold."""
    from holdfast.data import load
    from holdfast.data import partition as split

    dataset = load(data, data_dir=data_dir)
    parts = None
    if partition is not None:
        params = {key: value for key, value in (("q", skew), ("beta", concentration)) if value is not None}
        parts = split(partition, dataset.y_train, n=clients, seed=seed, users=dataset.users_train, **params)
    facts = _facts(dataset, parts)
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
    else:
        _print(facts)


def _facts(dataset: Dataset, parts: Partition | None) -> dict[str, Any]:
    """Everything `show` prints, as plain values."""
    import numpy as np

    facts: dict[str, Any] = {
        "name": dataset.name,
        "train_rows": len(dataset.y_train),
        "test_rows": len(dataset.y_test),
        "row_shape": list(dataset.x_train.shape[1:]),
        "labels": dict(
            zip(dataset.label_names, np.bincount(dataset.y_train, minlength=dataset.n_labels).tolist(), strict=True)
        ),
        "users": len(dataset.user_names) or None,
        "fingerprint": dataset.fingerprint(),
    }
    if parts is not None:
        counts = parts.label_counts(dataset.y_train, dataset.n_labels)
        facts["clients"] = {
            "n": parts.n,
            "rows": parts.sizes.tolist(),
            "labels": counts.tolist(),
            "names": list(dataset.user_names[: parts.n]) if parts.n == len(dataset.user_names) else None,
        }
    return facts


def _print(facts: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    shape = " x ".join(str(size) for size in facts["row_shape"])
    users = f", rows of {facts['users']} users" if facts["users"] else ""
    console.print(
        f"{facts['name']}: {facts['train_rows']:,} training and {facts['test_rows']:,} test rows of {shape}{users}"
    )
    labels = Table("label", "training rows", box=None, pad_edge=False)
    for name, count in facts["labels"].items():
        labels.add_row(name, f"{count:,}")
    console.print(labels)
    if "clients" not in facts:
        return
    clients = facts["clients"]
    console.print(f"\n{clients['n']:,} clients, rows per client:")
    for low, high, count, width in _histogram(clients["rows"]):
        console.print(f"{low:>8,} - {high:<8,} {'█' * width} {count:,}", soft_wrap=True)
    console.print("\nlabels of the first clients (a bar's height is the label's share of the client's rows):")
    for client in range(min(_SHOWN_CLIENTS, clients["n"])):
        name = clients["names"][client] if clients["names"] else str(client)
        size = clients["rows"][client]
        bars = "".join(_SHADES[-(-count * (len(_SHADES) - 1) // size)] for count in clients["labels"][client])
        console.print(f"{name:>8}  {bars}  {size:,} rows", soft_wrap=True)


def _histogram(sizes: list[int]) -> list[tuple[int, int, int, int]]:
    """Rows of (smallest, largest, clients, bar length) over at most twelve equal ranges of sizes."""
    low, high = min(sizes), max(sizes)
    step = -(-(high - low + 1) // _BINS)
    bins = []
    for start in range(low, high + 1, step):
        count = sum(start <= size < start + step for size in sizes)
        bins.append((start, min(start + step - 1, high), count))
    most = max(count for _, _, count in bins)
    return [(start, end, count, -(-count * 40 // most)) for start, end, count in bins]
