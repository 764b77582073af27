"""How designs are drawn: every model's items from SHAKE-256 of the seed, a label and the model's number alone."""

from __future__ import annotations

import hashlib
import itertools
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray


def permutation(key: bytes, purpose: str, index: int, n: int) -> NDArray[np.int64]:
    """A uniform permutation of n: the order of n random 128-bit numbers (ties have probability below n^2 / 2^128)."""
    return first_of_permutation(key, purpose, index, n, n)


def first_of_permutation(key: bytes, purpose: str, index: int, n: int, k: int) -> NDArray[np.int64]:
    """The first k of `permutation`, without sorting the rest."""
    high, low = _words(key, purpose, index, 2 * n).reshape(n, 2).T
    candidates = np.flatnonzero(high <= np.partition(high, k - 1)[k - 1])
    return candidates[np.lexsort((low[candidates], high[candidates]))][:k].astype(np.int64)


def group_sizes(n: int, groups: int) -> tuple[int, ...]:
    """As equal as possible."""
    small, larger = divmod(n, groups)
    return (small,) * (groups - larger) + (small + 1,) * larger


def partitions(key: bytes, n: int, k: int, models: int) -> NDArray[np.bool_]:
    """Independent partitions into n // k groups."""
    sizes = group_sizes(n, n // k)
    membership = np.zeros((models, n), dtype=bool)
    group_of_place = np.repeat(np.arange(len(sizes)), sizes)
    for repeat in range(models // len(sizes)):
        order = permutation(key, "partition", repeat, n)
        membership[repeat * len(sizes) + group_of_place, order] = True
    return membership


def subsets(key: bytes, n: int, k: int, models: int) -> NDArray[np.bool_]:
    """Independent k-subsets."""
    membership = np.zeros((models, n), dtype=bool)
    for model in range(models):
        membership[model, first_of_permutation(key, "subset", model, n, k)] = True
    return membership


def _words(key: bytes, purpose: str, index: int, count: int) -> NDArray[np.uint64]:
    """Random 64-bit numbers."""
    head = f"holdfast/{purpose}/{index}/".encode()
    return np.frombuffer(hashlib.shake_256(head + key).digest(8 * count), dtype="<u8").astype(np.uint64)


def with_repetition(key: bytes, n: int, k: int, model: int) -> NDArray[np.int64]:
    """Uniform draws, k from n < 2^32 with repetition, ascending: floor(word n / 2^64), off by less than n / 2^64."""
    words = _words(key, "draws", model, k)
    half = np.uint64(32)
    low = ((words & np.uint64(2**32 - 1)) * np.uint64(n)) >> half
    return np.sort(((words >> half) * np.uint64(n) + low) >> half).astype(np.int64)


def repeated(key: bytes, n: int, k: int, models: int) -> NDArray[np.bool_]:
    """Who is in each `with_repetition`, however often."""
    membership = np.zeros((models, n), dtype=bool)
    for model in range(models):
        membership[model, with_repetition(key, n, k, model)] = True
    return membership


def binomial(key: bytes, n: int, p: Fraction, models: int) -> NDArray[np.bool_]:
    """Every item with probability p, off by less than 2^-64."""
    bound = np.uint64((p.numerator << 64) // p.denominator)
    return np.stack([_words(key, "binomial", model, n) < bound for model in range(models)])


def all_subsets(key: bytes, n: int, k: int, models: int) -> NDArray[np.bool_]:
    """All C(n, k) subsets, in lexicographic order; nothing is drawn."""
    chosen = np.array(list(itertools.combinations(range(n), k)), dtype=np.int64)
    membership = np.zeros((len(chosen), n), dtype=bool)
    np.put_along_axis(membership, chosen, True, axis=1)
    return membership


def spread(key: bytes, n: int, k: int, models: int) -> NDArray[np.bool_]:
    """Clients fall into N cells at random; cell i belongs to models i + o (mod N) for d random offsets o."""
    cell_of_place = np.repeat(np.arange(models), group_sizes(n, models))
    cell = np.empty(n, dtype=np.int64)
    cell[permutation(key, "cells", 0, n)] = cell_of_place
    membership = np.zeros((models, n), dtype=bool)
    for offset in permutation(key, "offsets", 0, models)[: models * k // n]:
        membership[(cell + offset) % models, np.arange(n)] = True
    return membership
