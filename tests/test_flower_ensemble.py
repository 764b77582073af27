"""The certified ensemble over Flower's messages: the votes of the in-process engine, and nobody reaches other groups.

In process, on Flower's own grid and serialization; tests/test_flower_processes.py does it with real nodes.
"""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from holdfast.experiments.certificates import certify_votes
from holdfast.experiments.certify import certify_run
from holdfast.experiments.enrolled import ABSENCES, EnrolledConfig, GridWorkshop
from holdfast.experiments.federation import CertifyConfig
from holdfast.experiments.flower_app import job_for, run_job
from holdfast.experiments.recertify import load_votes, recertify_run
from holdfast.experiments.run import Run
from holdfast.flower import SafeGrid
from holdfast.flower.ensemble_client import answer
from holdfast.flower.jobs import journal_of
from holdfast.flower.site import create
from holdfast.types import ConfigError
from tests.flower_link import Link, grid_of
from tests.flower_rows import rows_of, tensors, write_rows

N, K, MODELS, ROUNDS = 6, 2, 6, 3
SEED = "a secret of thirty-two characters"
NODES = [1000 + client for client in range(N)]
SETTINGS = {"clients": N, "k": K, "models": MODELS, "rounds": ROUNDS, "model": "mlp", "baseline": False}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "rows.npz"
    write_rows(path, N)
    return path


@pytest.fixture(scope="module")
def in_process(data, tmp_path_factory):
    """What `holdfast certify` makes of the same rows."""
    out = tmp_path_factory.mktemp("runs") / "in-process"
    return certify_run(CertifyConfig(str(data), partition="user", **SETTINGS), out, seed=SEED)


def honest(data, client):
    return lambda message: answer(message, SimpleNamespace(node_config={}), lambda _: rows_of(data, client))


def federation(data, hostile=None):
    """A link to all nodes; `hostile` replaces the behavior of some clients."""
    nodes = {NODES[client]: (hostile or {}).get(client) or honest(data, client) for client in range(N)}
    return Link(nodes)


def sizes_of(data):
    return tuple(len(rows_of(data, client)[1]) for client in range(N))


def certify(data, link, out, *, patience=(20.0, 5.0), resume=False, **changes):
    notes = []
    workshop = GridWorkshop(
        checkpoint_seconds=0.0, grid=SafeGrid(grid_of(link), poll=0.01), nodes=NODES, out=out, note=notes.append
    )
    config = EnrolledConfig(
        str(data), examples=sizes_of(data), model_seconds=patience[0], round_seconds=patience[1], **SETTINGS | changes
    )
    result = certify_run(config, out, seed=None if resume else SEED, resume=resume, workshop=workshop)
    return result, notes


def models_of(design, client):
    return set(np.flatnonzero(design.membership[:, client]).tolist())


def changed(result, reference):
    """Models whose weights differ in any bit."""
    folders = result.run / "models", reference.run / "models"
    names = [sorted(path.name for path in folder.iterdir()) for folder in folders]
    assert names[0] == names[1]
    assert len(names[0]) == MODELS
    weights = [[tensors(folder / name) for name in names[0]] for folder in folders]
    return {j for j in range(MODELS) if weights[0][j] != weights[1][j]}


def test_an_honest_run_is_the_in_process_run_to_the_bit(data, in_process, tmp_path):
    link = federation(data)
    result, notes = certify(data, link, tmp_path / "run")
    assert changed(result, in_process) == set()
    assert (result.votes.votes == in_process.votes.votes).all()
    assert [c.radius.tolist() for c in result.certificates] == [c.radius.tolist() for c in in_process.certificates]
    assert notes == [line for line in notes if "left out" not in line]
    assert not (tmp_path / "run" / ABSENCES).exists()
    for name in ("run.json", "votes.npz", "certificates.parquet", "report.html", "secret.json"):
        assert (tmp_path / "run" / name).exists(), name
    again = recertify_run(tmp_path / "run")
    assert again.certificates[0].radius.tolist() == result.certificates[0].radius.tolist()


