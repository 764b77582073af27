"""CIFAR-10 end to end: ResNet-18 with batch normalization on random selections, votes, certificates, resume."""

import json

import numpy as np
import pytest
import torch

from holdfast.data import load
from holdfast.experiments.certify import certify_run
from holdfast.experiments.examples import ExamplesConfig
from holdfast.experiments.paper_selection import scale
from holdfast.training import model_factory
from holdfast.training.weights import read_weights
from tests.conftest import shared

TINY = {"models": 10, "steps": 2, "batch_size": 4, "baseline": False, "test_inputs": 3}
"""As few classifiers as can certify anything at alpha = 0.2 for three inputs."""


def write_batches(folder, rows=40):
    """The official binary files in small: a label byte, then 3,072 pixels whose brightness tells the label."""
    folder.mkdir()
    rng = np.random.default_rng(3)
    for name in (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"):
        y = rng.integers(0, 10, rows)
        pixels = np.clip(25 * y[:, None] + rng.integers(0, 25, (rows, 3072)), 0, 255)
        (folder / name).write_bytes(np.column_stack([y, pixels]).astype(np.uint8).tobytes())


def run(folder, out, resume=False, **options):
    config = ExamplesConfig(data="cifar10", data_dir=str(folder), **TINY | options)
    return certify_run(config, out, alpha=0.2, seed=None if resume else "for tests", threads=1, resume=resume)


def forget(out, model):
    """As after a kill before this model had voted."""
    (out / "votes.npz").unlink()
    manifest = json.loads((out / "run.json").read_text())
    del manifest["votes_sha256"]
    (out / "run.json").write_text(json.dumps(manifest))
    (out / "log" / f"model-{model:07d}.votes").unlink()


def check(result, out):
    manifest = json.loads((out / "run.json").read_text())
    assert manifest["engine"] == "torch"
    assert [c.kind for c in result.certificates] == ["deployed", "secret", "data"]
    assert result.votes.votes.shape == (10, 3)
    weights, _ = read_weights(out / "models" / "000003.safetensors")
    assert {"features.1.running_mean", "output.weight"} <= set(weights)
    assert all(tensor.isfinite().all() for tensor in weights.values())
    assert weights["features.1.running_mean"].abs().max() > 0  # the statistics of its own selection


def test_the_command_runs_on_the_official_files(tmp_path):
    write_batches(tmp_path / "data")
    result = run(tmp_path / "data", tmp_path / "run", size=20)
    check(result, tmp_path / "run")
    # A vote must not depend on other inputs: batch statistics at test time would let one change the vote for another.
    x = load("cifar10", data_dir=tmp_path / "data").x_test[:3]
    module = model_factory("resnet18-bn", (3, 32, 32), 10)()
    weights, _ = read_weights(tmp_path / "run" / "models" / "000003.safetensors")
    module.load_state_dict(weights)
    module.eval()
    with torch.inference_mode():
        alone = [int(module(torch.from_numpy(x[at : at + 1])).argmax()) for at in range(3)]
    assert alone == result.votes.votes[3].tolist()
    forget(tmp_path / "run", 3)
    again = run(tmp_path / "data", tmp_path / "run", resume=True)
    np.testing.assert_array_equal(again.votes.votes, result.votes.votes)


@pytest.mark.slow
def test_real_images(tmp_path):
    result = run(shared("data/cifar10"), tmp_path / "run", size=500)
    check(result, tmp_path / "run")
    assert result.votes.design.n == 50_000
    few = scale("cpu").arms()["cifar10-without-500"]
    assert (few.data, few.size) == ("cifar10", 500)
