"""A sweep: every cell once, durable, the same table in any order, and sentences for what is wrong in the file."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from holdfast.experiments import sweep as sweeping
from holdfast.experiments.attacked import SimulateConfig, load_attacked
from holdfast.experiments.experiment import parse_experiment, read_experiment
from holdfast.experiments.run import fingerprint
from holdfast.experiments.simulation import simulate
from holdfast.experiments.sweep import cell_key, sweep
from holdfast.experiments.sweep_result import Interval
from holdfast.types import ArtifactError, ConfigError, ThreatModelError

ROOT = Path(__file__).parents[1]
FEDERATION = {"clients": 7, "rounds": 3, "local_steps": 2}
GRID = {
    "rules": ["mean", {"name": "trimmed-mean", "label": "trimmed"}],
    "attacks": [{"name": "sign-flip", "scale": 4}, "label-flip"],
    "attackers": [0, 2],
    "seeds": 3,
}
CONTENT = {"title": "Small", "federation": FEDERATION, "grid": GRID}


def experiment(**changes):
    return parse_experiment({**CONTENT, "grid": {**GRID, **changes}}, where="the file", title="small")


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    return sweep(experiment(), tmp_path_factory.mktemp("sweep") / "run", threads=1)


def test_every_cell_is_what_simulate_gives(done):
    assert len(done.records) == 2 * 3 * 3
    for cell in done.experiment.cells():
        alone = simulate(cell.config, threads=1)
        assert done.records[cell.rule, cell.attack, cell.attackers, cell.config.seed] == alone.records
    assert {cell.config.attack for cell in done.experiment.cells() if not cell.attackers} == {"none"}


def test_the_table_is_means_and_intervals_by_hand(done):
    table = done.table()
    assert table.columns == ("attack", "mean", "trimmed")
    assert [row[0] for row in table.rows] == ["no attack", "sign-flip scale=4, m=2", "label-flip, m=2"]
    values = [done.records["trimmed", "label-flip", 2, seed][-1].accuracy for seed in range(3)]
    low, high = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    cell = table.values[2][2]
    np.testing.assert_allclose([cell["mean"], cell["low"], cell["high"]], [np.mean(values), low, high])
    assert table.rows[2][2] == f"{100 * np.mean(values):.1f} ± {100 * (high - np.mean(values)):.1f}"
    assert [row[0] for row in done.table("success").rows] == ["label-flip, m=2"], "sign flips have no goal"
    assert done.heat().values.shape == (3, 2)
    assert Interval.of([0.5]).text() == "50.0"


def test_any_order_of_cells_gives_the_same_table(done, tmp_path):
    order = np.random.default_rng(0).permutation(len(done.experiment.cells())).tolist()
    again = sweep(experiment(), tmp_path / "run", order=order)
    assert again.records == done.records
    assert [t.to_json() for t in again.tables()] == [t.to_json() for t in done.tables()]


def test_the_folder_holds_result_report_and_figures(done):
    names = {path.name for path in done.out.iterdir()}
    assert {"run.json", "result.json", "report.html", "figures", "cells"} <= names
    told = json.loads((done.out / "result.json").read_text())
    assert told["tables"][0]["rows"][0]["attack"] == "no attack"
    assert told["cpu_seconds"] == pytest.approx(
        sum(json.loads(path.read_text())["cpu_seconds"] for path in (done.out / "cells").glob("*.json"))
    )
    assert told["cpu_seconds"] > 0
    figures = {path.name for path in (done.out / "figures").iterdir()}
    assert figures == {f"{name}.{kind}" for name in ("accuracy", "attack-1", "attack-2") for kind in ("png", "svg")}
    page = (done.out / "report.html").read_text()
    assert "sign-flip scale=4, m=2" in page
    assert len(re.findall(r'<td class="num shade\d+">', page)) == 3 * 2, "a heat map of three rows and two rules"
    assert "<script" not in page
    assert not list((done.out / "cells").glob("*.safetensors")), "checkpoints of finished cells stay behind"


def test_few_numbers_of_attackers_are_drawn_over_the_rounds_and_many_over_their_number(done, tmp_path):
    assert {plot.x_label for plot in done.plots().values()} == {"round"}
    grown = sweep(experiment(attackers=[0, 1, 2], attacks=["label-flip"], seeds=1), tmp_path / "run", threads=1)
    (plot,) = grown.plots().values()
    assert plot.x_label == "malicious clients"
    expected = [grown.interval("mean", ("label-flip", m) if m else ("none", 0)).mean for m in range(3)]
    np.testing.assert_array_equal(plot.series[0].x, [0, 1, 2])
    np.testing.assert_array_equal(plot.series[0].y, expected)
    assert plot.dots(0) == [0, 1, 2]


def test_finished_cells_are_not_run_again_and_a_grown_grid_reuses_them(done, tmp_path, monkeypatch):
    ran = []
    real = sweeping._run_cell
    monkeypatch.setattr(sweeping, "_run_cell", lambda cell, *rest: (ran.append(cell), real(cell, *rest)))
    first = sweep(experiment(seeds=1), tmp_path / "run")
    assert len(ran) == 6
    grown = sweep(experiment(), tmp_path / "run")
    assert len(ran) == 18
    assert grown.records == done.records
    assert sweep(experiment(seeds=1), tmp_path / "run").records == first.records
    assert len(ran) == 18


def test_killed_and_continued_is_uninterrupted(done, tmp_path):
    file = tmp_path / "small.toml"
    file.write_text(
        'title = "Small"\n[federation]\nclients = 7\nrounds = 3\nlocal_steps = 2\n'
        "[grid]\nseeds = 3\nattackers = [0, 2]\n"
        'rules = ["mean", { name = "trimmed-mean", label = "trimmed" }]\n'
        'attacks = [{ name = "sign-flip", scale = 4 }, "label-flip"]\n'
    )
    assert read_experiment(file) == experiment()
    code = "from holdfast.cli import main; main()"
    command = [sys.executable, "-c", code, "sweep", str(file), "--out", str(tmp_path / "run"), "--threads", "1"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment) as process:
        deadline = time.monotonic() + 120
        while len(list((tmp_path / "run").glob("cells/*.json"))) < 3 and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    before = {path.name for path in (tmp_path / "run").glob("cells/*.json")}
    assert 3 <= len(before) <= 18
    again = sweep(experiment(), tmp_path / "run", threads=1)
    assert again.records == done.records


# -- what is wrong ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"grids": {}}, "the file has no key 'grids'; did you mean 'grid'?"),
        ({"federation": {"client": 3}}, r"\[federation\] has no key 'client'; did you mean 'clients'?"),
        ({"federation": {"rule": "mean"}}, r"\[federation\] has no key 'rule'"),
        ({"federation": {"rounds": "many"}}, "rounds must be a whole number of at least 1, but is 'many'"),
        ({"federation": 3}, r"federation must be a table, \[federation\], but is 3"),
        ({"grid": {"rule": ["mean"]}}, r"\[grid\] has no key 'rule'; did you mean 'rules'?"),
        ({"grid": {"rules": "mean"}}, r"\[grid\] rules must be a list, but is 'mean'"),
        ({"grid": {"rules": ["mean", "mean"]}}, "rules has 'mean' twice"),
        ({"grid": {"rules": ["medain"]}}, "unknown rule 'medain'; did you mean 'median'?"),
        ({"grid": {"rules": [{"name": "krum", "g": 2}]}}, "unknown parameter 'g' of 'krum'"),
        ({"grid": {"rules": [{"f": 2}]}}, "has no name"),
        ({"grid": {"attacks": ["label-flop"]}}, "unknown attack 'label-flop'; did you mean 'label-flip'?"),
        ({"grid": {"attacks": [{"name": "min-max", "alpha": 2}]}}, "attack 'min-max' has no parameter 'alpha'"),
        ({"grid": {"attacks": [{"name": "label-flip", "pair": []}]}}, "has no key 'pair'"),
        ({"grid": {"attacks": [{"name": "tpa", "wrappers": ["stelth"]}]}}, "did you mean 'stealth'?"),
        ({"grid": {"attackers": [1, -2]}}, "attackers must be whole numbers of at least 0, but has -2"),
        ({"grid": {"attackers": [1, 1]}}, "names a value twice"),
        ({"grid": {"seeds": []}}, "seeds is empty"),
    ],
)
def test_a_wrong_file_is_one_sentence(content, sentence):
    with pytest.raises(ConfigError, match=sentence) as caught:
        parse_experiment(content, where="the file", title="x")
    assert "\n" not in str(caught.value)


def test_what_cannot_run_is_said_before_anything_is_trained(tmp_path, monkeypatch):
    monkeypatch.setattr(sweeping, "_run_cell", lambda *_: pytest.fail("something was trained"))
    with pytest.raises(ConfigError, match="attackers is 9, but there are only 7 clients"):
        sweep(experiment(attackers=[0, 9]), tmp_path / "a")
    with pytest.raises(ThreatModelError, match=r"Krum needs at least 9 clients against f = 3 .*, but a round has 7"):
        sweep(experiment(attackers=[0, 3], rules=["mean", "krum"]), tmp_path / "b")
    with pytest.raises(ConfigError, match="label 12"):
        sweep(experiment(attacks=[{"name": "label-flip", "pairs": [[12, 1]]}]), tmp_path / "c")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("")
    with pytest.raises(ConfigError, match="not an empty folder"):
        sweep(experiment(), tmp_path / "full")


def test_a_damaged_cell_is_named(done, tmp_path):
    again = sweep(experiment(seeds=1), tmp_path / "run")
    victim = next((again.out / "cells").glob("*.json"))
    victim.write_text("{")
    with pytest.raises(ArtifactError, match=f"{victim.name} is damaged"):
        sweep(experiment(seeds=1), tmp_path / "run")


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.toml")), ids=lambda path: path.stem)
def test_examples_can_be_read_and_their_digits_set_up(path):
    grid = read_experiment(path)
    assert grid.cells()
    if grid.federation.data == "digits":
        for cell in grid.cells()[:: max(1, len(grid.cells()) // 5)]:
            load_attacked(cell.config)


def test_a_cell_is_named_by_what_decides_it_and_nothing_else():
    """New options, and the folder the data lies in, leave finished cells where they are."""
    config = SimulateConfig(rounds=3, rule="median")
    name = cell_key(config, "data")
    assert name == cell_key(replace(config, data_dir="elsewhere"), "data")
    assert name == fingerprint({"config": {"rounds": 3, "rule": "median"}, "data": "data"})[:24]
    assert len({name, cell_key(replace(config, lr=0.2), "data"), cell_key(config, "other data")}) == 3


def test_configurations_are_plain_data():
    config = SimulateConfig(rule={"name": "krum", "f": 1}, attack={"name": "tpa", "wrappers": ["collusion"]})
    assert SimulateConfig(**json.loads(json.dumps(asdict(config)))) == config
