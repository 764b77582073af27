"""`holdfast flower`: real federations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True)


@app.command()
def proxy(
    listen: Annotated[str, typer.Option(help="host:port for nodes.")],
    superlink: Annotated[str, typer.Option(help="host:port of the SuperLink, on the loopback interface.")],
    ca: Annotated[Path, typer.Option()],
    certificate: Annotated[Path, typer.Option()],
    key: Annotated[Path, typer.Option()],
    max_body: Annotated[int, typer.Option()] = 64 * 2**20,
) -> None:
    from holdfast.flower.proxy import serve

    host, _, port = listen.rpartition(":")
    serve(f"https://{superlink}", host=host, port=int(port), ca=ca, certificate=certificate, key=key, max_body=max_body)


def register(parent: typer.Typer) -> None:
    """Add the commands to the app."""
    parent.add_typer(app, name="flower")
