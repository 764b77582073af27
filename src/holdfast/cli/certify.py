"""`holdfast certify`, `recertify` and `plan`: certificates for ensembles of federated models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from holdfast.cli.options import (
    Address,
    Alpha,
    AsJson,
    Baseline,
    BatchSize,
    CertifiedInputs,
    Data,
    DataDir,
    Design,
    Device,
    EngineOrPlace,
    GroupSize,
    KeepModels,
    LearningRate,
    LocalSteps,
    Model,
    Models,
    Perspective,
    Poisoning,
    Preset,
    Resume,
    Rounds,
    RunAlpha,
    RunFolder,
    SecretSeed,
    Threads,
    Wait,
    Workers,
    typed,
)
from holdfast.cli.output import show

_CERTIFY_HELP = """Train an ensemble of federated models on groups of clients and certify every test input.

Who trains what is drawn in secret; the models vote; for each test input the certificate says how many malicious
clients the vote survives. Everything is written to --out: manifest, models, votes, certificates, figures, a report.

Examples:

    holdfast certify --clients 100 --k 4 --out runs/digits

    holdfast certify --data mnist --clients 1000 --k 2 --design disjoint --out runs/mnist

    holdfast certify --data phones.npz --partition user --k 2 --design exhaustive --out runs/phones

    holdfast certify --out runs/mnist --resume
"""

_RECERTIFY_HELP = """Certify a finished run again from its votes alone: no training, no data, no torch.

Examples:

    holdfast recertify runs/mnist --alpha 0.01

    holdfast recertify runs/mnist --kind deployed --bound lp --json

    holdfast recertify runs/mnist --partitions 1
"""

_PLAN_HELP = """Say, before any training, how many malicious clients each design could survive, and what training costs.

Examples:

    holdfast plan --clients 1000 --k 10 --models 500 --inputs 10000

    holdfast plan --clients 23 --k 2 --inputs 600
"""


def certify(
    ctx: typer.Context,
    out: RunFolder,
    data: Data = "digits",
    data_dir: DataDir = None,
    clients: Annotated[int | None, typer.Option(help="n, enrolled clients. Default: one per user of the data.")] = None,
    partition: Annotated[str, typer.Option(help="Rows to clients: label-skew, iid, dirichlet, user.")] = "label-skew",
    skew: Annotated[float, typer.Option(help="q of label-skew: share of a label that stays in its group.")] = 0.5,
    concentration: Annotated[float, typer.Option(help="Concentration of dirichlet; smaller is more skewed.")] = 0.5,
    design: Design = "partitions",
    k: GroupSize = 10,
    models: Models = None,
    model: Model = None,
    preset: Preset = "fast",
    rounds: Rounds = None,
    local_steps: LocalSteps = None,
    batch_size: BatchSize = None,
    lr: LearningRate = None,
    trusted: Annotated[
        str, typer.Option(help="Clients you vouch for, e.g. 0,1,2: they join every group, n counts the others.")
    ] = "",
    baseline: Baseline = True,
    test_inputs: CertifiedInputs = None,
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
    from holdfast.experiments.federation import CertifyConfig
    from holdfast.experiments.study import Workshop

    fields = CertifyConfig.__dataclass_fields__
    config = CertifyConfig(**{name: ctx.params[name] for name in fields if name != "trusted"}, trusted=numbers(trusted))
    given = {name: getattr(config, name) for name in fields if typed(ctx, name)}
    place, engine = choose(engine, device=device, threads=threads, workers=workers, address=address, wait=wait)
    with Reporter(quiet=as_json) as reporter:
        result = certify_run(
            config,
            out,
            alpha=alpha,
            seed=seed,
            resume=resume,
            given=given,
            workshop=Workshop(engine, device, threads, place=place),
            keep_models=keep_models,
            events=reporter,
        )
    show(result, as_json=as_json)


def recertify(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    kind: Annotated[
        list[str] | None, typer.Option(help="deployed, secret, ideal, data; repeat. Default: all valid.")
    ] = None,
    alpha: RunAlpha = None,
    bound: Annotated[str, typer.Option(help="Bound of deployed: degree, lp, exact.")] = "degree",
    method: Annotated[str, typer.Option(help="Confidence method of ideal and data.")] = "auto",
    poisoning: Poisoning = None,
    perspective: Perspective = None,
    partitions: Annotated[
        int | None, typer.Option(help="Use only the first so many partitions of a partitions run.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Also write the certificates to this Parquet file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Collect the options and run the job."""
    from holdfast.experiments.recertify import recertify_run

    result = recertify_run(
        run,
        kinds=kind,
        alpha=alpha,
        bound=bound,
        method=method,
        poisoning=poisoning,
        perspective=perspective,
        partitions=partitions,
        out=out,
    )
    show(result, as_json=as_json)


def plan(
    clients: Annotated[int, typer.Option(help="n, enrolled clients.")],
    k: GroupSize = 10,
    models: Annotated[int | None, typer.Option(help="N. Default: what each design needs.")] = None,
    inputs: Annotated[int, typer.Option(help="Test inputs to certify together.")] = 10_000,
    labels: Annotated[int, typer.Option(help="L, number of labels.")] = 10,
    alpha: Alpha = 0.001,
    as_json: AsJson = False,
) -> None:
    """Collect the options and print the plan."""
    from holdfast.experiments.plan import plan_table

    table = plan_table(n=clients, k=k, n_models=models, n_inputs=inputs, n_labels=labels, alpha=alpha)
    show(table, as_json=as_json)


def numbers(text: str) -> tuple[int, ...]:
    """Client numbers from text such as 0,1,2."""
    try:
        return tuple(sorted({int(part) for part in text.split(",") if part.strip()}))
    except ValueError:
        message = f"{text!r} is not a list of client numbers such as 0,1,2"
        raise typer.BadParameter(message, param_hint="--trusted") from None


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.command(help=_CERTIFY_HELP)(certify)
    app.command(help=_RECERTIFY_HELP)(recertify)
    app.command(help=_PLAN_HELP)(plan)
