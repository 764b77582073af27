"""Models as they are: state_dicts and lists, buffers, BatchNorm, and clients that send something else."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from holdfast.aggregation import FoolsGold, Krum, Mean, Median, NormClipping, TrimmedMean
from holdfast.aggregation.models import aggregate_models, flatten, unflatten
from holdfast.types import DataError, ThreatModelError
from tests.rules_under_test import ident, rules


def network(seed: int, steps: int = 0) -> dict[str, torch.Tensor]:
    """A small convolutional network with BatchNorm, as a client would send it."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3), torch.nn.BatchNorm2d(3), torch.nn.Linear(4, 2))
        for _ in range(steps):
            net[1](torch.randn(4, 3, 5, 5))
    return net.state_dict()


@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(0, 3), max_size=3).map(tuple),
            st.sampled_from(("f2", "f4", "f8", "i4", "i8", "u1", "?")),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_flatten_and_unflatten_are_inverse(forms: list[tuple[tuple[int, ...], str]]) -> None:
    model = [np.arange(np.prod(shape)).reshape(shape).astype(dtype) for shape, dtype in [*forms, ((1,), "f4")]]
    named = {f"layer.{i}": array for i, array in enumerate(model)}
    for given_model, pairs in ((model, enumerate(model)), (named, named.items())):
        back = unflatten(*flatten(given_model))
        for key, array in pairs:
            assert back[key].dtype == array.dtype
            np.testing.assert_array_equal(back[key], array)


def test_a_state_dict_goes_back_into_its_module() -> None:
    models = [network(seed, steps=seed) for seed in range(7)]
    result = aggregate_models(TrimmedMean(f=2), models)
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3), torch.nn.BatchNorm2d(3), torch.nn.Linear(4, 2))
    net.load_state_dict(result.value)
    assert result.value["1.num_batches_tracked"].dtype == torch.int64
    assert result.value["1.num_batches_tracked"].item() == 3  # of 0..6
    stacked = torch.stack([model["2.weight"] for model in models]).sort(dim=0).values[2:5].mean(dim=0)
    torch.testing.assert_close(result.value["2.weight"], stacked)


@pytest.mark.parametrize("rule", rules(1), ids=ident)
def test_malformed_replies_are_replaced_not_raised(rule: Any) -> None:
    models: list[Any] = [network(seed) for seed in range(13)]
    models[0] = None
    models[1] = {**models[1], "extra": torch.zeros(2)}
    result = aggregate_models(rule, models)
    assert set(result.diagnostics["replaced"]) == {0, 1}
    assert result.diagnostics["replaced"][1] == "has an unexpected 'extra'"
    assert result.replaced.tolist()[:3] == [True, True, False]
    assert all(torch.isfinite(value).all() for value in result.value.values())


def test_each_way_to_be_malformed_is_named() -> None:
    good = {"w": np.ones((2, 2), np.float32), "n": np.array(1), "b": np.zeros(1)}
    replies: list[Any] = [good] * 6 + [
        {"w": np.ones((2, 2), np.float32), "b": np.zeros(1)},
        {**good, "w": np.ones(4, np.float32)},
        {**good, "w": np.ones((2, 2), np.int32)},
        [np.ones((2, 2))],
        "hello",
        {**good, "w": np.array("text")},
        {},
    ]
    reasons = aggregate_models(Median(), replies).diagnostics["replaced"]
    assert {i: reasons[i] for i in (6, 7, 8, 9)} == {
        6: "lacks 'n'",
        7: "'w' has shape (4,) where (2, 2) is expected",
        8: "'w' holds int32 where float32 is expected",
        9: "is a list of arrays where a mapping is expected",
    }
    assert sorted(reasons) == list(range(6, 13))


def test_the_order_of_names_does_not_matter() -> None:
    """safetensors and some frameworks reorder entries; a vector must not be scrambled by it."""
    model = {"a": np.array([1.0, 2.0]), "b": np.array([3.0]), "n": np.array(2)}
    turned = {name: model[name] for name in ("n", "b", "a")}
    result = aggregate_models(Mean(), [model, turned, turned])
    assert not result.diagnostics["replaced"]
    np.testing.assert_array_equal(result.value["a"], [1.0, 2.0])


def test_majority_shape_wins_unless_a_reference_says_otherwise() -> None:
    small, large = {"w": np.zeros(2)}, {"w": np.zeros(3)}
    assert aggregate_models(Median(), [small, large, large]).value["w"].shape == (3,)
    assert aggregate_models(Median(), [small, large, large], reference=small).value["w"].shape == (2,)


def test_integers_are_a_lower_median_and_booleans_a_majority() -> None:
    def reply(count: int, mask: list[bool]) -> dict[str, Any]:
        return {"w": np.zeros(1), "count": np.array([count], np.int32), "mask": np.array(mask)}

    replies = [reply(1, [True, True]), reply(2, [True, False]), reply(10**6, [False, True]), reply(-5, [False, False])]
    value = aggregate_models(Median(), replies).value
    assert value["count"].dtype == np.int32
    assert value["count"].tolist() == [1]
    assert value["mask"].tolist() == [False, False]
    reference = reply(7, [True, False])
    assert aggregate_models(Median(), replies, reference=reference).value["mask"].tolist() == [True, False]


def test_no_variance_turns_negative() -> None:
    models = [{"bn.running_var": np.array([0.5 + i, 1.0], np.float32)} for i in range(3)]
    models += [{"bn.running_var": np.array([-9.0, -9.0], np.float32)}] * 4
    value = aggregate_models(Mean(), models).value["bn.running_var"]
    np.testing.assert_array_equal(value, [0.5, 1.0])


def test_all_replies_malformed_gives_the_reference() -> None:
    reference = {"w": np.array([1.0, 2.0]), "n": np.array(4)}
    result = aggregate_models(Median(), [None, "x", {}], reference=reference)
    np.testing.assert_array_equal(result.value["w"], reference["w"])
    assert result.value["n"] == 4
    assert result.replaced.all()
    with pytest.raises(DataError, match="at least one"):
        aggregate_models(Median(), [None, None])


def test_half_precision_models_stay_so() -> None:
    models = [{"w": torch.full((3,), float(i)).bfloat16()} for i in range(3)]
    assert aggregate_models(Median(), models).value["w"].dtype == torch.bfloat16


def test_lists_of_arrays_with_zero_dimensional_entries() -> None:
    replies = [[np.array(float(i)), np.full((2,), i, np.float32), np.array(i)] for i in range(5)]
    scalar, vector, count = aggregate_models(Krum(f=1), replies).value
    assert scalar.shape == ()
    assert scalar == vector[0] == 2.0
    assert count == 2


def test_reference_ids_and_state_reach_the_rule() -> None:
    reference = {"w": np.array([10.0, 10.0])}
    models = [{"w": np.array([10.0 + i, 10.0])} for i in range(5)]
    clipped = aggregate_models(NormClipping(Mean(), bound=1.0), models, reference=reference)
    np.testing.assert_allclose(clipped.value["w"], [10.8, 10.0])
    first = aggregate_models(FoolsGold(), models, clients="abcde", reference=reference)
    second = aggregate_models(FoolsGold(), models[:4], clients="bcdf", state=first.state, reference=reference)
    assert set(second.state) == set("abcdef")
    np.testing.assert_allclose(second.state["b"], [1.0 + 0.0, 0.0])
    with pytest.raises(ThreatModelError):
        aggregate_models(Krum(f=2), models)
