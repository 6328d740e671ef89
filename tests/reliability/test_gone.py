"""Connections that end, break, hang or crawl in the middle of an answer: what they held is free, and nobody waits for them (R3)."""

import json
import re
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.reliability.visiting import request
from tests.serving import Heard, Scripted, served, until, words

BAR_S, TIMES = 2.0, 3
# More than the system keeps for a connection that nobody reads from.
FLOOD = ["x" * 200_000] * 20


def asked(address: str, text: str) -> str:
    """Where the answer can be fetched."""
    answer = httpx.post(f"{address}gradio_api/call/chat", json=request(address, text), timeout=60)
    return f"/gradio_api/call/chat/{answer.json()['event_id']}"


@contextmanager
def listening(address: str, path: str) -> Iterator[socket.socket]:
    """A connection on which an answer has begun to come."""
    line = socket.socket()
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    line.settimeout(60)
    with line:
        line.connect((urlsplit(address).hostname, urlsplit(address).port))
        line.sendall(f"GET {path} HTTP/1.1\r\nHost: {urlsplit(address).netloc}\r\n\r\n".encode())
        told = b""
        while b"event: generating" not in told:
            told += line.recv(4096)
        yield line


def under_way(address: str) -> int:
    """Requests that hold a place."""
    [count] = re.findall(r"^requests_under_way (\d+)", httpx.get(f"{address}metrics", timeout=60).text, re.MULTILINE)
    return int(count)


def close(line: socket.socket) -> None:
    line.close()


def reset(line: socket.socket) -> None:
    line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    line.close()


@pytest.mark.parametrize("leave", [close, reset])
def test_a_connection_that_ends_frees_the_engine(
    heard: Heard, address: str, monkeypatch: pytest.MonkeyPatch, leave: Callable[[socket.socket], None]
) -> None:
    monkeypatch.setattr(heard, "answer_tokens", 20_000)
    took = []
    for _ in range(TIMES):
        with listening(address, asked(address, "Tell me everything")) as line:
            until(lambda: heard.stats().running == 1)
            leave(line)
            left = time.monotonic()
            until(lambda: heard.stats().running == 0)
            took.append(time.monotonic() - left)
        assert heard.closed.acquire(timeout=60)
    stats, busy = heard.stats(), under_way(address)
    figures = {"gone": f"connection {leave.__name__}", "free_ms": [round(1000 * seconds) for seconds in took], "slots_busy_after": busy}
    print(json.dumps({"R3": figures}))
    assert (busy, stats.waiting, stats.num_free_blocks) == (0, 0, stats.num_blocks)
    assert max(took) < BAR_S


@pytest.mark.parametrize("manner", ["hangs", "crawls"])
def test_a_connection_that_is_not_read_from_holds_nothing_longer_than_its_answer_takes(tmp_path: Path, manner: str) -> None:
    assistant = Scripted(words(*FLOOD), words("fine"))
    with served(assistant, tmp_path) as address, listening(address, asked(address, "Tell me everything")) as line:
        until(lambda: assistant.closed.acquire(blocking=False) or (manner == "crawls" and not line.recv(10)))
        busy = under_way(address)
        answered = "fine" in httpx.get(address.rstrip("/") + asked(address, "And me?"), timeout=60).text
    print(json.dumps({"R3": {"gone": f"connection {manner}", "slots_busy_after": busy, "another_visitor_answered": answered}}))
    assert (busy, answered) == (0, True)
