"""The first linear layer of one client's local training in dual form: as sums over the rows the client holds.

Within a round a client draws some of its rows again and again, and its first layer only ever sees those. With the
weights W of the round's start, the distinct rows X drawn, and row d's gradients summed up in a_d (times -lr / batch),
the local weights are `W + sum of a_d x_d`, so the layer's outputs for row i are

    (W + sum of a_d x_d) x_i + b = W x_i + b + sum of a_d <x_d, x_i>

W x_i is computed once per distinct row, not once per draw; <x_d, x_i> is looked up in the client's Gram matrix, which
depends on the data alone; and the weights are updated once, at the end, by `sum of a_d x_d`. Up to rounding this is
what single steps compute, with fewer operations. Nothing is carried from one round into the next.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from holdfast.training.batches import fold, scale
from holdfast.training.compiled.layers import ONE, backward, forward, product, put, scores_gradient
from holdfast.training.compiled.microkernels import ADD, ZERO, block_sizes, correlate
from holdfast.training.compiled.vectors import row_sum, transpose

PLAIN, FRESH = np.int64(-1), np.int64(-2)  # in place of a Gram matrix's place: no dual form, or nothing stored

_LEAST_GAIN = 0.95  # of the plain steps' multiplications; what is gathered and transposed is not counted


def pays(rows: int, features: int, outputs: int, steps: int, examples: int) -> bool:
    """Whether the dual form of a first layer `features -> outputs` takes fewer multiplications for such a client.

    The expected number of distinct rows in t draws from R is `R (1 - (1 - 1/R)^t)`. A client's Gram matrix may not be
    larger than its data.

    Example:
        >>> pays(160, 561, 256, steps=5, examples=32), pays(2000, 561, 256, steps=5, examples=32)
        (True, False)
    """
    if not 0 < rows <= features:
        return False
    drawn = examples * np.arange(1, steps + 1)
    distinct = rows * (1 - (1 - 1 / rows) ** drawn)
    once = distinct[-1] * features * (2 * outputs + distinct[-1] / 2)
    between = examples * (1 + distinct[:-1]).sum() * outputs
    return bool(once + between < _LEAST_GAIN * 2 * drawn[-1] * features * outputs)


@njit
def gather(mem: Any, dual: Any, x: Any, rows: Any, order: Any, count: Any) -> None:
    """Rows `order[:count]` of a client into `dual.x`."""
    for slot in range(count):
        put(mem, dual.x + slot * dual.x_row, x[rows[order[slot]]])


@njit
def gram(mem: Any, tab: Any, dual: Any, order: Any, count: Any, out: Any) -> None:
    """All products of the gathered rows, `out[order[i], order[j]] = <x_i, x_j>`; half of them, the rest is mirrored.

    The same bits whatever else is gathered, so it does not matter when a client's products are computed.
    """
    lanes, _, _, most_rows, most_columns = block_sizes()
    length = (dual.features + 15) // 16 * 16 // lanes
    for i in range(0, count, most_rows):
        high = min(count, i + most_rows)
        mem[dual.k : dual.k + most_rows * count] = 0
        for j in range(i, count, most_columns):
            correlate(
                mem, tab, high - i, min(count - j, most_columns), dual.x + i * dual.x_row, dual.x_row, ZERO, dual.x,
                dual.x_table + j, ZERO, ONE, length, dual.k + j, count,
            )  # fmt: skip
        for row in range(i, high):
            for column in range(row, count):
                value = mem[dual.k + (row - i) * count + column]
                out[order[row], order[column]] = value
                out[order[column], order[row]] = value


@njit
def all_grams(mem: Any, tab: Any, duals: Any, x: Any, offsets: Any, indices: Any, grams: Any, grams_at: Any) -> None:
    """The Gram matrices of all clients that have a place for it in `grams`."""
    for client in range(len(grams_at)):
        at, rows = grams_at[client], indices[offsets[client] : offsets[client + 1]]
        if at >= 0:
            size = len(rows)
            order = np.arange(size)
            gather(mem, duals[0], x, rows, order, size)
            gram(mem, tab, duals[0], order, size, grams[at : at + size * size].reshape((size, size)))


@njit
def draw(key: Any, size: Any, steps: Any, examples: Any, marks: Any, order: Any, slots: Any) -> Any:
    """All draws of a client's round: `slots` numbers the distinct rows as they come, `order` has their places.

    The number of distinct rows is given back; `marks` [size] is scratch.
    """
    marks[:size] = -1
    count = 0
    for step in range(steps):
        at_step = fold(key, np.uint64(step))
        for example in range(examples):
            place = np.int64(scale(fold(at_step, np.uint64(example)), np.uint64(size)))
            if marks[place] < 0:
                marks[place] = count
                order[count] = place
                count += 1
            slots[step, example] = marks[place]
    return count


@njit
def turn_weights(mem: Any, tab: Any, op: Any, dual: Any) -> None:
    """The first layer's weights as `[features, outputs]`, for all clients of a round."""
    for start in range(0, dual.outputs, 16):
        for part in range(0, dual.features, 16):
            transpose(mem, tab, op.weight + part, dual.w_table + start, dual.wt + start, dual.wt_table + part)


