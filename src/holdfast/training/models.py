"""The models by name, and the user's own by import path.

A model enters the library as a *factory*: a picklable callable without arguments that returns a fresh
`torch.nn.Module`. `model_factory("cnn", (1, 28, 28), 10)` makes one and checks it with one forward pass.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import nn

from holdfast.training.networks import FastText, ResNet18, batch_normalized_resnet18
from holdfast.training.parameters import private_rng
from holdfast.training.romoa_networks import romoa_cifar10, romoa_cnn, romoa_mnist
from holdfast.types import ConfigError

Shape = tuple[int, ...]
Factory = Callable[[], nn.Module]


@dataclass(frozen=True)
class Model:
    """One entry of `MODELS`: a name, what it is, and how it is built from (input shape, number of labels)."""

    name: str
    summary: str
    build: Callable[[Shape, int], nn.Module]


def _cnn(input_shape: Shape, n_labels: int) -> nn.Module:
    if len(input_shape) != 3 or min(input_shape[1:]) < 16:
        raise ConfigError(
            f"model 'cnn' needs images [channels, height, width] with sides of at least 16, "
            f"but the inputs have shape {list(input_shape)}"
        )
    channels, height, width = input_shape
    side = [((size - 4) // 2 - 4) // 2 for size in (height, width)]
    return nn.Sequential(
        nn.Conv2d(channels, 20, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(50 * side[0] * side[1], 512),
        nn.ReLU(),
        nn.Linear(512, n_labels),
    )


def _small_cnn(input_shape: Shape, n_labels: int) -> nn.Module:
    if len(input_shape) != 3 or min(input_shape[1:]) < 16:
        raise ConfigError(
            f"model 'small-cnn' needs images [channels, height, width] with sides of at least 16, "
            f"but the inputs have shape {list(input_shape)}"
        )
    channels, height, width = input_shape
    side = [((size - 4) // 2 - 4) // 2 for size in (height, width)]
    return nn.Sequential(
        nn.Conv2d(channels, 4, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 8, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(8 * side[0] * side[1], 16),
        nn.ReLU(),
        nn.Linear(16, n_labels),
    )


def _lenet(input_shape: Shape, n_labels: int) -> nn.Module:
    if len(input_shape) != 3 or min(input_shape[1:]) < 12:
        raise ConfigError(
            f"model 'lenet' needs images [channels, height, width] with sides of at least 12, "
            f"but the inputs have shape {list(input_shape)}"
        )
    channels, height, width = input_shape
    side = [(size // 2 - 4) // 2 for size in (height, width)]
    return nn.Sequential(
        nn.Conv2d(channels, 6, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * side[0] * side[1], 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, n_labels),
    )


def _dense(*hidden: int) -> Callable[[Shape, int], nn.Module]:
    def build(input_shape: Shape, n_labels: int) -> nn.Module:
        layers: list[nn.Module] = [nn.Flatten()]
        width = int(np.prod(input_shape))
        for size in hidden:
            layers += [nn.Linear(width, size), nn.ReLU()]
            width = size
        return nn.Sequential(*layers, nn.Linear(width, n_labels))

    return build


MODELS: Mapping[str, Model] = MappingProxyType(
    {
        model.name: model
        for model in (
            Model("cnn", "the CNN of Cao et al. (2021), Table 2: two 5x5 convolutions (20, 50) and 512 units", _cnn),
            Model("har", "the activity-recognition network of Cao et al. (2021): two layers of 256", _dense(256, 256)),
            Model("mlp", "a small network: one layer of 64", _dense(64)),
            Model("logistic", "multinomial logistic regression", _dense()),
            Model("lenet", "LeNet-5 with ReLU and max-pooling: two 5x5 convolutions (6, 16), 120 and 84 units", _lenet),
            Model(
                "small-cnn", "the CNN of Fu et al. (2019), Table 5: two 5x5 convolutions (4, 8), 16 units", _small_cnn
            ),
            Model("loan", "the loan network of Fu et al. (2019): 46 and 23 units", _dense(46, 23)),
            Model(
                "fasttext", "FastText: the mean of 25,000 word vectors of length 100, and one linear layer", FastText
            ),
            Model("romoa-cnn", "two 5x5 convolutions of stride 2 (8, 16) and 64 units", romoa_cnn),
            Model("romoa-mnist", "the MNIST network of the Romoa paper, Figure 9", romoa_mnist),
            Model("romoa-cifar10", "the CIFAR-10 network of the Romoa paper, Figure 10", romoa_cifar10),
            Model("resnet18", "ResNet-18 for small images, with group normalization", ResNet18),
            Model("resnet18-bn", "ResNet-18 for small images, with batch normalization", batch_normalized_resnet18),
        )
    }
)


@dataclass(frozen=True)
class ModelFactory:
    """Builds one named model, again and again; small enough to send to another process.

    Attributes:
        name: a key of `MODELS`, or `package.module:factory` for the user's own.
        input_shape: the shape of one input, without the batch axis.
        n_labels: how many labels the model tells apart.
    """

    name: str
    input_shape: Shape
    n_labels: int

    def __call__(self) -> nn.Module:
        """A fresh module with random weights from torch's generator."""
        if self.name in MODELS:
            return MODELS[self.name].build(self.input_shape, self.n_labels)
        return _build_own(self.name, self.input_shape, self.n_labels)


