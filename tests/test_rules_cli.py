"""`holdfast rules` and `holdfast aggregate`: usable without any framework, errors in one sentence."""

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from safetensors.numpy import load_file
from typer.testing import CliRunner

from holdfast.aggregation import RULES
from holdfast.cli import aggregation
from holdfast.types import ConfigError, ThreatModelError

app = typer.Typer()
aggregation.register(app)
runner = CliRunner()


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    rows = np.random.default_rng(0).normal(size=(9, 30)).astype(np.float32)
    rows[2] = np.nan
    for i, row in enumerate(rows):
        np.savez(tmp_path / f"client-{i}.npz", w=row)
    (tmp_path / "client-5.npz").write_bytes(b"junk")
    return [str(tmp_path / f"client-{i}.npz") for i in range(9)]


def test_rules_lists_the_registry() -> None:
    listed = json.loads(runner.invoke(app, ["rules", "--json"]).stdout)
    assert [row["name"] for row in listed] == list(RULES)
    assert next(row for row in listed if row["name"] == "krum")["parameters"] == {"f": "required", "strict": True}
    text = runner.invoke(app, ["rules"], env={"COLUMNS": "200"}).stdout
    assert all(name in text for name in RULES)


def test_aggregate_writes_the_result_and_prints_the_verdict(files: list[str], tmp_path: Path) -> None:
    out = tmp_path / "agg.safetensors"
    arguments = ["aggregate", *files, "--rule", "trimmed-mean", "--param", "f=2", "--out", str(out)]
    result = runner.invoke(app, arguments, env={"COLUMNS": "400"})
    assert result.exit_code == 0, result.output
    assert load_file(out)["w"].shape == (30,)
    assert "9 clients, 2 replaced" in result.stdout
    assert "holds a value that is not finite" in result.stdout
    assert "cannot be read as a model" in result.stdout


def test_json_verdict_and_nested_parameters(files: list[str], tmp_path: Path) -> None:
    arguments = ["aggregate", *files, "--rule", "norm-clipping", "--param", "rule=krum", "--param", "rule.f=2"]
    arguments += ["--param", "multiple=1.5", "--out", str(tmp_path / "agg.safetensors"), "--json"]
    verdict = json.loads(runner.invoke(app, arguments).stdout)
    assert verdict["rule"] == "NormClipping(rule=Krum(f=2, strict=True), bound=None, multiple=1.5)"
    assert len(verdict["clients"]) == 9
    assert [i for i, row in enumerate(verdict["clients"]) if row["replaced"]] == [2, 5]


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (["--rule", "krumm"], ConfigError, "did you mean 'krum'"),
        (["--rule", "krum", "--param", "F=2"], ConfigError, "did you mean 'f'"),
        (["--rule", "krum", "--param", "f"], ConfigError, "name=value"),
        (["--rule", "krum", "--param", "f=9"], ThreatModelError, "needs n >= 21"),
        (["--rule", "bucketing", "--param", "rule.f=2"], ConfigError, "needs --param rule=NAME"),
    ],
)
def test_mistakes(files: list[str], tmp_path: Path, arguments: list[str], kind: type, message: str) -> None:
    out = tmp_path / "agg.safetensors"
    result = runner.invoke(app, ["aggregate", *files, *arguments, "--out", str(out)])
    assert isinstance(result.exception, kind)
    assert message in str(result.exception)
    assert not out.exists()
