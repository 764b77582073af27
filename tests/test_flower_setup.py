"""The safe set-up: certificates and keys, the proxy, the watchdog, and one sentence for everything that is wrong."""

import http.client
import importlib.metadata
import os
import socket
import ssl
import stat
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from holdfast.cli import main
from holdfast.flower import credentials
from holdfast.flower.jobs import alone
from holdfast.flower.processes import ProcessError, Processes, free_ports
from holdfast.flower.proxy import FLEET_CALLS, fleet_proxy
from holdfast.flower.site import create, open_site
from holdfast.types import ArtifactError, ConfigError


@pytest.fixture
def refused(monkeypatch, capsys):
    """Runs `holdfast flower ...` and gives the one sentence it is refused with."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["holdfast", "flower", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr().err
        assert ended.value.code == 2, told
        (line,) = told.strip().splitlines()
        return line

    return run


@pytest.fixture
def site(tmp_path):
    return create(tmp_path / "site", 3)


# Certificates and keys.


def test_keys_are_private_and_every_client_has_its_own(site):
    publics = set()
    for client in range(3):
        bundle = site.client(client)
        assert {path.name for path in bundle.iterdir()} == {"node.key", "node.pub", "ca.crt"}
        assert stat.S_IMODE((bundle / "node.key").stat().st_mode) == 0o600
        key = serialization.load_ssh_private_key((bundle / "node.key").read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        assert isinstance(key.curve, ec.SECP384R1)
        publics.add((bundle / "node.pub").read_bytes())
    assert len(publics) == 3
    assert len({row.public_key_sha256 for row in site.enrolled()}) == 3
    for name in ("ca.key", "server.key"):
        assert stat.S_IMODE((site.path / "server" / name).stat().st_mode) == 0o600


def test_the_certificate_is_for_the_host_and_from_the_authority(tmp_path):
    site = create(tmp_path / "site", 1, host="fl.example.org")
    folder = site.path / "server"
    certificate = x509.load_pem_x509_certificate((folder / "server.crt").read_bytes())
    authority = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
    certificate.verify_directly_issued_by(authority)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["fl.example.org", "localhost"]
    assert str(names.get_values_for_type(x509.IPAddress)[0]) == "127.0.0.1"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.crt", folder / "server.key")


def test_a_federation_is_found_again_also_after_it_was_moved(site, tmp_path):
    site.path.rename(tmp_path / "moved")
    again = open_site(tmp_path / "moved")
    assert (again.port, again.superlink_port, again.clients) == (site.port, site.superlink_port, 3)
    assert str(tmp_path / "moved") in (tmp_path / "moved" / "flwr" / "config.toml").read_text()


# One sentence, exit code 2.


def test_what_is_wrong_is_said_in_one_sentence(site, tmp_path, refused):
    missing = tmp_path / "nothing"
    assert f"{missing} holds no federation" in refused("up", missing)
    assert "is not an empty folder" in refused("setup", site.path, "--clients", 2)
    assert "days = 0 must be at least 1" in refused("setup", tmp_path / "new", "--clients", 1, "--days", 0)
    assert "clients = 0 must be at least 1" in refused("setup", tmp_path / "new", "--clients", 0)
    assert "examples must be 2 whole numbers" in refused("setup", tmp_path / "new", "--clients", 2, "--examples", "5")
    assert not (tmp_path / "new").exists()
    assert "rows.npz is not there; deal rows" in refused("up", site.path, "--nodes")
    out = tmp_path / "run"
    assert "k=5 clients per model are more than the n=3" in refused("certify", site.path, "--k", 5, "--out", out)
    assert "no server runs for" in refused("certify", site.path, "--k", 1, "--out", out)
    assert not out.exists()
    assert "less than half of the 4 nodes" in refused("demo", "--clients", 4, "--hostile", 2)
    assert "fewer than the 5 that krum needs" in refused("demo", "--clients", 4, "--hostile", 1, "--rule", "krum")
    assert "did you mean 'median'" in refused("demo", "--rule", "medan")


def test_without_flower_the_extra_is_named(tmp_path, monkeypatch, refused):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    for words in (("demo",), ("setup", tmp_path / "new", "--clients", 2), ("up", tmp_path)):
        assert "pip install 'holdfast[flower]'" in refused(*words)


def test_two_jobs_do_not_work_on_one_run(tmp_path):
    refused = pytest.raises(ConfigError, match="still works on runs/a")
    with alone(tmp_path, "runs/a"), alone(tmp_path, "runs/b"), refused, alone(tmp_path, "runs/a"):
        pass
    with alone(tmp_path, "runs/a"):
        pass


def test_wrong_certificate_paths_are_named(site, tmp_path, refused):
    given = {"--ca": site.authority, "--certificate": site.path / "server" / "server.crt"}
    port = free_ports(1)[0]
    for option in given:
        wrong = {**given, option: tmp_path / "none.crt", "--key": site.path / "server" / "server.key"}
        words = [word for pair in wrong.items() for word in pair]
        said = refused("proxy", "--listen", f"127.0.0.1:{port}", "--superlink", "127.0.0.1:1", *words)
        assert f"{tmp_path / 'none.crt'} cannot be read: No such file" in said
    (site.path / "server" / "ca.crt").write_text("not a certificate")
    assert "ca.crt is not a PEM certificate" in refused("up", site.path)
    (site.path / "server" / "ca.crt").unlink()
    assert "ca.crt cannot be read" in refused("up", site.path)


def test_an_expired_certificate_is_refused(site, monkeypatch):
    class InTwoYears(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + timedelta(days=730)

    monkeypatch.setattr(credentials, "datetime", InTwoYears)
    with pytest.raises(ConfigError, match=r"server.crt is valid from .*, not today"):
        open_site(site.path)


def test_a_port_in_use_is_named(site, refused):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", site.port))
        taken.listen()
        assert f"port {site.port} of 127.0.0.1 cannot be listened on" in refused("up", site.path)
        with pytest.raises(ConfigError, match=f"port {site.port}"):
            create(site.path.parent / "second", 1, port=site.port)


def test_damaged_descriptions_are_refused(site):
    (site.path / "enrolled.json").write_text("[]")
    with pytest.raises(ArtifactError, match="does not list the clients 0 to 2"):
        site.enrolled()
    (site.path / "site.json").write_text('{"format": 1}')
    with pytest.raises(ArtifactError, match="is damaged"):
        open_site(site.path)


# The proxy, over real sockets.


@contextmanager
def serving(app):
    """The port of a server that runs this application."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, ws="none", log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join(10)


