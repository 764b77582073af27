"""`holdfast simulate` and `sweep`: attacked federations, one or a grid of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from holdfast.cli.options import AsJson, Data, DataDir, Device, Engine, Resume, Threads, typed
from holdfast.cli.output import show

_SIMULATE_HELP = """Train one federation in which some clients are malicious, and measure every round.

The server aggregates with --rule; the malicious clients do what --attack says. Parameters of either are given as
name=value, as often as needed. `docs/simulate.md` lists attacks, rules and measures.

Examples:

    holdfast simulate --attackers 6 --attack sign-flip --attack-param scale=3 --rule median

    holdfast simulate --data mnist --clients 100 --partition two-labels --attackers 10 --attack label-flip
    --rule residual-reweighting --rule-param delta=0.01 --rounds 200 --local-epochs 5 --lr 0.01 --out runs/flip

    holdfast simulate --attackers 4 --attack naive-backdoor --attack-param target=2 --rule krum --json

    holdfast simulate --out runs/flip --resume
"""

_SWEEP_HELP = """Run a grid of attacked federations: rules x attacks x numbers of attackers x seeds.

Every finished cell is a file; run the same command again to go on after an interruption, or with a larger grid.
The table holds means and 95% intervals over the seeds. `examples/` has experiments to start from.

Examples:

    holdfast sweep examples/digits-attacks.toml --out runs/attacks

    holdfast sweep examples/digits-attacks.toml --out runs/attacks --json
"""


def simulate(
    ctx: typer.Context,
    data: Data = "digits",
    data_dir: DataDir = None,
    train_rows: Annotated[int | None, typer.Option(help="Use only so many training rows.")] = None,
    test_inputs: Annotated[int | None, typer.Option(help="Evaluate on the first so many test inputs.")] = None,
    standardize: Annotated[
        bool, typer.Option("--standardize", help="Inputs with mean 0 and deviation 1, by public constants of the data.")
    ] = False,
    clients: Annotated[int | None, typer.Option(help="n. Default: one per user of the data, else 20.")] = None,
    partition: Annotated[
        str, typer.Option(help="iid, label-skew, dirichlet, shards, two-labels, one-label, user.")
    ] = "iid",
    skew: Annotated[float, typer.Option(help="q of label-skew.")] = 0.5,
    concentration: Annotated[float, typer.Option(help="beta of dirichlet.")] = 0.9,
    shards: Annotated[int, typer.Option(help="Pieces per client of shards.")] = 2,
    drop_label: Annotated[int | None, typer.Option(help="Take away holders of this label ...")] = None,
    drop_holders: Annotated[int, typer.Option(help="... so many of them.")] = 0,
    attackers: Annotated[int, typer.Option(help="m, the malicious clients.")] = 0,
    attack: Annotated[str, typer.Option(help="What they do: label-flip, naive-backdoor, tpa, min-max, ...")] = "none",
    attack_param: Annotated[list[str] | None, typer.Option(help="name=value of the attack; repeat.")] = None,
    wrapper: Annotated[
        list[str] | None, typer.Option(help="Around the attack, e.g. stealth:alpha=0.3 or collusion; repeat.")
    ] = None,
    effort: Annotated[
        float | None, typer.Option(help="The attackers' local work, relative to an honest one's.")
    ] = None,
    attack_lr: Annotated[float | None, typer.Option(help="The attackers' own learning rate.")] = None,
    rule: Annotated[str, typer.Option(help="How the server aggregates: mean, median, krum, romoa, ...")] = "mean",
    rule_param: Annotated[list[str] | None, typer.Option(help="name=value of the rule; repeat.")] = None,
    clients_per_round: Annotated[int | None, typer.Option(help="Clients drawn for a round. Default: all.")] = None,
    rounds: Annotated[int, typer.Option(help="Rounds of training.")] = 30,
    mode: Annotated[
        str, typer.Option(help="fedavg, or async: every local step is uploaded, clients sync after --tau of them.")
    ] = "fedavg",
    tau: Annotated[
        int | None, typer.Option(help="Local steps between two syncing points of async. Default: 4.")
    ] = None,
    moving_rate: Annotated[
        float | None, typer.Option(help="How far clients move to the synced model in async. Default: 1.")
    ] = None,
    local_epochs: Annotated[
        float | None, typer.Option(help="Passes of a client over its rows per round, or ...")
    ] = None,
    local_steps: Annotated[int | None, typer.Option(help="... steps per round. Default: 5.")] = None,
    batch_size: Annotated[int, typer.Option(help="Rows per step.")] = 32,
    lr: Annotated[float, typer.Option(help="Learning rate of honest clients.")] = 0.1,
    optimizer: Annotated[str, typer.Option(help="sgd or adam, of all clients.")] = "sgd",
    weighting: Annotated[
        str, typer.Option(help="uniform, or size: tell rules that use it who has how many rows.")
    ] = "uniform",
    model: Annotated[
        str | None, typer.Option(help="Model name or package.module:factory. Default: the data's.")
    ] = None,
    evaluate_every: Annotated[int, typer.Option(help="Rounds between evaluations.")] = 1,
    training_accuracy: Annotated[
        bool, typer.Option("--training-accuracy", help="Measure on the honest clients' training rows, too.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Everything random follows from it.")] = 0,
    allow_unsound: Annotated[bool, typer.Option(help="Run a rule whose theory needs more clients.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for settings, rounds, figures and the report.")] = None,
    resume: Resume = False,
    engine: Engine = "auto",
    device: Device = "cpu",
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Collect the options and run the job."""
    from holdfast.cli.progress import Reporter
    from holdfast.experiments.attacked import SimulateConfig
    from holdfast.experiments.simulate import simulate_run
    from holdfast.types import ConfigError

    if resume and out is None:
        raise ConfigError("--resume needs --out, the folder of the run to continue")
    fields = SimulateConfig.__dataclass_fields__
    described = {
        "attack": _description(attack, attack_param, wrappers=wrapper, effort=effort, lr=attack_lr),
        "rule": _description(rule, rule_param),
    }
    config = SimulateConfig(**{name: described.get(name, ctx.params[name]) for name in fields})
    given = {name: getattr(config, name) for name in fields if typed(ctx, name)}
    with Reporter(quiet=as_json) as reporter:
        result = simulate_run(
            config,
            out,
            resume=resume,
            given=given,
            engine=engine,
            device=device,
            threads=threads,
            events=reporter,
        )
    show(result, as_json=as_json)


