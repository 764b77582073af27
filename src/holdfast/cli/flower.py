"""`holdfast flower`: real federations on Flower."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from holdfast.cli.options import (
    AsJson,
    Baseline,
    BatchSize,
    CertifiedInputs,
    Data,
    DataDir,
    Design,
    Engine,
    GroupSize,
    KeepModels,
    LearningRate,
    LocalSteps,
    Model,
    Models,
    Preset,
    Resume,
    Rounds,
    RunAlpha,
    RunFolder,
    SecretSeed,
    Threads,
    typed,
)
from holdfast.cli.output import show

app = typer.Typer(
    name="flower",
    help="Real federations on Flower: safe set-up, certified ensembles, a demonstration. Extra: holdfast[flower].",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

Folder = Annotated[Path, typer.Argument(help="The federation's folder on the server.")]

_SETUP_HELP = """Make a federation's certificates and one key per client.

Each folder FEDERATION/clients/NNN goes to one client, over a channel you trust; its node.key is the client's identity.
With --deal the training rows of a data set are dealt to the clients, to rehearse on one machine.

Examples:

    holdfast flower setup federation --clients 12 --host fl.example.org --port 9093

    holdfast flower setup rehearsal --clients 6 --deal digits
"""

_UP_HELP = """Run the server: a SuperLink with TLS and node authentication, and the proxy that nodes connect to.

Prints the command that starts each client's node. Runs until Ctrl-C. With --nodes all nodes run here too, on the rows
that `setup --deal` has dealt.

Examples:

    holdfast flower up federation

    holdfast flower up rehearsal --nodes
"""

_CERTIFY_HELP = """Train and certify an ensemble on the enrolled nodes of a running federation.

As `holdfast certify`, with the same files at the end; but every client trains on its own rows on its own node, and is
only ever sent the models of its own groups. --data names the inputs to certify: the test part of a data set, or of an
.npz with x_test and y_test. docs/federation.md says what the certificate needs from the set-up.

Examples:

    holdfast flower certify rehearsal --k 2 --out runs/rehearsal

    holdfast flower certify federation --data inputs.npz --k 3 --design disjoint --model har --out runs/hospitals

    holdfast flower certify federation --out runs/hospitals --resume
"""

_DEMO_HELP = """Show a federation of real processes on this machine survive hostile nodes that end Flower's FedAvg.

A SuperLink and the nodes run on 127.0.0.1 with TLS and node authentication. Some nodes are hostile, in turn: one
renames a key of its model, one sends NaN, one scales its model. The same rounds are run with Flower's own FedAvg and
with a robust rule, on the handwritten digits.

Examples:

    holdfast flower demo

    holdfast flower demo --rule median --rounds 3

    holdfast flower demo --clients 4 --hostile 1 --rounds 1 --json
"""

_PROXY_HELP = """Run the proxy alone: it passes on the calls of Flower's nodes (POST /v1/fleet/...) and nothing else.

`holdfast flower up` starts it by itself. docs/federation.md has the same rule for nginx.

Examples:

    holdfast flower proxy --listen 0.0.0.0:9093 --superlink 127.0.0.1:8000 --ca ca.crt --certificate server.crt
    --key server.key
