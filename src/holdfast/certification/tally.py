"""Counting votes: who wins, by how much, and whether the votes are votes at all.

Ties go to the smaller label, everywhere and always: a rule that could toss a coin could not be certified.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from holdfast.types import ConfigError

Number = int | float | Fraction


def check_integer(name: str, value: object, low: int, high: int | None = None) -> int:
    """An integer argument in low..high as a Python int, or a `ConfigError` with its name."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < low:
        raise ConfigError(f"{name}={value!r} must be an integer of at least {low}")
    if high is not None and value > high:
        raise ConfigError(f"{name}={value!r} must be at most {high}")
    return int(value)


def check_fraction(name: str, value: object) -> Fraction:
    """A finite number as an exact fraction (a float stands for exactly the number it holds)."""
    if isinstance(value, Fraction):
        return value
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return Fraction(int(value))
    if isinstance(value, float | np.floating) and np.isfinite(value):
        return Fraction(float(value))
    raise ConfigError(f"{name}={value!r} must be a finite number (float or Fraction)")


def check_alpha(alpha: object) -> Fraction:
    """A failure probability strictly between 0 and 1."""
    exact = check_fraction("alpha", alpha)
    if not 0 < exact < 1:
        raise ConfigError(f"alpha={alpha!r} must lie strictly between 0 and 1; it is the probability of failure")
    return exact


def check_votes(votes: ArrayLike, n_labels: int) -> NDArray[np.integer[Any]]:
    """Votes `[N, T]` as an integer array with every entry in 0..n_labels-1."""
    check_integer("n_labels", n_labels, 2)
    table = np.asarray(votes)
    if table.ndim != 2 or not len(table):
        raise ConfigError(f"votes has shape {table.shape}; needed is [N, T], one row per model and at least one model")
    if not np.issubdtype(table.dtype, np.integer):
        raise ConfigError(f"votes has type {table.dtype}; votes are integers, the label each model gave each input")
    if table.size and (table.min() < 0 or table.max() >= n_labels):
        raise ConfigError(f"votes lie in {table.min()}..{table.max()}; they must lie in 0..{n_labels - 1}")
    return table


def check_counts(counts: ArrayLike) -> NDArray[np.int64]:
    """Vote counts `[T, L]`: non-negative integers, at least two labels, the same number of votes for every input."""
    table = np.asarray(counts)
    if table.ndim != 2 or table.shape[1] < 2 or not np.issubdtype(table.dtype, np.integer):
        raise ConfigError(
            f"counts has shape {table.shape} and type {table.dtype}; needed are integers [T, L] with L of at least 2"
        )
    if table.size and table.min() < 0:
        raise ConfigError(f"counts has the entry {table.min()}; vote counts cannot be negative")
    totals = np.unique(table.sum(axis=1))
    if len(totals) > 1 or (len(totals) and totals[0] < 1):
        raise ConfigError(
            f"counts add up to between {totals[0]} and {totals[-1]} votes per input; "
            "every input must have the same number of votes, at least 1"
        )
    return table.astype(np.int64)


def tally(votes: ArrayLike, n_labels: int) -> NDArray[np.int64]:
    """Count the votes: `[N, T]` labels to `[T, L]` counts.

    Example:
        >>> tally(np.array([[0, 2], [0, 1], [1, 2]]), 3).tolist()
        [[2, 1, 0], [0, 1, 2]]
    """
    table = check_votes(votes, n_labels)
    counts = np.zeros((table.shape[1], n_labels), dtype=np.int64)
    inputs = np.arange(table.shape[1])
    for row in table:
        counts[inputs, row] += 1
    return counts


def winners(counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The winning label per input, ties to the smaller, and its lead over every label.

    Returns:
        `label [T]` and `lead [T, L]`, lead = N_y - N_z - [z < y]: by how much votes may shift from y to z before z
        wins; never negative. The winner's own column is meaningless and holds the largest int64.

    Example:
        >>> label, lead = winners(np.array([[3, 5, 5]]))
        >>> label.tolist(), lead[:, [0, 2]].tolist()
        ([1], [[1, 0]])
    """
    label = np.argmax(counts, axis=1)
    rows = np.arange(len(counts))
    lead = counts[rows, label][:, None] - counts - (np.arange(counts.shape[1])[None, :] < label[:, None])
    lead[rows, label] = np.iinfo(np.int64).max
    return label, lead