def sweep(
    experiment: Annotated[Path, typer.Argument(help="TOML file of the experiment.")],
    out: Annotated[Path | None, typer.Option(help="Folder. Default: named after the file, here.")] = None,
    engine: Engine = "auto",
    device: Device = "cpu",
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Read the experiment and run it."""
    from holdfast.cli.progress import Reporter
    from holdfast.experiments.experiment import read_experiment
    from holdfast.experiments.sweep import sweep as run_sweep

    grid = read_experiment(experiment)
    with Reporter(quiet=as_json) as reporter:
        result = run_sweep(
            grid, out or Path(experiment.stem), engine=engine, device=device, threads=threads, events=reporter
        )
    show(result, as_json=as_json)


def _description(
    name: str,
    params: list[str] | None,
    *,
    wrappers: list[str] | None = None,
    effort: float | None = None,
    lr: float | None = None,
) -> Any:
    """A rule or attack as a sweep file would describe it; a plain name stays one."""
    found: dict[str, Any] = dict(_pair(text) for text in params or [])
    if wrappers:
        found["wrappers"] = [_wrapper(text) for text in wrappers]
    found |= {key: value for key, value in (("effort", effort), ("lr", lr)) if value is not None}
    return {"name": name, **found} if found else name


def _wrapper(text: str) -> Any:
    name, _, params = text.partition(":")
    return {"name": name, **dict(_pair(part) for part in params.split(","))} if params else name


def _pair(text: str) -> tuple[str, Any]:
    """`name=value`, the value as TOML has it, or a plain text."""
    import tomllib

    from holdfast.types import ConfigError

    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ConfigError(f"{text!r} is not of the form name=value")
    try:
        return name.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name.strip(), value.strip()


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.command(help=_SIMULATE_HELP)(simulate)
    app.command(help=_SWEEP_HELP)(sweep)