"""


def setup(
    federation: Annotated[Path, typer.Argument(help="Folder to make; must be new or empty.")],
    clients: Annotated[int, typer.Option(help="n, clients to enroll: one key each.")],
    host: Annotated[str, typer.Option(help="Name or address under which nodes reach this machine.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(help="Port for nodes. Default: a free one.")] = None,
    superlink_port: Annotated[
        int | None, typer.Option(help="Port of the SuperLink on 127.0.0.1. Default: a free one.")
    ] = None,
    examples: Annotated[
        str, typer.Option(help="Per client, how many examples it counts with, e.g. 120,80,95. Default: all alike.")
    ] = "",
    days: Annotated[int, typer.Option(help="Validity of the server's certificate.")] = 365,
    deal: Annotated[str | None, typer.Option(help="Deal the training rows of this data set to the clients.")] = None,
    partition: Annotated[str, typer.Option(help="How to deal: iid, label-skew, dirichlet, user.")] = "iid",
    skew: Annotated[float, typer.Option(help="q of label-skew: share of a label that stays in its group.")] = 0.5,
    seed: Annotated[int, typer.Option(help="Draws who is dealt which rows.")] = 0,
) -> None:
    """Make the folder."""
    from holdfast.flower import require_flower

    require_flower()
    from holdfast.flower.site import create

    counts = _counts(examples)
    if deal is None:
        site = create(
            federation, clients, host=host, port=port, superlink_port=superlink_port, examples=counts, days=days
        )
    else:
        from holdfast import data
        from holdfast.flower.rehearsal import deal as deal_rows

        dataset = data.load(deal)
        params = {"q": skew, "groups": dataset.n_labels} if partition == "label-skew" else {}
        parts = data.partition(partition, dataset.y_train, n=clients, seed=seed, users=dataset.users_train, **params)
        counts = counts or [int(size) for size in parts.sizes]
        site = create(
            federation, clients, host=host, port=port, superlink_port=superlink_port, examples=counts, days=days
        )
        deal_rows(site, dataset, parts)
    typer.echo(f"{federation}: {clients} keys; nodes connect to {site.host}:{site.port}", err=True)
    typer.echo(f"next: holdfast flower up {federation}{' --nodes' if deal else ''}", err=True)


def up(
    federation: Folder,
    nodes: Annotated[bool, typer.Option("--nodes", help="Also run all nodes here, on their dealt rows.")] = False,
) -> None:
    """Run the server until Ctrl-C."""
    import shlex
    import time

    from holdfast.flower import require_flower

    require_flower()
    from holdfast.flower.hosting import node_command, start_server
    from holdfast.flower.processes import Processes
    from holdfast.flower.rehearsal import rows_of, start_nodes
    from holdfast.flower.site import open_site

    site = open_site(federation)
    if nodes:
        for client in range(site.clients):
            rows_of(site, client)
    with Processes(site.path / "logs") as processes:
        start_server(site, processes)
        if nodes:
            start_nodes(site, processes)
            typer.echo(f"server and {site.clients} nodes are running; Ctrl-C ends them all", err=True)
        else:
            typer.echo(
                f"server is running on {site.host}:{site.port}; Ctrl-C ends it. On a client's machine:", err=True
            )
            command = node_command(site, 0, {"data": "rows.npz"}, port=9094, folder=Path("clients/000"))
            typer.echo(shlex.join(["flower-supernode", *command[1:]]))
        try:
            while True:
                processes.check()
                time.sleep(1)
        except KeyboardInterrupt:
            typer.echo("stopping", err=True)


def certify(
    ctx: typer.Context,
    federation: Folder,
    out: RunFolder,
    data: Data = "digits",
    data_dir: DataDir = None,
    design: Design = "partitions",
    k: GroupSize = 2,
    models: Models = None,
    model: Model = None,
    preset: Preset = "fast",
    rounds: Rounds = None,
    local_steps: LocalSteps = None,
    batch_size: BatchSize = None,
    lr: LearningRate = None,
    trusted: Annotated[str, typer.Option(help="Clients you vouch for, e.g. 0,1,2: they join every group.")] = "",
    baseline: Baseline = False,
    test_inputs: CertifiedInputs = None,
    alpha: RunAlpha = None,
    seed: SecretSeed = None,
    engine: Engine = "auto",
    threads: Threads = None,
    keep_models: KeepModels = True,
    model_seconds: Annotated[float, typer.Option(help="A client's time for its part of one model a round.")] = 60.0,
    round_seconds: Annotated[float, typer.Option(help="A round's time beside that: travel and start.")] = 120.0,
    wait: Annotated[float, typer.Option(help="Seconds until all nodes must be connected.")] = 120.0,
    client_app: Annotated[
        str, typer.Option(help="The ClientApp, module:attribute; it must be installed on the nodes.")
    ] = "holdfast.flower.ensemble_client:app",
    resume: Resume = False,
    as_json: AsJson = False,
) -> None:
    """Hand the job to the federation and follow it."""
    from holdfast.cli.progress import Reporter
    from holdfast.flower import require_flower

    require_flower()
    from holdfast.cli.certify import numbers
    from holdfast.experiments.enrolled import EnrolledConfig
    from holdfast.experiments.flower_certify import certify_on_nodes
    from holdfast.flower.site import open_site

    site = open_site(federation)
    fields = [name for name in EnrolledConfig.__dataclass_fields__ if name in ctx.params]
    taken = {name: ctx.params[name] for name in fields} | {"trusted": numbers(trusted)}
    given = {name: taken[name] for name in fields if typed(ctx, name)}
    with Reporter(quiet=as_json) as reporter:
        result = certify_on_nodes(
            site,
            taken,
            out,
            given=given,
            options={"alpha": alpha, "seed": seed, "resume": resume, "keep_models": keep_models}
            | {"engine": engine, "threads": threads, "wait": wait},
            client_app=client_app,
            events=reporter,
        )
    show(result, as_json=as_json)


def demo(
    clients: Annotated[int, typer.Option(help="Nodes, each a process with its own key.")] = 10,
    hostile: Annotated[int, typer.Option(help="How many of them are hostile; fewer than half.")] = 3,
    rounds: Annotated[int, typer.Option(help="Rounds of each strategy.")] = 5,
    rule: Annotated[str, typer.Option(help="The robust rule (see `holdfast rules`).")] = "trimmed-mean",
    folder: Annotated[Path | None, typer.Option(help="Keep the federation here. Default: a temporary folder.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run the demonstration."""
    from holdfast.cli.progress import Reporter
    from holdfast.flower import require_flower

    require_flower()
    from holdfast.flower.demo import demonstrate

    with Reporter(quiet=as_json) as reporter:
        result = demonstrate(
            clients=clients, hostile=hostile, rounds=rounds, rule=rule, folder=folder, listener=reporter
        )
    show(result, as_json=as_json)


