"""Turn layers and a batch size into tables of offsets that the compiled code follows.

All floats of a thread live in one memory: weights first, then activations, gradients and scratch. A plan says where
each tensor lies in it, so that one compiled program serves every model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.training.compiled.spec import Conv, Flat, Layer, Linear, Pool, Relu, Shape, shapes
from holdfast.training.compiled.weights import Weights, odd, up

CONV, LINEAR, POOL, RELU = range(4)
KERNELS = 72  # the head of a table: addresses of the compiled kernels

_OP_FIELDS = """
    kind channels height width channels_out height_out width_out kernel_height kernel_width pad_height pad_width
    stride_height stride_width
    x x_plane x_row y y_plane y_row gx gx_plane gx_row gy gy_plane gy_row
    weight weight_row w_step x_step bias scratch scratch_row scratch_table rows_table columns_table
    taps_table taps length codes rectify
""".split()  # noqa: SIM905
_NET_FIELDS = """
    batch examples labels features weights total gather gather_row rows rows_table features_table scores scores_gradient
""".split()  # noqa: SIM905
OP = np.dtype([(name, np.int64) for name in _OP_FIELDS])
_DUAL_FIELDS = """
    rows features outputs row x x_row x_table w_table wt wt_table z blank a k g g_table y_table gy_table slots_table
    shares
