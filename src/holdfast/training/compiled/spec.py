"""Recognize a torch Sequential that the compiled engine covers, and read off its layers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from holdfast.types import ConfigError

Shape = tuple[int, ...]
_MOST_POOLED = 255  # places in a pooling window: a place is noted in one byte, and one value means "none"


@dataclass(frozen=True)
class Conv:
    """A convolution, zeros at the borders."""

    channels: int
    channels_out: int
    kernel: tuple[int, int]
    padding: tuple[int, int]
    bias: bool
    stride: tuple[int, int] = (1, 1)


@dataclass(frozen=True)
class Linear:
    """A fully connected layer."""

    features: int
    features_out: int
    bias: bool


@dataclass(frozen=True)
class Pool:
    """Max-pooling of windows side by side, with ReLU before or after it if `rectify` (which is the same)."""

    kernel: tuple[int, int]
    rectify: bool = False


@dataclass(frozen=True)
class Relu:
    """ReLU on its own."""


@dataclass(frozen=True)
class Flat:
    """`[C, H, W]` to `[C H W]`."""


Layer = Conv | Linear | Pool | Relu | Flat


def why_not(module: nn.Module) -> str | None:
    """None if the engine covers the module's layers, else the reason in words."""
    if type(module) is not nn.Sequential:
        return f"the model is a {type(module).__name__}, not a torch.nn.Sequential"
    parts = list(_parts(module))
    for name, part in parts:
        reason = _layer_reason(part)
        if reason is not None:
            return f"layer {name} ({type(part).__name__}) {reason}"
    trained = [part for _, part in parts if isinstance(part, (nn.Conv2d, nn.Linear))]
    if len(set(trained)) < len(trained):
        return "a layer appears twice, so its weights are shared"
    if not trained:
        return "the model has no weights to train"
    parameters = list(module.parameters())
    if len(parameters) < sum(len(list(part.parameters())) for part in trained):
        return "two layers share a weight"
    if any(p.dtype != torch.float32 for p in parameters):
        return "not all weights are float32"
    if not all(p.requires_grad for p in parameters):
        return "some weights are frozen (requires_grad is False)"
    if any(part._forward_hooks or part._forward_pre_hooks or part._backward_hooks for part in module.modules()):
        return "a layer has hooks"
    return None


def _parts(module: nn.Sequential) -> Iterator[tuple[str, nn.Module]]:
    """The layers in order, Sequentials inside Sequentials taken apart."""
    for name, part in zip(module._modules, module, strict=True):  # named_children would skip a second appearance
        if type(part) is nn.Sequential:
            yield from ((f"{name}.{inner}", layer) for inner, layer in _parts(part))
        else:
            yield name, part


def _layer_reason(part: nn.Module) -> str | None:
    if type(part) is nn.Conv2d:
        return _conv_reason(part)
    if type(part) is nn.MaxPool2d:
        return _pool_reason(part)
    if type(part) is nn.Flatten:
        return None if (part.start_dim, part.end_dim) == (1, -1) else "does not flatten all but the batch axis"
    if type(part) in (nn.Linear, nn.ReLU):
        return None
    return "is not among Conv2d, MaxPool2d, ReLU, Flatten, Linear"


def _conv_reason(conv: nn.Conv2d) -> str | None:
    if _pair(conv.dilation) != (1, 1):
        return f"has dilation {conv.dilation}, not 1"
    if conv.groups != 1:
        return f"has {conv.groups} groups, not 1"
    if conv.padding_mode != "zeros":
        return f"pads with {conv.padding_mode}, not zeros"
    if conv.padding == "same" and any(size % 2 == 0 for size in _pair(conv.kernel_size)):
        return "pads an even kernel to the same size, which is lopsided"
    return None


def _pool_reason(pool: nn.MaxPool2d) -> str | None:
    if _pair(pool.stride) != _pair(pool.kernel_size):
        return f"has stride {pool.stride}, not its kernel's size {pool.kernel_size}"
    if _pair(pool.padding) != (0, 0):
        return f"has padding {pool.padding}, not 0"
    if _pair(pool.dilation) != (1, 1):
        return f"has dilation {pool.dilation}, not 1"
    if pool.ceil_mode or pool.return_indices:
        return "rounds sizes up or returns indices"
    height, width = _pair(pool.kernel_size)
    return None if height * width < _MOST_POOLED else f"pools more than {_MOST_POOLED - 1} places"


def _pair(size: int | tuple[int, ...]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def read_layers(module: nn.Module) -> list[Layer]:
    """The layers of a module that `why_not` has nothing against.

    ReLU next to pooling becomes part of it, and ReLU after ReLU goes.
    """
    assert isinstance(module, nn.Sequential)
    layers: list[Layer] = []
    for _, part in _parts(module):
        layer = _read(part)
        if isinstance(layer, Pool) and layers and isinstance(layers[-1], Relu):
            layers[-1] = Pool(layer.kernel, rectify=True)
        elif isinstance(layer, Relu) and layers and isinstance(layers[-1], Pool):
            layers[-1] = Pool(layers[-1].kernel, rectify=True)
        elif not (isinstance(layer, Relu) and layers and isinstance(layers[-1], Relu)):
            layers.append(layer)
    return layers


def _read(part: nn.Module) -> Layer:
    if isinstance(part, nn.Conv2d):
        kernel = _pair(part.kernel_size)
        if isinstance(part.padding, str):
            padding = (kernel[0] // 2, kernel[1] // 2) if part.padding == "same" else (0, 0)
        else:
            padding = _pair(part.padding)
        return Conv(part.in_channels, part.out_channels, kernel, padding, part.bias is not None, _pair(part.stride))
    if isinstance(part, nn.Linear):
        return Linear(part.in_features, part.out_features, part.bias is not None)
    if isinstance(part, nn.MaxPool2d):
        return Pool(_pair(part.kernel_size))
    return Relu() if isinstance(part, nn.ReLU) else Flat()


def shapes(layers: list[Layer], input_shape: Shape) -> list[Shape]:
    """The shape of one example before the first layer and after each.

    Raises:
        ConfigError: a layer does not fit what comes before it, or the model does not end in scores.
    """
    found = [tuple(input_shape)]
    for layer in layers:
        found.append(_shape_after(layer, found[-1]))
    if len(found[-1]) != 1:
        raise ConfigError(f"model must end in scores [batch, labels], but ends in shape {['batch', *found[-1]]}")
    return found


def _shape_after(layer: Layer, shape: Shape) -> Shape:
    if isinstance(layer, Relu):
        return shape
    if isinstance(layer, Flat):
        size = 1
        for length in shape:
            size *= length
        return (size,)
    if isinstance(layer, Linear):
        if shape != (layer.features,):
            raise ConfigError(f"model has a Linear layer for [{layer.features}] inputs, but they are {list(shape)}")
        return (layer.features_out,)
    if len(shape) != 3 or (isinstance(layer, Conv) and shape[0] != layer.channels):
        raise ConfigError(f"model has the layer {layer}, but its inputs have shape {list(shape)}")
    channels, height, width = shape
    if isinstance(layer, Pool):
        after = (channels, height // layer.kernel[0], width // layer.kernel[1])
    else:
        grown = (height + 2 * layer.padding[0], width + 2 * layer.padding[1])
        room = [(size - kernel) // by + 1 for size, kernel, by in zip(grown, layer.kernel, layer.stride, strict=True)]
        after = (layer.channels_out, room[0], room[1])
    if min(after) < 1:
        raise ConfigError(f"model has the layer {layer}, which is larger than its inputs of shape {list(shape)}")
    return after