def test_a_node_is_sent_one_message_a_round_with_its_own_groups_models_only(data, in_process, tmp_path):
    link = federation(data)
    certify(data, link, tmp_path / "run")
    design = in_process.votes.design
    assert len(link.sent) == N * ROUNDS
    trained = {}
    for node, message in link.sent:
        client = NODES.index(node)
        order = message.content["order"]
        assert order["client"] == client
        assert set(order["models"]) == models_of(design, client)
        arrays = message.content["models"]
        assert list(arrays) == ["models"]
        assert len(arrays["models"].numpy()) == len(order["models"])
        trained.setdefault((client, order["round"]), []).append(order["models"])
    assert all(len(messages) == 1 for messages in trained.values())
    assert SEED not in str([message.content for _, message in link.sent])


def reply(message, updates, **more):
    record = ArrayRecord({"updates": Array(updates)})
    return Message(RecordDict({"updates": record, **more}), reply_to=message)


def shape_of(message):
    return message.content["models"]["models"].numpy().shape


def raising(message):
    raise RuntimeError("broken")


HOSTILE = {
    "nan": lambda m: reply(m, np.full(shape_of(m), np.nan, np.float32)),
    "huge": lambda m: reply(m, np.full(shape_of(m), 3e38, np.float32)),
    "noise": lambda m: reply(m, np.random.default_rng(1).normal(size=shape_of(m)).astype(np.float32)),
    "other shape": lambda m: reply(m, np.zeros((1, 1), np.float32)),
    "other dtype": lambda m: reply(m, np.zeros(shape_of(m), np.float64)),
    "renamed": lambda m: Message(
        RecordDict({"updates": ArrayRecord({"upd": Array(np.zeros(shape_of(m), np.float32))})}), reply_to=m
    ),
    "no arrays": lambda m: Message(RecordDict({"x": ConfigRecord({})}), reply_to=m),
    "lies about failures": lambda m: reply(
        m, np.full(shape_of(m), np.nan, np.float32), failed=ConfigRecord({"models": [7, 8], "reasons": ["x\n" * 999]})
    ),
    "failed is no record": lambda m: reply(m, np.full(shape_of(m), np.nan, np.float32), failed=ArrayRecord()),
    "error": raising,
    "silent": lambda m: None,
}


@pytest.mark.parametrize("behavior", HOSTILE, ids=str)
def test_a_hostile_node_changes_exactly_its_own_groups(behavior, data, in_process, tmp_path):
    client = 2
    patience = (0.2, 0.4) if behavior == "silent" else (20.0, 5.0)
    result, _ = certify(data, federation(data, {client: HOSTILE[behavior]}), tmp_path / "run", patience=patience)
    assert changed(result, in_process) == models_of(in_process.votes.design, client)


def test_absences_are_in_the_manifest_and_in_the_certificate(data, tmp_path):
    link = federation(data, {2: raising})
    result, notes = certify(data, link, tmp_path / "run")
    mine = sorted(models_of(result.votes.design, 2))
    expected = {"clients": [2], "models": mine, "rounds": ROUNDS}
    assert load_votes(Run(tmp_path / "run")).facts["absences"] == expected
    assert Run(tmp_path / "run").manifest()["absences"] == expected
    lines = [json.loads(line) for line in (tmp_path / "run" / ABSENCES).read_text().splitlines() if line]
    assert [line["round"] for line in lines] == list(range(ROUNDS))
    assert all(line["client"] == 2 and line["kind"] == "error" for line in lines)
    assert len([note for note in notes if "client 2 is left out" in note]) == ROUNDS
    listed = ", ".join(map(str, mine))
    for certificate in (*result.certificates, *certify_votes(result.votes, alpha=0.01)):
        assert f"the models {listed} went on without them" in certificate.assumptions[-1]
    assert "absences as they happened" in str(Run(tmp_path / "run").manifest()["assumptions"])
    assert "Absences as they happened" in (tmp_path / "run" / "report.html").read_text()


