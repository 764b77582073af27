"""What rules do to one block of columns, whichever library holds it: one name per operation, array or tensor.

Arrays (and CPU tensors, which arrive as arrays) go to the compiled kernels, tensors on a device to their torch twins.
Weights and matrices over clients are small float64 arrays everywhere; only the blocks live on a device.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from holdfast.aggregation.kernels import coordinate
from holdfast.aggregation.kernels import gram as gram_kernels
from holdfast.aggregation.stacking import Block, is_tensor


def median(block: Block) -> Block:
    """Coordinate-wise median, `[c]`; the mean of the two middle values for even n."""
    return _coordinate(block).median(block)


def trimmed_mean(block: Block, f: int) -> Block:
    """Coordinate-wise mean without the f smallest and f largest values, `[c]`."""
    return _coordinate(block).trimmed_mean(block, f)


def mean_around_median(block: Block, f: int) -> Block:
    """Coordinate-wise mean of the n - f values closest to the median, `[c]`."""
    return _coordinate(block).mean_around_median(block, f)


def order_statistics_mean(block: Block, lo: int, hi: int) -> Block:
    """Coordinate-wise mean of the sorted values lo .. hi-1, `[c]`."""
    return _coordinate(block).order_statistics_mean(block, lo, hi)


def gram(block: Block, center: Block) -> np.ndarray[Any, Any]:
    """Inner products of the rows about a center, float64 `[n, n]`."""
    if is_tensor(block):
        from holdfast.aggregation.kernels import tensors

        on_host: np.ndarray[Any, Any] = tensors.centered_gram(block, center).cpu().numpy()
        return on_host
    return gram_kernels.centered_gram(block, center)


def weighted_sum(block: Block, weights: np.ndarray[Any, Any]) -> Block:
    """`weights @ block`, summed in float64, `[c]`; a row of weight zero is not read."""
    if is_tensor(block):
        import torch

        from holdfast.aggregation.kernels import tensors

        return tensors.weighted_sum(block, torch.from_numpy(weights).to(block.device))
    return gram_kernels.weighted_sum(block, weights)


def mix(matrix: np.ndarray[Any, Any], block: Block) -> Block:
    """New rows that are weighted sums of the old: `matrix @ block`, `[m, c]`."""
    if is_tensor(block):
        import torch

        return torch.from_numpy(matrix).to(device=block.device, dtype=block.dtype) @ block
    return matrix.astype(block.dtype) @ block


def kept_shares(block: Block, lo: Block, hi: Block) -> np.ndarray[Any, Any]:
    """Each row's share in a mean of the values within [lo, hi], summed over the columns: float64 `[n]`.

    Within one column the rows inside share equally, so ties are settled without regard to their order.
    """
    kept = (block >= lo) & (block <= hi)
    if is_tensor(kept):
        shares: np.ndarray[Any, Any] = (kept / kept.sum(dim=0)).double().sum(dim=1).cpu().numpy()
        return shares
    kept = kept.astype(np.float32)
    kept /= kept.sum(axis=0)
    summed: np.ndarray[Any, Any] = kept.sum(axis=1, dtype=np.float64)
    return summed


def _coordinate(block: Block) -> ModuleType:
    if not is_tensor(block):
        return coordinate
    from holdfast.aggregation.kernels import tensors

    return tensors
