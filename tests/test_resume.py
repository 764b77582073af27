"""A run that is killed at any moment goes on, and ends with the votes of a run that was never interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from holdfast.ensemble import VoteLog
from holdfast.training import FedAvg, make_trainer, model_factory, train_ensemble, train_single, training_fingerprint
from holdfast.training import segments as driver
from holdfast.training.parameters import flatten
from holdfast.types import ArtifactError
from tests.training_cases import federation

X, Y, ROWS = federation(n_clients=6)
MEMBERS = [np.array(pair) for pair in [(0, 1), (2, 3), (4, 5), (0, 5), (1, 4), (2, 5), (3, 4)]]


def trainer_for(*, rounds=40, lr=0.05, engine="torch"):
    factory = model_factory("mlp", (6,), 3)
    return make_trainer(factory, X, Y, ROWS, FedAvg(rounds=rounds, lr=lr, batch_size=8), seed=3, engine=engine)


def log_for(run_dir: Path, trainer) -> VoteLog:
    run = training_fingerprint(trainer, MEMBERS, X, Y, ROWS.offsets, ROWS.indices)
    return VoteLog(run_dir / "log", n_inputs=len(X), n_labels=3, run=run)


def train(run_dir: Path, **options):
    """Train the whole ensemble, two models at a time; also what the killed process below does."""
    trainer = trainer_for(**options)
    trainer.models_at_once = lambda k: 2
    # A checkpoint after every stretch of rounds.
    return train_ensemble(trainer, MEMBERS, X, log_for(run_dir, trainer), run_dir=run_dir, checkpoint_seconds=0.0)


SCRIPT = """
import sys, time
from pathlib import Path
from holdfast.training import segments
from holdfast.training.torch_engine import TorchTrainer
from tests import test_resume

segments._SEGMENT_SECONDS = 0.0     # a stretch is one round
run = TorchTrainer.run
def slowly(self, *args, **options):
    print("round", flush=True)
    time.sleep(0.002)
    return run(self, *args, **options)
