"""Files behind public URLs: taken in within limits, from no inner address, and wholly or not at all."""

import asyncio
import hashlib
import os
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from gradio.processing_utils import hash_seed

from pipeline import InputError, MediaLimits, PipelineError
from ui import doors, download

LIMIT = 1_000_000


class Elsewhere(ThreadingHTTPServer):
    """Another site, which this machine has at "public.example"; it remembers what it was asked, and how much it could send without an end."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []
        self.sent = 0
        self.over = threading.Event()

    def url(self, path: str, host: str = "public.example") -> str:
        return f"http://{host}:{self.server_port}/{path}"


class Handler(BaseHTTPRequestHandler):
    server: Elsewhere

    def do_GET(self) -> None:
        self.server.asked.append(f"{self.headers['Host']}{self.path}")
        match self.path.partition("?")[0].rpartition("/")[2]:
            case "cat.png" | "no-suffix":
                self._begin(200, ("Content-Length", "3"))
                self.wfile.write(b"cat")
            case "latest":
                self._begin(200)
                self.wfile.write(str(len(self.server.asked)).encode())
            case "moved":
                self._begin(302, ("Location", "/a/cat.png"))
            case "inward":
                self._begin(302, ("Location", self.server.url("cat.png", "127.0.0.1")))
            case "round":
                self._begin(302, ("Location", "/round"))
            case "announced":
                self._begin(200, ("Content-Length", str(10 * LIMIT)))
            case "endless":
                self._begin(200)
                try:
                    while not self.server.over.is_set():
                        self.server.sent += self.wfile.write(bytes(100_000))
                except OSError:
                    pass
            case "silent":
                self._begin(200, ("Content-Length", "3"))
                self.wfile.write(b"c")
                self.server.over.wait()
            case _:
                self._begin(404)

    def _begin(self, status: int, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for header in headers:
            self.send_header(*header)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[Elsewhere]:
    really = download.public_address

    async def found(host: str) -> str:
        return "127.0.0.1" if host == "public.example" else await really(host)

    monkeypatch.setattr(download, "public_address", found)
    monkeypatch.setattr(download, "MediaLimits", lambda: MediaLimits(max_file_bytes=LIMIT))
    with Elsewhere() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.over.set()
        server.shutdown()
        thread.join()


async def _download(url: str, folder: Path) -> Path:
    async with download.in_time() as allowed:
        return await download.download(url, folder, allowed)


async def test_a_file_comes_from_where_its_url_leads_to_and_is_named_by_its_content_and_a_secret(elsewhere: Elsewhere, tmp_path: Path) -> None:
    first = await _download(elsewhere.url("moved"), tmp_path)
    assert first.read_bytes() == b"cat"
    assert first.parent.name == hashlib.sha256(hash_seed + b"cat").hexdigest()
    host = f"public.example:{elsewhere.server_port}"
    assert elsewhere.asked == [f"{host}/moved", f"{host}/a/cat.png"]
    named = [(await _download(elsewhere.url(path), tmp_path)).name for path in ("cat.png?size=9", "no-suffix")]
    assert named == ["file.png", "file"]
    assert [sorted(names) for _, _, names in os.walk(tmp_path) if names] == [["file", "file.png"]]


async def test_a_file_that_changes_is_taken_as_it_is_when_it_is_asked_for(elsewhere: Elsewhere, tmp_path: Path) -> None:
    """A camera's latest picture, say."""
    assert [(await _download(elsewhere.url("latest"), tmp_path)).read_bytes() for _ in range(2)] == [b"1", b"2"]


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        (MediaLimits(max_conversation_files=2), "The request names more than 2 files by URL, which is the limit."),
        (MediaLimits(max_conversation_bytes=8), "The files behind URLs have at least 9 bytes in all; the limit is 8."),
    ],
)
async def test_what_one_request_names_is_bounded_in_number_and_in_all(
    elsewhere: Elsewhere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limits: MediaLimits, sentence: str
) -> None:
    monkeypatch.setattr(download, "MediaLimits", lambda: limits)
    async with download.in_time() as allowed:
        for _ in range(2):
            await download.download(elsewhere.url("cat.png"), tmp_path, allowed)
        with pytest.raises(InputError, match=f"^{re.escape(sentence)}$"):
            await download.download(elsewhere.url("cat.png"), tmp_path, allowed)


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("gone", "The file behind a URL cannot be fetched: it is not there, or not public."),
        ("inward", "The file behind a URL cannot be fetched: it is not there, or not public."),
        ("round", "The file behind a URL cannot be fetched: it is not there, or not public."),
        ("announced", "The file behind a URL has at least 10,000,000 bytes; the limit is 1,000,000."),
        ("endless", r"The file behind a URL has at least 1,\d{3},\d{3} bytes; the limit is 1,000,000."),
        ("silent", "The files behind URLs took longer than 1 s to arrive, which is the limit."),
    ],
)
async def test_what_cannot_be_had_within_the_limits_is_told_in_one_sentence_and_leaves_nothing(
    elsewhere: Elsewhere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, sentence: str
) -> None:
    if path == "silent":
        monkeypatch.setattr(download, "DOWNLOAD_SECONDS", 1.0)
    with pytest.raises(InputError, match=f"^{sentence}$"):
        await _download(elsewhere.url(path), tmp_path)
    assert not [names for _, _, names in os.walk(tmp_path) if names]
    # More than the limit is at most on its way.
    assert elsewhere.sent < 50 * LIMIT
    assert not any(asked.startswith("127.0.0.1") for asked in elsewhere.asked)


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "localhost", "0.0.0.0", "2130706433", "127.1", "user@127.0.0.1", "[::1]", "[::ffff:127.0.0.1]"),  # noqa: S104
        *("10.0.0.1", "192.168.1.1", "169.254.169.254", "100.100.100.200", "224.0.0.1", "[fe80::1]", "[fd00::1]", "[64:ff9b::a00:1]", "x" * 300),
    ],
)
async def test_inner_addresses_are_not_asked(elsewhere: Elsewhere, tmp_path: Path, host: str) -> None:
    with pytest.raises(InputError, match="cannot be fetched"):
        await _download(elsewhere.url("cat.png", host), tmp_path)
    assert elsewhere.asked == []


@pytest.mark.parametrize(
    "url", ["http://", "http://[", "https://:1/x.png", "http://public.example:99999/", "http://\ud800.example/", "ftp://public.example/x"]
)
async def test_what_is_no_url_is_told_like_one_that_leads_nowhere(elsewhere: Elsewhere, tmp_path: Path, url: str) -> None:
    with pytest.raises(InputError, match="cannot be fetched"):
        await _download(url, tmp_path)


async def test_the_addresses_of_the_world_are_asked() -> None:
    for host in ("8.8.8.8", "2606:4700:4700::1111"):
        assert await download.public_address(host) == host


async def test_a_full_disk_is_told_as_such(elsewhere: Elsewhere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "MIN_FREE_BYTES", 2**62)
    with pytest.raises(PipelineError, match=f"^{re.escape(doors.DISK_FULL)}$"):
        await _download(elsewhere.url("cat.png"), tmp_path)


async def test_two_who_ask_at_once_both_get_the_whole(elsewhere: Elsewhere, tmp_path: Path) -> None:
    found = await asyncio.gather(*[_download(elsewhere.url("cat.png"), tmp_path) for _ in range(2)])
    assert [path.read_bytes() for path in found] == [b"cat"] * 2
