"""Forward and backward of each kind of layer, by the two micro-kernels, on one flat float32 memory.

Activations are batch-last, `[channel, row, column, example]`, so that the vectors run over examples whatever the
layer. Gradients arrive already multiplied by `-lr / batch`: a weight update is then a plain accumulation, and the
weight gradient of a linear layer never exists.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from holdfast.training.compiled.microkernels import ADD, BIAS, ZERO, block_sizes, correlate, panel
from holdfast.training.compiled.plan import CONV, LINEAR, POOL
from holdfast.training.compiled.vectors import (
    pool_line,
    relu,
    relu_gradient,
    row_sum,
    transpose,
    unpool_line,
)

ONE = np.int64(1)


@njit
def put(mem: Any, place: Any, values: Any) -> None:
    """Copy `values` to a place, in vectors; assignment to a slice would be a loop over single numbers."""
    target = mem[place : place + len(values)]
    for i in range(len(values)):
        target[i] = values[i]


@njit
def product(
    mem: Any, tab: Any, rows: Any, columns: Any, w: Any, w_row: Any, w_step: Any, x: Any, x_step: Any,
    out: Any, out_row: Any, table: Any, taps: Any, length: Any, plus: Any, bias: Any,
) -> None:  # fmt: skip
    """`panel` for any number of rows, in blocks of nearly equal size."""
    most = block_sizes()[1]
    count = (rows + most - 1) // most
    for block in range(count):
        low = block * rows // count
        high = (block + 1) * rows // count
        panel(
            mem, tab, high - low, columns, w + low * w_row, w_row, w_step, x, x_step,
            out + low * out_row, out_row, table, taps, length, plus, bias + low,
        )  # fmt: skip


@njit
def _plus(op: Any) -> Any:
    return BIAS if op.bias >= 0 else ZERO


@njit
def _conv_forward(mem: Any, tab: Any, op: Any, batch: Any) -> None:
    """Row by row; where columns are skipped, pixel by pixel."""
    pieces = 1 if op.stride_width == 1 else op.width_out
    columns = op.width_out * batch // pieces
    for row in range(op.height_out):
        for piece in range(pieces):
            product(
                mem, tab, op.channels_out, columns, op.weight, op.weight_row, op.w_step,
                op.x + row * op.stride_height * op.x_row + piece * op.stride_width * batch, op.x_step,
                op.y + row * op.y_row + piece * columns, op.y_plane,
                op.taps_table, op.taps, op.length, _plus(op), op.bias,
            )  # fmt: skip


@njit
def _taps(place: Any, outputs: Any, kernel: Any, stride: Any) -> Any:
    """Places of a kernel that met an input's place in one direction, ascending."""
    first = max(0, place - (outputs - 1) * stride)
    return range(first + (place - first) % stride, min(kernel - 1, place) + 1, stride)


@njit
def _conv_input_gradient(mem: Any, tab: Any, op: Any, batch: Any) -> None:
    """Each input pixel gathers from the outputs it took part in: exactly those taps, no padding with zeros."""
    area = op.kernel_height * op.kernel_width
    for tap in range(area):  # weights as [tap, channel out, channel in], so that the kernel reads consecutively
        for out in range(op.channels_out):
            for channel in range(op.channels):
                to = op.scratch + (tap * op.channels_out + out) * op.channels + channel
                mem[to] = mem[op.weight + out * op.weight_row + channel * area + tap]
    for row in range(op.height):
        down = row + op.pad_height
        for column in range(op.width):
            across = column + op.pad_width
            rows = _taps(down, op.height_out, op.kernel_height, op.stride_height)
            columns = _taps(across, op.width_out, op.kernel_width, op.stride_width)
            taps = len(rows) * len(columns)
            place = op.scratch_table
            for ky in rows:
                for kx in columns:
                    tab[place] = (ky * op.kernel_width + kx) * op.channels_out * op.channels
                    out_row, out_column = (down - ky) // op.stride_height, (across - kx) // op.stride_width
                    tab[place + taps] = out_row * op.gy_row + out_column * batch
                    place += 1
            product(
                mem, tab, op.channels, batch, op.scratch, ONE, op.channels, op.gy, op.gy_plane,
                op.gx + row * op.gx_row + column * batch, op.gx_plane, op.scratch_table, taps, op.channels_out,
                ZERO, op.bias,
            )  # fmt: skip


@njit
def _conv_update(mem: Any, tab: Any, op: Any, batch: Any) -> None:
    lanes, _, _, most_rows, most_columns = block_sizes()
    columns = op.channels * op.kernel_height * op.kernel_width
    pieces = 1 if op.stride_width == 1 else op.width_out
    length = op.width_out * batch // pieces
    row_blocks = (op.channels_out + most_rows - 1) // most_rows
    column_blocks = (columns + most_columns - 1) // most_columns
    for i in range(row_blocks):
        low, high = i * op.channels_out // row_blocks, (i + 1) * op.channels_out // row_blocks
        for j in range(column_blocks):
            left, right = j * columns // column_blocks, (j + 1) * columns // column_blocks
            for piece in range(pieces):
                correlate(
                    mem, tab, high - low, right - left,
                    op.gy + low * op.gy_plane + piece * length, op.gy_plane, op.gy_row,
                    op.x + piece * op.stride_width * batch, op.columns_table + left, op.stride_height * op.x_row,
                    op.height_out, length // lanes, op.weight + low * op.weight_row + left, op.weight_row,
                )  # fmt: skip
    if op.bias >= 0:
        for out in range(op.channels_out):
            gy = op.gy + out * op.gy_plane
            row_sum(mem, tab, gy, op.height_out, op.gy_row, op.width_out * batch, op.bias + out)


