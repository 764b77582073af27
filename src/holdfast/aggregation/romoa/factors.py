"""From measures to sanitizing factors (eq. 8-11): the mode of the participants, distances to it, softmax, memory.

Pure functions of small arrays; participants are the first axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from holdfast.aggregation.romoa.measures import Moments

Array = NDArray[Any]
Sided = Literal["two", "one"]
Units = Literal["window", "raw"]
FLOOR = -50.0
"""Scores in window units stop here: e^-50 is nothing already."""


def majority_window(values: Array) -> tuple[Array, Array]:
    """Centroid and half width of the densest majority: mean shift with a window that must hold floor(n/2)+1.

    Of the sorted values the shortest run of floor(n/2)+1 neighbors is taken (the lowest if several are as short); its
    mean is the centroid, half its length the half width.

    Args:
        values: `[n, ...]`, one measure of every participant.

    Returns:
        Two arrays `[...]`.

    Example:
        >>> center, half = majority_window(np.array([0.9, 0.92, 0.94, -0.5, -0.5]))
        >>> round(float(center), 6), round(float(half), 6)
        (0.92, 0.02)
    """
    n = len(values)
    run = n // 2 + 1
    ranked = np.sort(values, axis=0)
    widths = ranked[run - 1 :] - ranked[: n - run + 1]
    start = widths.argmin(axis=0)
    total = np.zeros(values.shape[1:])
    for offset in range(run):
        total += np.take_along_axis(ranked, (start + offset)[None], axis=0)[0]
    # equal values must have themselves as centroid, which their sum divided by their number need not give
    low = np.take_along_axis(ranked, start[None], axis=0)[0]
    width = np.take_along_axis(widths, start[None], axis=0)[0]
    return np.where(width == 0, low, total / run), width / 2


def scores(values: Array, *, sided: Sided, units: Units, min_window: float) -> Array:
    """The scores f of eq. 8-10, `[n, ...]`: how far each participant is from the centroid, at most 0 if two-sided.

    "two" counts both directions, `-|v - c|`; "one" only below, `v - c` (as printed). "window" divides by the half
    width (at least `min_window`) and stops at -50.
    """
    center, half = majority_window(values)
    score = values - center if sided == "one" else -np.abs(values - center)
    return np.maximum(score / np.maximum(half, min_window), FLOOR) if units == "window" else score


def softmax(values: Array, sharpness: float) -> Array:
    """Shares over the participants, `[n, ...]`: they sum to 1."""
    shifted = np.exp(sharpness * (values - values.max(axis=0)))
    return np.asarray(shifted / shifted.sum(axis=0))


def remember(weights: Array, previous: Array, beta: float) -> Array:
    """Eq. 11: `beta * W + (1 - beta) * F`; sums to 1 where both do."""
    return beta * weights + (1.0 - beta) * previous


def shares(values: Array) -> Array:
    """Divided by their sum over the participants; equal shares where the sum is 0."""
    total = values.sum(axis=0)
    return np.where(total > 0, values / np.where(total > 0, total, 1.0), 1.0 / len(values))


def capped(factors: Array, weights: Array) -> Array:
    """`min(F, W) / sum min(F, W)`: nobody weighs more than this very step earns; F where nothing is left.

    Closes the hole of the memory: without it a participant honest until the syncing step poisons with the weight it
    had, about 1/(2n), however odd its upload.
    """
    least = np.minimum(factors, weights)
    total = least.sum(axis=0)
    return np.where(total > 0, least / np.where(total > 0, total, 1.0), shares(factors))


def clip_factors(norms: Array, clip: float) -> Array:
    """`min(1, clip * median / norm)`, `[n]`: no update counts as longer than `clip` median lengths."""
    bound = clip * np.median(norms) if np.isfinite(clip) else np.inf
    return np.minimum(1.0, np.divide(bound, norms, out=np.ones(len(norms)), where=norms > 0))


@dataclass(frozen=True)
class Scoring:
    """How measures become scores; the fields are those of `Romoa`."""

    sharpness: float
    sided: Sided
    pearson: Literal["standard", "printed", "both", "none"]
    units: Units
    min_window: float

    def layers(self, moments: Moments) -> Array:
        """The least score of every participant in every layer, `[n, G]`."""
        least = self._score(moments.cosine())
        if self.pearson in ("standard", "both"):
            least = np.minimum(least, self._score(moments.pearson()))
        if self.pearson != "printed" and self.pearson != "both":
            return least
        printed = moments.printed_pearson()
        if self.pearson == "both":  # bring it to the scale of the other measures
            typical = np.median(np.abs(printed), axis=0)
            printed = np.divide(printed, typical, out=np.zeros_like(printed), where=typical > 0)
        return np.minimum(least, self._score(printed))

    def elements(self, cosine: Array) -> Array:
        """The score of every participant at single parameters, `[n, k]`; never in window units."""
        return scores(cosine, sided=self.sided, units="raw", min_window=self.min_window)

    def outside(self, layers: Array) -> Array:
        """The score of a parameter outside the selection: no evidence, 0, from the element-wise term."""
        return np.minimum(layers, 0.0)

    def _score(self, values: Array) -> Array:
        return scores(values, sided=self.sided, units=self.units, min_window=self.min_window)
