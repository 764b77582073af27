"""Which rows a client trains on: batches as a pure function of who, when and where, with no generator state.

A batch row is a hash of its own identity (seed, model, client, round, step, position), so every engine draws the
same rows, in any order and on any number of threads. One definition serves NumPy and compiled code: `fold` and
`scale` are plain arithmetic on 64-bit words, compiled for the engine and called as Python on whole arrays.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

__all__ = ["batch_rows", "derive_seed", "fold", "scale", "stream_key"]

_WEYL = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio, odd: the increment of SplitMix64
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_S27, _S30, _S31, _S32 = np.uint64(27), np.uint64(30), np.uint64(31), np.uint64(32)
_ONE = np.uint64(1)


def derive_seed(seed: int, *identity: int | str) -> int:
    """Give the 64-bit seed that belongs to one identity under one master seed.

    The first 8 bytes of SHA-256 over the seed and the identity, each part with its kind and length: different
    identities get unrelated seeds, and the seed of one never depends on how many others there are.

    Args:
        seed: the master seed, any integer.
        *identity: what the seed is for, such as `"init", model_id`; `1` and `"1"` are different.

    Returns:
        An integer in `[0, 2**64)`.

    Example:
        >>> derive_seed(7, "init", 3) == derive_seed(7, "init", 3)
        True
        >>> derive_seed(7, "init", 3) == derive_seed(7, "init", 4)
        False
    """
    parts = [f"s{part}" if isinstance(part, str) else f"i{int(part)}" for part in (seed, *identity)]
    text = "".join(f"{len(part)}:{part}" for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def stream_key(seed: int) -> np.uint64:
    """Give the key of all batches of one run: `derive_seed(seed, "batches")` as a 64-bit word."""
    return np.uint64(derive_seed(seed, "batches"))


@numba.njit
def fold(key: Any, part: Any) -> Any:
    """Mix one more part of an identity into a key: output number `part` of the SplitMix64 stream at `key`."""
    word = key + _WEYL * (part + _ONE)
    word = (word ^ (word >> _S30)) * _MIX_1
    word = (word ^ (word >> _S27)) * _MIX_2
    return word ^ (word >> _S31)


@numba.njit
def scale(word: Any, size: Any) -> Any:
    """Map a random word to `[0, size)`: its upper 32 bits times `size`, shifted down by 32.

    `size` is at most 2**32. Each index has probability within 2**-32 of 1/size, which for a client of a million
    rows is a relative bias below 0.03%, and for one of a thousand below 0.00003%.
    """
    return ((word >> _S32) * size) >> _S32


def batch_rows(
    seed: int,
    models: npt.ArrayLike,
    clients: npt.ArrayLike,
    round_number: int,
    offsets: npt.NDArray[np.int64],
    indices: npt.NDArray[np.int64],
    steps: int,
    batch_size: int,
) -> npt.NDArray[np.int64]:
    r"""Give the training rows of some (model, client) pairs in one round.

    $$\mathrm{row} = \mathrm{rows}_c\big[\lfloor h_{32}\,|\mathrm{rows}_c| / 2^{32} \rfloor\big], \qquad
      h = \mathrm{fold}(\ldots\mathrm{fold}(\mathrm{fold}(\mathrm{key}, j), c), r, t, p)$$

    with model j, client c, round r, step t, position p, and $h_{32}$ the upper 32 bits: a uniform draw with
    replacement (`scale` bounds the bias).

    Args:
        seed: the run's seed.
        models: `[S]` model ids, at least 0.
        clients: `[S]` clients, each with at least one row.
        round_number: the round, from 0.
        offsets: `[n + 1]`, client c holds `indices[offsets[c]:offsets[c + 1]]`.
        indices: row numbers of the training arrays.
        steps: local steps of the round.
        batch_size: rows per step.

    Returns:
        Row numbers int64 `[S, steps, batch_size]`.

    Example:
        >>> offsets, indices = np.array([0, 3, 5]), np.array([4, 0, 2, 1, 3])
        >>> rows = batch_rows(1, [0, 0], [0, 1], 0, offsets, indices, 2, 8)
        >>> rows.shape, set(rows[1].ravel().tolist())
        ((2, 2, 8), {1, 3})
        >>> bool((batch_rows(1, [0], [1], 0, offsets, indices, 2, 8)[0] == rows[1]).all())
        True
    """
    model, client = (np.atleast_1d(np.asarray(ids, dtype=np.int64)) for ids in (models, clients))
    key = np.atleast_1d(stream_key(seed))
    identity = (
        model[:, None, None],
        client[:, None, None],
        np.atleast_1d(round_number),
        np.arange(steps)[:, None],
        np.arange(batch_size),
    )
    for part in identity:
        key = fold.py_func(key, part.astype(np.uint64))
    first = offsets[client]
    size = (offsets[client + 1] - first).astype(np.uint64)
    place = scale.py_func(key, size[:, None, None]).astype(np.int64)
    return np.asarray(indices[first[:, None, None] + place], dtype=np.int64)
