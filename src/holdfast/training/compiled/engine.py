"""The two compiled programs: train a stretch of clients of one model, and score inputs with one model."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit, types

from holdfast.training import batches
from holdfast.training.batches import fold, scale
from holdfast.training.compiled.dual import FRESH, PLAIN, all_grams, collect, draw, local_steps, turn_weights
from holdfast.training.compiled.emit import I64, TABLE, blocks, intrinsic
from holdfast.training.compiled.layers import backward, forward, put, scores_gradient
from holdfast.training.compiled.microkernels import SCALED, ZERO, define_microkernels
from holdfast.training.compiled.plan import KERNELS
from holdfast.training.compiled.vectors import define_vector_kernels, transpose


@njit
def _spread(mem: Any, tab: Any, net: Any) -> None:
    """From gathered rows [batch, features] to the input tensor, batch-last."""
    for part in range(0, net.batch, 16):
        for start in range(0, net.features, 16):
            transpose(mem, tab, net.gather + start, net.rows_table + part, part, net.features_table + start)


@njit
def _step(
    mem: Any, tab: Any, codes: Any, ops: Any, net: Any, x: Any, y: Any, rows: Any, key: Any, labels: Any, lr: Any
) -> None:
    """One SGD step on a batch of a client's `rows`; the places are drawn by hash from the step's key."""
    size = np.uint64(len(rows))
    for example in range(net.examples):
        row = rows[np.int64(scale(fold(key, np.uint64(example)), size))]
        labels[example] = y[row]
        put(mem, net.gather + example * net.gather_row, x[row])
    _spread(mem, tab, net)
    forward(mem, tab, codes, ops, net, 0)
    scores_gradient(mem, labels, net, lr)
    backward(mem, tab, codes, ops, net, 0)


@njit
def _plain_steps(
    mem: Any, tab: Any, codes: Any, ops: Any, net: Any, x: Any, y: Any, rows: Any, at_round: Any, steps: Any,
    labels: Any, lr: Any,
) -> None:  # fmt: skip
    """A client's round, step by step."""
    for step in range(steps):
        _step(mem, tab, codes, ops, net, x, y, rows, fold(at_round, np.uint64(step)), labels, lr)


@njit
def _take_update(mem: Any, model: Any, update: Any, share: Any, first: Any) -> None:
    """`update += share * (local - global)`, and back to the global weights for the next client, in one pass.

    From weight number `first` on: those before are the first layer's, in dual form.
    """
    local, start, total = mem[first : len(model)], model[first:], update[first:]
    for place in range(len(start)):  # views, so that no index needs a check and the loop becomes vector code
        total[place] += share * (local[place] - start[place])
        local[place] = start[place]