""".split()  # noqa: SIM905
NET = np.dtype([(name, np.int64) for name in _NET_FIELDS])
DUAL = np.dtype([(name, np.int64) for name in _DUAL_FIELDS])


@dataclass
class Tensor:
    """An activation `[channels, height, width, batch]` and its gradient, where they lie."""

    channels: int
    height: int
    width: int
    start: int  # of the border, if there is one
    inner: int  # the first value inside the border
    plane: int
    row: int
    gradient: int = -1
    gradient_plane: int = 0
    gradient_row: int = 0


@dataclass(frozen=True)
class Plan:
    """Everything the compiled code needs to know about one model at one batch size.

    Attributes:
        ops: the layers, one record of offsets each.
        net: one record about the whole.
        dual: one record about the first layer in dual form; all zeros where no client needs it.
        table: room for the kernels' addresses, then offsets; parts are scratch, so each thread has its own copy.
        floats: the length of a thread's memory.
        codes: the length of a thread's memory for the winners of max-pooling.
    """

    ops: npt.NDArray[Any]
    net: npt.NDArray[Any]
    dual: npt.NDArray[Any]
    table: npt.NDArray[np.int64]
    floats: int
    codes: int


class Planner:
    """Hands out memory and table places, layer by layer."""

    def __init__(self, layers: list[Layer], input_shape: Shape, weights: Weights, examples: int) -> None:
        self.layers, self.weights, self.examples = layers, weights, examples
        self.batch = up(examples)
        self.shapes = shapes(layers, input_shape)
        self.floats, self.codes = weights.size, 0
        self.table = [np.zeros(KERNELS, np.int64)]
        self.table_size = KERNELS
        self.total = self._take(weights.size)
        self.zeros = self._take(self.batch)  # what padding is read from; never written
        self.dump = self._take(self.batch)  # where padding is written to; never read

    def _take(self, size: int) -> int:
        start = self.floats
        self.floats += up(size)
        return start

    def _tabulate(self, values: npt.ArrayLike) -> int:
        values = np.asarray(values, dtype=np.int64).ravel()
        start = self.table_size
        self.table.append(values)
        self.table_size += len(values)
        return start

    def plan(self, rows: int = 0) -> Plan:
        """Walk through the layers; `rows` is the most that a client has who is trained in dual form."""
        features = int(np.prod(self.shapes[0]))
        gather_row = odd(features)
        gather = self._take(self.batch * gather_row)
        tensor = self._tensor(0, with_gradient=False)
        features_table = self._features(tensor, self.dump)
        untouched = isinstance(next(layer for layer in self.layers if not isinstance(layer, Flat)), Linear)
        ops = []
        for index, layer in enumerate(self.layers):
            if isinstance(layer, Flat):
                tensor = _flat(tensor, self.batch)
                continue
            after = tensor if isinstance(layer, Relu) else self._tensor(index + 1, with_gradient=True)
            ops.append(self._op(index, layer, tensor, after))
            if len(ops) == 1 and untouched:
                ops[0]["scratch"], ops[0]["scratch_row"] = gather, gather_row
                ops[0]["rows_table"] = self._tabulate(np.arange(self.batch) * gather_row)
            tensor = after
        net = {
            "batch": self.batch, "examples": self.examples, "labels": self.shapes[-1][0], "features": features,
            "weights": self.weights.size, "total": self.total, "gather": gather, "gather_row": gather_row,
            "rows": gather if untouched else -1,
            "rows_table": self._tabulate(np.arange(self.batch) * gather_row), "features_table": features_table,
            "scores": tensor.inner, "scores_gradient": tensor.gradient,
        }  # fmt: skip
        dual = self._dual(rows, ops[0], features) if rows else {}
        offsets = _records(OP, ops), _records(NET, [net]), _records(DUAL, [dual])
        return Plan(*offsets, np.concatenate(self.table), self.floats, self.codes)

    def _dual(self, rows: int, first: dict[str, int], features: int) -> dict[str, int]:
        """Room for one client's rows, the weights turned over, and what `dual` computes from them."""
        outputs, x_row = first["channels_out"], odd(features)
        row, units = odd(outputs), np.arange(up(outputs))
        inside = units < outputs
        return {
            "rows": rows, "features": features, "outputs": outputs, "row": row,
            "x": self._take(rows * x_row), "x_row": x_row, "x_table": self._tabulate(np.arange(rows) * x_row),
            "w_table": self._tabulate(units * first["weight_row"]),
            "wt": self._take(up(features) * row), "wt_table": self._tabulate(np.arange(up(features)) * row),
            "z": self._take(rows * row), "blank": self._take(row), "a": self._take((rows + 1) * row),
            "k": self._take((rows + 1) * self.batch),
            "g": self._take(self.batch * row), "g_table": self._tabulate(np.arange(self.batch) * row),
            "y_table": self._tabulate(np.where(inside, first["y"] + units * self.batch, self.dump)),
            "gy_table": self._tabulate(np.where(inside, first["gy"] + units * self.batch, self.zeros)),
            "slots_table": self._tabulate(np.zeros(self.batch)), "shares": self._take(outputs),
        }  # fmt: skip

    def _tensor(self, index: int, *, with_gradient: bool) -> Tensor:
        """The tensor after `index` layers, laid out as the next layer that computes something wants it."""
        shape = self.shapes[index]
        channels, height, width = shape if len(shape) == 3 else (int(np.prod(shape)), 1, 1)
        consumer = next((layer for layer in self.layers[index:] if not isinstance(layer, Relu)), None)
        exact = len(shape) == 1 or isinstance(consumer, Flat)
        down, across = consumer.padding if isinstance(consumer, Conv) else (0, 0)
        row = (width + 2 * across) * self.batch
        area = (height + 2 * down) * row
        plane = area if exact else odd(area)
        start = self._take(channels * plane)
        tensor = Tensor(channels, height, width, start, start + down * row + across * self.batch, plane, row)
        if with_gradient:
            fills = isinstance(consumer, Pool) and not height % consumer.kernel[0] and not width % consumer.kernel[1]
            tensor.gradient_row = width * self.batch
            tensor.gradient_plane = height * width * self.batch if exact else odd(height * width * self.batch)
            # Pooling notes its winners, so the gradient may overwrite the values, if it overwrites all of them.
            tensor.gradient = start if fills else self._take(channels * tensor.gradient_plane)
        return tensor

    def _features(self, tensor: Tensor, rest: int) -> int:
        """Table of where feature f of a flattened tensor lies, padded to whole vectors with `rest`."""
        channel, row, column = np.ix_(*(np.arange(size) for size in (tensor.channels, tensor.height, tensor.width)))
        places = (tensor.inner + channel * tensor.plane + row * tensor.row + column * self.batch).ravel()
        return self._tabulate(np.concatenate([places, np.full(up(len(places)) - len(places), rest)]))

    def _op(self, index: int, layer: Layer, before: Tensor, after: Tensor) -> dict[str, int]:
        op = {
            "channels": before.channels, "height": before.height, "width": before.width,
            "channels_out": after.channels, "height_out": after.height, "width_out": after.width,
            "x": before.inner, "x_plane": before.plane, "x_row": before.row,
            "y": after.inner, "y_plane": after.plane, "y_row": after.row,
            "gx": before.gradient, "gx_plane": before.gradient_plane, "gx_row": before.gradient_row,
            "gy": after.gradient, "gy_plane": after.gradient_plane, "gy_row": after.gradient_row,
            "weight": self.weights.weight[index], "weight_row": self.weights.row[index],
            "bias": self.weights.bias[index],
        }  # fmt: skip
        if isinstance(layer, Conv):
            return op | self._conv(layer, before)
        if isinstance(layer, Linear):
            return op | self._linear(layer, before)
        if isinstance(layer, Pool):
            return op | self._pool(layer, after)
        return op | self._relu(before)

    def _relu(self, before: Tensor) -> dict[str, int]:
        whole = before.channels * before.height * before.width
        solid = before.channels * before.plane == whole * self.batch
        if solid and before.gradient_plane in (0, before.plane):
            return {"kind": RELU, "channels": 1, "height": 1, "width": whole}
        return {"kind": RELU}

    def _conv(self, layer: Conv, before: Tensor) -> dict[str, int]:
        height, width = layer.kernel
        channel, down, across = np.ix_(*(np.arange(size) for size in (layer.channels, height, width)))
        w = (channel * height + down) * width + across
        x = channel * before.plane + down * before.row + across * self.batch
        # The inner loop runs along the kernel's rows, or over channels where rows are short.
        by_channel = layer.channels > width
        taps_w, taps_x = (w[0], x[0]) if by_channel else (w[:, :, 0], x[:, :, 0])
        return {
            "kind": CONV, "kernel_height": height, "kernel_width": width,
            "pad_height": layer.padding[0], "pad_width": layer.padding[1], "x": before.start,
            "stride_height": layer.stride[0], "stride_width": layer.stride[1],
            "taps_table": self._tabulate(np.concatenate([taps_w.ravel(), taps_x.ravel()])), "taps": taps_w.size,
            "length": layer.channels if by_channel else width,
            "w_step": height * width if by_channel else 1, "x_step": before.plane if by_channel else self.batch,
            "columns_table": self._tabulate(x),
            "scratch": self._take(height * width * layer.channels * layer.channels_out),
            "scratch_table": self._tabulate(np.zeros(2 * height * width)),
        }  # fmt: skip

    def _linear(self, layer: Linear, before: Tensor) -> dict[str, int]:
        row = odd(layer.features)
        return {
            "kind": LINEAR, "taps_table": self._tabulate([0, 0]), "taps": 1,
            "columns_table": self._features(before, self.zeros),
            "scratch": self._take(self.batch * row), "scratch_row": row,
            "rows_table": self._tabulate(np.arange(self.batch) * row),
        }  # fmt: skip

    def _pool(self, layer: Pool, after: Tensor) -> dict[str, int]:
        codes, self.codes = self.codes, self.codes + after.channels * after.height * after.width * self.batch
        return {
            "kind": POOL, "kernel_height": layer.kernel[0], "kernel_width": layer.kernel[1],
            "codes": codes, "rectify": int(layer.rectify),
        }  # fmt: skip


def _flat(tensor: Tensor, batch: int) -> Tensor:
    """The same memory as a vector of features."""
    size = tensor.channels * tensor.height * tensor.width
    return Tensor(size, 1, 1, tensor.start, tensor.inner, batch, batch, tensor.gradient, batch, batch)


def _records(kind: np.dtype[Any], entries: list[dict[str, int]]) -> npt.NDArray[Any]:
    records = np.zeros(len(entries), kind)
    for record, entry in zip(records, entries, strict=True):
        for name, value in entry.items():
            record[name] = value
    return records


def make_plan(layers: list[Layer], input_shape: Shape, weights: Weights, examples: int, rows: int = 0) -> Plan:
    """The plan for `examples` per batch, and for clients of up to `rows` rows in dual form.

    Raises:
        ConfigError: the layers do not fit together or do not fit the inputs.
    """
    return Planner(layers, input_shape, weights, examples).plan(rows)
