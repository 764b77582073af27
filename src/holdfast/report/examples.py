"""Which test inputs to show, and their pictures."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from io import BytesIO

import numpy as np
from numpy.typing import ArrayLike, NDArray

from holdfast.report.content import Example
from holdfast.types import DataError


def pick_examples(
    prediction: ArrayLike,
    radius: ArrayLike,
    *,
    images: ArrayLike | None = None,
    labels: ArrayLike | None = None,
    label_names: Sequence[str] | None = None,
    counts: ArrayLike | None = None,
    each: int = 6,
) -> tuple[Example, ...]:
    """The inputs with the largest and with the smallest radius, `each` of both, as different labels as ties allow.

    Args:
        prediction: `[T]` predicted labels, -1 = abstained.
        radius: `[T]`, -1 = abstained.
        images: `[T, H, W]`, `[T, 1, H, W]`, `[T, H, W, 3]` or `[T, 3, H, W]`, or None.
        labels: `[T]` true labels, below 0 = unknown, or None.
        label_names: names of the labels; their numbers if None.
        counts: `[T, L]` votes per label, or None.
        each: how many of the largest and how many of the smallest.

    Raises:
        DataError: arrays of different lengths, or pictures of another shape.

    Example:
        >>> picked = pick_examples([0, 0, 1, -1], [5, 5, 5, -1], each=2)
        >>> [(e.index, e.radius) for e in picked]
        [(0, 5), (2, 5), (1, 5), (3, -1)]
    """
    radii, predicted = np.asarray(radius), np.asarray(prediction)
    truth = None if labels is None else np.asarray(labels)
    votes = None if counts is None else np.asarray(counts)
    pictures = None if images is None else np.asarray(images)
    for name, array in (("prediction", predicted), ("labels", truth), ("counts", votes), ("images", pictures)):
        if array is not None and len(array) != len(radii):
            raise DataError(f"{name} has {len(array)} entries, but there are {len(radii)} radii")

    def named(label: int) -> str:
        return label_names[label] if label_names is not None else str(label)

    def example(i: int) -> Example:
        top: list[int] = [] if votes is None else np.argsort(-votes[i], kind="stable")[:3].tolist()
        return Example(
            index=i,
            prediction=named(int(predicted[i])) if predicted[i] >= 0 else None,
            label=None if truth is None or truth[i] < 0 else named(int(truth[i])),
            radius=int(radii[i]),
            image=None if pictures is None else picture_of(pictures[i]),
            votes=tuple((named(z), int(votes[i, z])) for z in top if votes is not None and votes[i, z]),
        )

    most = _varied(-radii, predicted)[:each]
    least = [i for i in _varied(radii, predicted) if i not in set(most)][:each]
    return tuple(example(i) for i in [*most, *least[::-1]])


def _varied(key: NDArray[np.int64], predicted: NDArray[np.int64]) -> list[int]:
    """Indices by rising key; equal keys take turns over the predicted labels."""
    seen: dict[tuple[int, int], int] = {}
    turn = np.zeros(len(key), dtype=np.int64)
    for i, pair in enumerate(zip(key.tolist(), predicted.tolist(), strict=True)):
        turn[i] = seen.get(pair, 0)
        seen[pair] = int(turn[i]) + 1
    order: list[int] = np.lexsort((np.arange(len(key)), turn, key)).tolist()
    return order


def extremes(examples: Sequence[Example], each: int = 6) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """The examples to show as (largest radius first, smallest radius first), no example in both."""
    ranked = sorted(examples, key=lambda e: -e.radius)
    half = min(each, (len(ranked) + 1) // 2)
    return tuple(ranked[:half]), tuple(ranked[: half - 1 : -1][:each])


def picture_of(image: ArrayLike) -> NDArray[np.float64]:
    """One input as `[H, W]` gray or `[H, W, 3]` color in [0, 1], scaled to its own range; NaN becomes black.

    Raises:
        DataError: a shape that is no picture.
    """
    picture = np.asarray(image, dtype=np.float64)
    if picture.ndim == 3 and picture.shape[0] in (1, 3) and picture.shape[-1] not in (1, 3):
        picture = np.moveaxis(picture, 0, -1)
    if picture.ndim == 3 and picture.shape[-1] == 1:
        picture = picture[..., 0]
    if picture.ndim not in (2, 3) or (picture.ndim == 3 and picture.shape[-1] != 3) or picture.size == 0:
        raise DataError(f"an example's image has shape {np.shape(image)}; expected [H, W], [H, W, 3] or [3, H, W]")
    picture = np.nan_to_num(picture, nan=0.0, posinf=0.0, neginf=0.0)
    low, high = picture.min(), picture.max()
    return np.zeros_like(picture) if high == low else (picture - low) / (high - low)


def data_uri(image: NDArray[np.float64]) -> str:
    """The picture as an inline PNG."""
    from matplotlib.image import imsave  # here, because commands that print tables only should start fast

    buffer = BytesIO()
    imsave(buffer, picture_of(image), cmap="gray", vmin=0, vmax=1, format="png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
