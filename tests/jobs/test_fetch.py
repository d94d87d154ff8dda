"""Fetching a file over real HTTP: verified, resumed, from the next mirror where one fails."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from jobs import fetch
from jobs.command import DataError

_FILE = bytes(range(256)) * 2000
_HASH = hashlib.sha256(_FILE).hexdigest()


class _Mirror(ThreadingHTTPServer):
    """Serves the file; how, the path says: /whole, /plain (no ranges), /cut, /other, /gone."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.ranges: list[str | None] = []

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{path}"


class _Handler(BaseHTTPRequestHandler):
    server: _Mirror

    def do_GET(self) -> None:
        wanted = self.headers["Range"]
        self.server.ranges.append(wanted)
        if self.path == "/gone":
            self.send_error(404)
            return
        start = int(wanted[6:-1]) if wanted and self.path != "/plain" else 0
        if start >= len(_FILE):
            self.send_error(416)
            return
        data = b"other" * 100 if self.path == "/other" else _FILE[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if self.path == "/cut" else data)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Mirror]:
    monkeypatch.setattr(fetch, "MIRRORS", ())
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(_Mirror())
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        stack.callback(thread.join)
        stack.callback(server.shutdown)
        yield server


def test_fetches_verifies_and_does_not_fetch_again(tmp_path: Path, mirror: _Mirror) -> None:
    folder = tmp_path / "new" / "data"
    for _ in range(2):
        path = fetch.fetch_mnist(folder, [mirror.url("whole")], _HASH)
    assert path.read_bytes() == _FILE
    assert [file.name for file in folder.iterdir()] == ["mnist.npz"]
    assert mirror.ranges == [None]


def test_goes_on_where_it_was_cut_off(tmp_path: Path, mirror: _Mirror) -> None:
    with pytest.raises(DataError, match="more expected"):
        fetch.fetch_mnist(tmp_path, [mirror.url("cut")], _HASH)
    half = len(_FILE) // 2
    assert (tmp_path / "mnist.npz.part").stat().st_size == half
    assert fetch.fetch_mnist(tmp_path, [mirror.url("whole")], _HASH).read_bytes() == _FILE
    assert mirror.ranges == [None, f"bytes={half}-"]


def test_a_mirror_without_ranges_is_read_from_its_beginning(
    tmp_path: Path, mirror: _Mirror
) -> None:
    (tmp_path / "mnist.npz.part").write_bytes(_FILE[:1000])
    assert fetch.fetch_mnist(tmp_path, [mirror.url("plain")], _HASH).read_bytes() == _FILE


def test_a_download_that_was_whole_already_is_taken(tmp_path: Path, mirror: _Mirror) -> None:
    (tmp_path / "mnist.npz.part").write_bytes(_FILE)
    assert fetch.fetch_mnist(tmp_path, [mirror.url("whole")], _HASH).read_bytes() == _FILE


def test_the_next_mirror_is_asked_where_one_fails(tmp_path: Path, mirror: _Mirror) -> None:
    urls = [mirror.url(path) for path in ("gone", "other", "whole")]
    assert fetch.fetch_mnist(tmp_path, urls, _HASH).read_bytes() == _FILE


def test_a_file_that_was_changed_is_told(tmp_path: Path, mirror: _Mirror) -> None:
    (tmp_path / "mnist.npz").write_bytes(b"mine")
    with pytest.raises(DataError, match="not the file meant"):
        fetch.fetch_mnist(tmp_path, [mirror.url("whole")], _HASH)
    assert (tmp_path / "mnist.npz").read_bytes() == b"mine"


def test_without_a_network_it_says_what_to_place_where(tmp_path: Path, mirror: _Mirror) -> None:
    with pytest.raises(DataError) as caught:
        fetch.fetch_mnist(tmp_path, ["http://127.0.0.1:9/mnist.npz", "file:///etc/passwd"], _HASH)
    message = str(caught.value)
    assert str(tmp_path / "mnist.npz") in message
    assert _HASH in message
    assert "127.0.0.1:9" in message
    assert "only http and https" in message


def test_a_folder_that_cannot_be_is_told(tmp_path: Path, mirror: _Mirror) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="Not a directory"):
        fetch.fetch_mnist(tmp_path / "file" / "data", [mirror.url("whole")], _HASH)
