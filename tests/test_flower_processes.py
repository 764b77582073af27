"""A federation of real processes on the loopback interface: TLS, registered keys, the proxy, hostile nodes, kill -9.

Every message starts a process of several CPU-seconds, so all tests share one SuperLink and five nodes.
"""

import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest

from holdfast.experiments.certify import certify_run
from holdfast.experiments.enrolled import ABSENCES
from holdfast.experiments.federation import CertifyConfig
from holdfast.experiments.flower_certify import CLIENT_APP, certify_on_nodes
from holdfast.flower.credentials import make_node_key
from holdfast.flower.hosting import node_command, start_node, start_server, start_superlink
from holdfast.flower.processes import ProcessError, Processes, free_ports
from holdfast.flower.site import Site, create
from tests.flower_rows import rows_of, tensors, write_rows

pytestmark = [pytest.mark.slow, pytest.mark.flower]

ROOT = Path(__file__).parents[1]
HONEST, HUGE, GHOST, HANGS, KILLED = range(5)
BEHAVIOR = {HONEST: "honest", HUGE: "huge", GHOST: "honest", HANGS: "hangs", KILLED: "honest"}
SEED = "a secret of thirty-two characters"
SETTINGS = {"k": 1, "design": "disjoint", "rounds": 2, "model": "logistic", "baseline": False}


@dataclass
class Federation:
    site: Site
    processes: Processes
    data: Path
    reference: Path


class Heard:
    """Keeps what a job says, and calls back on progress."""

    def __init__(self):
        self.notes, self.steps = [], []

    def note(self, text):
        self.notes.append(text)

    def progress(self, stage, done, total, left=None):
        self.steps.append((done, total))


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    """Five nodes, on the same rows as a run in this process."""
    folder = tmp_path_factory.mktemp("federation")
    data = folder / "rows.npz"
    write_rows(data, len(BEHAVIOR))
    certify_run(CertifyConfig(str(data), partition="user", **SETTINGS), folder / "reference", seed=SEED)
    sizes = [len(rows_of(data, client)[1]) for client in BEHAVIOR]
    patch = pytest.MonkeyPatch()
    patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "src")]))
    patch.setenv("OMP_NUM_THREADS", "1")
    site = create(folder / "site", len(BEHAVIOR), examples=sizes)
    with Processes(site.path / "logs") as processes:
        start_server(site, processes)
        for client, behavior in BEHAVIOR.items():
            path = site.client(client) / "rows.npz"
            x, y = rows_of(data, client)
            np.savez(path, x=x, y=y)
            config = {"data": str(path), "behavior": behavior}
            if client == GHOST:
                command = node_command(site, client, config, port=free_ports(1)[0])
                haunted = [sys.executable, str(ROOT / "tests" / "flower_ghost_node.py"), *command[1:]]
                script = f"cd {site.client(client)} && exec " + " ".join(f"'{word}'" for word in haunted)
                env = site.environment(f"clients/{client:03d}/flwr")
                processes.start(f"node-{client}", ["bash", "-c", script], env)
            else:
                start_node(site, processes, client, config)
        yield Federation(site, processes, data, folder / "reference")
    patch.undo()
    assert not processes_of(site.path), "processes are left behind"


def processes_of(folder: Path) -> list[str]:
    """Command lines that name a folder, some seconds after everything should be gone."""
    for _ in range(20):
        found = []
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if str(folder) in words:
                found.append(words)
        if not found:
            break
        time.sleep(0.5)
    return found


def certify(federation, out, *, client_app=CLIENT_APP, resume=False, seconds=(60.0, 120.0), heard=None):
    settings = SETTINGS | {"data": str(federation.data), "model_seconds": seconds[0], "round_seconds": seconds[1]}
    options = {"alpha": 0.001, "seed": None if resume else SEED, "resume": resume, "keep_models": True}
    return certify_on_nodes(
        federation.site,
        settings,
        out,
        options=options | {"engine": "auto", "threads": 1, "wait": 120.0},
        given={},
        client_app=client_app,
        events=heard or Heard(),
    )


def same_models(run: Path, reference: Path) -> set[int]:
    names = sorted(path.name for path in (reference / "models").iterdir())
    assert names == sorted(path.name for path in (run / "models").iterdir())
    return {j for j, name in enumerate(names) if tensors(run / "models" / name) == tensors(reference / "models" / name)}


def members(run: Path) -> dict[int, int]:
    """Client to model; groups are of one."""
    from holdfast.ensemble import Votes

    return {int(row.argmax()): j for j, row in enumerate(Votes.load(run / "votes.npz").design.membership)}


