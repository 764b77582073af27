"""`holdfast certify-data`: certificates against poisoned training examples."""

from __future__ import annotations

from typing import Annotated

import typer

from holdfast.cli.options import (
    Address,
    AsJson,
    Baseline,
    CertifiedInputs,
    Classes,
    Data,
    DataDir,
    Device,
    EngineOrPlace,
    KeepModels,
    Perspective,
    Poisoning,
    Resume,
    RunAlpha,
    RunFolder,
    SecretSeed,
    Threads,
    Wait,
    Workers,
    typed,
)
from holdfast.cli.output import show

_HELP = """Train classifiers on random selections of a training set and certify every test input against poisoning.

Each classifier sees its own selection only; they vote; for each test input the certificate says how many inserted,
deleted or modified training examples the vote survives. Everything is written to --out, as with `certify`.

Examples:

    holdfast certify-data --size 20 --models 200 --out runs/digits

    holdfast certify-data --data mnist --classes 1,7 --size 10 --out runs/mnist-1-7

    holdfast certify-data --data mnist --scheme binomial --p 0.001 --poisoning P1 --out runs/mnist-inserted

    holdfast certify-data --data mnist --trusted 0-99 --size 50 --out runs/case-2

    holdfast certify-data --data mnist --trusted-classes 0,1,2,3,4,5,6,7,8 --size 10 --out runs/case-3

    holdfast certify-data --out runs/mnist-1-7 --resume
"""


def certify_data(
    ctx: typer.Context,
    out: RunFolder,
    data: Data = "digits",
    data_dir: DataDir = None,
    classes: Classes = "",
    scheme: Annotated[
        str, typer.Option(help="without, with (replacement), binomial, disjoint, partitions, spread, exhaustive.")
    ] = "without",
    size: Annotated[int | None, typer.Option(help="n_s, examples per selection. Default: 10.")] = None,
    p: Annotated[
        float | None, typer.Option("--p", help="Probability of binomial, fixed before the data were seen.")
    ] = None,
    models: Annotated[
        int | None, typer.Option(help="T, classifiers to train. Default: 1000, or as many as the scheme has.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="lenet, resnet18-bn, mlp, ..., package.module:factory. Default: the data's own.")
    ] = None,
    steps: Annotated[int, typer.Option(help="SGD steps of each classifier.")] = 100,
    batch_size: Annotated[int, typer.Option(help="Examples per step, balanced over classes.")] = 32,
    lr: Annotated[float, typer.Option(help="Learning rate.")] = 0.1,
    expand: Annotated[int, typer.Option(help="Entries a tiny selection is expanded to at least.")] = 1024,
    long_steps: Annotated[
        int, typer.Option(help="SGD steps of the models beside: second phase, trusted data only, all examples.")
    ] = 1000,
    trusted: Annotated[
        str, typer.Option(help="Training rows you vouch for, e.g. 0-99,205: they join every selection (case 2).")
    ] = "",
    trusted_data: Annotated[
        str | None, typer.Option(help="A file whose rows you vouch for; they join every selection (case 2).")
    ] = None,
    trusted_classes: Annotated[
        str, typer.Option(help="Classes whose training rows you vouch for: two-phase classifiers (case 3).")
    ] = "",
    baseline: Baseline = True,
    test_inputs: CertifiedInputs = None,
    poisoning: Poisoning = None,
    perspective: Perspective = None,
    alpha: RunAlpha = None,
    seed: SecretSeed = None,
    engine: EngineOrPlace = "auto",
    workers: Workers = None,
    address: Address = None,
    wait: Wait = None,
    device: Device = "cpu",
    threads: Threads = None,
    keep_models: KeepModels = True,
    resume: Resume = False,
    as_json: AsJson = False,
) -> None:
    """Collect the options and run the job."""
    from holdfast.cli.progress import Reporter
    from holdfast.engine import choose
    from holdfast.experiments.certify import certify_run
    from holdfast.experiments.examples import ExamplesConfig
    from holdfast.experiments.study import Workshop

    fields = ExamplesConfig.__dataclass_fields__
    listed = {name: _names(ctx.params[name]) for name in ("classes", "trusted_classes")}
    config = ExamplesConfig(**{name: ctx.params[name] for name in fields} | listed)
    given = {name: getattr(config, name) for name in fields if typed(ctx, name)}
    place, engine = choose(engine, device=device, threads=threads, workers=workers, address=address, wait=wait)
    with Reporter(quiet=as_json) as reporter:
        result = certify_run(
            config,
            out,
            alpha=alpha,
            poisoning=poisoning,
            perspective=perspective,
            seed=seed,
            resume=resume,
            given=given,
            workshop=Workshop(engine, device, threads, place=place),
            keep_models=keep_models,
            events=reporter,
        )
    show(result, as_json=as_json)


def _names(text: str) -> tuple[str, ...]:
    """Class names as a user lists them."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command(name="certify-data", help=_HELP)(certify_data)
