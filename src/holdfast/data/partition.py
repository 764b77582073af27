"""Who holds which rows: the partitions of the papers, each a pure function of the labels and a seed.

Every client of every partition holds at least one row and every row has exactly one holder. Where a random draw
would leave a client empty, rows are moved by a stated, deterministic rule; where the data cannot fill every client,
a `DataError` says so.
"""

from __future__ import annotations

import inspect
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from holdfast.data.dealing import deal, fill, share_labels
from holdfast.types import ConfigError, DataError

Rows = NDArray[np.int64]
Holder = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Partition:
    """Rows by client: client c holds rows `indices[offsets[c]:offsets[c + 1]]`.

    Attributes:
        offsets: int64 `[n + 1]`, increasing from 0.
        indices: int64 `[M]`, row numbers, ascending within each client.

    Example:
        >>> import numpy as np
        >>> parts = partition("iid", np.zeros(10, dtype=int), n=3, seed=0)
        >>> parts.n, parts.sizes.tolist(), sorted(parts.indices.tolist())
        (3, [4, 3, 3], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    """

    offsets: Rows
    indices: Rows

    @property
    def n(self) -> int:
        """Number of clients."""
        return len(self.offsets) - 1

    @property
    def sizes(self) -> Rows:
        """Rows per client, `[n]`."""
        return np.diff(self.offsets)

    def rows(self, client: int) -> Rows:
        """Row numbers of one client (0..n-1)."""
        if not 0 <= client < self.n:
            raise IndexError(f"client {client} is not one of 0..{self.n - 1}")
        return self.indices[self.offsets[client] : self.offsets[client + 1]]

    def holders(self) -> Holder:
        """The client of each entry of `indices`, `[M]`."""
        return np.repeat(np.arange(self.n), self.sizes)

    def label_counts(self, y: ArrayLike, n_labels: int | None = None) -> Rows:
        """How many rows of each label each client holds, `[n, L]`.

        Example:
            >>> import numpy as np
            >>> y = np.array([0, 0, 1, 1])
            >>> partition("one-label", y, n=2, seed=0).label_counts(y).tolist()
            [[2, 0], [0, 2]]
        """
        labels = np.asarray(y)[self.indices]
        width = int(np.max(y)) + 1 if n_labels is None else n_labels
        return np.bincount(self.holders() * width + labels, minlength=self.n * width).reshape(self.n, width)

    def select(self, clients: Sequence[int] | Rows) -> Partition:
        """The partition of only these clients, in this order (for experiments that take clients away).

        Example:
            >>> import numpy as np
            >>> partition("iid", np.zeros(9, dtype=int), n=3, seed=0).select([2, 0]).sizes.tolist()
            [3, 3]
        """
        kept = [self.rows(int(client)) for client in clients]
        return Partition(
            offsets=np.cumsum([0, *map(len, kept)], dtype=np.int64),
            indices=np.concatenate(kept) if kept else np.empty(0, dtype=np.int64),
        )


def partition(
    kind: str, y: ArrayLike, *, n: int | None = None, seed: int, users: ArrayLike | None = None, **params: Any
) -> Partition:
    """Split rows among n clients.

    The result depends on `kind`, `y`, `n`, `seed`, `users` and `params` and on nothing else.

    Args:
        kind: a key of `PARTITIONS`.
        y: `[M]` integer labels 0..L-1.
        n: number of clients; for "user" it may be left out.
        seed: a non-negative integer.
        users: `[M]` integers, the natural client of each row (0..n-1), for "user".
        **params: what the kind takes: `q` and `groups` for "label-skew", `beta` and `min_size` for "dirichlet",
            `shards` for "shards".

    Raises:
        ConfigError: an unknown kind or parameter, or a value out of range.
        DataError: more clients than rows, or data that must leave a client empty.

    Example:
        >>> import numpy as np
        >>> y = np.arange(1000) % 10
        >>> parts = partition("label-skew", y, n=20, seed=7, q=0.5)
        >>> share = parts.label_counts(y)[:2, 0].sum() / 100  # clients 0 and 1 are label 0's own group
        >>> round(float(share), 1)
        0.5
    """
    if kind not in PARTITIONS:
        raise ConfigError(f"unknown partition {kind!r}; it must be one of {', '.join(PARTITIONS)}")
    labels = np.asarray(y)
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or (labels.size and labels.min() < 0):
        raise DataError(f"a partition needs one label per row, integers from 0, not {labels.dtype} {labels.shape}")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ConfigError(f"seed is {seed!r}; it must be a non-negative integer")
    rule = PARTITIONS[kind]
    known = [p.name for p in inspect.signature(rule).parameters.values() if p.kind is p.KEYWORD_ONLY]
    unknown = sorted(set(params) - set(known))
    if unknown:
        raise ConfigError(f"partition {kind!r} has no parameter {unknown[0]!r}; it takes {', '.join(known) or 'none'}")
    if "users" in known:
        if users is None:
            raise DataError(f"partition {kind!r} needs to know whose row each is, but the data names no clients")
        params["users"] = _user_codes(users, len(labels))
        n = int(params["users"].max()) + 1 if n is None else n
    count = _clients(n, len(labels))
    rng = np.random.default_rng([int(seed), zlib.crc32(kind.encode())])
    return _from_holders(rule(labels.astype(np.int64), count, rng, **params), count, kind)