def test_one_poisoned_model_does_not_cost_an_honest_client_its_others(data, in_process, tmp_path, monkeypatch):
    """An honest client's training of one model raises, that of another never ends: the rest is as without."""
    from holdfast.flower import work

    design, whole = in_process.votes.design, work.one_update
    member = next(client for client in range(N) if len(models_of(design, client)) >= 2)
    bad = sorted(models_of(design, member))[0]

    def one_update(trainer, model, round_number, client, start):
        if client == member and model == bad:
            if round_number == 0:
                raise FloatingPointError("driven there by another member")
            import time

            time.sleep(60)
        return whole(trainer, model, round_number, client, start)

    monkeypatch.setattr(work, "one_update", one_update)
    result, _ = certify(data, federation(data), tmp_path / "run", patience=(1.0, 10.0))
    assert changed(result, in_process) == {bad}
    lines = [json.loads(line) for line in (tmp_path / "run" / ABSENCES).read_text().splitlines() if line]
    assert [(line["client"], line["models"], line["kind"]) for line in lines] == [(member, [bad], "failed")] * ROUNDS
    assert "driven there" in lines[0]["reason"]
    assert "not finished after 1 s" in lines[1]["reason"]


def test_an_interrupted_run_goes_on_where_it_stopped(data, in_process, tmp_path):
    """The server dies in round 1; the next one does rounds 1 and 2 only."""

    class Killed(BaseException):
        pass

    link = federation(data)
    out = tmp_path / "run"
    calls = []

    class Dying(SafeGrid):
        def exchange(self, messages, *, timeout):
            calls.append(1)
            if len(calls) == 2:
                raise Killed
            return super().exchange(messages, timeout=timeout)

    workshop = GridWorkshop(
        checkpoint_seconds=0.0, grid=Dying(grid_of(link)), nodes=NODES, out=out, note=lambda text: None
    )
    config = EnrolledConfig(str(data), examples=sizes_of(data), **SETTINGS)
    with pytest.raises(Killed):
        certify_run(config, out, seed=SEED, workshop=workshop)
    fresh = federation(data)
    result, _ = certify(data, fresh, out, resume=True)
    assert {message.content["order"]["round"] for _, message in fresh.sent} == {1, 2}
    assert changed(result, in_process) == set()


def test_real_clients_need_a_grid(data, tmp_path):
    config = EnrolledConfig(str(data), examples=sizes_of(data), **SETTINGS)
    with pytest.raises(ConfigError, match="holdfast flower certify"):
        certify_run(config, tmp_path / "run", seed=SEED)


def test_a_job_tells_how_it_ends(data, in_process, tmp_path):
    """The ServerApp's own function: nodes that are not connected are one sentence, an honest run is the other's."""
    site = create(tmp_path / "site", N, examples=sizes_of(data))
    site.save_enrolled([replace(row, node_id=NODES[row.client]) for row in site.enrolled()])
    link = federation(data)
    settings = SETTINGS | {"data": str(data), "site": str(site.path), "examples": sizes_of(data)}
    options = {"alpha": 0.001, "seed": SEED, "resume": False, "keep_models": True}
    options |= {"engine": "auto", "threads": 1, "wait": 0.1}
    job = tmp_path / "job.json"

    def lines_of(out):
        made = job_for(EnrolledConfig(**settings), out, options=options, given={}, command="holdfast")
        job.write_text(json.dumps(made))
        run_job(SafeGrid(grid_of(link), poll=0.01), {"job": str(job)})
        lines = [json.loads(line) for line in journal_of(job).read_text().splitlines()]
        journal_of(job).unlink()
        assert list(lines[0]) == ["pid"]
        return lines

    away = link.nodes.pop(NODES[4])
    last = lines_of(tmp_path / "refused")[-1]["error"]
    assert last == "6 clients are enrolled, but only 5 nodes are connected after 0.1 s; start the nodes of clients 4"
    assert not (tmp_path / "refused").exists()
    link.nodes[NODES[4]] = away
    assert lines_of(tmp_path / "run")[-1] == {"done": True}
    assert changed(recertify_run(tmp_path / "run"), in_process) == set()
    assert "already holds a run" in lines_of(tmp_path / "run")[-1]["error"]