def test_a_server_killed_and_resumed_gives_the_in_process_votes(federation, tmp_path):
    """Kill -9 of the SuperLink and of the ServerApp in the second round; both come back, and only it is done again."""
    out, site = tmp_path / "run", federation.site
    failed = []

    def first():
        try:
            certify(federation, out)
        except ProcessError as problem:
            failed.append(problem)

    thread = threading.Thread(target=first)
    thread.start()
    deadline = time.monotonic() + 300
    while not (out / "training.safetensors").exists():
        assert time.monotonic() < deadline, (site.path / "logs" / "superlink.log").read_text()[-2000:]
        assert thread.is_alive(), failed
        time.sleep(0.2)
    (journal,) = (site.path / "jobs").glob("*.journal")
    server = json.loads(journal.read_text().splitlines()[0])["pid"]
    federation.processes.kill("superlink")
    os.kill(server, signal.SIGKILL)
    thread.join(60)
    assert "ended without a word" in str(failed[0])
    start_superlink(site, federation.processes)
    result = certify(federation, out, resume=True)
    assert same_models(out, federation.reference) == set(range(len(BEHAVIOR)))
    reference = np.load(federation.reference / "votes.npz")
    assert (result.votes.votes == reference["votes"]).all()
    assert (out / "report.html").exists()
    assert not (out / ABSENCES).exists()


def test_strangers_and_unregistered_nodes_are_refused(federation, tmp_path):
    site = federation.site
    trust = ssl.create_default_context(cafile=site.authority)
    with httpx.Client(base_url=f"https://127.0.0.1:{site.port}", verify=trust, trust_env=False) as stranger:
        for call in ("control/list-nodes", "control/register-node", "control/start-run", "runtime/pull-task-input"):
            assert stranger.post(f"/v1/{call}").status_code == 404
        headers = {"content-type": "application/protobuf"}
        unsigned = stranger.post("/v1/fleet/pull-messages", content=b"", headers=headers)
        assert unsigned.status_code in (401, 403), unsigned.content
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.post(f"https://127.0.0.1:{site.port}/v1/fleet/pull-messages", trust_env=False)
    make_node_key(tmp_path)
    (tmp_path / "ca.crt").write_bytes(site.authority.read_bytes())
    unregistered = node_command(site, 0, {}, port=free_ports(1)[0], folder=tmp_path)
    place = unregistered.index("--auth-supernode-private-key")
    no_key = unregistered[:place] + unregistered[place + 2 :]
    with Processes(tmp_path) as others:  # not by pipes: what a node leaves behind would hold them open
        for name, command in (("unregistered", unregistered), ("no-key", no_key)):
            process = others.start(name, command, {**site.environment(), "FLWR_HOME": str(tmp_path)})
            assert process.wait(120) == 1
            said = others.log(name).read_text()
            assert "2004" in said or "2001" in said, said


def test_hostile_dead_and_hanging_nodes_cost_their_own_groups_only(federation, tmp_path):
    """In one run: 200 MB, an announced reply that never comes, a step that never ends, kill -9 in the first round."""
    site, out = federation.site, tmp_path / "run"
    (site.client(GHOST) / "haunted").touch()
    log = federation.processes.log(f"node-{KILLED}")
    place, hanging = len(log.read_text()), len(federation.processes.log(f"node-{HANGS}").read_text())

    def kill():
        while "Start `flwr-clientapp` process" not in log.read_text()[place:]:
            time.sleep(0.05)
        federation.processes.kill(f"node-{KILLED}")

    threading.Thread(target=kill, daemon=True).start()
    heard = Heard()
    certify(federation, out, client_app="tests.flower_hostile_client:app", seconds=(30.0, 90.0), heard=heard)
    model_of = members(out)
    assert same_models(out, federation.reference) == {model_of[HONEST]}
    lines = [json.loads(line) for line in (out / ABSENCES).read_text().splitlines() if line]
    found = {(line["round"], line["client"]): line for line in lines}
    assert {client for _, client in found} == {HUGE, GHOST, HANGS, KILLED}
    assert all(line["models"] == [model_of[line["client"]]] for line in lines)
    # Refused for its size, or still on its way when a slow machine's time is up.
    assert {found[number, HUGE]["kind"] for number in range(2)} <= {"malformed", "silent"}
    assert found[0, GHOST]["kind"] in ("silent", "malformed")
    assert found[0, HANGS]["kind"] in ("silent", "error")
    assert found[0, KILLED]["kind"] in ("silent", "error")
    # The ghost has uploaded since, and the watchdog ended the step that hung: a SuperNode handles one message at a
    # time, so this one would not have taken the second. (Whether it answers in time is up to the machine.)
    assert (1, GHOST) not in found
    assert federation.processes.log(f"node-{HANGS}").read_text()[hanging:].count("Start `flwr-clientapp` process") == 2
    assert "absences as they happened" in json.dumps(json.loads((out / "run.json").read_text())["assumptions"])
    assert any(f"client {KILLED} is left out" in note for note in heard.notes)


COMMAND = [sys.executable, "-m", "holdfast", "flower", "demo", "--clients", "4", "--hostile", "1", "--rounds", "1"]


def test_the_demonstration(tmp_path):
    done = subprocess.run(
        [*COMMAND, "--folder", str(tmp_path / "demo"), "--json"],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    stock, robust = json.loads(done.stdout)["outcomes"]
    assert stock["end"] == "aborted"
    assert "InconsistentMessageReplies" in stock["reason"]
    assert robust["end"] == "finished"
    assert robust["accuracy"][0] > 0.8
    assert not processes_of(tmp_path)


def test_ctrl_c_leaves_no_process_behind(tmp_path):
    script = [*COMMAND, "--folder", str(tmp_path / "demo")]
    with subprocess.Popen(script, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if "SuperLink with TLS" in line:
                break
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 130
    assert not processes_of(tmp_path)
