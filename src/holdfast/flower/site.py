"""A federation's folder on the server: certificates, enrolled keys, ports.

DIR/site.json            where nodes connect, ports, number of clients
DIR/server/              ca.crt, ca.key, server.crt, server.key
DIR/clients/000/         node.key, node.pub, ca.crt: the bundle for one client; its key goes to it and nobody else
DIR/enrolled.json        which client has which key and node id, and its declared number of examples
DIR/superlink.db         Flower's own state, so that enrollment outlives a restart
DIR/flwr/, DIR/logs/     Flower's home, and what the processes say
"""

from __future__ import annotations

import hashlib
import json
import os
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from holdfast.files import write_atomically
from holdfast.flower.credentials import check_certificate, make_certificates, make_node_key
from holdfast.flower.processes import check_port, free_ports
from holdfast.types import ArtifactError, ConfigError

FORMAT = 1
CONNECTION = "holdfast"
"""The name of the federation in Flower's configuration."""
OFFLINE = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",  # a run must not install packages on hosts
}
"""Settings under which Flower calls nobody but the nodes."""


@dataclass(frozen=True)
class Enrolled:
    """One client's place: its key is its identity.

    Attributes:
        client: its number, 0 to n - 1.
        public_key_sha256: names the key.
        node_id: Flower's id for the key, once registered.
        examples: how many training examples the operator counts it with; None if all count the same.
    """

    client: int
    public_key_sha256: str
    node_id: int | None = None
    examples: int | None = None


@dataclass(frozen=True)
class Site:
    """Where a federation lives; made by `create`, found again by `open_site`.

    Attributes:
        path: the folder.
        host: name or address under which nodes reach the proxy.
        port: the proxy's port, the only one that nodes need.
        superlink_port: the SuperLink's port on the loopback interface.
        clients: n.
    """

    path: Path
    host: str
    port: int
    superlink_port: int
    clients: int

    @property
    def local(self) -> bool:
        """Whether nodes can only be on this machine."""
        return self.host in ("127.0.0.1", "localhost")

    @property
    def authority(self) -> Path:
        """The certificate that nodes check the server by."""
        return self.path / "server" / "ca.crt"

    def client(self, number: int) -> Path:
        """The bundle of one client."""
        return self.path / "clients" / f"{number:03d}"

    def environment(self, home: str = "flwr") -> dict[str, str]:
        """What Flower's programs need to know."""
        programs = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])  # they start each other
        return {**OFFLINE, "FLWR_HOME": str(self.path / home), "PATH": programs}

    def enrolled(self) -> list[Enrolled]:
        """The clients in order.

        Raises:
            ArtifactError: the list is damaged.
        """
        path = self.path / "enrolled.json"
        try:
            rows = [Enrolled(**row) for row in json.loads(path.read_text(encoding="utf-8"))]
        except (OSError, ValueError, TypeError) as problem:
            raise ArtifactError(f"{path} cannot be read ({problem}); the file is damaged") from problem
        if [row.client for row in rows] != list(range(self.clients)):
            raise ArtifactError(f"{path} does not list the clients 0 to {self.clients - 1} in order")
        return rows

    def save_enrolled(self, rows: Sequence[Enrolled]) -> None:
        """Write the list of clients."""
        write_atomically(self.path / "enrolled.json", _json([asdict(row) for row in rows]))


def create(
    path: Path,
    clients: int,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    superlink_port: int | None = None,
    examples: Sequence[int] | None = None,
    days: int = 365,
) -> Site:
    """Make certificates and one key per client in a new folder.

    Args:
        path: the folder; one that holds a federation already is never overwritten.
        clients: n, the clients to enroll.
        host: name or address under which nodes will reach this machine.
        port: for nodes; a free one when None.
        superlink_port: for the SuperLink on the loopback interface; a free one when None.
        examples: per client, how many examples it counts with in the average of its groups; None counts all alike.
        days: validity of the server's certificate.

    Raises:
        ConfigError: the folder is not empty, a port is taken, or numbers that make no sense.
    """
    for name, value in (("clients", clients), ("days", days)):
        if value < 1:
            raise ConfigError(f"{name} = {value} must be at least 1")
    if examples is not None and (len(examples) != clients or min(examples) < 1):
        raise ConfigError(f"examples must be {clients} whole numbers of at least 1, one per client")
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ConfigError(f"{path} exists and is not an empty folder; name another one")
    listen = "127.0.0.1" if host in ("127.0.0.1", "localhost") else "0.0.0.0"
    for given, on in ((port, listen), (superlink_port, "127.0.0.1")):
        if given is not None:
            check_port(on, given)
    spare = free_ports(2)
    site = Site(path, host, port or spare[0], superlink_port or spare[1], clients)
    make_certificates(path / "server", [host], days=days)
    rows = []
    for number in range(clients):
        public = make_node_key(site.client(number))
        write_atomically(site.client(number) / "ca.crt", site.authority.read_bytes())
        digest = hashlib.sha256(public).hexdigest()
        rows.append(Enrolled(number, digest, None, None if examples is None else int(examples[number])))
    site.save_enrolled(rows)
    _write_connection(site)
    facts = {"format": FORMAT, "host": host, "port": site.port, "superlink_port": site.superlink_port}
    write_atomically(path / "site.json", _json({**facts, "clients": clients}))
    return site


def open_site(path: Path) -> Site:
    """The federation in a folder, its certificates checked.

    Raises:
        ConfigError: there is none, or its certificates are missing, damaged or out of date.
        ArtifactError: its description is damaged.
    """
    try:
        facts = json.loads((path / "site.json").read_text(encoding="utf-8"))
        if facts.pop("format") != FORMAT:
            raise ArtifactError(f"{path / 'site.json'} is not of format {FORMAT}, which this version reads")
        site = Site(path.resolve(), **facts)
    except FileNotFoundError:
        raise ConfigError(
            f"{path} holds no federation: it has no site.json; make one with: holdfast flower setup {path}"
        ) from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as problem:
        raise ArtifactError(f"{path / 'site.json'} cannot be read ({problem}); the file is damaged") from problem
    check_certificate(site.authority)
    check_certificate(site.path / "server" / "server.crt")
    _write_connection(site)  # the folder may have been moved
    return site


def _write_connection(site: Site) -> None:
    """Flower's configuration: where its own command line finds the SuperLink."""
    lines = (
        f'[superlink]\ndefault = "{CONNECTION}"\n',
        f"[superlink.{CONNECTION}]",
        f'address = "127.0.0.1:{site.superlink_port}"',
        f"root-certificates = {json.dumps(str(site.authority.resolve()))}\n",
    )
    write_atomically(site.path / "flwr" / "config.toml", "\n".join(lines).encode())


def _json(content: Mapping[str, Any] | Sequence[Any]) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()
