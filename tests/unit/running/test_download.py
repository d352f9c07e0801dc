"""Downloads against a server in this process: whole, cut off, resumed, refused, and wrong in several ways."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest

from duodiff.running.download import fetch, require

CONTENT = np.random.default_rng(0).bytes(3_000_017)  # several reads, none of them whole
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    """Serves CONTENT; the path says what goes wrong. `requests` collects the Range headers."""

    requests: list

    def do_GET(self):
        asked = self.headers["Range"]
        self.requests.append(asked)
        if self.path == "/page":
            return self._send(200, b"<!DOCTYPE html><p>Log in", {"Content-Type": "text/html"})
        if self.path == "/untyped-page":
            return self._send(200, b"\n<HTML>quota exceeded", {})
        if self.path == "/absent":
            return self._send(404, b"", {})
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        if self.path == "/no-range" or not asked:
            half = len(CONTENT) // 2 if self.path == "/cut" else len(CONTENT)
            return self._send(200, CONTENT[:half], {"Content-Length": str(len(CONTENT))})
        if start >= len(CONTENT):
            return self._send(416, b"", {"Content-Range": f"bytes */{len(CONTENT)}"})
        span = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
        self._send(206, CONTENT[start:], {"Content-Range": span})

    def _send(self, status: int, body: bytes, headers: dict):
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    handler = type("Handler", (_Handler,), {"requests": []})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        server.url, server.requests = f"http://127.0.0.1:{server.server_port}", handler.requests
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("sha256", [SHA256, None])
def test_a_file_is_downloaded_once(server, tmp_path, sha256):
    path = tmp_path / "new/file.bin"
    for _ in range(2):
        fetch(f"{server.url}/file", path, sha256)
        assert path.read_bytes() == CONTENT
    assert server.requests == [None]
    assert [p.name for p in path.parent.iterdir()] == ["file.bin"]


def test_a_download_cut_in_half_is_kept_and_resumed(server, tmp_path):
    path, half = tmp_path / "file.bin", len(CONTENT) // 2
    with pytest.raises(OSError, match=f"cut off after {half} of {len(CONTENT)} bytes.*run again"):
        fetch(f"{server.url}/cut", path, SHA256)
    assert (tmp_path / "file.bin.partial").stat().st_size == half
    assert not path.exists()
    fetch(f"{server.url}/cut", path, SHA256)
    assert path.read_bytes() == CONTENT
    assert server.requests == [None, f"bytes={half}-"]


@pytest.mark.parametrize(
    ("partial", "address", "requests"),
    [
        (CONTENT[:100], "/no-range", 1),  # the server starts anew, and so does the file
        (CONTENT, "/file", 1),  # already whole
        (CONTENT + b"more", "/file", 2),  # longer than the file: begun again
    ],
)
def test_any_partial_file_is_dealt_with(server, tmp_path, partial, address, requests):
    (tmp_path / "file.bin.partial").write_bytes(partial)
    fetch(server.url + address, tmp_path / "file.bin", SHA256)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert not (tmp_path / "file.bin.partial").exists()
    assert len(server.requests) == requests


def test_a_wrong_hash_removes_the_partial_file_only(server, tmp_path):
    path = tmp_path / "file.bin"
    with pytest.raises(ValueError, match=f"file.bin: found sha256 {SHA256}, expected {'0' * 64}"):
        fetch(f"{server.url}/file", path, "0" * 64)
    assert list(tmp_path.iterdir()) == []
    path.write_bytes(b"the user's own")
    with pytest.raises(ValueError, match=r"file.bin: found sha256 [0-9a-f]{64}, expected"):
        fetch(f"{server.url}/file", path, SHA256)
    assert path.read_bytes() == b"the user's own"


@pytest.mark.parametrize("address", ["/page", "/untyped-page"])
def test_a_web_page_in_place_of_the_file_is_said_to_be_one(server, tmp_path, address):
    with pytest.raises(ValueError, match=r"HTML page in place of (the file|file\.bin)"):
        fetch(server.url + address, tmp_path / "file.bin", None)
    assert list(tmp_path.iterdir()) == []


def test_a_login_page_does_not_overwrite_what_has_arrived(server, tmp_path):
    (tmp_path / "file.bin.partial").write_bytes(CONTENT[:100])
    with pytest.raises(ValueError, match="HTML page"):
        fetch(f"{server.url}/page", tmp_path / "file.bin", SHA256)
    assert (tmp_path / "file.bin.partial").read_bytes() == CONTENT[:100]


def test_without_network_the_error_says_what_to_put_where(server, tmp_path):
    path = tmp_path / "file.bin"
    with pytest.raises(OSError, match="HTTP Error 404") as error:
        fetch(f"{server.url}/absent", path, SHA256)
    refused = "http://127.0.0.1:9/file"  # nobody listens on the discard port
    with pytest.raises(OSError, match="refused") as error:
        fetch(refused, path, SHA256)
    assert str(path) in str(error.value)
    assert f"put it there yourself: it is found at {refused}" in str(error.value)


def test_a_required_file_is_returned_or_its_page_named(tmp_path):
    assert require(tmp_path, "https://example.org") == tmp_path
    with pytest.raises(FileNotFoundError, match=r"a\.zip is missing; .* at https://example.org"):
        require(tmp_path / "a.zip", "https://example.org")
