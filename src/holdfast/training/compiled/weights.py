"""Where weights lie in the engine's memory, and how lengths are padded to whole vectors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.training.compiled.spec import Conv, Layer, Linear

LANES = 16  # batches and rows of weights are padded to whole vectors of this many floats


@dataclass(frozen=True)
class Block:
    """A matrix in the engine's memory: its first place, its size, and the distance between rows."""

    first: int
    rows: int
    columns: int
    step: int

    def of(self, placed: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """A view of it in vectors `[..., size]`: `[..., rows, columns]`."""
        rows = placed[..., self.first : self.first + self.rows * self.step]
        return rows.reshape(*placed.shape[:-1], self.rows, self.step)[..., : self.columns]


@dataclass(frozen=True)
class Weights:
    """Where each torch parameter lies in the engine's memory.

    Attributes:
        weight: per layer, the first weight; -1 where there is none.
        row: per layer, the distance between the weights of two outputs.
        bias: per layer, the first bias; -1 where there is none.
        blocks: the matrices (a bias is one row) in torch's order.
        size: the length of the engine's vector.
    """

    weight: list[int]
    row: list[int]
    bias: list[int]
    blocks: list[Block]
    size: int

    @property
    def n_params(self) -> int:
        """P, the length of the flat torch vector."""
        return sum(block.rows * block.columns for block in self.blocks)

    def place(self, flat: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """A flat torch vector `[P]` in the engine's layout."""
        placed, at = np.zeros(self.size, np.float32), 0
        for block in self.blocks:
            size = block.rows * block.columns
            block.of(placed)[:] = flat[at : at + size].reshape(block.rows, block.columns)
            at += size
        return placed

    def flat(self, placed: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The way back, for one vector or several `[..., size]`."""
        parts = [block.of(placed).reshape(*placed.shape[:-1], -1) for block in self.blocks]
        return np.concatenate(parts, axis=-1)


def up(size: int) -> int:
    """`size` in whole vectors."""
    return -(-size // LANES) * LANES


def odd(size: int) -> int:
    """`size` in whole vectors, an odd number of them: rows a power of two apart would share cache sets."""
    return up(size) if up(size) // LANES % 2 else up(size) + LANES


def place_weights(layers: list[Layer]) -> Weights:
    """Lay out the weights: torch's order, rows of linear layers padded to whole vectors."""
    weight, row, bias = [], [], []
    blocks: list[Block] = []
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
        blocks.append(Block(size, outputs, inputs, step))
        size = up(size + outputs * step)
        bias.append(size if layer.bias else -1)
        if layer.bias:
            blocks.append(Block(size, 1, outputs, outputs))
            size = up(size + outputs)
    return Weights(weight, row, bias, blocks, size)
