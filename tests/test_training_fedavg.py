"""FedAvg's hyper-parameters: the published ones, the fast ones, and what is refused."""

import pytest

from holdfast.training import PRESETS, FedAvg, preset
from holdfast.types import ConfigError


def test_paper_preset_is_table_1():
    assert preset("paper", "mnist") == FedAvg(rounds=3000, local_steps=5, lr=0.001, batch_size=32)
    assert preset("paper", "har") == FedAvg(rounds=5000, local_steps=5, lr=0.001, batch_size=32)


@pytest.mark.parametrize("data", ["mnist", "har"])
def test_fast_preset_walks_no_shorter_in_a_fiftieth_of_the_steps(data):
    paper, fast = preset("paper", data), preset("fast", data)
    assert fast.steps * 50 <= paper.steps
    assert fast.lr * fast.steps >= paper.lr * paper.steps


def test_unknown_preset():
    with pytest.raises(ConfigError, match="preset must be one of paper, fast, but is 'slow'"):
        preset("slow")
    assert all("other" in table for table in PRESETS.values())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rounds", 0),
        ("rounds", 2.5),
        ("rounds", True),
        ("local_steps", -1),
        ("batch_size", 0),
        ("lr", 0.0),
        ("lr", -0.1),
        ("lr", float("nan")),
        ("lr", float("inf")),
        ("lr", "fast"),
        ("weighting", "votes"),
        ("optimizer", "lion"),
    ],
)
def test_out_of_range_names_the_field(field, value):
    with pytest.raises(ConfigError, match=f"^{field} must be .* but is {value!r}"):
        FedAvg(**({"rounds": 1, "lr": 0.1} | {field: value}))
