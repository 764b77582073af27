"""Chunks as Dask tasks on real processes: workers, machines and the scheduler may die, and no chunk is lost."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import numpy as np
import pytest

pytest.importorskip("distributed")
import dask

from holdfast.cli import main
from holdfast.engine import Dask
from holdfast.types import ConfigError, EngineError
from tests import engine_work
from tests.dask_cluster import Cluster

CHUNKS = list(range(12))
EXPECTED = [(chunk, 10.0 * chunk) for chunk in CHUNKS]


def shared(folder):
    return {"x": np.arange(5.0), "folder": str(folder)}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with Cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


def done(results):
    return sorted(result[:2] for result in results)


def test_every_chunk_is_done_once_by_several_workers(cluster, tmp_path):
    results = list(Dask(cluster.address).map_chunks(engine_work.scaled, shared(tmp_path), CHUNKS))
    assert done(results) == EXPECTED
    assert {result[2] for result in results} <= {worker.pid for worker in cluster.workers}
    assert list(Dask(cluster.address).map_chunks(engine_work.scaled, shared(tmp_path), [])) == []


def test_errors_of_the_work_arrive(cluster, tmp_path):
    with pytest.raises(ConfigError, match="chunk 5 is not to our liking"):
        list(Dask(cluster.address).map_chunks(engine_work.refuses, shared(tmp_path), [5]))
    with pytest.raises(ZeroDivisionError):
        list(Dask(cluster.address).map_chunks(engine_work.breaks, shared(tmp_path), [5]))


def test_closing_takes_back_what_has_not_begun(cluster, tmp_path):
    running = Dask(cluster.address).map_chunks(
        engine_work.tells_and_waits, {"folder": str(tmp_path), "seconds": 0.2}, list(range(100))
    )
    next(running)
    running.close()
    time.sleep(1)
    begun = len(list(tmp_path.iterdir()))
    time.sleep(1)
    assert begun == len(list(tmp_path.iterdir())) < 30


def test_a_card_takes_one_chunk_at_a_time(cluster, tmp_path):
    lonely = Dask(cluster.address, gpu=True, wait=2)
    with pytest.raises(EngineError, match="no worker with --resources GPU=1, and none came within 2 s"):
        list(lonely.map_chunks(engine_work.company, shared(tmp_path), [1]))
    worker = cluster.start_worker("--nthreads", "4", "--resources", "GPU=1")
    found = Dask(cluster.address, gpu=True).map_chunks(engine_work.company, shared(tmp_path), list(range(6)))
    assert set(found) == {1}
    worker.kill()


def test_a_killed_worker_costs_nothing_but_time(tmp_path):
    with Cluster(tmp_path) as running:
        results = list(Dask(running.address).map_chunks(engine_work.dies_once, shared(tmp_path), CHUNKS))
        assert (tmp_path / "died").exists()
        assert done(results) == EXPECTED


def test_a_chunk_that_kills_its_workers_is_given_up(tmp_path):
    with (
        Cluster(tmp_path, DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="1") as running,
        pytest.raises(EngineError, match=r"2 workers of Dask at .* died, one after another, on the same models"),
    ):
        list(Dask(running.address).map_chunks(engine_work.deadly, shared(tmp_path), [1]))


def test_nobody_there_is_one_sentence(tmp_path):
    with pytest.raises(EngineError, match=r"no Dask scheduler answers at address tcp://127.0.0.1:1 within 1 s"):
        list(Dask("tcp://127.0.0.1:1", wait=1).map_chunks(engine_work.scaled, shared(tmp_path), [1]))
    with (
        Cluster(tmp_path, workers=0) as empty,
        pytest.raises(EngineError, match="has no worker, and none came within 5 s"),
    ):
        list(Dask(empty.address, wait=5).map_chunks(engine_work.scaled, shared(tmp_path), [1]))


@pytest.mark.parametrize(
    ("content", "words"), [("raise ImportError", "no holdfast"), ("__version__ = '0'", "holdfast 0")]
)
def test_a_worker_with_another_holdfast_is_named(tmp_path, content, words):
    other = tmp_path / "other"
    other.mkdir()
    (other / "holdfast.py").write_text(content)
    with Cluster(tmp_path, workers=0) as running:
        running.start_worker(PYTHONPATH=str(other))
        with pytest.raises(EngineError, match=rf"worker tcp://\S+ of Dask at \S+ has {words}; install \d\S*, which"):
            list(Dask(running.address).map_chunks(engine_work.scaled, shared(tmp_path), [1]))


def test_without_dask_the_extra_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "distributed", None)  # as if it were not installed
    arguments = ["certify", "--out", str(tmp_path / "run"), "--engine", "dask", "--address", "tcp://127.0.0.1:1"]
    monkeypatch.setattr(sys, "argv", ["holdfast", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert "pip install 'holdfast[cluster]'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_machine_without_power_is_given_up_after_dasks_time_to_live(tmp_path):
    with Cluster(tmp_path, DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL="3s") as running:
        job = Dask(running.address).map_chunks(engine_work.scaled, shared(tmp_path), list(range(40)))
        results = [next(job)]
        running.freeze(running.workers[0])
        results += job
        assert done(results) == [(chunk, 10.0 * chunk) for chunk in range(40)]
        assert {result[2] for result in results[-5:]} == {running.workers[1].pid}


@pytest.mark.slow
def test_the_data_are_sent_again_when_all_who_had_them_are_gone(tmp_path):
    with Cluster(tmp_path) as running:
        job = Dask(running.address).map_chunks(engine_work.scaled, shared(tmp_path), list(range(60)))
        results = [next(job)]
        for worker in running.workers:
            worker.kill()
        running.start_worker()
        results += job
        assert done(results) == [(chunk, 10.0 * chunk) for chunk in range(60)]


@pytest.mark.slow
def test_workers_that_never_come_back_end_the_wait(tmp_path):
    with Cluster(tmp_path) as running:
        job = Dask(running.address, wait=3).map_chunks(engine_work.scaled, shared(tmp_path), list(range(60)))
        next(job)
        for worker in running.workers:
            worker.kill()
        with pytest.raises(EngineError, match="none came within 3 s"):
            list(job)


@pytest.mark.slow
def test_a_scheduler_that_starts_anew_gets_what_is_left(tmp_path):
    with Cluster(tmp_path) as running:
        port = int(running.address.rpartition(":")[2])
        job = Dask(running.address, wait=30).map_chunks(engine_work.scaled, shared(tmp_path), list(range(60)))
        results = [next(job)]
        running.scheduler.kill()
        running.scheduler.wait()

        def again():
            running.start_scheduler(port=port)
            running.start_worker()

        thread = threading.Thread(target=again)
        thread.start()
        results += job
        thread.join()
        assert done(results) == [(chunk, 10.0 * chunk) for chunk in range(60)]


@pytest.mark.slow
def test_with_certificates_only_those_who_have_one_are_served(tmp_path):
    for command in (
        "req -x509 -newkey rsa:2048 -nodes -days 2 -keyout ca.key -out ca.pem -subj /CN=authority",
        "req -newkey rsa:2048 -nodes -keyout key.pem -out node.csr -subj /CN=node",
        "x509 -req -in node.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -out cert.pem",
    ):
        subprocess.run(["openssl", *command.split()], cwd=tmp_path, check=True, capture_output=True)
    files = {"ca-file": str(tmp_path / "ca.pem")}
    for role in ("scheduler", "worker", "client"):
        files |= {f"{role}.{kind}": str(tmp_path / f"{kind}.pem") for kind in ("key", "cert")}
    settings = {
        f"DASK_DISTRIBUTED__COMM__TLS__{name.upper().replace('-', '_').replace('.', '__')}": path
        for name, path in files.items()
    }
    with Cluster(tmp_path, protocol="tls", **settings) as running:
        assert running.address.startswith("tls://")
        with pytest.raises(EngineError, match="no Dask scheduler answers at address tls://"):
            list(Dask(running.address, wait=5).map_chunks(engine_work.scaled, shared(tmp_path), CHUNKS))
        with dask.config.set({f"distributed.comm.tls.{name}": path for name, path in files.items()}):
            assert done(Dask(running.address).map_chunks(engine_work.scaled, shared(tmp_path), CHUNKS)) == EXPECTED
