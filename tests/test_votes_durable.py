"""Votes survive: files that were truncated or edited are refused, and a run killed at any moment goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.ensemble import VoteLog, Votes, make_design
from holdfast.ensemble.sealed import read_sealed, write_sealed
from holdfast.types import ArtifactError, ConfigError


def make_votes(n_labels: int = 10, labels: bool = True) -> Votes:
    rng = np.random.default_rng(0)
    design = make_design("partitions", n=11, k=2, n_models=10, seed=b"kept by the operator")
    known = rng.integers(-1, n_labels, 7) if labels else None
    return Votes(rng.integers(0, n_labels, (10, 7)), design, n_labels, known, {"data": "made up", "rounds": 3})


@pytest.mark.parametrize("n_labels", [2, 256, 257, 70_000])
@pytest.mark.parametrize("labels", [True, False])
def test_what_was_saved_is_loaded(tmp_path: Path, n_labels: int, labels: bool) -> None:
    votes = make_votes(n_labels, labels)
    votes.save(tmp_path / "deep" / "votes.npz")
    again = Votes.load(tmp_path / "deep" / "votes.npz")
    assert np.array_equal(again.votes, votes.votes)
    assert (
        again.votes.dtype == votes.votes.dtype == {2: np.uint8, 256: np.uint8, 257: np.uint16}.get(n_labels, np.uint32)
    )
    assert np.array_equal(again.labelled, votes.labelled)
    assert (again.hashes, again.source, again.facts) == (votes.hashes, votes.source, votes.facts)
    assert again.design.fingerprint == votes.design.fingerprint
    assert again.design.verify(b"kept by the operator")
    assert np.array_equal(again.counts(), votes.counts())


def test_secret_seed_is_not_in_the_file(tmp_path: Path) -> None:
    make_votes().save(tmp_path / "votes.npz")
    assert b"kept by the operator" not in (tmp_path / "votes.npz").read_bytes()
    assert Votes.load(tmp_path / "votes.npz").design.seed is None
    with np.load(tmp_path / "votes.npz") as file:
        assert all(b"kept by" not in file[name].tobytes() for name in file.files)


def test_same_votes_same_bytes_and_other_results_are_never_overwritten(tmp_path: Path) -> None:
    votes = make_votes()
    seals = {votes.save(tmp_path / name) for name in ("a.npz", "b.npz", "a.npz")}
    assert len(seals) == 1
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with pytest.raises(ArtifactError, match="other results"):
        make_votes(n_labels=11).save(tmp_path / "a.npz")
    assert np.array_equal(Votes.load(tmp_path / "a.npz").votes, votes.votes)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_damage_is_noticed(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "votes.npz"
    make_votes().save(path)
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        damaged = bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    else:
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] ^= 1 << data.draw(st.integers(0, 7))
        damaged = bytes(content)
    broken = tmp_path / "broken.npz"
    broken.write_bytes(damaged)
    try:
        loaded = Votes.load(broken)
    except ArtifactError:
        return
    # A flipped bit may fall where a zip archive holds nothing that matters (a date): then nothing has changed.
    assert loaded.hashes == make_votes().hashes
    assert loaded.facts == make_votes().facts


def rewritten(path: Path, **changed: np.ndarray) -> Path:
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    np.savez(path.with_name("edited.npz"), **(arrays | changed))
    return path.with_name("edited.npz")


def test_edited_parts_are_named(tmp_path: Path) -> None:
    votes = make_votes()
    path = tmp_path / "votes.npz"
    votes.save(path)
    assert votes.labels is not None
    for name, array in (
        ("votes", np.roll(votes.votes, 1)),
        ("labels", votes.labels + 1),
        ("membership", np.packbits(~votes.design.membership, axis=1)),
        ("extra", np.zeros(3)),
    ):
        with pytest.raises(ArtifactError, match=f"'{name}'"):
            Votes.load(rewritten(path, **{name: array}))
    with np.load(path) as file:
        manifest = file["manifest"].tobytes().replace(b"made up", b"MADE UP")
    with pytest.raises(ArtifactError, match="manifest"):
        Votes.load(rewritten(path, manifest=np.frombuffer(manifest, dtype=np.uint8)))


def test_foreign_files_are_refused_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="does not exist"):
        Votes.load(tmp_path / "none.npz")
    np.savez(tmp_path / "foreign.npz", votes=np.zeros((2, 2)))
    np.save(tmp_path / "array.npy", np.zeros(3))
    np.savez(tmp_path / "pickled.npz", manifest=np.array([{"a": 1}], dtype=object), seal=np.zeros(1))
    (tmp_path / "text.npz").write_text("votes")
    (tmp_path / "empty.npz").write_bytes(b"")
    for name in ("foreign.npz", "array.npy", "pickled.npz", "text.npz", "empty.npz"):
        with pytest.raises(ArtifactError, match=name):
            Votes.load(tmp_path / name)
    with pytest.raises(ArtifactError):
        Votes.load(tmp_path)
    write_sealed(tmp_path / "other.npz", "another form 1", {}, {})
    with pytest.raises(ArtifactError, match="another form 1"):
        Votes.load(tmp_path / "other.npz")
    assert read_sealed(tmp_path / "other.npz", "another form 1")[:2] == ({}, {})


def test_prefix_keeps_the_first_partition() -> None:
    votes = make_votes().prefix(1)
    assert (votes.n_models, votes.design.kind) == (5, "disjoint")
    assert np.array_equal(votes.votes, make_votes().votes[:5])


def test_bad_votes_are_refused() -> None:
    design = make_design("disjoint", n=4, k=2, seed=1)
    good = np.array([[0, 1], [1, 1]])
    for votes, options, name in (
        (good[:1], {}, "rows"),
        (good + 2, {}, "must lie in 0"),
        (good * 0.5, {}, "float"),
        (good[0], {}, "shape"),
        (good, {"labels": np.array([0])}, "labels"),
        (good, {"labels": np.array([0, 2])}, "labels"),
        (good, {"labels": np.array([0, -2])}, "labels"),
        (good, {"labels": np.array([0.0, 1.0])}, "labels"),
    ):
        with pytest.raises(ConfigError, match=name):
            Votes(votes, design, 2, **options)
    with pytest.raises(ValueError, match="read-only"):
        Votes(good, design, 2).votes[0, 0] = 1
    assert not Votes(good, design, 2).labelled.any()


def test_log_gives_back_what_was_added_and_names_what_is_missing(tmp_path: Path) -> None:
    log = VoteLog(tmp_path / "log", n_inputs=4, n_labels=300, run="run one")
    assert log.missing(3) == [0, 1, 2]
    log.add(2, np.array([0, 299, 5, 7]))
    log.add(0, [1, 2, 3, 4])
    log.add(0, [1, 2, 3, 4])
    assert log.missing(3) == [1]
    with pytest.raises(ArtifactError, match="1 of 3 models: 1"):
        log.collect(3)
    log.add(1, [9, 9, 9, 9])
    assert log.collect(3).tolist() == [[1, 2, 3, 4], [9, 9, 9, 9], [0, 299, 5, 7]]
    with pytest.raises(ArtifactError, match="other votes"):
        log.add(1, [9, 9, 9, 8])
    with pytest.raises(ArtifactError, match="another run"):
        VoteLog(tmp_path / "log", n_inputs=4, n_labels=300, run="run two").missing(3)


def test_bad_rows_are_refused(tmp_path: Path) -> None:
    log = VoteLog(tmp_path, n_inputs=3, n_labels=4, run="r")
    bad = ((0, [0, 1], "entries"), (0, [0, 1, 4], "must lie"), (-1, [0, 0, 0], "model_id"), (0, [0.5] * 3, "float"))
    for model, row, name in bad:
        with pytest.raises(ConfigError, match=name):
            log.add(model, row)
    assert log.missing(1) == [0]


@given(cut=st.integers(0, 200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_torn_row_counts_as_missing_and_is_trained_again(tmp_path: Path, cut: int) -> None:
    log = VoteLog(tmp_path / str(cut), n_inputs=100, n_labels=4, run="r")
    row = np.arange(100) % 4
    log.add(5, row)
    [file] = log.folder.iterdir()
    content = file.read_bytes()
    file.write_bytes(content[: min(cut, len(content) - 1)])
    assert 5 in log.missing(6)
    log.add(5, row)
    assert 5 not in log.missing(6)
    assert [path.name for path in log.folder.iterdir()] == [file.name], "no temporary files are left behind"


WRITER = """
import sys
from pathlib import Path
import numpy as np
from holdfast.ensemble import VoteLog
log = VoteLog(Path(sys.argv[1]), n_inputs=2000, n_labels=10, run="killed")
print("ready", flush=True)
for model in log.missing(400):
    log.add(model, np.random.default_rng(model).integers(0, 10, 2000))
"""


def test_killed_at_any_moment_it_goes_on_where_it_stopped(tmp_path: Path) -> None:
    done: set[int] = set()
    log = VoteLog(tmp_path, n_inputs=2000, n_labels=10, run="killed")
    for delay in (0.0, 0.03, 0.1):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(delay)
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        now = set(range(400)) - set(log.missing(400))
        assert done <= now, "a finished model was lost"
        done = now
    assert done, "the writer never got to write"
    for model in log.missing(400):
        log.add(model, np.random.default_rng(model).integers(0, 10, 2000))
    expected = np.stack([np.random.default_rng(model).integers(0, 10, 2000) for model in range(400)])
    assert np.array_equal(log.collect(400), expected)


def test_manifest_is_plain_json(tmp_path: Path) -> None:
    make_votes().save(tmp_path / "votes.npz")
    with np.load(tmp_path / "votes.npz", allow_pickle=False) as file:
        manifest = json.loads(file["manifest"].tobytes())
    assert manifest["facts"]["design"]["commitment"] == make_votes().design.commitment
    assert set(manifest["sha256"]) == {"votes", "membership", "labels"}
