"""The networks of the Romoa paper (Figures 9 and 10) and a small one with its layers' kinds, for CPUs."""

from __future__ import annotations

from torch import nn

from holdfast.types import ConfigError

Shape = tuple[int, ...]


def romoa_cnn(input_shape: Shape, n_labels: int) -> nn.Module:
    """Two 5x5 convolutions of stride 2 (8 and 16 channels) and 64 units."""
    channels, height, width = _sides(input_shape, 13, "romoa-cnn")
    area = _strided(_strided(height)) * _strided(_strided(width))
    return nn.Sequential(
        nn.Conv2d(channels, 8, 5, stride=2),
        nn.ReLU(),
        nn.Conv2d(8, 16, 5, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * area, 64),
        nn.ReLU(),
        nn.Linear(64, n_labels),
    )


def romoa_mnist(input_shape: Shape, n_labels: int) -> nn.Module:
    """Figure 9: two 5x5 convolutions of 64 channels, 128 units, dropout."""
    channels, height, width = _sides(input_shape, 9, "romoa-mnist")
    return nn.Sequential(
        nn.Conv2d(channels, 64, 5),
        nn.ReLU(),
        nn.Conv2d(64, 64, 5),
        nn.ReLU(),
        nn.Dropout(0.25),
        nn.Flatten(),
        nn.Linear(64 * (height - 8) * (width - 8), 128),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(128, n_labels),
    )


def romoa_cifar10(input_shape: Shape, n_labels: int) -> nn.Module:
    """Figure 10: eight 3x3 convolutions (64, 128, 256 channels), pooled after each kind, 1024 units, dropout."""
    channels, height, width = _sides(input_shape, 8, "romoa-cifar10")
    layers: list[nn.Module] = []
    for size, count in ((64, 2), (128, 3), (256, 3)):
        for _ in range(count):
            layers += [nn.Conv2d(channels, size, 3, padding=1), nn.ReLU()]
            channels = size
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(
        *layers,
        nn.Flatten(),
        nn.Linear(channels * (height // 8) * (width // 8), 1024),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(1024, n_labels),
    )


def _strided(size: int) -> int:
    """The side after a 5x5 convolution of stride 2."""
    return (size - 5) // 2 + 1


def _sides(shape: Shape, least: int, name: str) -> tuple[int, int, int]:
    if len(shape) != 3 or min(shape[1:]) < least:
        raise ConfigError(
            f"model {name!r} needs images [channels, height, width] with sides of at least {least}, "
            f"but the inputs have shape {list(shape)}"
        )
    return shape[0], shape[1], shape[2]
