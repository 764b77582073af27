"""`holdfast rules` and `holdfast aggregate`: robust aggregation of updates in files, without any framework."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.cli.options import AsJson
from holdfast.types import ConfigError

if TYPE_CHECKING:
    from holdfast.types import Aggregate

_SHOWN_CLIENTS = 40


def register(app: typer.Typer) -> None:
    """Add the `rules` and `aggregate` commands."""
    app.command()(rules)
    app.command(no_args_is_help=True)(aggregate)


def rules(as_json: AsJson = False) -> None:
    """List the aggregation rules, their parameters and what they need.

    For example: `holdfast rules --json`.
    """
    from holdfast.aggregation import RULES

    found: list[dict[str, Any]] = [
        {"name": name, "does": (rule.__doc__ or "").splitlines()[0], "parameters": _parameters(rule)}
        for name, rule in RULES.items()
    ]
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("rule", "what it does", "parameters", box=None, pad_edge=False)
    for row in found:
        shown = [name if value == "required" else f"{name}={value}" for name, value in row["parameters"].items()]
        table.add_row(row["name"], row["does"], ", ".join(shown) if len(shown) < 9 else ", ".join(shown[:8]) + ", …")
    Console().print(table)


def aggregate(
    files: Annotated[list[Path], typer.Argument(help="One file per client: .safetensors or .npz.")],
    rule: Annotated[str, typer.Option("--rule", help="A rule's name, as `holdfast rules` lists it.")],
    out: Annotated[Path, typer.Option("--out", help="Where the aggregate goes: a new .safetensors file.")],
    param: Annotated[
        list[str] | None,
        typer.Option("--param", help="A parameter as name=value; rule.name=value for a wrapped rule. Repeat."),
    ] = None,
    reference: Annotated[
        Path | None, typer.Option("--reference", help="The last global model, for rules that measure from it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Aggregate clients' updates from disk with a robust rule, and say what each client's share was.

    Reads block by block: models may be larger than memory. A file that is damaged or unlike the others counts as one
    malicious client: it is replaced and named, never an error.

    For example:

        holdfast aggregate updates/*.safetensors --rule trimmed-mean --param f=2 --out aggregate.safetensors

        holdfast aggregate updates/*.npz --rule norm-clipping --param rule=krum --param rule.f=2 --out agg.safetensors
    """
    from holdfast.aggregation.streaming import aggregate_files

    chosen = make_from_text(rule, param or [])
    result = aggregate_files(chosen, files, out, reference=reference)
    if as_json:
        typer.echo(json.dumps(_verdict(repr(chosen), files, result), indent=2))
    else:
        _print_verdict(repr(chosen), files, result)


def make_from_text(name: str, assignments: list[str]) -> Any:
    """A rule from `name=value` texts; `rule.name=value` reaches into the wrapped rule.

    >>> make_from_text("bucketing", ["rule=krum", "rule.f=2", "s=3"])
    Bucketing(rule=Krum(f=2, strict=True), s=3, seed=0)
    """
    from holdfast.aggregation import make

    own: dict[str, Any] = {}
    inner: list[str] = []
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ConfigError(f"--param must look like name=value, got {text!r}")
        if key.startswith("rule."):
            inner.append(text.removeprefix("rule."))
        else:
            own[key] = _value(value)
    if isinstance(own.get("rule"), str):
        own["rule"] = make_from_text(own["rule"], inner)
    elif inner:
        raise ConfigError(f"--param rule.{inner[0]} needs --param rule=NAME, the rule that {name!r} wraps")
    return make(name, **own)


def _value(text: str) -> Any:
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _parameters(rule: type[Any]) -> dict[str, Any]:
    """Names and defaults; "required" where one must be given."""
    return {
        field.name: "required" if field.default is dataclasses.MISSING else field.default
        for field in dataclasses.fields(rule)
        if field.init
    }


def _verdict(rule: str, files: list[Path], result: Aggregate) -> dict[str, Any]:
    shares = None if result.client_weights is None else result.client_weights.tolist()
    return {
        "rule": rule,
        "out": str(result.value),
        "clients": [
            {
                "file": str(path),
                "share": None if shares is None else shares[i],
                "replaced": result.diagnostics["replaced"].get(i),
            }
            for i, path in enumerate(files)
        ],
    }


def _print_verdict(rule: str, files: list[Path], result: Aggregate) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("client", "share", "replaced because", box=None, pad_edge=False)
    clients = _verdict(rule, files, result)["clients"]
    # The replaced first, then the rest in order: with hundreds of clients they must not scroll away.
    for row in sorted(clients, key=lambda row: row["replaced"] is None)[:_SHOWN_CLIENTS]:
        share = "" if row["share"] is None else f"{100 * row['share']:.1f}%"
        table.add_row(escape(row["file"]), share, escape(row["replaced"] or ""))
    console = Console()
    console.print(table)
    if len(clients) > _SHOWN_CLIENTS:
        console.print(f"… and {len(clients) - _SHOWN_CLIENTS} more (--json lists all)")
    count = len(result.diagnostics["replaced"])
    console.print(f"\n{len(files)} clients, {count} replaced; {escape(rule)} written to {result.value}", soft_wrap=True)