@pytest.fixture(scope="module")
def behind():
    """The port of the proxy in front of a SuperLink that answers everything, and what that has seen."""
    seen = []

    async def answer(request: Request) -> Response:
        body = await request.body()
        seen.append((request.method, request.url.path, dict(request.headers), body))
        return Response(b"answer " + body, headers={"x-flower": "1"})

    superlink = Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "POST", "PUT", "DELETE"])])
    with serving(superlink) as port, serving(fleet_proxy(f"http://127.0.0.1:{port}", max_body=1000)) as door:
        yield door, seen


def send(port, path, body=b"", method="POST", **headers):
    """Status, body and headers of an answer to a request whose path is sent as it is."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, body=body, headers={name.replace("_", "-"): v for name, v in headers.items()})
        reply = connection.getresponse()
        return reply.status, reply.read(), dict(reply.getheaders())
    finally:
        connection.close()


def test_the_calls_of_nodes_pass_unchanged(behind):
    port, seen = behind
    for call in sorted(FLEET_CALLS):
        status, body, headers = send(port, f"/v1/fleet/{call}", b"abc", flwr_signature="s")
        assert (status, body, headers["x-flower"]) == (200, b"answer abc", "1")
        method, path, headers, body = seen[-1]
        assert (method, path, headers["flwr-signature"], body) == ("POST", f"/v1/fleet/{call}", "s", b"abc")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/control/list-nodes",
        "/v1/control/register-node",
        "/v1/runtime/pull-messages",
        "/v1/fleet/",
        "/v1/fleet/list-nodes",
        "/v1/fleet/../control/list-nodes",
        "/v1/fleet/%2e%2e/control/list-nodes",
        "/v1/fleet/..%2fcontrol%2flist-nodes",
        "/v1/fleet/pull-messages/../../control/list-nodes",
        "//v1/control/list-nodes",
        "/V1/fleet/pull-messages",
        "/health",
        "/docs",
        "/",
    ],
)
def test_nothing_else_passes(behind, path):
    port, seen = behind
    before = len(seen)
    assert send(port, path, b"x")[0] == 404
    assert len(seen) == before


def test_only_post_passes(behind):
    port, seen = behind
    before = len(seen)
    for method in ("GET", "PUT", "DELETE", "HEAD", "OPTIONS"):
        assert send(port, "/v1/fleet/pull-messages", method=method)[0] == 405
    assert len(seen) == before


def test_large_and_unmeasured_bodies_are_refused(behind):
    port, seen = behind
    before = len(seen)
    assert send(port, "/v1/fleet/push-object", b"x" * 1001)[0] == 413
    assert send(port, "/v1/fleet/push-object", iter([b"x", b"y"]))[0] == 411  # chunked
    assert len(seen) == before
    assert send(port, "/v1/fleet/push-object", b"x" * 1000)[0] == 200


def test_a_superlink_that_is_down_is_a_502():
    with serving(fleet_proxy(f"http://127.0.0.1:{free_ports(1)[0]}")) as port:
        assert send(port, "/v1/fleet/pull-messages", b"x")[0] == 502


# The watchdog.

HANG = """
import time
from types import SimpleNamespace
from flwr.app import ConfigRecord, RecordDict
from holdfast.flower.client import watched

