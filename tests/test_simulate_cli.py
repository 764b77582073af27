"""`holdfast simulate` as a user runs it: results, files, interruption, and one sentence for what cannot work."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors.numpy import load_file
from typer.testing import CliRunner

from holdfast.cli import app
from holdfast.types import HoldfastError

SMALL = ("--clients", "7", "--rounds", "3", "--attackers", "2")


def run(*arguments):
    return CliRunner().invoke(app, ["simulate", *map(str, arguments)])


def test_json_holds_what_was_measured():
    done = run(*SMALL, "--attack", "naive-backdoor", "--attack-param", "target=2", "--rule", "median", "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert [record["round"] for record in told["rounds"]] == [1, 2, 3]
    assert told["config"]["attack"] == {"name": "naive-backdoor", "target": 2}
    assert len(told["malicious"]) == 2
    assert 0 <= told["last"]["success"] <= 1
    assert told["last"] == told["rounds"][-1]


def test_the_terminal_shows_curve_numbers_and_what_success_means(tmp_path):
    done = run(*SMALL, "--attack", "label-flip", "--out", tmp_path / "run")
    assert done.exit_code == 0, done.output
    for words in ("accuracy over the rounds", "100% ┤", "attack success", "1 called 7", "influence of malicious"):
        assert words in done.stdout
    assert re.search(r"rounds: 3/3", done.output), "progress is shown"
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"run.json", "result.json", "report.html", "figures"} <= names
    assert not (tmp_path / "run" / "secret.json").exists()
    figures = {path.name for path in (tmp_path / "run" / "figures").iterdir()}
    assert figures == {f"{name}.{kind}" for name in ("accuracy", "influence") for kind in ("png", "svg")}
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Accuracy and attack" in page
    again = run(*SMALL, "--out", tmp_path / "run")
    assert isinstance(again.exception, HoldfastError)
    assert "already holds a run" in str(again.exception)


def test_wrappers_and_parameters_reach_the_attack():
    options = ("--wrapper", "collusion", "--wrapper", "stealth:alpha=0.5", "--effort", "2", "--attack-lr", "0.2")
    done = run(*SMALL, "--attack", "sign-flip", "--attack-param", "scale=3", *options, "--json")
    assert json.loads(done.stdout)["config"]["attack"] == {
        "name": "sign-flip",
        "scale": 3,
        "wrappers": ["collusion", {"name": "stealth", "alpha": 0.5}],
        "effort": 2.0,
        "lr": 0.2,
    }
    nested = run(*SMALL, "--rule", "nearest-neighbor-mixing", "--rule-param", "rule=trimmed-mean", "--json")
    assert nested.exit_code == 0, nested.output


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--attackers", 9), "attackers is 9, but there are only 7 clients"),
        (("--attackers", -1), "attackers must be a whole number of at least 0, but is -1"),
        (("--attackers", 3, "--rule", "krum"), "Krum needs at least 9 clients against f = 3 malicious ones, but"),
        (("--rule", "bulyan"), "Bulyan needs at least 11 clients"),
        (("--clients-per-round", 8), "clients_per_round is 8, but there are only 7 clients"),
        (("--clients", 5000), "n is 5000 clients but there are only 1352 rows; each client needs at least one"),
        (("--partition", "one-label"), "n is 7, but one-label needs at least one client for each of the 10 labels"),
        (("--partition", "user"), "partition 'user' needs to know whose row each is"),
        (("--rule", "medain"), "unknown rule 'medain'; did you mean 'median'?"),
        (("--rule-param", "f"), "'f' is not of the form name=value"),
        (("--attack", "flip"), "unknown attack 'flip'; did you mean 'sign-flip'?"),
        (("--attack", "min-max", "--attack-param", "x=1"), "attack 'min-max' has no parameter 'x'"),
        (("--attack", "naive-backdoor", "--attack-param", "target=12"), "target=12, but digits has labels 0 to 9"),
        (("--attack", "feature-backdoor"), "must be told its features"),
        (("--local-epochs", 1, "--local-steps", 2), "local_epochs and local_steps exclude each other"),
        (("--weighting", "fair"), "weighting must be one of size, uniform"),
        (("--drop-holders", 1), "drop_label does not say of which label"),
        (("--data", "digitz"), "'digitz' is neither a data set"),
        (("--model", "small-cnn"), "needs images .* sides of at least 16"),
        (("--resume",), "--resume needs --out"),
    ],
)
def test_bad_input_is_one_sentence(options, sentence, tmp_path):
    done = run(*SMALL, *options, *([] if "--resume" in options else ["--out", tmp_path / "run"]))
    assert isinstance(done.exception, HoldfastError), done.output
    message = str(done.exception)
    assert re.search(sentence, message), message
    assert "\n" not in message
    assert not (tmp_path / "run").exists() or options[0] == "--model", "a folder was made for a run that cannot be"


def test_unsound_runs_are_possible_and_say_so():
    done = run(*SMALL, "--attackers", "3", "--rule", "krum", "--allow-unsound")
    assert done.exit_code == 0, done.output
    assert "which its theory does not cover" in " ".join(done.output.split())


def test_killed_and_resumed_is_uninterrupted(tmp_path):
    options = ("--clients", "7", "--rounds", "40", "--attackers", "2", "--attack", "tpa", "--rule", "foolsgold")
    code = (
        "from holdfast.experiments import simulation; simulation._CHECKPOINT_SECONDS = 0.0;"
        "from holdfast.cli import main; main()"
    )
    command = [sys.executable, "-c", code, "simulate", *options, "--threads", "1", "--out", str(tmp_path / "killed")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment) as process:
        deadline = time.monotonic() + 120
        while not (tmp_path / "killed" / "checkpoint.safetensors").exists() and time.monotonic() < deadline:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "killed" / "result.json").exists(), "it was too fast to be killed"
    resumed = run("--out", tmp_path / "killed", "--resume")
    assert resumed.exit_code == 0, resumed.output
    assert run(*options, "--out", tmp_path / "whole").exit_code == 0
    results = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("killed", "whole")]
    for ours, theirs in zip(*(result["rounds"] for result in results), strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():  # the processes may have other thread counts: sums differ in their last digits
            np.testing.assert_allclose(value, theirs[name], rtol=1e-6, err_msg=name)
    models = [load_file(tmp_path / name / "checkpoint.safetensors")["params"] for name in ("killed", "whole")]
    np.testing.assert_array_equal(*models)
    other = run("--out", tmp_path / "killed", "--resume", "--rounds", "50")
    assert "--rounds is 50 now but 40" in str(other.exception)