def iid(y: Rows, n: int, rng: np.random.Generator) -> Holder:
    """Every client gets a random sample of the rows; sizes differ by at most one."""
    return deal(rng.permutation(len(y)), n)


def label_skew(y: Rows, n: int, rng: np.random.Generator, *, q: float = 0.5, groups: int | None = None) -> Holder:
    """Client groups, one per label: a row goes to its label's group with probability q, else to another group.

    Clients are cut into `groups` consecutive groups (the number of labels unless given) whose sizes differ by at
    most one; label l belongs to group l mod `groups`. A row goes to its own group with probability q and to each
    other group with probability (1-q)/(groups-1), then to a client of the group uniformly at random. q = 1/groups
    is i.i.d. A client left empty gets one row of the largest client of its own group (the lowest numbered one, its
    last row), so the groups' label frequencies stay as drawn. "Ensemble federated learning", Experiments.
    """
    n_groups = int(y.max()) + 1 if groups is None else _positive_int("groups", groups)
    if not 0 < q <= 1:
        raise ConfigError(f"q is {q}; the degree of non-i.i.d. must be above 0 and at most 1")
    if n < n_groups:
        raise ConfigError(f"n is {n}, but label-skew needs at least one client for each of its {n_groups} groups")
    home = y % n_groups
    stays = rng.random(len(y)) < q
    elsewhere = (home + 1 + (rng.random(len(y)) * (n_groups - 1)).astype(np.int64)) % n_groups
    group = np.where(stays, home, elsewhere)
    bounds = np.arange(n_groups + 1) * n // n_groups
    size = np.diff(bounds)[group]
    holders: Holder = bounds[group] + np.minimum((rng.random(len(y)) * size).astype(np.int64), size - 1)
    for g in range(n_groups):
        rows = int((group == g).sum())
        if rows < bounds[g + 1] - bounds[g]:
            raise DataError(
                f"label-skew with q = {q} gives group {g} {rows} rows for its {bounds[g + 1] - bounds[g]} clients, "
                "so a client would be empty; use fewer clients, more rows or a smaller q"
            )
        fill(holders, range(bounds[g], bounds[g + 1]), 1)
    return holders


def dirichlet(y: Rows, n: int, rng: np.random.Generator, *, beta: float = 0.9, min_size: int = 1) -> Holder:
    """Every label is divided among all clients in proportions drawn from a symmetric Dirichlet(beta).

    Small beta: few clients hold most of a label; large beta: nearly i.i.d. Clients with fewer than `min_size` rows
    then take rows, one at a time, from whoever holds most (the lowest numbered one, its last row). beta = 0.9 is
    the CIFAR-10 setting of "Residual-based reweighting" (after Bagdasaryan et al. 2018).
    """
    if not (math.isfinite(beta) and beta > 0):
        raise ConfigError(f"beta is {beta}; Dirichlet's concentration must be a positive number")
    smallest = _positive_int("min_size", min_size)
    if smallest * n > len(y):
        raise DataError(f"{len(y)} rows cannot give {n} clients {smallest} rows each; lower n or min_size")
    holders = np.empty(len(y), dtype=np.int64)
    for label in np.unique(y):
        rows = rng.permutation(np.flatnonzero(y == label))
        share = rng.dirichlet(np.full(n, min(beta, 1e12)))  # above, it is uniform anyway, and then overflows
        cuts = np.minimum((np.cumsum(share) * len(rows)).round().astype(np.int64)[:-1], len(rows))
        holders[rows] = np.searchsorted(cuts, np.arange(len(rows)), side="right")
    fill(holders, range(n), smallest)
    return holders