@watched(seconds={seconds})
def train(message, context):
    {work}
    return message

config = ConfigRecord({{"deadline": {deadline}}})
train(SimpleNamespace(content=RecordDict({{"config": config}})), None)
print("returned")
"""


def hang(work, *, seconds=60.0, deadline=0.5):
    code = HANG.format(work=work, seconds=seconds, deadline=deadline)
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    return done, time.monotonic() - began


@pytest.mark.parametrize(
    "work",
    [
        "time.sleep(1000)",
        "import re; re.match('(a*)*b', 'a' * 60)",  # holds Python's global lock without end
    ],
)
def test_a_step_that_hangs_ends_its_process(work):
    done, _ = hang(work)
    assert done.returncode == 1
    assert "Timeout" in done.stderr
    assert "in train" in done.stderr


def test_a_step_in_time_is_left_alone():
    done, _ = hang("time.sleep(0.1)", deadline=5.0)
    assert (done.returncode, done.stdout) == (0, "returned\n")


@pytest.mark.parametrize("deadline", ["float('nan')", "-1.0", "'soon'"])
def test_a_deadline_that_makes_no_sense_is_not_one(deadline):
    done, _ = hang("time.sleep(1000)", seconds=0.5, deadline=deadline)
    assert done.returncode == 1


def test_flower_is_not_torch():
    """What a ClientApp needs beside its own training does not import torch."""
    code = "import sys, holdfast.flower.client, holdfast.flower.ensemble_client, holdfast.flower.demo_client; "
    code += "print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


# Child processes.


def test_processes_end_with_their_owner_and_so_do_their_children(tmp_path):
    """A child that ignores SIGTERM, and a grandchild in a session of its own."""
    grandchild = "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(99)'], "
    grandchild += "start_new_session=True); print(p.pid, flush=True); p.wait()"
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); "
    stubborn += "time.sleep(99)"
    with Processes(tmp_path) as processes:
        parent = processes.start("parent", [sys.executable, "-c", grandchild])
        deaf = processes.start("deaf", [sys.executable, "-c", stubborn])
        logs = [processes.log(name) for name in ("parent", "deaf")]
        processes.wait_until(lambda: all(log.read_text() for log in logs), "the children", seconds=30)
        pid = int(logs[0].read_text())
    assert parent.returncode is not None
    assert deaf.returncode is not None
    for _ in range(50):
        if not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split(")")[1][:3]:
            break
        time.sleep(0.1)
    else:
        os.kill(pid, 9)
        raise AssertionError("the grandchild lives")


def test_a_process_that_ends_by_itself_is_named_with_its_last_words(tmp_path):
    with Processes(tmp_path) as processes:
        processes.start("node", [sys.executable, "-c", "import sys; print('no key'); sys.exit(3)"])
        with pytest.raises(ProcessError, match=r"node ended with exit code 3: no key"):
            processes.wait_until(lambda: False, "never", seconds=30)
