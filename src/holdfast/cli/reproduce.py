"""`holdfast reproduce`: the papers' experiments, printed beside the published numbers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated

import typer

from holdfast.cli.options import AsJson, DataDir, FirstSeed, Only, PaperDevice, PaperFolder, PaperSeed, Scale, Threads
from holdfast.cli.output import Result, show

_HELP = """Run a paper's experiments and print our numbers beside the published ones.

`--scale smoke` shows in seconds that everything works, on embedded data; `--scale cpu` has the paper's data and sizes
with the fast preset; `--scale paper` has its training settings too. Runs are kept in --out and continued from there.
"""


def _run(job: Callable[..., Result], scale: str, only: list[str] | None, as_json: bool) -> None:
    from holdfast.cli.progress import Reporter

    with Reporter(quiet=as_json) as reporter:
        found = job(scale_name=scale, only=tuple(only or ()), events=reporter)
    show(found, as_json=as_json)


_ENSEMBLE = """Figures 2-6 of the ensemble paper (Cao, Jia and Gong, AAAI 2021), with its certificate and with ours.

Examples:

    holdfast reproduce ensemble --out repro

    holdfast reproduce ensemble --scale cpu --out repro --data-dir mnist/ --activity phones.npz

    holdfast reproduce ensemble --scale cpu --out repro --only images --only images-partitions
"""


def ensemble(
    out: PaperFolder,
    scale: Scale = "smoke",
    data_dir: DataDir = None,
    activity: Annotated[str, typer.Option(help="har, or a file with activity data and a client column.")] = "har",
    only: Only = None,
    seed: PaperSeed = "holdfast",
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Collect the options and run the job."""
    from holdfast.experiments.reproduce_ensemble import reproduce_ensemble

    _run(
        partial(reproduce_ensemble, out, data_dir=data_dir, activity=activity, seed=seed, threads=threads),
        scale,
        only,
        as_json,
    )


_REWEIGHTING = """Tables 1-4, 6, 7, 8 and Figures 3, 4, 5, 7, 8 of the residual-reweighting paper (Fu et al., 2019).

A verdict per claim: agrees, differs, or not run at this scale. `cpu` leaves out what needs ResNet-18.

Examples:

    holdfast reproduce reweighting --out repro

    holdfast reproduce reweighting --scale cpu --out repro --data-dir data/ --reviews reviews.json.gz --loan loan.csv

    holdfast reproduce reweighting --scale cpu --out repro --data-dir mnist/ --only mnist-label-flip
"""


def reweighting(
    out: PaperFolder,
    scale: Scale = "smoke",
    data_dir: DataDir = None,
    reviews: Annotated[str, typer.Option(help="reviews, or a file of reviews.")] = "reviews",
    loan: Annotated[str, typer.Option(help="loan, or a file of loans.")] = "loan",
    only: Only = None,
    seed: FirstSeed = 0,
    device: PaperDevice = "cpu",
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Collect the options and run the job."""
    from holdfast.experiments.reproduce_reweighting import reproduce_reweighting

    _run(
        partial(
            reproduce_reweighting,
            out,
            data_dir=data_dir,
            reviews=reviews,
            loan=loan,
            seed=seed,
            device=device,
            threads=threads,
        ),
        scale,
        only,
        as_json,
    )


_SELECTION = """Figures 2, 4, 5, 6 of the randomized-selection paper (Chen et al., 2020); which numbers formulas give.

Examples:

    holdfast reproduce selection --out repro

    holdfast reproduce selection --out repro --only nothing    # Figure 2 and the printed zeros, in a second

    holdfast reproduce selection --scale cpu --out repro --data-dir mnist/

    holdfast reproduce selection --scale cpu --out repro --data-dir mnist/ --only mnist-1-7-without-10
"""


def selection(
    out: PaperFolder,
    scale: Scale = "smoke",
    data_dir: DataDir = None,
    only: Only = None,
    seed: PaperSeed = "holdfast",
    device: PaperDevice = "cpu",
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Collect the options and run the job."""
    from holdfast.experiments.reproduce_selection import reproduce_selection

    _run(
        partial(reproduce_selection, out, data_dir=data_dir, seed=seed, device=device, threads=threads),
        scale,
        only,
        as_json,
    )


_ROMOA = """Tables 1 and 2, Figures 1, 2 and 4-8 of the Romoa paper (Mao et al., ESORICS 2021), and what it lacks.

A verdict per setting of the tables (is Romoa below Krum and RFA, as printed?) and per sentence: agrees, differs, or
not run at this scale. `cpu` has a small network and 5,000 training images and takes about an hour of one core.

Examples:

    holdfast reproduce romoa --out repro

    holdfast reproduce romoa --scale cpu --out repro --data-dir mnist/ --cifar-dir cifar10/

    holdfast reproduce romoa --scale cpu --out repro --data-dir mnist/ --only mnist-10
"""


def romoa(
    out: PaperFolder,
    scale: Scale = "smoke",
    data_dir: DataDir = None,
    cifar_dir: Annotated[str | None, typer.Option(help="Folder with the official files of CIFAR-10.")] = None,
    only: Only = None,
    seed: FirstSeed = 0,
    device: PaperDevice = "cpu",
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Collect the options and run the job."""
    from holdfast.experiments.reproduce_romoa import reproduce_romoa

    _run(
        partial(
            reproduce_romoa, out, data_dir=data_dir, cifar_dir=cifar_dir, seed=seed, device=device, threads=threads
        ),
        scale,
        only,
        as_json,
    )


def register(app: typer.Typer) -> None:
    """Add the `reproduce` group."""
    group = typer.Typer(help=_HELP, no_args_is_help=True, rich_markup_mode="markdown")
    group.command(help=_ENSEMBLE)(ensemble)
    group.command(help=_REWEIGHTING)(reweighting)
    group.command(help=_SELECTION)(selection)
    group.command(help=_ROMOA)(romoa)
    app.add_typer(group, name="reproduce")
