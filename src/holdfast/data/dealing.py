"""The three moves that partitions are made of: deal equally, share a label among its holders, fill the empty-handed."""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]


def deal(order: Rows, parts: int) -> Rows:
    """Cut `order` into consecutive parts of equal size (up to one) and say, for each element, which part it is in."""
    part = np.empty(len(order), dtype=np.int64)
    part[order] = np.repeat(np.arange(parts), [len(piece) for piece in np.array_split(order, parts)])
    return part


def share_labels(y: Rows, labels: Rows, held: NDArray[np.int64], rng: np.random.Generator) -> Rows:
    """Rows of each label shared equally, at random, among the clients whose row of `held` `[n, k]` names it."""
    holders = np.empty(len(y), dtype=np.int64)
    for position, label in enumerate(labels):
        rows = np.flatnonzero(y == label)
        clients = rng.permutation(np.flatnonzero((held == position).any(axis=1)))
        holders[rows] = clients[deal(rng.permutation(len(rows)), len(clients))]
    return holders


def fill(holders: Rows, clients: range, smallest: int) -> None:
    """Give clients with fewer than `smallest` rows the last rows of whoever holds most, in place.

    Needs at least `smallest` rows per client in all; then some client always has one to spare.
    """
    counts = np.bincount(holders, minlength=clients.stop)
    needy = [client for client in clients if counts[client] < smallest]
    if not needy:
        return
    order = np.argsort(holders, kind="stable")
    last = np.cumsum(counts) - 1
    richest = [(-int(counts[client]), client) for client in clients if counts[client] > smallest]
    heapq.heapify(richest)
    for client in needy:
        for _ in range(smallest - int(counts[client])):
            size, donor = heapq.heappop(richest)
            holders[order[last[donor]]] = client
            last[donor] -= 1
            if -size - 1 > smallest:
                heapq.heappush(richest, (size + 1, donor))