def shards(y: Rows, n: int, rng: np.random.Generator, *, shards: int = 2) -> Holder:
    """Rows sorted by label are cut into n * shards equal pieces; every client gets `shards` of them at random.

    McMahan et al. 2017, section 3: with two shards most clients hold two labels.
    """
    pieces = n * _positive_int("shards", shards)
    if pieces > len(y):
        raise DataError(f"{len(y)} rows cannot be cut into {pieces} shards ({shards} for each of {n} clients)")
    order = np.argsort(y, kind="stable")
    piece = deal(order, pieces)
    holder_of_piece = deal(rng.permutation(pieces), n)
    holders: Holder = holder_of_piece[piece]
    return holders


def two_labels(y: Rows, n: int, rng: np.random.Generator) -> Holder:
    """Every client draws two different labels uniformly; a label's rows are shared equally among its holders.

    A label that nobody drew replaces the most held label of the lowest numbered client that has it, so that no row
    is lost. The MNIST setting of "Residual-based reweighting", section 4.2.
    """
    labels = np.unique(y)
    if len(labels) < 2 or 2 * n < len(labels):
        raise ConfigError(
            f"two-labels with n = {n} cannot place {len(labels)} labels; it needs two labels or more and "
            f"at least {max(1, -(-len(labels) // 2))} clients"
        )
    first = rng.integers(len(labels), size=n)
    second = (first + 1 + rng.integers(len(labels) - 1, size=n)) % len(labels)
    held = np.stack([first, second], axis=1)
    for label in range(len(labels)):
        if not (held == label).any():
            most = int(np.bincount(held.ravel()).argmax())
            held[tuple(np.argwhere(held == most)[0])] = label
    return share_labels(y, labels, held, rng)


def one_label(y: Rows, n: int, rng: np.random.Generator) -> Holder:
    """Every client holds one label: client c label c mod L, shared equally where several hold it.

    The non-i.i.d. setting of Romoa, Table 2 (there n = L = 10).
    """
    labels = np.unique(y)
    if n < len(labels):
        raise ConfigError(f"n is {n}, but one-label needs at least one client for each of the {len(labels)} labels")
    return share_labels(y, labels, (np.arange(n) % len(labels))[:, None], rng)


def by_user(y: Rows, n: int, rng: np.random.Generator, *, users: Rows) -> Holder:
    """Every user of the data (a phone's owner, a US state, a hospital) is a client; nothing is drawn."""
    found = int(users.max()) + 1
    if n != found:
        raise ConfigError(f"n is {n}, but the data has {found} users and each is a client; leave n out")
    return users


PARTITIONS: dict[str, Callable[..., Holder]] = {
    "iid": iid,
    "label-skew": label_skew,
    "dirichlet": dirichlet,
    "user": by_user,
    "shards": shards,
    "two-labels": two_labels,
    "one-label": one_label,
}


def _from_holders(holders: Holder, n: int, kind: str) -> Partition:
    sizes = np.bincount(holders, minlength=n)
    empty = np.flatnonzero(sizes == 0)
    if len(empty):
        raise DataError(
            f"partition {kind!r} leaves {len(empty)} of {n} clients without rows (client {empty[0]} first); "
            "use fewer clients or more rows"
        )
    return Partition(
        offsets=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64), indices=np.argsort(holders, kind="stable")
    )


def _user_codes(users: ArrayLike, rows: int) -> Rows:
    codes = np.asarray(users)
    if codes.shape != (rows,):
        raise DataError(f"users has shape {codes.shape} but there are {rows} rows; name one user for each")
    return np.unique(codes, return_inverse=True)[1].astype(np.int64)


def _clients(n: int | None, rows: int) -> int:
    if n is None:
        raise ConfigError("n, the number of clients, is missing")
    count = _positive_int("n", n)
    if count > rows:
        raise DataError(f"n is {count} clients but there are only {rows} rows; each client needs at least one")
    return count


def _positive_int(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ConfigError(f"{name} is {value!r}; it must be a positive integer")
    return int(value)