def model_factory(name: str, input_shape: Iterable[int], n_labels: int) -> ModelFactory:
    """The factory of a model by name, checked with one forward pass of two inputs.

    The user's own model is `package.module:factory`, looked up on the import path and in the current
    directory. The factory is called with `input_shape` and `n_labels` where it takes them (by name, or as its
    two required arguments), else without arguments.

    Args:
        name: a key of `MODELS` or `package.module:factory`.
        input_shape: the shape of one input, without the batch axis.
        n_labels: the number of labels L; the module must return scores `[batch, L]`.

    Raises:
        ConfigError: unknown name, a factory that cannot be imported or called, a result that is no
            `torch.nn.Module`, or scores of another shape; the sentence names what came back.

    Example:
        >>> factory = model_factory("har", (561,), 6)
        >>> sum(p.numel() for p in factory().parameters())
        211206
        >>> model_factory("collections:OrderedDict", (4,), 2)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        holdfast.types.ConfigError: model 'collections:OrderedDict' must return a torch.nn.Module, but ...
    """
    factory = ModelFactory(name, tuple(int(size) for size in input_shape), int(n_labels))
    with private_rng(0):
        check_scores(factory(), factory.input_shape, factory.n_labels, name)
    return factory


def check_scores(module: nn.Module, input_shape: Shape, n_labels: int, name: str) -> None:
    """Run two inputs of zeros through a module; it must return floating-point scores `[2, n_labels]`.

    Raises:
        ConfigError: it fails on such inputs or returns something else.
    """
    try:
        with torch.no_grad():
            scores: Any = module.eval()(torch.zeros(2, *input_shape))
    except Exception as error:
        raise ConfigError(
            f"model {name!r} fails on a batch of shape {[2, *input_shape]}: {_first_line(error)}"
        ) from error
    if not isinstance(scores, torch.Tensor):
        raise ConfigError(
            f"model {name!r} must return scores [batch, {n_labels}], but returned {type(scores).__name__}"
        )
    if tuple(scores.shape) != (2, n_labels) or not scores.is_floating_point():
        raise ConfigError(
            f"model {name!r} must return floating-point scores [2, {n_labels}] for a batch of 2, "
            f"but returned {scores.dtype} of shape {list(scores.shape)}"
        )


def _build_own(name: str, input_shape: Shape, n_labels: int) -> nn.Module:
    factory = _import_factory(name)
    try:
        module = _call_factory(factory, name, input_shape, n_labels)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"model {name!r} failed when called: {_first_line(error)}") from error
    if not isinstance(module, nn.Module):
        raise ConfigError(f"model {name!r} must return a torch.nn.Module, but returned {type(module).__name__}")
    return module


def _import_factory(name: str) -> Callable[..., Any]:
    module_name, colon, attribute = name.partition(":")
    if not (colon and module_name and attribute):
        raise ConfigError(f"model must be one of {', '.join(MODELS)}, or package.module:factory, but is {name!r}")
    try:
        with _current_directory_importable():
            found: Any = importlib.import_module(module_name)
    except Exception as error:
        raise ConfigError(
            f"model {name!r}: cannot import {module_name!r} ({_first_line(error)}); "
            f"it must be installed or lie in {Path.cwd()}"
        ) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ConfigError(f"model {name!r}: {module_name!r} has no {attribute!r}")
        found = getattr(found, part)
    if not callable(found):
        raise ConfigError(f"model {name!r} must name a callable, but {attribute!r} is {type(found).__name__}")
    return found  # type: ignore[no-any-return]


def _call_factory(factory: Callable[..., Any], name: str, input_shape: Shape, n_labels: int) -> Any:
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):  # some builtins have no signature
        return factory()
    offered = {"input_shape": input_shape, "n_labels": n_labels}
    by_name = {key: value for key, value in offered.items() if key in parameters}
    required = [
        key
        for key, parameter in parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]
    if set(required) <= set(by_name):
        return factory(**by_name)
    if len(required) == 2 and all(parameters[key].kind is not inspect.Parameter.KEYWORD_ONLY for key in required):
        return factory(input_shape, n_labels)
    raise ConfigError(
        f"model {name!r} must take no required arguments, or (input_shape, n_labels), "
        f"but requires {', '.join(required)}"
    )


@contextmanager
def _current_directory_importable() -> Iterator[None]:
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
