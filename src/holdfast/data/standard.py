"""Inputs as networks like them: every channel or column shifted and scaled by two constants of the data set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from holdfast.data.dataset import Array, Dataset
from holdfast.types import ConfigError


@dataclass(frozen=True, eq=False)
class Standard:
    r"""$x \mapsto (x - \mu) / \sigma$, with one pair of constants per channel of images, else per column.

    The constants are public: everybody in the federation is told them before it starts.

    Attributes:
        mean: float32, of a shape that goes with one row.
        deviation: likewise, above 0.

    Example:
        >>> import numpy as np
        >>> Standard(np.float32([1.0, 0.0]), np.float32([2.0, 1.0]))(np.float32([[3.0, 5.0]]))
        array([[1., 5.]], dtype=float32)
    """

    mean: Array
    deviation: Array

    @classmethod
    def of(cls, dataset: Dataset) -> Standard:
        """The constants of a data set: population mean and deviation of all its training rows (constant column: 1).

        Raises:
            ConfigError: its rows are words.

        Example:
            >>> from holdfast.data import load
            >>> digits = load("digits")
            >>> seen = Standard.of(digits)(digits.x_train)
            >>> abs(round(float(seen.mean()), 3)), round(float(seen.std()), 3)
            (0.0, 1.0)
        """
        if dataset.vocabulary:
            raise ConfigError(f"standardize is for numbers, but the rows of {dataset.name} are words; leave it out")
        rows = dataset.x_train
        axes, keep = ((0, 2, 3), True) if dataset.image_shape is not None else (0, False)
        mean = rows.mean(axis=axes, keepdims=keep, dtype=np.float64)
        deviation = rows.std(axis=axes, keepdims=keep, dtype=np.float64)
        deviation[deviation == 0] = 1.0
        return cls(mean.astype(np.float32), deviation.astype(np.float32))

    def __call__(self, x: Array) -> Array:
        """Rows `[k, ...]` as the model sees them."""
        return np.asarray((x - self.mean) / self.deviation, dtype=np.float32)
