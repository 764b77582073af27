"""The same answer for every container; the same kind, dtype and device back; the input as it was."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from holdfast.aggregation import Median, TrimmedMean, kernels
from holdfast.aggregation.plans import Given, gather
from holdfast.aggregation.screening import screen
from holdfast.aggregation.stacking import MemoryRows
from tests.rules_under_test import any_rule, ident, involves, rules

ROWS = np.random.default_rng(0).normal(size=(13, 37)).astype(np.float32)


@pytest.mark.parametrize("rule", rules(1), ids=ident)
def test_list_array_and_tensor_agree(rule: Any) -> None:
    expected = rule(ROWS)
    assert isinstance(expected, np.ndarray)
    assert expected.dtype == np.float32
    np.testing.assert_allclose(rule(list(ROWS)), expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(rule(ROWS.T.copy().T), expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(rule(ROWS.astype(">f4")), expected, rtol=1e-6, atol=1e-6)
    for tensors in (torch.from_numpy(ROWS), [torch.from_numpy(row) for row in ROWS]):
        value = rule(tensors)
        assert isinstance(value, torch.Tensor)
        assert value.dtype == torch.float32
        np.testing.assert_allclose(value.numpy(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("rule", rules(1), ids=ident)
def test_tensors_off_the_host_take_the_same_path_in_torch(rule: Any) -> None:
    """What a device runs, on this machine's memory: blocks stay tensors from the first read to the result."""
    tensor = torch.from_numpy(ROWS.copy())
    tensor[2, 5] = torch.nan
    rows = MemoryRows(tensor, *tensor.shape, np.dtype(np.float32))
    given = Given(clients=tuple(range(13)))
    screened = screen(rows)
    assert list(screened.reasons) == [2]
    value = gather(rule.plan(screened, given), screened)
    assert isinstance(value, torch.Tensor)
    np.testing.assert_allclose(value.numpy(), rule(tensor.numpy()), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("rule", rules(1), ids=ident)
def test_only_small_matrices_leave_a_device(rule: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the path a device takes, nothing as long as a row is brought to the host, and nothing becomes an array there.

    What `cpu()` gives may become an array; any other tensor could not on a real device.
    """
    n, d = 13, 5000
    tensor = torch.from_numpy(np.random.default_rng(1).normal(size=(n, d)).astype(np.float32))
    tensor[2, 5] = torch.nan
    rows = MemoryRows(tensor, n, d, np.dtype(np.float32))
    moved: list[torch.Tensor] = []
    to_host, to_array = torch.Tensor.cpu, torch.Tensor.numpy

    def cpu(self: torch.Tensor) -> torch.Tensor:
        moved.append(to_host(self).clone())
        return moved[-1]

    def numpy(self: torch.Tensor) -> np.ndarray:
        assert any(self is host for host in moved), "a tensor on a device has no array"
        return to_array(self)

    monkeypatch.setattr(torch.Tensor, "cpu", cpu)
    monkeypatch.setattr(torch.Tensor, "numpy", numpy)
    for module in ("tensors", "residuals"):
        monkeypatch.setattr(f"holdfast.aggregation.kernels.{module}._on_host", lambda _: False)
    screened = screen(rows)
    assert screened.bad.tolist() == [i == 2 for i in range(n)]
    value = gather(rule.plan(screened, Given(clients=tuple(range(n)))), screened)
    assert isinstance(value, torch.Tensor)
    if not involves(rule, ("Romoa",)):  # it compares a sample of parameters, gathered on the host
        assert max((host.numel() for host in moved), default=0) <= n * n


@pytest.mark.parametrize("name", ["median", "trimmed_mean", "mean_around_median", "column_sort"])
def test_coordinate_wise_kernels_need_no_values_on_the_host(name: str) -> None:
    """Tensors on the meta device have a shape and no values: whatever brought one to the host would fail."""
    tensor = torch.empty(2, 9, 40, dtype=torch.float16, device="meta")
    result = getattr(kernels, name)(*((tensor,) if name in ("median", "column_sort") else (tensor, 2)))
    assert result.device.type == "meta"
    assert result.dtype == torch.float16
    assert result.shape == ((2, 9, 40) if name == "column_sort" else (2, 40))


@given(any_rule(1), st.integers(0, 2), st.sampled_from((np.float16, np.float32, np.float64)), st.integers(0, 99))
def test_batch_equals_a_loop(rule: Any, axes: int, dtype: type, seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = (3, 2)[:axes]
    rows = rng.normal(size=(*shape, 12, 5)).astype(dtype)
    rows[..., 1, 3] = np.nan
    weights = rng.integers(1, 9, size=(*shape, 12))
    result = rule.aggregate(rows, weights=weights)
    assert result.value.shape == (*shape, 5)
    assert result.replaced.shape == (*shape, 12)
    for index in np.ndindex(*shape):
        one = rule.aggregate(rows[index], weights=weights[index])
        np.testing.assert_array_equal(result.value[index], one.value)
        np.testing.assert_array_equal(result.replaced[index], one.replaced)
        if one.client_weights is not None:
            np.testing.assert_array_equal(result.client_weights[index], one.client_weights)
    tensor = rule.aggregate(torch.from_numpy(rows), weights=torch.from_numpy(weights))
    assert tensor.value.dtype == torch.from_numpy(rows).dtype
    assert tensor.replaced.dtype == torch.bool
    np.testing.assert_array_equal(tensor.value.numpy(), result.value)


@pytest.mark.parametrize("rule", rules(1), ids=ident)
def test_half_precision_is_computed_in_single(rule: Any) -> None:
    half = ROWS.astype(np.float16)
    value = rule(half)
    assert value.dtype == np.float16
    np.testing.assert_allclose(value, rule(half.astype(np.float32)).astype(np.float16), rtol=1e-3, atol=1e-6)
    brain = torch.from_numpy(ROWS).bfloat16()
    value = rule(brain)
    assert value.dtype == torch.bfloat16
    np.testing.assert_allclose(value.float().numpy(), rule(brain.float()).bfloat16().float().numpy(), rtol=1e-2)


@pytest.mark.parametrize("rule", rules(1), ids=ident)
def test_the_input_is_left_alone(rule: Any) -> None:
    array = ROWS.copy()
    array[3] = np.inf
    array.flags.writeable = False  # a write would raise
    rule.aggregate(array)
    rule.aggregate(list(array))
    tensor = torch.from_numpy(ROWS.copy()).requires_grad_()
    before = tensor.detach().clone()
    assert not rule(tensor).requires_grad
    assert torch.equal(tensor.detach(), before)


def test_plain_numbers_and_integers_are_computed_in_double() -> None:
    assert Median()([[1, 2], [3, 4], [5, 9]]).tolist() == [3.0, 4.0]
    assert Median()(np.array([[1, 2], [4, 4]], dtype=np.int8)).tolist() == [2.5, 3.0]
    assert TrimmedMean(f=np.int64(1))([(1, 2), (3, 4), (5, 9)]).tolist() == [3.0, 4.0]


def test_mixed_precision_lists_give_the_wider() -> None:
    rows = [np.zeros(3, dtype=np.float16), np.ones(3, dtype=np.float64), np.ones(3, dtype=np.float32)]
    assert Median()(rows).dtype == np.float64
    tensors = [torch.zeros(3).bfloat16(), None, torch.ones(3), torch.ones(3)]
    assert Median()(tensors).dtype == torch.float32


@pytest.mark.parametrize("rule", rules(1), ids=ident)
def test_blocks_do_not_change_the_result(rule: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from holdfast.aggregation import distance, mixing, plans, similarity, stacking

    rows = np.random.default_rng(1).normal(size=(13, 1000)).astype(np.float32)
    rows[5, 700] = np.nan  # repaired rows are read in blocks
    expected = rule.aggregate(rows)
    for module in (stacking, plans, distance, mixing, similarity):
        monkeypatch.setattr(module, "block_columns", lambda _: 96)
    monkeypatch.setattr("holdfast.aggregation.screening.block_columns", lambda _: 96)
    blocked = rule.aggregate(rows)
    np.testing.assert_allclose(blocked.value, expected.value, rtol=1e-5, atol=1e-6)
    if expected.client_weights is not None:
        # Mixtures that are equal up to rounding may share a coordinate or not.
        np.testing.assert_allclose(blocked.client_weights, expected.client_weights, atol=1e-3)
