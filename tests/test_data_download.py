"""Downloads: checked before they count, nothing left behind, and one sentence when there is no network."""

import gzip
import hashlib
import socket
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from holdfast.data import DATASETS, cache_dir, fetch, load
from holdfast.data.sources import RemoteFile, download
from holdfast.types import DataError

CONTENT = b"the original bytes" * 1000


@pytest.fixture
def server():
    """A real server: /good.gz, /bad.gz, /cut.gz (closes early), /slow.gz (never answers), anything else 404."""
    released = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = gzip.compress(CONTENT)
            if self.path == "/slow.gz":
                released.wait(10)
                return
            if self.path not in ("/good.gz", "/bad.gz", "/cut.gz", "/page.zip"):
                self.send_error(404)
                return
            if self.path == "/bad.gz":
                body = gzip.compress(b"something else")
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[:20] if self.path == "/cut.gz" else body)

        def log_message(self, *args):
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_address[1]}"
    released.set()
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def closed_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def file(*urls):
    return RemoteFile("thing.gz", urls, hashlib.md5(CONTENT).hexdigest(), of_content=True)


def test_the_first_mirror_with_the_right_content_wins(server, tmp_path):
    urls = [f"{server}/missing.gz", f"{server}/bad.gz", f"{server}/cut.gz", f"{server}/good.gz"]
    path = download(file(*urls), tmp_path / "new" / "folder")
    assert gzip.decompress(path.read_bytes()) == CONTENT
    assert [entry.name for entry in path.parent.iterdir()] == ["thing.gz"]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("missing.gz", "Not Found"),
        ("bad.gz", "md5 "),
        ("cut.gz", "the connection broke after 20 of"),
        ("slow.gz", "timed out"),
    ],
)
def test_a_failed_download_names_the_reason_and_leaves_nothing(server, tmp_path, path, reason):
    with pytest.raises(DataError) as caught:
        download(file(f"{server}/{path}"), tmp_path, timeout=0.3)
    assert reason in str(caught.value)
    assert f"put thing.gz into {tmp_path} and run again" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_progress_counts_up_to_the_whole_file(server, tmp_path):
    seen = []
    path = download(file(f"{server}/good.gz"), tmp_path, progress=lambda *step: seen.append(step))
    size = path.stat().st_size
    assert seen[-1] == ("thing.gz", size, size)
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_web_page_in_place_of_an_archive_is_refused(server, tmp_path):
    with pytest.raises(DataError, match=r"not a \.zip file"):
        download(RemoteFile("thing.zip", (f"{server}/page.zip",)), tmp_path)


def test_without_network_the_sentence_names_the_folder_and_the_files(tmp_path, monkeypatch):
    monkeypatch.setenv("HOLDFAST_DATA", str(tmp_path / "cache"))
    url = f"http://127.0.0.1:{closed_port()}/x.gz"
    mnist = DATASETS["mnist"]
    monkeypatch.setitem(
        DATASETS, "mnist", replace(mnist, files=tuple(replace(part, urls=(url,)) for part in mnist.files))
    )
    for call in (lambda: load("mnist"), lambda: fetch("mnist")):
        with pytest.raises(DataError) as caught:
            call()
        sentence = str(caught.value)
        assert str(tmp_path / "cache" / "mnist") in sentence
        assert "t10k-labels-idx1-ubyte" in sentence
        assert "Connection refused" in sentence
        assert "\n" not in sentence
    with pytest.raises(DataError, match="holdfast data fetch mnist"):
        load("mnist", fetch_missing=False)


def test_data_dir_is_never_downloaded_into(tmp_path):
    with pytest.raises(DataError, match="mnist is not in"):
        load("mnist", data_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_login_is_said_to_be_needed(tmp_path, monkeypatch):
    monkeypatch.setenv("HOLDFAST_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"loan cannot be downloaded without a login.*kaggle.*loan\.csv"):
        fetch("loan")


def test_the_cache_moves_with_its_variables(tmp_path, monkeypatch):
    monkeypatch.delenv("HOLDFAST_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "holdfast"
    monkeypatch.setenv("HOLDFAST_DATA", str(tmp_path / "mine"))
    assert cache_dir() == tmp_path / "mine"
    (tmp_path / "blocked").write_text("a file, not a folder")
    monkeypatch.setenv("HOLDFAST_DATA", str(tmp_path / "blocked"))
    with pytest.raises(DataError, match="set HOLDFAST_DATA"):
        fetch("mnist")