@njit
def _train(
    mem: Any, tab: Any, codes: Any, ops: Any, nets: Any, duals: Any, x: Any, y: Any, offsets: Any, indices: Any,
    grams: Any, grams_at: Any, members: Any, weights: Any, key: Any, first: Any, last: Any, steps: Any, lr: Any,
    model: Any, updates: Any,
) -> None:  # fmt: skip
    """Train clients `first` to `last`, counted through the rounds: number v is client `v % k` of round `v // k`.

    With no room in `updates`, their weighted sum grows in `mem` at `net.total`, and the global model `model` moves at
    the end of each round. Else client v leaves its update in `updates[v - first]`, and `model` stays. Clients are
    trained in dual form unless their `grams_at` is PLAIN; their Gram matrix lies there in `grams` unless it is FRESH.
    """
    k = len(members)
    net, dual = nets[0], duals[0]
    labels = np.empty(net.examples, np.int64)
    marks, order = np.empty(dual.rows, np.int64), np.empty(dual.rows, np.int64)
    slots = np.empty((steps if dual.rows else 0, net.examples), np.int64)
    room = np.empty((dual.rows, dual.rows), np.float32)
    total = mem[net.total : net.total + net.weights]
    put(mem, 0, model)
    for visit in range(first, last):
        client, share = members[visit % k], weights[visit % k]
        at_round = fold(fold(key, np.uint64(client)), np.uint64(visit // k))
        rows = indices[offsets[client] : offsets[client + 1]]
        size, apart = len(rows), 0
        if len(updates) or visit % k == 0:
            total[:] = 0
        if dual.rows and (visit == first or visit % k == 0):
            turn_weights(mem, tab, ops[0], dual)
        at = grams_at[client]
        if at != PLAIN:
            apart = dual.outputs * ops[0].weight_row
            count = draw(at_round, size, steps, net.examples, marks, order, slots)
            products = room if at == FRESH else grams[at : at + size * size].reshape((size, size))
            local_steps(
                mem, tab, codes, ops, net, dual, x, y, rows, products, at == FRESH, order, slots, labels, lr, count
            )
            mem[dual.shares : dual.shares + dual.outputs] = share
            collect(mem, tab, ops[0], dual, count, net.total, ZERO if len(updates) else SCALED)
        elif size:
            _plain_steps(mem, tab, codes, ops, net, x, y, rows, at_round, steps, labels, lr)
        _take_update(mem, model, total, np.float32(1) if len(updates) else share, apart)
        if len(updates):
            updates[visit - first] = total
        elif visit % k == k - 1:
            model += total
            put(mem, 0, model)


@njit
def _score(mem: Any, tab: Any, codes: Any, ops: Any, nets: Any, x: Any, model: Any, labels: Any, scores: Any) -> None:
    """Label all inputs with one model; with room in `scores`, leave them there too."""
    net = nets[0]
    put(mem, 0, model)
    for first in range(0, len(x), net.examples):
        count = min(net.examples, len(x) - first)
        for example in range(count):
            put(mem, net.gather + example * net.gather_row, x[first + example])
        _spread(mem, tab, net)
        forward(mem, tab, codes, ops, net, 0)
        for example in range(count):
            best = 0
            top = mem[net.scores + example]
            for label in range(net.labels):
                value = mem[net.scores + label * net.batch + example]
                # The smallest label of equals; the first NaN before any number, as torch has it.
                if value > top or (np.isnan(value) and not np.isnan(top)):
                    best, top = label, value
                if len(scores):
                    scores[first + example, label] = value
            labels[first + example] = best


@dataclass(frozen=True)
class Programs:
    """The compiled code of this process.

    Attributes:
        train: `_train`, for many threads at once.
        score: `_score`, likewise.
        grams: `all_grams`.
        kernels: the kernels' addresses, the head of every table of offsets.
        owner: what holds the kernels' code; it must live as long as their addresses are used.
    """

    train: Any
    score: Any
    grams: Any
    kernels: npt.NDArray[np.int64]
    owner: Any


@cache
def programs() -> Programs:
    """Compile, or load from numba's cache; without a cache where no folder for it can be written.

    Numba looks only at the file of an outermost function to tell if its cached code is stale. The code here comes
    from several files, so a digest of them is made part of the key, as a variable of a closure.
    """
    digest = hashlib.sha256()
    for path in [*sorted(Path(__file__).parent.glob("*.py")), Path(batches.__file__)]:
        digest.update(path.read_bytes())
    try:
        return _compile(digest.hexdigest(), cache=True)
    except RuntimeError:  # numba found no folder for its cache
        return _compile(digest.hexdigest(), cache=False)


def _compile(version: str, *, cache: bool) -> Programs:
    @njit(nogil=True, cache=cache)
    def train(*arguments):  # type: ignore[no-untyped-def]
        _train(*arguments)
        return version

    @njit(nogil=True, cache=cache)
    def score(*arguments):  # type: ignore[no-untyped-def]
        _score(*arguments)
        return version

    @njit(cache=cache)
    def grams(*arguments):  # type: ignore[no-untyped-def]
        all_grams(*arguments)
        return version

    @njit(cache=cache)
    def locate(addresses):  # type: ignore[no-untyped-def]
        kernel_addresses(addresses)
        return version

    kernels = np.zeros(KERNELS, np.int64)
    locate(kernels)
    return Programs(train, score, grams, kernels, locate)


@intrinsic
def kernel_addresses(typing, addresses):  # type: ignore[no-untyped-def]
    """Write the addresses of all kernels into a table, by their numbers; the kernels live as long as the caller."""

    def code(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        shape = blocks(context)
        table = context.make_array(TABLE)(context, builder, arguments[0]).data
        found = define_microkernels(builder.module, shape) | define_vector_kernels(builder.module, shape)
        for slot, kernel in found.items():
            builder.store(builder.ptrtoint(kernel, I64), builder.gep(table, [I64(slot)]))
        return context.get_dummy_value()

    return types.void(TABLE), code