@njit
def _linear_forward(mem: Any, tab: Any, op: Any, batch: Any) -> None:
    product(
        mem, tab, op.channels_out, batch, op.weight, op.weight_row, ONE, op.x, batch, op.y, batch,
        op.taps_table, ONE, op.channels, _plus(op), op.bias,
    )  # fmt: skip


@njit
def _linear_backward(mem: Any, tab: Any, op: Any, net: Any) -> None:
    batch = net.batch
    if op.gx >= 0:
        product(
            mem, tab, op.channels, batch, op.weight, ONE, op.weight_row, op.gy, batch, op.gx, batch,
            op.taps_table, ONE, op.channels_out, ZERO, op.bias,
        )  # fmt: skip
    if op.scratch != net.rows:  # the first layer finds the rows as they were gathered
        for start in range(0, op.channels, 16):
            for part in range(0, batch, 16):
                transpose(mem, tab, part, op.columns_table + start, op.scratch + start, op.rows_table + part)
    vectors = (op.channels + 15) // 16
    product(
        mem, tab, op.channels_out, 16 * vectors, op.gy, batch, ONE, op.scratch, op.scratch_row,
        op.weight, op.weight_row, op.taps_table, ONE, net.examples, ADD, op.bias,
    )  # fmt: skip
    if op.bias >= 0:
        for out in range(op.channels_out):
            row_sum(mem, tab, op.gy + out * batch, 1, 0, batch, op.bias + out)


@njit
def _pool_forward(mem: Any, tab: Any, codes: Any, op: Any, batch: Any) -> None:
    for channel in range(op.channels):
        for row in range(op.height_out):
            pool_line(
                mem, tab, codes, op.x + channel * op.x_plane + row * op.kernel_height * op.x_row, op.x_row,
                op.kernel_height, op.kernel_width, op.width_out, batch, op.y + channel * op.y_plane + row * op.y_row,
                op.codes + (channel * op.height_out + row) * op.width_out * batch, op.rectify,
            )  # fmt: skip


@njit
def _pool_backward(mem: Any, tab: Any, codes: Any, op: Any, batch: Any) -> None:
    for channel in range(op.channels):
        for row in range(op.height_out):
            unpool_line(
                mem, tab, codes, op.gy + channel * op.gy_plane + row * op.gy_row,
                op.codes + (channel * op.height_out + row) * op.width_out * batch,
                op.kernel_height, op.kernel_width, op.width_out, batch,
                op.gx + channel * op.gx_plane + row * op.kernel_height * op.gx_row, op.gx_row,
            )  # fmt: skip


@njit
def _relu_forward(mem: Any, tab: Any, op: Any, batch: Any) -> None:
    for channel in range(op.channels):
        for row in range(op.height):
            relu(mem, tab, op.x + channel * op.x_plane + row * op.x_row, op.width * batch)


@njit
def _relu_backward(mem: Any, tab: Any, op: Any, batch: Any) -> None:
    for channel in range(op.channels):
        for row in range(op.height):
            values = op.x + channel * op.x_plane + row * op.x_row
            relu_gradient(mem, tab, values, op.gx + channel * op.gx_plane + row * op.gx_row, op.width * batch)


@njit
def layer_forward(mem: Any, tab: Any, codes: Any, op: Any, net: Any) -> None:
    """One layer forward."""
    if op.kind == CONV:
        _conv_forward(mem, tab, op, net.batch)
    elif op.kind == LINEAR:
        _linear_forward(mem, tab, op, net.batch)
    elif op.kind == POOL:
        _pool_forward(mem, tab, codes, op, net.batch)
    else:
        _relu_forward(mem, tab, op, net.batch)


@njit
def layer_backward(mem: Any, tab: Any, codes: Any, op: Any, net: Any) -> None:
    """One layer backward: its input gradient first, then the update of its weights."""
    if op.kind == CONV:
        if op.gx >= 0:
            _conv_input_gradient(mem, tab, op, net.batch)
        _conv_update(mem, tab, op, net.batch)
    elif op.kind == LINEAR:
        _linear_backward(mem, tab, op, net)
    elif op.gx >= 0 and op.kind == POOL:
        _pool_backward(mem, tab, codes, op, net.batch)
    elif op.gx >= 0:
        _relu_backward(mem, tab, op, net.batch)


@njit
def forward(mem: Any, tab: Any, codes: Any, ops: Any, net: Any, first: Any) -> None:
    """From the inputs of layer `first` (layer 0: the gathered batch) to the scores at `net.scores` [labels, batch]."""
    for index in range(first, len(ops)):
        layer_forward(mem, tab, codes, ops[index], net)


@njit
def backward(mem: Any, tab: Any, codes: Any, ops: Any, net: Any, first: Any) -> None:
    """From the scores' gradient (times -lr) to updated weights of layer `first` and those after it."""
    for index in range(len(ops) - 1, first - 1, -1):
        layer_backward(mem, tab, codes, ops[index], net)


@njit
def scores_gradient(mem: Any, labels: Any, net: Any, lr: Any) -> None:
    """Softmax cross-entropy, averaged over the batch: `-lr / batch * (softmax - onehot)`, zero for padding."""
    step = np.float32(-lr / net.examples)
    for example in range(net.examples):
        top = mem[net.scores + example]
        for label in range(1, net.labels):
            top = max(top, mem[net.scores + label * net.batch + example])
        total = np.float32(0)
        for label in range(net.labels):
            value = np.exp(mem[net.scores + label * net.batch + example] - top)
            mem[net.scores_gradient + label * net.batch + example] = value
            total += value
        for label in range(net.labels):
            hit = np.float32(1) if labels[example] == label else np.float32(0)
            place = net.scores_gradient + label * net.batch + example
            mem[place] = step * (mem[place] / total - hit)
