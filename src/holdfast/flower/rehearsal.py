"""A federation on one machine, to rehearse with: rows dealt to the clients' folders, all nodes started here."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from holdfast.data import Dataset, Partition
from holdfast.files import write_atomically
from holdfast.flower.hosting import start_node
from holdfast.flower.processes import Processes
from holdfast.flower.site import Site
from holdfast.types import ConfigError

ROWS = "rows.npz"
"""A client's own rows, in its bundle."""


def deal(site: Site, dataset: Dataset, partition: Partition) -> None:
    """Write each client's share of the training rows into its bundle, and nobody else's."""
    for client in range(site.clients):
        rows = partition.rows(client)
        content = io.BytesIO()
        np.savez(content, x=dataset.x_train[rows], y=dataset.y_train[rows])
        write_atomically(site.client(client) / ROWS, content.getvalue())


def rows_of(site: Site, client: int) -> Path:
    """The file with a client's dealt rows.

    Raises:
        ConfigError: none were dealt.
    """
    path = site.client(client) / ROWS
    if not path.exists():
        raise ConfigError(f"{path} is not there; deal rows when setting up: holdfast flower setup ... --deal digits")
    return path


def start_nodes(site: Site, processes: Processes, clients: Sequence[int] | None = None) -> None:
    """Run these clients' nodes (all, when None) on this machine, each on its own dealt rows."""
    for client in range(site.clients) if clients is None else clients:
        start_node(site, processes, client, {"data": str(rows_of(site, client))})
