"""Downloads against a server on this machine that can break the connection and lie."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from senoscore.errors import InputDataError
from senoscore.fetch import fetch

CONTENT = bytes(range(256)) * 5000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    content = CONTENT
    etag = '"one"'
    ends_after: list[int]  # bytes after which each of the next answers breaks off
    status = 200
    redirect = ""
    asked: list[str | None]  # the Range of each request


class Answer(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        mine = self.server
        mine.asked.append(self.headers.get("Range"))
        if mine.redirect:
            self.send_response(302)
            self.send_header("Location", mine.redirect)
            self.end_headers()
            return
        if mine.status != 200:
            self.send_error(mine.status)
            return
        start = 0
        if self.headers.get("Range") and self.headers.get("If-Range") == mine.etag:
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            if start >= len(mine.content):
                self.send_error(416)
                return
        body = mine.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", mine.etag)
        self.end_headers()
        self.wfile.write(body[: mine.ends_after.pop(0) if mine.ends_after else None])

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Answer) as made:
        made.ends_after, made.asked = [], []
        thread = threading.Thread(target=made.serve_forever, daemon=True)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.server_port}/a.h5ad"


def test_a_broken_download_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.ends_after = [300_000, 400_000]
    target = tmp_path / "sub" / "a.h5ad"
    assert fetch(url(server), target, sha256=SHA256.upper(), schemes=["http"], wait=0) == SHA256
    assert target.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=300000-", "bytes=700000-"]
    assert [p.name for p in target.parent.iterdir()] == ["a.h5ad"]


def test_a_later_call_goes_on_too_and_nothing_is_in_place_before(
    server: Server, tmp_path: Path
) -> None:
    server.ends_after = [300_000]
    target = tmp_path / "a.h5ad"
    with pytest.raises(InputDataError, match=r"in 1 attempts: the connection ended after 300,000"):
        fetch(url(server), target, schemes=["http"], attempts=1)
    assert not target.exists()
    fetch(url(server), target, schemes=["http"])
    assert target.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=300000-"]


def test_a_file_that_changed_meanwhile_is_not_glued_to_the_old_part(
    server: Server, tmp_path: Path
) -> None:
    server.ends_after = [300_000]
    target = tmp_path / "a.h5ad"
    with pytest.raises(InputDataError):
        fetch(url(server), target, schemes=["http"], attempts=1)
    server.content, server.etag = CONTENT[::-1], '"two"'
    fetch(url(server), target, schemes=["http"])
    assert target.read_bytes() == CONTENT[::-1]


def test_a_part_that_is_already_whole(server: Server, tmp_path: Path) -> None:
    """Killed between the last byte and the new name: the server answers 416."""
    target = tmp_path / "a.h5ad"
    server.ends_after = [0]
    with pytest.raises(InputDataError):
        fetch(url(server), target, schemes=["http"], attempts=1)
    (tmp_path / ".a.h5ad.part").write_bytes(CONTENT)
    fetch(url(server), target, schemes=["http"], wait=0)
    assert target.read_bytes() == CONTENT


def test_a_wrong_checksum_leaves_nothing(server: Server, tmp_path: Path) -> None:
    with pytest.raises(InputDataError, match=f"the sha256 of the download is {SHA256}, the config"):
        fetch(url(server), tmp_path / "a.h5ad", sha256="0" * 64, schemes=["http"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("scheme", ["http", "file", "ftp"])
def test_only_https_unless_allowed(scheme: str, tmp_path: Path) -> None:
    with pytest.raises(InputDataError, match=f"'{scheme}' is not allowed, only https"):
        fetch(f"{scheme}://127.0.0.1/a", tmp_path / "a")


def test_a_redirect_cannot_leave_the_allowed_schemes(server: Server, tmp_path: Path) -> None:
    server.redirect = "ftp://127.0.0.1:1/a.h5ad"
    with pytest.raises(InputDataError, match=r"the redirect from .* 'ftp' is not allowed"):
        fetch(url(server), tmp_path / "a", schemes=["http"])
    assert list(tmp_path.iterdir()) == []


def test_a_refusal_is_not_tried_again_but_a_failure_is(server: Server, tmp_path: Path) -> None:
    server.status = 404
    with pytest.raises(InputDataError, match="answered 404"):
        fetch(url(server), tmp_path / "a", schemes=["http"], wait=0)
    assert len(server.asked) == 1
    server.status = 503
    with pytest.raises(InputDataError, match="answered 503"):
        fetch(url(server), tmp_path / "a", schemes=["http"], attempts=3, wait=0)
    assert len(server.asked) == 4


def test_a_file_address_where_it_is_allowed(tmp_path: Path) -> None:
    source = tmp_path / "a b.h5ad"
    source.write_bytes(CONTENT)
    assert fetch(source.as_uri(), tmp_path / "b", sha256=SHA256, schemes=["file"]) == SHA256
    assert (tmp_path / "b").read_bytes() == CONTENT


def test_an_address_nobody_answers(tmp_path: Path) -> None:
    with pytest.raises(InputDataError, match=r"in 2 attempts"):
        fetch("http://127.0.0.1:1/a", tmp_path / "a", schemes=["http"], attempts=2, wait=0)
