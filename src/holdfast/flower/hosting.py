"""Starting a federation's processes: the SuperLink, the proxy in front of it, registration of keys, nodes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from holdfast.flower.processes import ProcessError, Processes, check_port, free_ports, listens, script
from holdfast.flower.site import CONNECTION, Site

_READY_SECONDS = 60.0


def start_server(site: Site, processes: Processes) -> None:
    """Start the SuperLink on the loopback interface and the proxy in front of it, and register all keys.

    Raises:
        ConfigError: a port is taken.
        ProcessError: one of them does not start.
    """
    listen = "127.0.0.1" if site.local else "0.0.0.0"
    check_port("127.0.0.1", site.superlink_port)
    check_port(listen, site.port)
    start_superlink(site, processes)
    keys = ["--ca", str(site.authority), *_pair(site, "--certificate", "--key")]
    proxy = [sys.executable, "-m", "holdfast", "flower", "proxy", "--listen", f"{listen}:{site.port}"]
    processes.start("proxy", [*proxy, "--superlink", f"127.0.0.1:{site.superlink_port}", *keys])
    processes.wait_until(lambda: listens(site.port), "the proxy", seconds=_READY_SECONDS)
    register(site)


def start_superlink(site: Site, processes: Processes) -> None:
    """Start the SuperLink alone: TLS, node authentication, its state in a file, no packages installed by runs."""
    command = [
        *(script("flower-superlink"), "--host", "127.0.0.1", "--port", str(site.superlink_port)),
        *("--ssl-ca-certfile", str(site.authority), *_pair(site, "--ssl-certfile", "--ssl-keyfile")),
        *("--enable-supernode-auth", "--database", str(site.path / "superlink.db")),
        "--disable-runtime-dependency-installation",
    ]
    processes.start("superlink", command, site.environment())
    processes.wait_until(lambda: listens(site.superlink_port), "the SuperLink", seconds=_READY_SECONDS)


def register(site: Site) -> None:
    """Register the keys that have no node id yet; a key is registered once and keeps its id.

    Raises:
        ProcessError: the SuperLink refuses.
    """
    rows = site.enrolled()
    new = [row.client for row in rows if row.node_id is None]
    if not new:
        return
    command = [sys.executable, "-m", "holdfast.flower.register", CONNECTION]
    command += [str(site.client(number) / "node.pub") for number in new]
    done = subprocess.run(
        command, env={**os.environ, **site.environment()}, capture_output=True, text=True, check=False
    )
    try:
        ids = {client: int(answer["node-id"]) for client, answer in zip(new, _objects(done.stdout), strict=True)}
    except (ValueError, TypeError, KeyError):
        raise ProcessError(f"the SuperLink did not register the keys: {(done.stderr or done.stdout).strip()}") from None
    site.save_enrolled([replace(row, node_id=ids.get(row.client, row.node_id)) for row in rows])


def node_command(
    site: Site, client: int, config: Mapping[str, str | int], *, port: int, folder: Path | None = None
) -> list[str]:
    """The command that runs one client's node; `folder` is where its bundle lies, `config` what its app may read."""
    bundle = site.client(client) if folder is None else folder
    listed = " ".join(f"{name}={json.dumps(value)}" for name, value in config.items())
    return [
        *(script("flower-supernode"), "--superlink", f"{site.host}:{site.port}"),
        *("--root-certificates", str(bundle / "ca.crt")),
        *("--auth-supernode-private-key", str(bundle / "node.key")),
        *("--host", "127.0.0.1", "--port", str(port)),
        *(("--node-config", listed) if listed else ()),
    ]


def start_node(site: Site, processes: Processes, client: int, config: Mapping[str, str | int]) -> None:
    """Run one client's node on this machine, under the name `node-<client>`."""
    command = node_command(site, client, config, port=free_ports(1)[0])
    processes.start(f"node-{client}", command, site.environment(f"clients/{client:03d}/flwr"))


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """The JSON objects in a text, one after the other."""
    text = text.strip()
    while text:
        found, end = json.JSONDecoder().raw_decode(text)
        yield found
        text = text[end:].strip()


def _pair(site: Site, certificate: str, key: str) -> list[str]:
    return [certificate, str(site.path / "server" / "server.crt"), key, str(site.path / "server" / "server.key")]
