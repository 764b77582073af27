"""An ensemble trained in other processes ends with the votes and weights of one trained here, whoever was killed."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from holdfast.engine import Dask, Processes
from holdfast.ensemble import VoteLog
from holdfast.training import FedAvg, model_factory, train_ensemble, training_fingerprint
from holdfast.training import elsewhere as module
from holdfast.training.elsewhere import Block, Elsewhere, Order, Recipe, train_block
from holdfast.training.parameters import initial_parameters
from holdfast.types import ConfigError, EngineError
from tests.engine_work import eventually
from tests.training_cases import federation

ROOT = Path(__file__).parents[1]
X, Y, ROWS = federation(n_clients=6)
MEMBERS = [np.array([a, b]) for a in range(6) for b in range(6) if a != b]
RECIPE = Recipe(model_factory("mlp", (6,), 3), X, Y, ROWS, FedAvg(rounds=400, lr=0.05, batch_size=8), 3)


def train(run_dir: Path, place=None, *, recipe=RECIPE, engine="compiled", on_progress=None, note=None, **options):
    trainer = recipe.trainer(engine=engine, threads=1)
    run = training_fingerprint(trainer, MEMBERS, X, Y, ROWS.offsets, ROWS.indices)
    votes = VoteLog(run_dir / "log", n_inputs=len(X), n_labels=3, run=run)
    away = None if place is None else Elsewhere(place, recipe, trainer.engine, "cpu", note or pytest.fail)
    return train_ensemble(
        trainer, MEMBERS, X, votes, run_dir=run_dir, elsewhere=away, on_progress=on_progress, **options
    )


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    folder = tmp_path_factory.mktemp("here")
    return folder, train(folder)


def same_models(folder: Path, other: Path) -> None:
    for model in range(len(MEMBERS)):
        ours, theirs = (load_file(each / "models" / f"{model:06d}.safetensors") for each in (folder, other))
        assert ours.keys() == theirs.keys()
        for name, tensor in ours.items():
            np.testing.assert_array_equal(tensor.numpy(), theirs[name].numpy())


def once_some_are_done(act):
    """Progress that calls `act` when the first models have arrived."""
    called = []

    def tell(done, total, left):
        assert total == len(MEMBERS)
        assert left is None or left >= 0
        if done >= 3 and not called:
            called.append(done)
            act()

    return called, tell


def test_a_worker_process_is_killed(here, tmp_path):
    def kill():
        victim = multiprocessing.active_children()[0]
        os.kill(victim.pid, signal.SIGKILL)

    called, tell = once_some_are_done(kill)
    votes = train(tmp_path, Processes(2), on_progress=tell)
    assert 3 <= called[0] < len(MEMBERS)
    np.testing.assert_array_equal(votes, here[1])
    same_models(tmp_path, here[0])
    assert not multiprocessing.active_children()


def test_a_dask_worker_is_killed(here, tmp_path):
    pytest.importorskip("distributed")
    from tests.dask_cluster import Cluster

    with Cluster(tmp_path) as running:
        called, tell = once_some_are_done(running.workers[0].kill)
        votes = train(tmp_path / "run", Dask(running.address), on_progress=tell)
        assert 3 <= called[0] < len(MEMBERS)
        assert running.workers[0].wait(5) == -signal.SIGKILL
    np.testing.assert_array_equal(votes, here[1])
    same_models(tmp_path / "run", here[0])


def test_threads_of_one_dask_worker_do_not_disturb_each_other(here, tmp_path):
    pytest.importorskip("distributed")
    from tests.dask_cluster import Cluster

    with Cluster(tmp_path, workers=0) as running:
        running.start_worker("--nthreads", "4")
        np.testing.assert_array_equal(train(tmp_path / "run", Dask(running.address), keep_models=False), here[1])
    assert not (tmp_path / "run" / "models").exists()


@pytest.mark.parametrize("place", ["processes", "dask"])
def test_the_driver_is_killed_and_nothing_finished_is_lost(here, tmp_path, place):
    script = (
        "import sys; from pathlib import Path; from holdfast.engine import Dask, Processes;"
        "from tests import test_ensemble_elsewhere as this;"
        "place = Dask(sys.argv[2]) if sys.argv[2] else Processes(1);"
        "this.train(Path(sys.argv[1]), place)"
    )
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    run_dir = tmp_path / "run"

    def kill_and_resume(address, again):
        with subprocess.Popen([sys.executable, "-c", script, str(run_dir), address], env=environment) as driver:
            eventually(lambda: len(list(run_dir.glob("log/*.votes"))) >= 3, seconds=120)
            driver.kill()
        before = {path: path.stat().st_mtime_ns for path in run_dir.glob("log/*.votes")}
        assert 3 <= len(before) < len(MEMBERS), "the kill missed the interesting moment"
        np.testing.assert_array_equal(train(run_dir, again), here[1])
        assert {path: path.stat().st_mtime_ns for path in before} == before, "what was finished was trained again"

    if place == "processes":
        kill_and_resume("", Processes(1))
    else:
        pytest.importorskip("distributed")
        from tests.dask_cluster import Cluster

        with Cluster(tmp_path, workers=1) as running:
            kill_and_resume(running.address, Dask(running.address))
    same_models(run_dir, here[0])


def test_torch_sees_the_same_company(here, tmp_path):
    expected = train(tmp_path / "here", engine="torch")
    np.testing.assert_array_equal(train(tmp_path / "there", Processes(1), engine="torch"), expected)


@dataclass(frozen=True)
class Pretending:
    """A place in this process, whose results are said to come from other machines."""

    machines: list
    threads: int = 1

    def map_chunks(self, work, shared, chunks):
        for chunk, machine in zip(chunks, self.machines * len(chunks), strict=False):
            found = work(shared, chunk)
            yield type(found)(found.models, found.params, found.votes, found.machine | machine)


def test_workers_of_different_kinds_are_named(here, tmp_path):
    told = []
    kinds = [{"processor": "old"}, {"processor": "new"}, {"processor": "old", "torch": "1"}]
    np.testing.assert_array_equal(train(tmp_path, Pretending(kinds), note=told.append), here[1])
    assert [line.partition(": ")[2].partition(": ")[2] for line in told] == [
        "processor new and old",
        f"torch 1 and {module.machine()['torch']}",
    ]


def test_a_worker_of_another_version_is_refused(tmp_path):
    with pytest.raises(EngineError, match=r"a worker has holdfast 0\.0, but this is"):
        train(tmp_path, Pretending([{"holdfast": "0.0"}]))
    assert not (tmp_path / "models").exists()


def test_threads_take_turns_with_torchs_generator():
    expected = initial_parameters(RECIPE.model, seed=3, model_ids=range(200))
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda model: initial_parameters(RECIPE.model, seed=3, model_ids=[model])[0], range(200))
    np.testing.assert_array_equal(np.stack(list(found)), expected)


def test_interventions_stay_here(tmp_path):
    with pytest.raises(ConfigError, match="intervene"):
        train(tmp_path, Processes(1), intervene=lambda *_: None)


def test_blocks_are_as_large_as_pays():
    trainer = RECIPE.trainer(engine="torch")
    place = Processes(1, threads=3)
    assert Elsewhere(place, RECIPE, "compiled", "cpu", print).block_size(trainer, 2) == 3
    assert Elsewhere(place, RECIPE, "torch", "cpu", print).block_size(trainer, 2) == trainer.models_at_once(2)
    assert Elsewhere(place, RECIPE, "torch", "cuda", print).block_size(trainer, 10) == 25
    assert Elsewhere(place, RECIPE, "torch", "cuda", print).block_size(trainer, 1000) == 1


def test_a_worker_makes_one_trainer_and_forgets_it_with_the_order(here):
    order = Order(RECIPE, "compiled", "cpu", 1, X, False)
    first = train_block(order, Block([0, 1], MEMBERS[:2]))
    made = module._trainer(order)
    again = train_block(order, Block([1], MEMBERS[1:2]))
    assert module._trainer(order) is made
    assert first.params is None
    np.testing.assert_array_equal(first.votes[1], again.votes[0])
    np.testing.assert_array_equal(first.votes, here[1][:2])
    count = len(module._local.trainers)
    del order
    assert len(module._local.trainers) == count - 1


def test_the_user_sees_places_on_the_command_line(tmp_path):
    command = [sys.executable, "-m", "holdfast", "certify", "--clients", "12", "--k", "2", "--design", "disjoint"]
    command += ["--rounds", "3", "--seed", "x", "--no-baseline", "--test-inputs", "20"]
    hashes = []
    for name, options in (("here", []), ("there", ["--engine", "processes", "--workers", "1"])):
        run = subprocess.run(
            [*command, "--out", tmp_path / name, *options], capture_output=True, text=True, timeout=300
        )
        assert run.returncode == 0, run.stderr
        manifest = json.loads((tmp_path / name / "run.json").read_text())
        hashes.append(manifest["votes_sha256"])
        assert manifest.get("place") == {"here": None, "there": "1 process"}[name]
    assert hashes[0] == hashes[1]
    assert "models train on 1 process" in run.stderr
