"""Options that several commands share, each declared once: the same name means the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

# What to work on.
Data = Annotated[str, typer.Option(help="Data set name (see `holdfast data`) or your own file.")]
DataDir = Annotated[str | None, typer.Option(help="Folder with the official files.")]
Classes = Annotated[str, typer.Option(help="Only these classes, e.g. 1,7. Default: all.")]
CertifiedInputs = Annotated[int | None, typer.Option(help="Certify only the first so many test inputs.")]
Baseline = Annotated[bool, typer.Option(help="Also train the single model over everything, without an ensemble.")]

# Who trains what, and how.
Design = Annotated[str, typer.Option(help="Who trains what: partitions, disjoint, random, exhaustive, spread.")]
Models = Annotated[int | None, typer.Option(help="N, models to train. Default: what the design needs.")]
Model = Annotated[
    str | None, typer.Option(help="cnn, har, logistic, mlp, or package.module:factory. Default: the data's own.")
]
Preset = Annotated[str, typer.Option(help="Training settings: fast, or paper.")]
Rounds = Annotated[int | None, typer.Option(help="Global rounds (globalIter), instead of the preset's.")]
LocalSteps = Annotated[int | None, typer.Option(help="Local SGD steps (localIter) per round.")]
BatchSize = Annotated[int | None, typer.Option(help="Rows per local step.")]
LearningRate = Annotated[float | None, typer.Option(help="Learning rate.")]

# What is certified.
GroupSize = Annotated[int, typer.Option("--k", help="Clients per group.")]
Alpha = Annotated[float, typer.Option(help="Failure probability of secret, ideal and data certificates.")]
RunAlpha = Annotated[
    float | None,
    typer.Option(help="Failure probability of secret, ideal and data certificates. Default: the run's own, or 0.001."),
]
Poisoning = Annotated[
    str | None,
    typer.Option(
        help="P1 insert, P2 delete, P3 modify, P4 insert/modify, P5 delete/modify, P6 all three; ideal and data only. "
        "Default: the run's own, or P3."
    ),
]
Perspective = Annotated[
    str | None,
    typer.Option(
        help="clean: votes and data from before the attack. observed: they may be poisoned already. "
        "Default: the run's own, or clean."
    ),
]

# Where and how it runs.
Engine = Annotated[str, typer.Option(help="auto, compiled or torch.")]
EngineOrPlace = Annotated[
    str, typer.Option(help="auto, compiled or torch; or a place: processes, dask, or e.g. dask:torch.")
]
Workers = Annotated[int | None, typer.Option(help="Of --engine processes. Default: one per core, or per GPU.")]
Address = Annotated[str | None, typer.Option(help="Of --engine dask: its scheduler, e.g. tcp://10.0.0.1:8786.")]
Wait = Annotated[float | None, typer.Option(help="Seconds to wait for Dask's scheduler and workers. Default: 60.")]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]
Threads = Annotated[int | None, typer.Option(help="Threads. Default: all cores.")]
SecretSeed = Annotated[
    str | None, typer.Option(help="Makes the run repeatable. Default: a fresh secret; keep it private.")
]

# What comes out.
RunFolder = Annotated[Path, typer.Option(help="Folder of the run; made if missing, never overwritten.")]
KeepModels = Annotated[bool, typer.Option(help="Keep every model's weights (safetensors).")]
Resume = Annotated[bool, typer.Option(help="Continue the interrupted run in --out with its own settings.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]

# The papers' experiments.
Scale = Annotated[str, typer.Option(help="smoke, cpu or paper.")]
PaperFolder = Annotated[Path, typer.Option(help="Folder for runs, figures and tables.")]
Only = Annotated[list[str] | None, typer.Option(help="Run only this part; repeat for several.")]
PaperSeed = Annotated[str, typer.Option(help="Makes all runs repeatable.")]
FirstSeed = Annotated[int, typer.Option(help="The first seed; repetitions count up from it.")]
PaperDevice = Annotated[str, typer.Option(help="cpu or cuda, for ResNet-18.")]


def typed(ctx: typer.Context, name: str) -> bool:
    """Whether the user gave this option, as opposed to its default."""
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
