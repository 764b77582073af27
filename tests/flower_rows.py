"""A small classification problem whose rows belong to clients, as a file and as one file per client."""

from pathlib import Path

import numpy as np


def write_rows(path: Path, clients: int) -> None:
    """Rows of so many clients of different size, and test rows, as `holdfast certify --partition user` reads them."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(20, 60, clients)
    client = np.repeat(np.arange(clients), sizes)
    centers = rng.normal(size=(3, 4)) * 2
    y = rng.integers(0, 3, len(client))
    x = (centers[y] + rng.normal(size=(len(y), 4))).astype(np.float32)
    y_test = np.arange(90) % 3
    x_test = (centers[y_test] + rng.normal(size=(90, 4))).astype(np.float32)
    mixed = rng.permutation(len(y))  # clients' rows lie mixed, as in a real table
    users = {"client": client[mixed], "client_test": np.zeros(90, int)}
    np.savez(path, x=x[mixed], y=y[mixed], x_test=x_test, y_test=y_test, **users)


def rows_of(path: Path, client: int):
    """One client's rows."""
    with np.load(path) as arrays:
        mine = arrays["client"] == client
        return arrays["x"][mine], arrays["y"][mine]


def tensors(path: Path) -> bytes:
    """The weights in a model's file, without the header, which names the run."""
    content = path.read_bytes()
    return content[8 + int.from_bytes(content[:8], "little") :]