TorchTrainer.run = slowly
test_resume.train(Path(sys.argv[1]))
"""


def kill_after(rounds: int, run_dir: Path) -> bool:
    """Train in another process and kill it after so many rounds; False if it was done before."""
    root = Path(__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": f"{root / 'src'}:{root}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SCRIPT, str(run_dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, cwd=root) as process:
        for _ in range(rounds):
            if not process.stdout.readline():
                return False
        time.sleep(0.003)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    return True


def test_killed_again_and_again_equals_uninterrupted(tmp_path):
    expected = train(tmp_path / "whole")
    killed = tmp_path / "killed"
    done = []
    for rounds in (15, 61, 50):  # in the first block, in the second, and wherever that leads
        assert kill_after(rounds, killed)
        trainer = trainer_for()
        done.append(len(MEMBERS) - len(log_for(killed, trainer).missing(len(MEMBERS))))
    assert 0 < done[-1] < len(MEMBERS), f"the kills missed the interesting moments: {done}"
    assert (killed / "training.safetensors").exists()
    np.testing.assert_array_equal(train(killed), expected)
    assert not (killed / "training.safetensors").exists()
    for model in range(len(MEMBERS)):
        ours, theirs = (load_file(tmp_path / d / "models" / f"{model:06d}.safetensors") for d in ("killed", "whole"))
        assert ours.keys() == theirs.keys()
        for name, tensor in ours.items():
            np.testing.assert_array_equal(tensor.numpy(), theirs[name].numpy())


def test_saved_models_give_the_votes(tmp_path):
    votes = train(tmp_path)
    trainer = trainer_for()
    for model in range(len(MEMBERS)):
        module = model_factory("mlp", (6,), 3)()
        module.load_state_dict(load_file(tmp_path / "models" / f"{model:06d}.safetensors"))
        np.testing.assert_array_equal(trainer.predict(flatten(module)[None], X)[0], votes[model])


def test_ctrl_c_keeps_what_is_done(tmp_path, monkeypatch):
    expected = train(tmp_path / "whole")
    trainer = trainer_for()
    trainer.models_at_once = lambda k: 2
    monkeypatch.setattr(driver, "_SEGMENT_SECONDS", 0.0)
    original, calls = trainer.run, []

    def interrupted(*args, **options):
        calls.append(options["start_round"])
        if len(calls) == 60:
            raise KeyboardInterrupt
        return original(*args, **options)

    trainer.run = interrupted
    log = log_for(tmp_path, trainer)
    with pytest.raises(KeyboardInterrupt):
        train_ensemble(trainer, MEMBERS, X, log, run_dir=tmp_path)
    assert log.missing(len(MEMBERS)) == [2, 3, 4, 5, 6]
    del calls[:]
    calls.extend([0] * 60)
    np.testing.assert_array_equal(train_ensemble(trainer, MEMBERS, X, log, run_dir=tmp_path), expected)
    assert calls[60] == 19, "training did not go on where it was interrupted"


def test_a_checkpoint_of_other_company_is_left(tmp_path):
    expected = train(tmp_path / "whole")
    trainer = trainer_for()
    log = log_for(tmp_path, trainer)
    wrong = np.zeros((2, trainer.n_params), np.float32)
    driver.Checkpoint(tmp_path / "training.safetensors", log.run).save([3, 5], wrong, 39)
    np.testing.assert_array_equal(train_ensemble(trainer, MEMBERS, X, log, run_dir=tmp_path), expected)


def test_another_configuration_is_refused(tmp_path):
    train(tmp_path)
    before = sorted((p.name, p.stat().st_mtime_ns) for p in tmp_path.rglob("*"))
    with pytest.raises(ArtifactError, match="another run"):
        train(tmp_path, lr=0.06)
    assert sorted((p.name, p.stat().st_mtime_ns) for p in tmp_path.rglob("*")) == before


def test_a_foreign_checkpoint_is_refused(tmp_path):
    trainer = trainer_for()
    log = log_for(tmp_path, trainer)
    driver.Checkpoint(tmp_path / "training.safetensors", "other").save([0, 1], trainer.init([0, 1]), 7)
    with pytest.raises(ArtifactError, match=r"training.safetensors belongs to another run"):
        train_ensemble(trainer, MEMBERS, X, log, run_dir=tmp_path)
    (tmp_path / "training.safetensors").write_bytes(b"torn")
    with pytest.raises(ArtifactError, match="truncated"):
        train_ensemble(trainer, MEMBERS, X, log, run_dir=tmp_path)


def test_fingerprint_sees_every_setting():
    trainer = trainer_for()
    prints = {
        training_fingerprint(trainer, MEMBERS, X, Y),
        training_fingerprint(trainer_for(lr=0.06), MEMBERS, X, Y),
        training_fingerprint(trainer_for(rounds=41), MEMBERS, X, Y),
        training_fingerprint(trainer, MEMBERS[:-1], X, Y),
        training_fingerprint(trainer, MEMBERS, X + 1, Y),
        training_fingerprint(trainer, MEMBERS, X, np.roll(Y, 1)),
    }
    assert len(prints) == 6
    assert training_fingerprint(trainer_for(), MEMBERS, X, Y) in prints


def test_progress_counts_up_to_all(tmp_path):
    trainer = trainer_for()
    trainer.models_at_once = lambda k: 2
    told = []
    train_ensemble(
        trainer, MEMBERS, X, log_for(tmp_path, trainer), run_dir=tmp_path, on_progress=lambda *at: told.append(at)
    )
    done = [at[0] for at in told]
    assert done == sorted(done)
    assert (told[0][0], told[-1][:2]) == (0, (7, 7))
    assert told[-1][2] == 0
    assert all(at[2] is None or at[2] >= 0 for at in told)


def test_models_need_not_be_kept(tmp_path):
    trainer = trainer_for()
    train_ensemble(trainer, MEMBERS, X, log_for(tmp_path, trainer), run_dir=tmp_path, keep_models=False)
    assert not (tmp_path / "models").exists()


def test_single_model_learns_from_everyone_and_is_kept(tmp_path):
    trainer = trainer_for(rounds=200, lr=0.1)
    params = train_single(trainer, np.arange(6), run_dir=tmp_path, run="r")
    assert (trainer.predict(params[None], X)[0] == Y).mean() > 0.7
    trainer.run = None  # whoever trains again fails
    np.testing.assert_array_equal(train_single(trainer, np.arange(6), run_dir=tmp_path, run="r"), params)
    with pytest.raises(ArtifactError, match="another run"):
        train_single(trainer, np.arange(5), run_dir=tmp_path, run="r")
    with pytest.raises(ArtifactError, match="another run"):
        train_single(trainer, np.arange(6), run_dir=tmp_path, run="s")
