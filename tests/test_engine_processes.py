"""A pool whose workers may die: no chunk is lost or done twice, and nobody is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from holdfast.engine import Processes, choose
from holdfast.engine.packing import pack, unpack
from holdfast.types import ConfigError, EngineError
from tests import engine_work
from tests.engine_work import alive, eventually

ROOT = Path(__file__).parents[1]


def shared(tmp_path):
    return {"x": np.arange(5.0), "folder": str(tmp_path)}


def test_every_chunk_is_done_once_by_several_workers(tmp_path):
    results = list(Processes(2).map_chunks(engine_work.scaled, shared(tmp_path), list(range(12))))
    assert sorted(result[:2] for result in results) == [(chunk, 10.0 * chunk) for chunk in range(12)]
    assert len({result[2] for result in results}) == 2
    assert os.getpid() not in {result[2] for result in results}
    assert list(Processes(2).map_chunks(engine_work.scaled, shared(tmp_path), [])) == []


def test_a_killed_worker_costs_nothing_but_time(tmp_path):
    results = list(Processes(2).map_chunks(engine_work.dies_once, shared(tmp_path), list(range(12))))
    assert (tmp_path / "died").exists()
    assert sorted(result[:2] for result in results) == [(chunk, 10.0 * chunk) for chunk in range(12)]
    assert len({result[2] for result in results}) == 3


def test_a_chunk_that_kills_every_worker_is_given_up(tmp_path):
    done = []
    with pytest.raises(EngineError, match=r"3 worker processes died .* SIGKILL .*--workers"):
        done.extend(Processes(2).map_chunks(engine_work.deadly, shared(tmp_path), [1, 2, 3]))


def test_errors_of_the_work_arrive(tmp_path):
    with pytest.raises(ConfigError, match="chunk 5 is not to our liking"):
        list(Processes(1).map_chunks(engine_work.refuses, shared(tmp_path), [5]))
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        list(Processes(1).map_chunks(engine_work.breaks, shared(tmp_path), [5]))


def test_what_cannot_be_sent_is_named():
    with pytest.raises(ConfigError, match="importable module"):
        list(Processes(1).map_chunks(engine_work.scaled, {"model": lambda: None}, [1]))


def test_closing_ends_the_workers_at_once(tmp_path):
    running = Processes(2).map_chunks(
        engine_work.tells_and_waits, {"folder": str(tmp_path), "seconds": 0.0}, list(range(9))
    )
    next(running)
    pids = {int(path.read_text()) for path in tmp_path.iterdir()}
    running.close()
    assert pids
    assert not any(alive(pid) for pid in pids)


DRIVER = """
import sys
from holdfast.engine import Processes
from tests import engine_work
shared = {"folder": sys.argv[1], "seconds": 600}
list(Processes(2).map_chunks(engine_work.tells_and_waits, shared, [0, 1, 2]))
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_no_worker_outlives_its_driver(tmp_path, end):
    pids, temporary = tmp_path / "pids", tmp_path / "tmp"
    pids.mkdir()
    temporary.mkdir()
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "TMPDIR": str(temporary)}
    command = [sys.executable, "-c", DRIVER, str(pids)]
    log = tmp_path / "log"
    with log.open("w") as errors:
        driver = subprocess.Popen(command, env=environment, stderr=errors, start_new_session=True)
    eventually(lambda: len(list(pids.glob("*"))) == 2)
    workers = [int(path.read_text()) for path in pids.iterdir()]
    assert all(alive(pid) for pid in workers)
    assert len(list(temporary.iterdir())) == 1
    if end == signal.SIGINT:
        os.killpg(driver.pid, end)  # as a terminal does: to all of them
    else:
        driver.kill()
    driver.wait(timeout=60)
    try:
        eventually(lambda: not any(alive(pid) for pid in workers))
    finally:
        for pid in filter(alive, workers):
            os.kill(pid, signal.SIGKILL)
    eventually(lambda: not list(temporary.iterdir()))
    assert log.read_text().count("KeyboardInterrupt") == (end == signal.SIGINT)


def test_every_worker_sees_one_card(tmp_path):
    seen = list(Processes(cards=("3", "5")).map_chunks(engine_work.card, shared(tmp_path), list(range(8))))
    assert set(seen) == {"3", "5"}
    with pytest.raises(ConfigError, match="2 cards"):
        Processes(3, cards=("3", "5"))


def test_packed_arrays_are_mapped_and_cannot_be_changed(tmp_path):
    content = {"x": np.arange(1000.0).reshape(10, 100), "y": np.arange(3), "empty": np.zeros((0, 4)), "words": "any"}
    pack(content, tmp_path / "packed")
    assert (tmp_path / "packed").stat().st_mode & 0o077 == 0
    found = unpack(tmp_path / "packed")
    assert found["words"] == "any"
    for name in ("x", "y", "empty"):
        np.testing.assert_array_equal(found[name], content[name])
        assert not found[name].flags.writeable
        assert found[name].ctypes.data % 64 == 0
    (tmp_path / "packed").unlink()
    assert found["x"][9, 99] == 999


def test_a_pool_works_in_any_thread(tmp_path):
    results = []
    job = Processes(1).map_chunks(engine_work.scaled, shared(tmp_path), [1, 2])
    thread = threading.Thread(target=lambda: results.extend(job))
    thread.start()
    thread.join()
    assert [result[0] for result in results] == [1, 2]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"text": "dask"}, "--engine dask needs --address"),
        ({"text": "torch", "workers": 2}, "--workers 2 is for --engine processes, but the engine is torch"),
        ({"text": "processes", "address": "tcp://h:1"}, "--address tcp://h:1 is for --engine dask"),
        ({"text": "processes", "wait": 3}, "--wait 3 is for --engine dask"),
        ({"text": "dask", "address": "h:1"}, "must look like tcp://"),
        ({"text": "dask", "address": "tcp://h:1", "wait": -1}, "wait = -1"),
        ({"text": "processes", "workers": 0}, "workers must be at least 1, but is 0"),
        ({"text": "processes", "threads": -2}, "threads must be at least 1, but is -2"),
        ({"text": "processes", "device": "cuda:1"}, "CUDA_VISIBLE_DEVICES"),
    ],
)
def test_options_that_do_not_fit_are_named(arguments, words):
    with pytest.raises(ConfigError) as caught:
        choose(**arguments)
    assert words in str(caught.value)
