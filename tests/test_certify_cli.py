"""`holdfast certify`, `recertify` and `plan` as a user runs them: real processes, real files, bad input, kill -9."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

from holdfast.cli import main

SMALL = ("--clients", "20", "--k", "2", "--design", "disjoint", "--rounds", "4", "--seed", "a seed for tests only")


def holdfast(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "holdfast", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=300)


class Finished(NamedTuple):
    """What a command left behind, however it was run."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def here(monkeypatch, capsys):
    """Run a command in this process: for the many that end before any work begins."""

    def call(*arguments: object) -> Finished:
        monkeypatch.setattr(sys, "argv", ["holdfast", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        return Finished(code, *capsys.readouterr())

    return call


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("certify") / "run"
    done = holdfast("certify", *SMALL, "--out", out)
    assert done.returncode == 0, done.stderr
    return out, done


def test_the_run_holds_every_stage(run):
    out, done = run
    names = {path.name for path in out.iterdir()}
    assert {"run.json", "secret.json", "votes.npz", "certificates.parquet", "report.html", "figures", "models"} <= names
    assert "provably keep their correct label" in " ".join(done.stdout.split())
    manifest = json.loads((out / "run.json").read_text())
    assert manifest["seed_commitment"] not in (out / "secret.json").read_text()
    assert "a seed for tests only" not in (out / "run.json").read_text()
    assert (out / "secret.json").stat().st_mode & 0o077 == 0
    assert set(manifest["assumptions"]) == {"deployed", "secret"}


def test_the_table_of_certificates_is_what_the_votes_say(run):
    out, _ = run
    table = pd.read_parquet(out / "certificates.parquet")
    assert {"label", "vote", "deployed_radius", "secret_radius", "deployed_margin"} <= set(table.columns)
    # Disjoint groups: the exact radius is half the margin over the strongest rival, ties to the smaller label.
    from holdfast.ensemble import Votes

    votes = Votes.load(out / "votes.npz")
    counts = np.stack([np.bincount(column, minlength=10) for column in votes.votes.T])
    rivals = counts + (np.arange(10) < counts.argmax(axis=1)[:, None])
    rivals[np.arange(len(counts)), counts.argmax(axis=1)] = -1
    expected = (counts.max(axis=1) - rivals.max(axis=1)) // 2
    capped = table["deployed_radius"].to_numpy()
    np.testing.assert_array_equal(np.minimum(capped, 10), np.minimum(expected, 10))


def test_the_same_seed_gives_the_same_votes_in_another_process(run, tmp_path, here):
    out, _ = run
    again = here("certify", *SMALL, "--out", tmp_path / "again", "--no-keep-models", "--no-baseline", "--json")
    assert again.returncode == 0, again.stderr
    told = json.loads(again.stdout)
    assert told["n_models"] == 10
    hashes = json.loads((out / "run.json").read_text())["votes_sha256"]
    assert json.loads((tmp_path / "again" / "run.json").read_text())["votes_sha256"] == hashes
    assert not (tmp_path / "again" / "models").exists()


def test_recertify_reads_votes_only(run, tmp_path):
    out, _ = run
    alone = tmp_path / "alone"
    alone.mkdir()
    for name in ("run.json", "votes.npz"):
        (alone / name).write_bytes((out / name).read_bytes())
    code = (
        "import sys; options = ['--kind', 'deployed', '--bound', 'exact', '--json'];"
        "sys.argv = ['holdfast', 'recertify', sys.argv[1], *options];"
        "from holdfast.cli import main; main(); "
    )
    check = "import atexit, sys; atexit.register(lambda: sys.stderr.write('torch loaded' * ('torch' in sys.modules)));"
    done = subprocess.run([sys.executable, "-c", check + code, alone], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "torch loaded" not in done.stderr
    exact = json.loads(done.stdout)["certificates"][0]
    table = pd.read_parquet(out / "certificates.parquet")
    counted = np.bincount(table["deployed_radius"], minlength=len(exact["radius_counts"]))
    assert exact["radius_counts"] == counted.tolist()


def test_recertify_writes_where_it_is_told_and_never_over_a_file(run, tmp_path, here):
    out, _ = run
    target = tmp_path / "again.parquet"
    assert here("recertify", out, "--alpha", "0.1", "--out", target).returncode == 0
    before = target.read_bytes()
    refused = here("recertify", out, "--alpha", "0.2", "--out", target)
    assert refused.returncode == 2
    assert "exists already" in refused.stderr
    assert target.read_bytes() == before


def test_damaged_and_foreign_votes_are_refused_by_hash(run, tmp_path, here):
    out, _ = run
    whole = (out / "votes.npz").read_bytes()
    other = tmp_path / "other"
    assert here("certify", *SMALL[:-1], "another seed of a test", "--out", other, "--no-baseline").returncode == 0
    foreign = (other / "votes.npz").read_bytes()
    for content in (whole[: len(whole) // 2], whole[:-40] + bytes(40), b"not a vote file", foreign):
        broken = tmp_path / "broken"
        broken.mkdir(exist_ok=True)
        (broken / "run.json").write_bytes((out / "run.json").read_bytes())
        (broken / "votes.npz").write_bytes(content)
        refused = here("recertify", broken)
        assert refused.returncode == 2, refused.stdout
        assert refused.stderr.startswith("error: ")
        assert "Traceback" not in refused.stderr
    assert "SHA-256" in refused.stderr  # the foreign one, last: intact, but of another run


def test_resume_of_a_finished_run_changes_nothing(run, here):
    out, _ = run
    before = {path: path.read_bytes() for path in (out / "votes.npz", out / "certificates.parquet")}
    done = here("certify", "--out", out, "--resume")
    assert done.returncode == 0, done.stderr
    assert all(path.read_bytes() == content for path, content in before.items())


def test_a_run_keeps_the_alpha_it_was_started_with(tmp_path, here):
    out = tmp_path / "run"
    options = ("--no-baseline", "--no-keep-models", "--test-inputs", "30")
    assert here("certify", *SMALL, *options, "--alpha", "0.05", "--out", out).returncode == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}

    def alphas(done):
        assert done.returncode == 0, done.stderr
        return [certificate["alpha"] for certificate in json.loads(done.stdout)["certificates"]]

    assert alphas(here("certify", "--out", out, "--resume", "--json")) == [0, 0.05]
    assert alphas(here("recertify", out, "--json")) == [0, 0.05]
    assert alphas(here("recertify", out, "--alpha", "0.2", "--json")) == [0, 0.2]
    refused = here("certify", "--out", out, "--resume", "--alpha", "0.2")
    assert refused.returncode == 2
    assert f"--resume: --alpha is 0.2 now but 0.05 in {out}" in refused.stderr
    assert f"holdfast recertify {out} --alpha 0.2" in refused.stderr
    changed = {name for name in before if name.read_bytes() != before[name]}
    assert {path.name for path in changed} <= {"run.json", "report.html"}  # seconds, nothing else


def test_kill_at_any_moment_and_resume_gives_the_votes_of_an_uninterrupted_run(tmp_path):
    settings = (*SMALL, "--model", "cnn_of_the_test:tiny", "--no-baseline", "--engine", "torch")
    (tmp_path / "cnn_of_the_test.py").write_text(
        "from torch import nn\n"
        "def tiny(input_shape, n_labels):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, n_labels))\n"
    )
    whole = holdfast("certify", *settings, "--out", "whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    command = [sys.executable, "-m", "holdfast", "certify", *settings, "--out", "killed", "--resume"]
    kills = 0
    for wait in (0.2, 1.5, 2.5, 3.5, 4.5):
        victim = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        time.sleep(wait)
        if victim.poll() is None:
            os.kill(victim.pid, signal.SIGKILL)
            kills += 1
        victim.wait()
    assert kills >= 2
    done = holdfast("certify", "--out", "killed", "--resume", cwd=tmp_path)
    if not (tmp_path / "killed" / "run.json").exists():  # every kill came before the run had begun
        done = holdfast("certify", *settings, "--out", "killed", "--resume", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    votes = [json.loads((tmp_path / name / "run.json").read_text())["votes_sha256"] for name in ("whole", "killed")]
    assert votes[0] == votes[1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("certify", "--clients", 20, "--k", 90), "k=90"),
        (("certify", "--clients", 5, "--k", 2), "10 groups"),
        (("certify", "--clients", 20, "--k", 2, "--design", "random", "--models", 3), "7 models are needed"),
        (("certify", "--clients", 20, "--k", 2, "--models", 7), "multiple of the 10 groups"),
        (("certify", "--clients", 20, "--k", 2, "--alpha", 1.5), "alpha"),
        (("certify", "--clients", 20, "--k", 2, "--alpha", 0), "alpha"),
        (("certify", "--clients", 20, "--k", 0), "k=0"),
        (("certify", "--clients", 100000, "--k", 2), "100000"),
        (("certify", "--clients", 20, "--k", 2, "--design", "random"), "n_models"),
        (("certify", "--clients", 20, "--k", 2, "--design", "circles"), "circles"),
        (("certify", "--clients", 20, "--k", 2, "--skew", 1.5), "q"),
        (("certify", "--k", 2), "clients"),
        (("certify", "--clients", 20, "--data", "no-such-data"), "no-such-data"),
        (("certify", "--clients", 20, "--k", 2, "--model", "json:dumps"), "json:dumps"),
        (("certify", "--clients", 20, "--k", 2, "--rounds", 0), "rounds"),
        (("certify", "--clients", 20, "--k", 2, "--lr", -1), "lr"),
        (("certify", "--clients", 20, "--k", 2, "--trusted", "77"), "77"),
        (("certify", "--clients", 20, "--k", 2, "--trusted", "a,b"), "a,b"),
        (("certify", "--clients", 20, "--k", 2, "--test-inputs", 0), "test_inputs"),
        (("certify", "--clients", 20, "--k", 2, "--engine", "magic"), "magic"),
        (("plan", "--clients", 5, "--k", 9), "k=9"),
        (("plan", "--clients", 5, "--k", 2, "--alpha", 1), "alpha"),
        (("certify", "--resume"), "holds no run yet"),
        (("recertify", "/no/such/run"), "run.json"),
        (("recertify", __file__), "is no run"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(arguments, says, tmp_path, here):
    out = ("--out", tmp_path / "out") if arguments[0] == "certify" else ()
    done = here(*arguments, *out)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out" / "votes.npz").exists()


def test_a_folder_that_cannot_be_made_and_an_unknown_method_are_one_sentence(run, tmp_path, here):
    (tmp_path / "file").write_text("mine")
    done = here("certify", *SMALL, "--out", tmp_path / "file" / "run")
    assert (done.returncode, "cannot be made" in done.stderr) == (2, True)
    assert (tmp_path / "file").read_text() == "mine"
    done = here("recertify", run[0], "--method", "jeffrey")
    assert (done.returncode, "method 'jeffrey'" in done.stderr) == (2, True)


def test_resume_with_another_setting_is_refused_and_nothing_changes(run, here):
    out, _ = run
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for option, value in (("--k", "4"), ("--rounds", "9"), ("--seed", "other"), ("--data", "mnist")):
        done = here("certify", "--out", out, "--resume", option, value)
        assert done.returncode == 2
        assert option in done.stderr
    assert here("certify", *SMALL, "--out", out).returncode == 2  # without --resume
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


TWO = np.arange(100) % 2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"x": np.where(np.arange(400) == 14, np.nan, 1.0).reshape(100, 4)}, "NaN"),
        ({"y": TWO - 1}, "labels run from -1"),
        ({"y": 7 * TWO}, "labels run from 0 to 7"),
        ({"y": TWO + 0.5}, "label 0.5 is not an integer"),
        ({"y": TWO[:50]}, "100 rows but y has 50"),
        ({"client": np.full(100, np.nan)}, "have no client"),
        ({"x": np.zeros((0, 4)), "y": TWO[:0]}, "at least one row"),
    ],
)
def test_bad_data_of_the_user_is_one_sentence_and_nothing_is_written(change, says, tmp_path, here):
    x = np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32)
    np.savez(tmp_path / "bad.npz", **{"x": x, "y": TWO} | change)
    who = ("--partition", "user") if "client" in change else ("--clients", 10)
    done = here("certify", "--data", tmp_path / "bad.npz", *who, "--k", 2, "--out", tmp_path / "out")
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_model_of_the_wrong_shape_is_refused_before_anything_is_written(tmp_path, here, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong_models_of_the_test.py").write_text(
        "from torch import nn\n"
        "def one_label_more(input_shape, n_labels):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, n_labels + 1))\n"
        "def nothing():\n"
        "    return None\n"
    )
    for factory, says in (("one_label_more", "[2, 11]"), ("nothing", "must return a torch.nn.Module")):
        done = here("certify", *SMALL, "--model", f"wrong_models_of_the_test:{factory}", "--out", "out")
        assert done.returncode == 2
        assert says in done.stderr
        assert not (tmp_path / "out").exists()


def test_votes_of_another_design_are_refused_by_hash(run, tmp_path, here):
    """The same data and settings, but other groups: the run's manifest names the votes it was made with."""
    out, _ = run
    other = tmp_path / "other"
    done = here("certify", *SMALL, "--k", "1", "--out", other, "--no-baseline", "--no-keep-models")
    assert done.returncode == 0, done.stderr
    manifest = (out / "run.json").read_bytes()
    (other / "run.json").write_bytes(manifest)
    before = {path: path.read_bytes() for path in other.rglob("*") if path.is_file()}
    refused = here("recertify", other)
    assert refused.returncode == 2
    assert "SHA-256" in refused.stderr
    assert {path: path.read_bytes() for path in other.rglob("*") if path.is_file()} == before


def test_trusted_clients_join_every_group_and_their_own_model_is_the_baseline(tmp_path, here):
    done = here("certify", *SMALL, "--trusted", "0,1", "--out", tmp_path / "run", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["n_clients"] == 18  # only the others can be malicious
    assert 0 < told["trusted_only_accuracy"] <= 1
    page = (tmp_path / "run" / "report.html").read_text()
    assert "2 trusted clients take part in every group and can change every prediction" in page


@pytest.mark.parametrize("command", ["certify", "recertify", "plan", "data", "reproduce ensemble"])
def test_help_has_examples_that_begin_with_the_command(command, here):
    done = here(*command.split(), "--help")
    assert done.returncode == 0
    examples = done.stdout.split("Examples:")[1]
    assert f"holdfast {command} " in " ".join(examples.split())
    assert "Exit codes: 0 done; 2" in " ".join(here("--help").stdout.split())


def test_the_plan_says_what_can_be_certified_before_training(here):
    done = here("plan", "--clients", 1000, "--k", 10, "--models", 10, "--inputs", 10000, "--json")
    assert done.returncode == 0, done.stderr
    assert "N = 10 at alpha = 0.001 and 10,000 inputs can never certify anything; 28 models are needed" in done.stdout
    assert "(24 models are needed with the method as published)" in done.stdout
