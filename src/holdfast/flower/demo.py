"""`holdfast flower demo`: a federation of real processes, three of them hostile, with FedAvg and with a robust rule."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from holdfast import data
from holdfast.aggregation import RULES, make
from holdfast.files import write_atomically
from holdfast.flower import jobs
from holdfast.flower.demo_client import BEHAVIORS
from holdfast.flower.hosting import start_node, start_server
from holdfast.flower.jobs import Listener
from holdfast.flower.processes import Processes
from holdfast.flower.rehearsal import deal, rows_of
from holdfast.flower.site import Site, create
from holdfast.types import ConfigError

HOSTILE = tuple(name for name in BEHAVIORS if name != "honest")
_WAIT, _TIMEOUT = 180.0, 180.0


@dataclass(frozen=True)
class Outcome:
    """How one strategy fared.

    Attributes:
        strategy: its name.
        accuracy: on the test images, after each round that was finished.
        end: "finished" or "aborted".
        reason: what it aborted with, else empty.
    """

    strategy: str
    accuracy: tuple[float, ...]
    end: str
    reason: str


@dataclass(frozen=True)
class Demonstration:
    """What was shown.

    Attributes:
        clients: nodes in all.
        hostile: what the hostile ones do.
        rounds: rounds asked for.
        outcomes: one per strategy.
    """

    clients: int
    hostile: tuple[str, ...]
    rounds: int
    outcomes: tuple[Outcome, ...]

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    def print(self, console: Console) -> None:
        """One table, a row per strategy."""
        table = Table(title=f"Accuracy on digits: {self.clients} nodes, hostile: {', '.join(self.hostile)}")
        table.add_column("strategy")
        for number in range(1, self.rounds + 1):
            table.add_column(f"round {number}", justify="right")
        table.add_column("end")
        for outcome in self.outcomes:
            shown = [f"{100 * value:.1f}%" for value in outcome.accuracy]
            shown += ["–"] * (self.rounds - len(shown))
            table.add_row(outcome.strategy, *shown, outcome.end + (f": {outcome.reason}" if outcome.reason else ""))
        console.print(table)


def demonstrate(
    *,
    clients: int = 10,
    hostile: int = 3,
    rounds: int = 5,
    rule: str = "trimmed-mean",
    folder: Path | None = None,
    listener: Listener,
) -> Demonstration:
    """Set up a federation on the loopback interface, and run it with Flower's FedAvg and with a rule.

    Args:
        clients: nodes, each a process with its own key.
        hostile: how many of them are: in turn one that renames a key, one that sends NaN, one that scales its model.
        rounds: rounds of each run.
        rule: name of the robust rule; told to expect `hostile` malicious clients where it has an f.
        folder: where the federation lives; a temporary folder when None.
        listener: hears what happens.

    Raises:
        ConfigError: more hostile nodes than half, or fewer nodes than the rule needs.
        ProcessError: a process does not start.
    """
    parameters = _parameters(rule, clients, hostile)
    behaviors = [HOSTILE[i % len(HOSTILE)] if i < hostile else "honest" for i in range(clients)]
    with ExitStack() as stack:
        path = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="holdfast-"))) / "federation"
        listener.note(f"setting up {clients} keys and certificates in {path}")
        site = create(path, clients)
        inputs = _deal(site)
        processes = stack.enter_context(Processes(path / "logs"))
        start_server(site, processes)
        listener.note(f"SuperLink with TLS and node authentication, nodes connect to 127.0.0.1:{site.port}")
        for client, behavior in enumerate(behaviors):
            start_node(site, processes, client, {"data": str(rows_of(site, client)), "behavior": behavior})
        job = {
            "nodes": [row.node_id for row in site.enrolled()],
            "inputs": str(inputs),
            "rounds": rounds,
            "wait": _WAIT,
            "timeout": _TIMEOUT,
        }
        strategies: list[tuple[str, dict[str, Any]]] = [
            ("Flower FedAvg", {"rule": None}),
            (f"holdfast {make(rule, **parameters)!r}", {"rule": rule, "parameters": parameters}),
        ]
        outcomes = [
            _run(site, f"demo-{number}", name, job | choice, listener, processes.check)
            for number, (name, choice) in enumerate(strategies)
        ]
    return Demonstration(clients, tuple(behaviors[:hostile]), rounds, tuple(outcomes))


def _run(
    site: Site, name: str, strategy: str, job: Mapping[str, Any], listener: Listener, check: Callable[[], None]
) -> Outcome:
    """One strategy's rounds as a Flower run."""
    listener.note(f"{strategy}: {job['rounds']} rounds")
    accuracy: list[float] = []

    def hear(line: Mapping[str, Any]) -> None:
        if line["round"]:  # not the model before the first round
            accuracy.append(float(line["accuracy"]))

    apps = {"server": "holdfast.flower.demo_app:server", "client": "holdfast.flower.demo_client:app"}
    last = jobs.run(site, name, job, **apps, listener=listener, fact=hear, check=check)
    return Outcome(strategy, tuple(accuracy), str(last["done"]), str(last.get("reason", "")))


def _deal(site: Site) -> Path:
    """Each node's rows in its own folder, the test images in the server's."""
    digits = data.load("digits")
    deal(site, digits, data.partition("iid", digits.y_train, n=site.clients, seed=0))
    content = io.BytesIO()
    np.savez(content, x=digits.x_test, y=digits.y_test)
    write_atomically(site.path / "inputs.npz", content.getvalue())
    return site.path / "inputs.npz"


def _parameters(rule: str, clients: int, hostile: int) -> dict[str, Any]:
    """The parameter f, where the rule has one; refuses what cannot be shown."""
    if not 1 <= hostile < clients / 2:
        raise ConfigError(f"hostile = {hostile} must be at least 1 and less than half of the {clients} nodes")
    fields = getattr(RULES.get(rule), "__dataclass_fields__", {})
    parameters = {"f": hostile} if "f" in fields else {}
    needed = make(rule, **parameters).min_clients()
    if clients < needed:
        raise ConfigError(f"clients = {clients} are fewer than the {needed} that {rule} needs to stand {hostile}")
    return parameters