def proxy(
    listen: Annotated[str, typer.Option(help="host:port for nodes.")],
    superlink: Annotated[str, typer.Option(help="host:port of the SuperLink.")],
    ca: Annotated[Path, typer.Option(help="Certificate of the authority that signed the SuperLink's.")],
    certificate: Annotated[Path, typer.Option(help="The proxy's own certificate.")],
    key: Annotated[Path, typer.Option(help="Its key.")],
    max_body: Annotated[int, typer.Option(help="Most bytes of one request.")] = 64 * 2**20,
) -> None:
    """Run the proxy until it is told to stop."""
    from holdfast.flower import require_flower

    require_flower()
    from holdfast.flower.credentials import check_certificate
    from holdfast.flower.processes import address, check_port
    from holdfast.flower.proxy import serve

    host, port = address(listen, "--listen")
    address(superlink, "--superlink")
    for file in (ca, certificate):
        check_certificate(file)
    check_port(host, port)
    serve(f"https://{superlink}", host=host, port=port, ca=ca, certificate=certificate, key=key, max_body=max_body)


def _counts(text: str) -> list[int] | None:
    try:
        return [int(part) for part in text.split(",") if part.strip()] or None
    except ValueError:
        message = f"{text!r} is not a list of numbers such as 120,80,95"
        raise typer.BadParameter(message, param_hint="--examples") from None


def register(parent: typer.Typer) -> None:
    """Add the commands to the app."""
    app.command(help=_SETUP_HELP)(setup)
    app.command(help=_UP_HELP)(up)
    app.command(help=_CERTIFY_HELP)(certify)
    app.command(help=_DEMO_HELP)(demo)
    app.command(help=_PROXY_HELP)(proxy)
    parent.add_typer(app)
