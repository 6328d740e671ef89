"""A Hub on 127.0.0.1 as huggingface_hub speaks to it, over plain HTTP and Git LFS; told to, it fails like a real one."""

import contextlib
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.hub.endpoints import ENDPOINTS, Answer, Call, as_json
from tests.hub.repos import Body, Hub, Refused, copied


@dataclass
class Fault:
    """What befalls the next requests whose "METHOD /path" a pattern is found in: a status instead of an answer, or an answer that is "cut" off
    in the middle, "short" by half though it looks whole, "changed" in one byte, "lost" when all is done, or "slow" to come."""

    pattern: str
    does: int | str
    times: int = 1
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """What was asked, for the tests to look at."""

    method: str
    path: str
    size: int  # of the body, in bytes

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class Server(ThreadingHTTPServer):
    """Serves one Hub.

    `log` has every request so far. `watch` is called with the number of each when it has come (if it then returns something true, the request is
    dropped), and again when it is done but not answered. `waits` are the seconds that the client would have waited where a test spares it.
    """

    daemon_threads = True

    def __init__(self, hub: Hub) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hub = hub
        self.log: list[Request] = []
        self.faults: list[Fault] = []
        self.waits: list[float] = []
        self.watch: Callable[[int, str], object] = lambda *_: None
        self.address = f"http://127.0.0.1:{self.server_port}"
        self._books = threading.Lock()

    def asked(self, pattern: str) -> list[Request]:
        """The requests whose "METHOD /path" a pattern is found in."""
        return [request for request in self.log if re.search(pattern, str(request))]

    def enter(self, request: Request) -> tuple[int, Fault | None]:
        """Its number, from 1, and what shall befall it."""
        with self._books:
            self.log.append(request)
            for fault in self.faults:
                if fault.times and re.search(fault.pattern, str(request)):
                    fault.times -= 1
                    return len(self.log), fault
            return len(self.log), None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up or are killed are what the tests are about."""


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Server

    def _serve(self) -> None:
        url = urlsplit(self.path)
        body = Body(self.rfile, int(self.headers.get("Content-Length") or 0))
        request = Request(self.command, url.path, body.left)
        number, fault = self.server.enter(request)
        does = fault.does if fault else None
        if self.server.watch(number, "come"):
            self.close_connection = True
            return
        refused = Answer(b"{}", does, fault.headers) if fault and isinstance(does, int) else None
        answer = refused or self._answer(request, parse_qs(url.query), body)
        self.server.watch(number, "done")
        body.skip()
        if does == "lost":
            self.close_connection = True
        else:
            self._send(answer, does)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815

    def _answer(self, request: Request, query: dict[str, list[str]], body: Body) -> Answer:
        hub = self.server.hub
        # Contents come and go without the lock, everything else one after the other.
        with contextlib.nullcontext() if request.method == "PUT" else hub.lock:
            try:
                for pattern, endpoint in ENDPOINTS:
                    if match := re.fullmatch(pattern, str(request)):
                        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
                        call = Call(hub, self.server.address, hub.account(token), self.headers, query, body)
                        return endpoint(call, **{name: unquote(value) for name, value in match.groupdict().items()})
                raise Refused(404, f"There is no endpoint {request}")
            except Refused as refusal:
                answer = as_json({"error": str(refusal)}, refusal.status)
                answer.headers |= refusal.headers
                return answer

    def _send(self, answer: Answer, does: int | str | None) -> None:
        half = does in ("cut", "short")
        self.send_response(answer.status)
        headers = {**answer.headers, "Content-Length": str(answer.size // 2 if does == "short" else answer.size)}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.close_connection = half
        if self.command == "HEAD":
            return
        for piece in _faulty(copied(answer.body), answer.size // 2 if half else answer.size, does):
            self.wfile.write(piece)

    def log_message(self, *_: object) -> None:
        """Tests read `Server.log`."""


def _faulty(pieces: Iterator[bytes], size: int, does: int | str | None) -> Iterator[bytes]:
    """The first `size` bytes of a body, with what a fault does to them."""
    for whole in pieces:
        piece, size = whole[:size], size - len(whole[:size])
        if does == "changed":
            piece, does = bytes([piece[0] ^ 1]) + piece[1:], None
        step = max(len(piece) // 8, 1) if does == "slow" else max(len(piece), 1)
        for start in range(0, len(piece), step):
            yield piece[start : start + step]
            if does == "slow":
                threading.Event().wait(0.02)


@contextmanager
def running(folder: Path) -> Iterator[Server]:
    """An empty Hub that keeps its contents in a folder, while it is served."""
    with Server(Hub(folder)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
