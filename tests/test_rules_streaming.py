"""Aggregating files: for every rule the answer memory gives, in a fraction of the memory, whatever the files hold."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch

from holdfast.aggregation import FoolsGold, Krum, Mean, Median, TrimmedMean
from holdfast.aggregation.models import aggregate_models
from holdfast.aggregation.streaming import aggregate_files
from holdfast.types import ConfigError, DataError, ThreatModelError
from tests.rules_under_test import ident, rules


def model(seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "conv.weight": rng.normal(size=(8, 3, 5)).astype(np.float32),
        "bn.running_var": rng.random(8).astype(np.float32),
        "bn.num_batches_tracked": np.array(seed),
        "half": rng.normal(size=11).astype(np.float16),
        "mask": rng.random(4) > 0.5,
        "empty": np.zeros((0, 3), np.float32),
    }


def written(folder: Path, models: list[dict[str, Any]]) -> list[Path]:
    """The three ways clients may store them, in turn."""
    paths = []
    for i, content in enumerate(models):
        name = folder / f"client-{i}.{('safetensors', 'npz', 'npz')[i % 3]}"
        if i % 3 == 0:
            save_file(content, name)
        else:
            (np.savez, np.savez_compressed)[i % 3 - 1](name, **content)
        paths.append(name)
    return paths


@pytest.mark.parametrize("rule", rules(1), ids=ident)
def test_files_give_what_memory_gives(rule: Any, tmp_path: Path) -> None:
    models = [model(seed) for seed in range(13)]
    models[4]["conv.weight"][0] = np.nan
    paths = written(tmp_path, models)
    result = aggregate_files(rule, paths, tmp_path / "out.safetensors")
    # safetensors sorts entries; memory gets the same order so that vectors are laid out alike.
    order = list(load_file(paths[0]))
    expected = aggregate_models(rule, [{name: m[name] for name in order} for m in models])
    found = load_file(tmp_path / "out.safetensors")
    assert found.keys() == expected.value.keys()
    for name, value in expected.value.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_allclose(found[name], value, rtol=1e-3 if name == "half" else 1e-5, atol=1e-6, err_msg=name)
    if expected.client_weights is not None:
        np.testing.assert_allclose(result.client_weights, expected.client_weights, atol=1e-5)
    np.testing.assert_array_equal(result.replaced, expected.replaced)
    assert result.state is None or type(rule).__name__ in ("Bucketing", "Romoa")


def test_damaged_and_foreign_files_cost_their_client_only(tmp_path: Path) -> None:
    paths = written(tmp_path, [model(seed) for seed in range(13)])
    paths[0].write_bytes(paths[0].read_bytes()[:-40])
    paths[1].write_bytes(b"not a zip")
    corrupt = bytearray(paths[2].read_bytes())
    corrupt[200:260] = bytes(60)
    paths[2].write_bytes(corrupt)
    np.savez(paths[4], **{**model(4), "conv.weight": np.zeros(3, np.float32)})
    np.savez(paths[5], **{**model(5), "mask": np.array([{}], dtype=object)})
    paths[6].write_bytes((2**62).to_bytes(8, "little") + b"{}")
    paths[7].write_bytes(b"")
    header = json.dumps({"conv.weight": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    paths[9].write_bytes(len(header).to_bytes(8, "little") + header)
    result = aggregate_files(Median(), paths, tmp_path / "out.safetensors")
    assert set(result.diagnostics["replaced"]) == {0, 1, 2, 4, 5, 6, 7, 9}
    assert "'conv.weight' has shape (3,)" in result.diagnostics["replaced"][4]
    good = [model(seed) for seed in (3, 8, 10, 11, 12)]
    expected = np.median([m["conv.weight"] for m in good], axis=0)
    np.testing.assert_allclose(load_file(tmp_path / "out.safetensors")["conv.weight"], expected, rtol=1e-6)


def test_bfloat16_files_are_read(tmp_path: Path) -> None:
    values = [torch.randn(50).bfloat16() for _ in range(5)]
    for i, value in enumerate(values):
        save_torch({"w": value}, tmp_path / f"{i}.safetensors")
    aggregate_files(Median(), [tmp_path / f"{i}.safetensors" for i in range(5)], tmp_path / "out.safetensors")
    expected = torch.stack(values).float().numpy()
    np.testing.assert_array_equal(load_file(tmp_path / "out.safetensors")["w"], np.median(expected, axis=0))


def test_the_reference_is_read_and_earlier_results_are_kept(tmp_path: Path) -> None:
    paths = written(tmp_path, [{"w": np.full(3, np.nan, np.float32)} for _ in range(5)])
    save_file({"w": np.arange(3, dtype=np.float32)}, tmp_path / "last.safetensors")
    out = tmp_path / "out.safetensors"
    aggregate_files(Krum(f=1), paths, out, reference=tmp_path / "last.safetensors")
    np.testing.assert_array_equal(load_file(out)["w"], [0, 1, 2])
    with pytest.raises(ConfigError, match="already there"):
        aggregate_files(Median(), paths, out)
    with pytest.raises(ConfigError, match=r"must end in \.safetensors"):
        aggregate_files(Median(), paths, tmp_path / "out.npz")
    with pytest.raises(ThreatModelError, match="needs n >= 7"):
        aggregate_files(Krum(f=2), paths, tmp_path / "new.safetensors")
    with pytest.raises(DataError, match="there is no file"):
        aggregate_files(Median(), [*paths, tmp_path / "gone.npz"], tmp_path / "new.safetensors")
    assert sorted(path.name for path in tmp_path.glob("*.safetensors")) == [
        "client-0.safetensors",
        "client-3.safetensors",
        "last.safetensors",
        "out.safetensors",
    ]
    assert not list(tmp_path.glob(".*"))


def test_weights_are_capped_as_in_memory(tmp_path: Path) -> None:
    paths = written(tmp_path, [{"w": np.full(3, i, np.float32)} for i in range(4)])
    result = aggregate_files(Mean(cap=2), paths, tmp_path / "out.safetensors", weights=[1, 1, 1, 1e15])
    assert result.client_weights.tolist() == pytest.approx([1 / 6, 1 / 6, 1 / 6, 0.5])


@pytest.mark.parametrize("rule", [Median(), TrimmedMean(f=2), Krum(f=2), FoolsGold()], ids=repr)
def test_memory_does_not_grow_with_the_models(rule: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    n, d = 8, 2_000_000
    monkeypatch.setattr("holdfast.aggregation.streaming._READ_BYTES", 4 << 20)
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{i}.safetensors" for i in range(n)]
    for path in paths:
        save_file({"w": rng.standard_normal(d, dtype=np.float32)}, path)
    tracemalloc.start()
    aggregate_files(rule, paths, tmp_path / "out.safetensors")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.3 * n * d * 4, f"{peak / 2**20:.0f} MiB for {n * d * 4 / 2**20:.0f} MiB of updates"
