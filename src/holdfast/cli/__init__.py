"""The command line: one thin function per command, grouped in modules that each `register` on the app."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

import holdfast
from holdfast.cli import aggregation, certify, certify_data, data, flower, reproduce, simulate
from holdfast.types import HoldfastError

app = typer.Typer(
    name="holdfast",
    help="Federated learning that survives malicious clients: certificates with proofs, robust aggregation.",
    epilog="Exit codes: 0 done; 2 what was given cannot be used (one sentence on stderr); 130 interrupted, what is "
    "finished is kept.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(show: bool) -> None:
    if show:
        typer.echo(f"holdfast {holdfast.__version__}")
        raise typer.Exit()


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


for group in (certify, certify_data, aggregation, data, reproduce, simulate, flower):
    group.register(app)


def main() -> None:
    """Run the command line; user errors are one sentence on stderr and exit code 2, never a traceback."""
    try:
        app()
    except HoldfastError as problem:
        typer.secho(f"error: {problem}", fg=typer.colors.RED, err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        typer.secho(
            "interrupted; what is finished is kept, continue with --resume (sweep, reproduce: the same command again)",
            err=True,
        )
        sys.exit(130)
    except BrokenPipeError:  # `holdfast … | head` is no error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
