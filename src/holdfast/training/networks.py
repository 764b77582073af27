"""The two networks that are more than a list of layers: FastText for texts, ResNet-18 for small colour images."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from holdfast.types import ConfigError

Shape = tuple[int, ...]

VOCABULARY = 25_000
EMBEDDING = 100
PADDING = 0
START = 0.1
"""Standard deviation of fresh word vectors. On reviews, SGD reaches 77% from here in 10 epochs, 65% from torch's 1."""


class FastText(nn.Module):
    """The mean of the word vectors of a text, and a linear layer on it (Joulin et al. 2016).

    Inputs are token ids `[batch, length]`, whole numbers in any dtype; id 0 pads and does not count. With 25,000
    words of length 100 it is the network of Fu et al. (2019) for reviews, with one score per label instead of one
    logit: the same function of the weights' differences.

    Args:
        input_shape: `(length,)`.
        n_labels: L.

    Example:
        >>> FastText((4,), 2)(torch.tensor([[3.0, 7.0, 0.0, 0.0]])).shape
        torch.Size([1, 2])
    """

    def __init__(self, input_shape: Shape, n_labels: int) -> None:
        super().__init__()
        if len(input_shape) != 1:
            raise ConfigError(f"model 'fasttext' needs texts as rows of token ids, but inputs have {list(input_shape)}")
        self.words = nn.Embedding(VOCABULARY, EMBEDDING)
        nn.init.normal_(self.words.weight, std=START)
        self.output = nn.Linear(EMBEDDING, n_labels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores `[batch, L]`."""
        ids = x.long()
        counts = (ids != PADDING).to(self.words.weight.dtype)
        total = torch.einsum("bl,ble->be", counts, self.words(ids))
        scores: torch.Tensor = self.output(total / counts.sum(dim=1, keepdim=True).clamp(min=1))
        return scores


Norm = Callable[[int], nn.Module]


def _group_norm(channels: int) -> nn.Module:
    return nn.GroupNorm(channels // 16, channels)


class _Block(nn.Module):
    """Two 3x3 convolutions around a shortcut (He et al. 2015)."""

    def __init__(self, inside: int, outside: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.path = nn.Sequential(
            nn.Conv2d(inside, outside, 3, stride, 1, bias=False),
            norm(outside),
            nn.ReLU(),
            nn.Conv2d(outside, outside, 3, 1, 1, bias=False),
            norm(outside),
        )
        same = stride == 1 and inside == outside
        self.shortcut = (
            nn.Identity() if same else nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), norm(outside))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.path(x) + self.shortcut(x))


class ResNet18(nn.Module):
    """ResNet-18 for images of 32x32 pixels or so: a 3x3 stem without pooling, then four stages of two blocks.

    Group normalization (groups of 16 channels) keeps no running statistics that clients could poison or that skewed
    clients could spoil; `batch_normalized_resnet18` is the original.

    Args:
        input_shape: `(channels, height, width)`.
        n_labels: L.
        norm: the normalization of so many channels.

    Example:
        >>> ResNet18((3, 32, 32), 10)(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    def __init__(self, input_shape: Shape, n_labels: int, norm: Norm = _group_norm) -> None:
        super().__init__()
        if len(input_shape) != 3 or min(input_shape[1:]) < 8:
            raise ConfigError(
                f"model 'resnet18' needs images [channels, height, width] with sides of at least 8, "
                f"but the inputs have shape {list(input_shape)}"
            )
        widths = (64, 64, 128, 256, 512)
        stages: list[nn.Module] = [nn.Conv2d(input_shape[0], 64, 3, 1, 1, bias=False), norm(64), nn.ReLU()]
        for stage in range(4):
            stages += [
                _Block(widths[stage], widths[stage + 1], 1 if stage == 0 else 2, norm),
                _Block(widths[stage + 1], widths[stage + 1], 1, norm),
            ]
        self.features = nn.Sequential(*stages)
        self.output = nn.Linear(512, n_labels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores `[batch, L]`."""
        scores: torch.Tensor = self.output(self.features(x).mean(dim=(2, 3)))
        return scores


def batch_normalized_resnet18(input_shape: Shape, n_labels: int) -> ResNet18:
    """`ResNet18` with batch normalization; running statistics are sent and aggregated like weights."""
    return ResNet18(input_shape, n_labels, nn.BatchNorm2d)
