"""Models by name and the user's own: sizes, reproducible weights, and clear sentences for what cannot work."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from holdfast.training import MODELS, model_factory
from holdfast.training.parameters import flatten, initial_parameters, layout, unflatten
from holdfast.types import ConfigError

SIZES = {
    "cnn": ((1, 28, 28), 10, 440_812),
    "lenet": ((1, 28, 28), 10, 61_706),
    "har": ((561,), 6, 211_206),
    "mlp": ((1, 8, 8), 10, 64 * 64 + 64 + 64 * 10 + 10),
    "logistic": ((64,), 10, 650),
    "small-cnn": ((1, 28, 28), 10, 104 + 808 + 16 * (8 * 4 * 4) + 16 + 170),
    "loan": ((91,), 9, 91 * 46 + 46 + 46 * 23 + 23 + 23 * 9 + 9),
    "fasttext": ((32,), 2, 25_000 * 100 + 202),
    "romoa-cnn": ((1, 28, 28), 10, 20_522),
    "romoa-mnist": ((1, 28, 28), 10, 1664 + 102_464 + 3_276_928 + 1290),
    "romoa-cifar10": (
        (3, 32, 32),
        10,
        1792 + 36_928 + 73_856 + 2 * 147_584 + 295_168 + 2 * 590_080 + 4_195_328 + 10_250,
    ),
    "resnet18": ((3, 32, 32), 10, 11_173_962),
    "resnet18-bn": ((3, 32, 32), 10, 11_173_962),
}


def test_every_model_has_a_known_size():
    assert SIZES.keys() == MODELS.keys()


@pytest.mark.parametrize("name", MODELS)
def test_sizes_as_published(name):
    shape, n_labels, expected = SIZES[name]
    module = model_factory(name, shape, n_labels)()
    assert sum(p.numel() for p in module.parameters()) == expected
    assert module(torch.zeros(3, *shape)).shape == (3, n_labels)


def test_cnn_is_table_2():
    kinds = [type(layer).__name__ for layer in model_factory("cnn", (1, 28, 28), 10)()]
    block = ["Conv2d", "ReLU", "MaxPool2d"]
    assert kinds == [*block, *block, "Flatten", "Linear", "ReLU", "Linear"]


def test_small_cnn_is_table_5():
    layers = model_factory("small-cnn", (1, 28, 28), 10)()
    x, sizes = torch.zeros(1, 1, 28, 28), []
    for layer in layers:
        x = layer(x)
        sizes.append(tuple(x.shape[1:]))
    assert [s for layer, s in zip(layers, sizes, strict=True) if not isinstance(layer, nn.ReLU)] == [
        *[(4, 24, 24), (4, 12, 12), (8, 8, 8), (8, 4, 4), (128,), (16,), (10,)]
    ]


def test_fasttext_ignores_padding_and_order():
    module = model_factory("fasttext", (6,), 2)()
    short, long = torch.tensor([[5.0, 9.0, 7.0]]), torch.tensor([[7.0, 5.0, 9.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(module(short), module(long))
    words = module.words.weight[[5, 7, 9]].mean(dim=0)
    torch.testing.assert_close(module(short)[0], module.output(words))
    module(long).sum().backward()
    assert module.words.weight.grad[0].abs().sum() == 0


def test_cnn_needs_images():
    with pytest.raises(ConfigError, match=r"'cnn' needs images .* shape \[561\]"):
        model_factory("cnn", (561,), 6)
    with pytest.raises(ConfigError, match="sides of at least 16"):
        model_factory("cnn", (1, 8, 8), 10)
    assert model_factory("cnn", (3, 16, 17), 10)


@pytest.mark.parametrize("name", MODELS)
def test_initial_weights_depend_on_identity_only(name):
    shape, n_labels, _ = SIZES[name]
    factory = model_factory(name, shape, n_labels)
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    together = initial_parameters(factory, seed=5, model_ids=[0, 7, 3])
    assert torch.equal(torch.rand(2), expected), "the global generator moved"
    np.testing.assert_array_equal(initial_parameters(factory, seed=5, model_ids=[3])[0], together[2])
    assert not np.array_equal(together[0], together[1])
    assert not np.array_equal(initial_parameters(factory, seed=6, model_ids=[3])[0], together[2])


def test_flat_layout_is_torchs_order():
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(3, 2))
    vector = flatten(module)
    parameters = torch.cat([p.detach().reshape(-1) for p in module.parameters()]).numpy()
    np.testing.assert_array_equal(vector[: len(parameters)], parameters)
    assert list(layout(module))[-2:] == ["1.running_mean", "1.running_var"]
    assert [part.stop for part in layout(module).values()][-1] == len(vector)
    other = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(3, 2))
    np.testing.assert_array_equal(flatten(unflatten(vector, other)), vector)
    with pytest.raises(ConfigError, match="learned values, but the vector has shape"):
        unflatten(vector[1:], other)


OWN = """
import torch
from torch import nn

class Own(nn.Module):
    def __init__(self, input_shape, n_labels):
        super().__init__()
        self.head = nn.Linear(input_shape[0], n_labels)
    def forward(self, x):
        return self.head(x)

def bare():
    return nn.Linear(4, 3)

def optional(pretrained=False, *, n_labels=3, **more):
    return nn.Linear(4, n_labels)

def other_names(shape, classes):
    return nn.Linear(shape[0], classes)

def no_module():
    return {"weights": 1}

def wrong_labels():
    return nn.Linear(4, 5)

def flat_scores():
    return nn.Sequential(nn.Linear(4, 1), nn.Flatten(0))

def two_outputs():
    return nn.RNN(4, 3)

def three(a, b, c):
    return nn.Linear(4, 3)

def wrong_input():
    return nn.Linear(7, 3)

def fails():
    raise RuntimeError("no weights here\\nand more lines")

CONSTANT = 3
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_models.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "own_models", raising=False)


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize("name", ["Own", "bare", "optional", "other_names"])
def test_own_factory_from_the_current_directory(name):
    import sys

    before = list(sys.path)
    factory = model_factory(f"own_models:{name}", (4,), 3)
    assert factory()(torch.zeros(2, 4)).shape == (2, 3)
    assert sys.path == before


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("own_models:no_module", "must return a torch.nn.Module, but returned dict"),
        ("own_models:wrong_labels", r"must return floating-point scores \[2, 3\] .* of shape \[2, 5\]"),
        ("own_models:flat_scores", r"of shape \[2\]"),
        ("own_models:two_outputs", r"must return scores \[batch, 3\], but returned tuple"),
        ("own_models:three", r"\(input_shape, n_labels\), but requires a, b, c"),
        ("own_models:wrong_input", r"fails on a batch of shape \[2, 4\]: RuntimeError"),
        ("own_models:fails", "failed when called: RuntimeError: no weights here$"),
        ("own_models:absent", "has no 'absent'"),
        ("own_models:CONSTANT", "must name a callable, but 'CONSTANT' is int"),
        ("own_modles:bare", "cannot import 'own_modles'"),
        ("resnet", "model must be one of cnn, har, mlp, logistic, .*, or package.module:factory, but is 'resnet'"),
        ("own_models:", "package.module:factory"),
    ],
)
def test_own_factory_errors_are_one_sentence(name, sentence):
    with pytest.raises(ConfigError, match=sentence) as caught:
        model_factory(name, (4,), 3)
    assert "\n" not in str(caught.value)
