"""Backdoors: a trigger stamped on some training examples makes the model answer what the attacker wants.

`stamp` puts the trigger on new inputs, to measure how often it works. Leave inputs that are of the target class
already out of that count: they would succeed without any attack.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.types import ConfigError, DataError

Array = NDArray[Any]

#: The six features of the Lending Club table that the residual-reweighting paper (A.6) uses as a trigger.
LOAN_FEATURES = (
    "num_tl_120dpd_2m",
    "num_tl_90g_dpd_24m",
    "pub_rec_bankruptcies",
    "pub_rec",
    "acc_now_delinq",
    "tax_liens",
)


def _poisoned_rows(count: int, per_batch: int, batch_size: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Which of `count` rows to poison, when `per_batch` of every `batch_size` are."""
    return rng.permutation(count)[: round(count * per_batch / batch_size)]


def _check_share(per_batch: int, batch_size: int) -> None:
    if batch_size < 1:
        raise ConfigError(f"batch_size={batch_size} is not a batch; it must be at least 1")
    if not 0 <= per_batch <= batch_size:
        raise ConfigError(f"per_batch={per_batch} does not fit a batch of {batch_size}; it must be 0 to {batch_size}")


#: Twelve pixels in rows 0 and 2: two short bars each.
CORNER_BARS = tuple((row, column) for row in (0, 2) for column in (0, 1, 2, 4, 5, 6))


@dataclass(frozen=True)
class PixelBackdoor:
    """Stamp a pixel pattern on some images and call them `target` (Gu et al. 2019; A.6 of residual reweighting).

    Args:
        target: the label the attacker wants for stamped images.
        pattern: (row, column) of the stamped pixels, counted from `position`.
        position: (row, column) of the pattern's origin.
        value: what the pixels are set to, in every channel (1.0: white where images lie in [0, 1]).
        per_batch: stamped samples ...
        batch_size: ... in a batch of this size (the paper: 20 of 64).
        image_shape: (height, width) or (channels, height, width) of flattened images; None: read off x.

    Raises:
        ConfigError: a pattern outside the image, or rows that are no images.

    Example:
        >>> import numpy as np
        >>> attack = PixelBackdoor(target=0, pattern=((0, 0), (1, 1)))
        >>> attack.stamp(np.zeros((1, 2, 2)))
        array([[[1., 0.],
                [0., 1.]]])
    """

    target: int = 0
    pattern: tuple[tuple[int, int], ...] = CORNER_BARS
    position: tuple[int, int] = (0, 0)
    value: float = 1.0
    per_batch: int = 20
    batch_size: int = 64
    image_shape: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        _check_share(self.per_batch, self.batch_size)
        if not self.pattern:
            raise ConfigError("pattern is empty; a backdoor needs at least one pixel")
        if any(
            offset + start < 0 for pixel in self.pattern for offset, start in zip(pixel, self.position, strict=True)
        ):
            raise ConfigError(f"pattern at position={self.position} has pixels above or left of the image")

    def stamp(self, x: Array) -> Array:
        """Copies of the images with the pattern on them (what the attacker shows the model later)."""
        shape = x.shape[1:] if self.image_shape is None else self.image_shape
        if len(shape) not in (2, 3) or int(np.prod(shape)) != int(np.prod(x.shape[1:])):
            raise ConfigError(
                f"rows of shape {x.shape[1:]} are no images; image_shape must give [channels,] height and width"
            )
        rows, columns = (np.array(self.pattern) + self.position).T
        if rows.max() >= shape[-2] or columns.max() >= shape[-1]:
            raise ConfigError(f"pattern at position={self.position} does not fit an image of {shape[-2]} x {shape[-1]}")
        stamped = np.array(x).reshape(len(x), *shape)
        stamped[..., rows, columns] = self.value
        return stamped.reshape(x.shape)

    def __call__(self, x: Array, y: Array, rng: np.random.Generator) -> tuple[Array, Array]:
        """The data set with a share of it stamped and relabelled."""
        chosen = _poisoned_rows(len(y), self.per_batch, self.batch_size, rng)
        poisoned, labels = x.copy(), y.copy()
        poisoned[chosen], labels[chosen] = self.stamp(x[chosen]), self.target
        return poisoned, labels


@dataclass(frozen=True)
class FeatureBackdoor:
    """Set chosen columns of a table to chosen values and call the rows `target` (loans; A.6 of residual reweighting).

    Use `FeatureBackdoor.beyond_maximum` for the paper's trigger: six features slightly above their largest value.

    Args:
        columns: indices of the columns.
        values: what each is set to.
        target: the label the attacker wants for stamped rows.
        per_batch: stamped rows ...
        batch_size: ... in a batch of this size.

    Example:
        >>> import numpy as np
        >>> FeatureBackdoor(columns=(1,), values=(9.0,)).stamp(np.zeros((1, 3)))
        array([[0., 9., 0.]])
    """

    columns: tuple[int, ...]
    values: tuple[float, ...]
    target: int = 0
    per_batch: int = 20
    batch_size: int = 64

    def __post_init__(self) -> None:
        _check_share(self.per_batch, self.batch_size)
        if not self.columns or len(self.columns) != len(self.values) or min(self.columns) < 0:
            raise ConfigError(
                f"columns={self.columns} and values={self.values} do not match; give one value per column index"
            )

    @classmethod
    def beyond_maximum(
        cls,
        x: Array,
        names: Sequence[str],
        *,
        features: Sequence[str] = LOAN_FEATURES,
        margin: float = 0.1,
        target: int = 0,
        per_batch: int = 20,
        batch_size: int = 64,
    ) -> FeatureBackdoor:
        """The trigger that sets `features` to their maximum in x plus `margin` of their range (of 1, if constant).

        Raises:
            DataError: a feature that the table does not have.

        Example:
            >>> import numpy as np
            >>> FeatureBackdoor.beyond_maximum(np.array([[0.0], [10.0]]), ["liens"], features=["liens"]).values
            (11.0,)
        """
        missing = [feature for feature in features if feature not in names]
        if missing:
            raise DataError(f"the table has no feature {', '.join(missing)}; it has {', '.join(names)}")
        columns = tuple(list(names).index(feature) for feature in features)
        top, bottom = x[:, columns].max(axis=0), x[:, columns].min(axis=0)
        values = top + margin * np.where(top > bottom, top - bottom, 1.0)
        return cls(columns, tuple(float(value) for value in values), target, per_batch, batch_size)

    def stamp(self, x: Array) -> Array:
        """Copies of the rows with the trigger in them."""
        if max(self.columns) >= x.shape[-1]:
            raise ConfigError(f"columns={self.columns} does not fit a table of {x.shape[-1]} columns")
        stamped = x.copy()
        stamped[:, self.columns] = np.asarray(self.values, x.dtype)
        return stamped

    def __call__(self, x: Array, y: Array, rng: np.random.Generator) -> tuple[Array, Array]:
        """The table with a share of its rows stamped and relabelled."""
        chosen = _poisoned_rows(len(y), self.per_batch, self.batch_size, rng)
        poisoned, labels = x.copy(), y.copy()
        poisoned[chosen], labels[chosen] = self.stamp(x[chosen]), self.target
        return poisoned, labels
