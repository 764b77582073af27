"""Where weights lie in the engine's memory, and how lengths are padded to whole vectors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.training.compiled.spec import Conv, Layer, Linear

LANES = 16  # batches and rows of weights are padded to whole vectors of this many floats


@dataclass(frozen=True)
class Weights:
    """Where each torch parameter lies in the engine's memory.

    Attributes:
        weight: per layer, the first weight; -1 where there is none.
        row: per layer, the distance between the weights of two outputs.
        bias: per layer, the first bias; -1 where there is none.
        slots: `[P]` for each place of the flat torch vector, the place in the engine's vector.
        size: the length of the engine's vector.
    """

    weight: list[int]
    row: list[int]
    bias: list[int]
    slots: npt.NDArray[np.int64]
    size: int

    def place(self, flat: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """A flat torch vector `[P]` in the engine's layout."""
        placed = np.zeros(self.size, np.float32)
        placed[self.slots] = flat
        return placed

    def flat(self, placed: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The way back, for one vector or several `[..., size]`."""
        return placed[..., self.slots]


def up(size: int) -> int:
    """`size` in whole vectors."""
    return -(-size // LANES) * LANES


def odd(size: int) -> int:
    """`size` in whole vectors, an odd number of them: rows a power of two apart would share cache sets."""
    return up(size) if up(size) // LANES % 2 else up(size) + LANES


def place_weights(layers: list[Layer]) -> Weights:
    """Lay out the weights: torch's order, rows of linear layers padded to whole vectors."""
    weight, row, bias = [], [], []
    slots: list[npt.NDArray[np.int64]] = []
    size = 0
    for layer in layers:
        if not isinstance(layer, (Conv, Linear)):
            weight.append(-1)
            row.append(0)
            bias.append(-1)
            continue
        if isinstance(layer, Conv):
            outputs, inputs = layer.channels_out, layer.channels * layer.kernel[0] * layer.kernel[1]
            step = inputs
        else:
            outputs, inputs = layer.features_out, layer.features
            step = odd(inputs)
        weight.append(size)
        row.append(step)
        slots.append((size + step * np.arange(outputs)[:, None] + np.arange(inputs)).ravel())
        size = up(size + outputs * step)
        bias.append(size if layer.bias else -1)
        if layer.bias:
            slots.append(size + np.arange(outputs))
            size = up(size + outputs)
    return Weights(weight, row, bias, np.concatenate(slots), size)