@njit
def _start(mem: Any, tab: Any, op: Any, dual: Any, count: Any) -> None:
    """The layer's outputs without bias for the distinct rows, as rows in `dual.z`; all coefficients zero."""
    product(
        mem, tab, count, (dual.outputs + 15) // 16 * 16, dual.x, dual.x_row, ONE, dual.wt, dual.row, dual.z, dual.row,
        op.taps_table, ONE, dual.features, ZERO, op.bias,
    )  # fmt: skip
    mem[dual.a : dual.a + (count + 1) * dual.row] = 0


@njit
def _enter(
    mem: Any, tab: Any, op: Any, net: Any, dual: Any, products: Any, order: Any, slots: Any, seen: Any, drawn: Any
) -> None:  # fmt: skip
    """The layer's outputs for one batch, from the `seen` distinct rows that have coefficients so far.

    The bias takes part as the coefficients of one more row, number 0, whose products are all 1. `drawn` [examples] is
    scratch.
    """
    for example in range(net.batch):
        tab[dual.slots_table + example] = dual.blank - dual.z
    for example in range(net.examples):
        tab[dual.slots_table + example] = slots[example] * dual.row
        drawn[example] = order[slots[example]]
    for start in range(0, dual.outputs, 16):
        for part in range(0, net.batch, 16):
            transpose(mem, tab, dual.z + start, dual.slots_table + part, part, dual.y_table + start)
    if op.bias >= 0:
        put(mem, dual.a, mem[op.bias : op.bias + dual.outputs])
    mem[dual.k : dual.k + net.examples] = 1
    for other in range(seen):
        row = products[order[other]]
        at = dual.k + (other + 1) * net.batch
        line = mem[at : at + net.examples]
        for example in range(net.examples):
            line[example] = row[drawn[example]]
    product(
        mem, tab, dual.outputs, net.batch, dual.a, ONE, dual.row, dual.k, net.batch, op.y, net.batch,
        op.taps_table, ONE, seen + 1, ADD, op.bias,
    )  # fmt: skip


@njit
def _leave(mem: Any, tab: Any, op: Any, net: Any, dual: Any, slots: Any) -> None:
    """Add the gradients of one batch's outputs to their rows' coefficients, and to the bias."""
    for start in range(0, dual.outputs, 16):
        for part in range(0, net.batch, 16):
            transpose(mem, tab, part, dual.gy_table + start, dual.g + start, dual.g_table + part)
    for example in range(net.examples):
        coefficients = mem[dual.a + (slots[example] + 1) * dual.row :][: dual.outputs]
        coefficients += mem[dual.g + example * dual.row :][: dual.outputs]
    if op.bias >= 0:
        for out in range(dual.outputs):
            row_sum(mem, tab, op.gy + out * net.batch, 1, 0, net.batch, op.bias + out)


@njit
def local_steps(
    mem: Any, tab: Any, codes: Any, ops: Any, net: Any, dual: Any, x: Any, y: Any, rows: Any, products: Any, fresh: Any,
    order: Any, slots: Any, labels: Any, lr: Any, count: Any,
) -> None:  # fmt: skip
    """A client's round on drawn rows: all weights are updated but the first layer's, whose coefficients are left.

    `products` [rows, rows] is the client's Gram matrix, or room for those of its entries that are needed, if `fresh`.
    """
    op = ops[0]
    drawn = np.empty(net.examples, np.uint64)  # unsigned: no index counts from the end
    gather(mem, dual, x, rows, order, count)
    if fresh:
        gram(mem, tab, dual, order, count, products)
    _start(mem, tab, op, dual, count)
    seen = 0
    for step in range(len(slots)):
        _enter(mem, tab, op, net, dual, products, order, slots[step], seen, drawn)
        for example in range(net.examples):
            labels[example] = y[rows[order[slots[step, example]]]]
            seen = max(seen, slots[step, example] + 1)
        forward(mem, tab, codes, ops, net, 1)
        scores_gradient(mem, labels, net, lr)
        backward(mem, tab, codes, ops, net, 1)
        _leave(mem, tab, op, net, dual, slots[step])


@njit
def collect(mem: Any, tab: Any, op: Any, dual: Any, count: Any, out: Any, plus: Any) -> None:
    """The first layer's update, `sum of a_d x_d`: written to `out` (`ZERO`) or added times `dual.shares` (`SCALED`)."""
    product(
        mem, tab, dual.outputs, (dual.features + 15) // 16 * 16, dual.a + dual.row, ONE, dual.row, dual.x, dual.x_row,
        out, op.weight_row, op.taps_table, ONE, count, plus, dual.shares,
    )  # fmt: skip
