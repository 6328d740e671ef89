"""A request from anybody -> Gradio, if it is one that the page needs, and no larger or slower than the limits; else a status and a plain sentence.

What stands behind these doors trusts that requests are well-formed, and holds in memory what they bring.
"""

import asyncio
import contextlib
import errno
import logging
import os
import time
import traceback
from collections import Counter
from pathlib import Path

from gradio.route_utils import FnIndexInferError
from gradio.utils import get_upload_folder
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline import InputError, PipelineError
from ui.sentences import FAULT, full
from ui.sessions import counted
from ui.uploads import drop_broken_off
from ui.words import language

logger = logging.getLogger("app")

API = "/gradio_api"
UPLOAD = f"{API}/upload"
# Where calls are taken into the queue.
JOIN = (f"{API}/queue/join", f"{API}/call/")
# A message comes with the whole conversation, of which the model reads 8,192 tokens; parsed, a body takes up to thirty times its size in memory.
MAX_BODY_BYTES = 1_000_000
MAX_UPLOAD_BYTES = 500_000_000
MAX_BODY_SECONDS = 600.0
# Of the disk, below which nothing is taken in any more. Each file takes two inodes, with its folder.
MIN_FREE_BYTES, MIN_FREE_INODES = 1_000_000_000, 1_000
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
# Gradio's own names of sessions have eleven characters, and it remembers thousands of them.
MAX_SESSION_NAME = 64
DISK_FULL = "This server's disk is full: please try again later."
# What Gradio offers and the page has no use for: fetching other people's addresses, converting recordings, keeping conversations on disk as links,
# printing names that visitors choose, functions of components, its tools for developers, and the progress of uploads, which it remembers for ever.
CLOSED = tuple(
    f"{API}/{name}"
    for name in ("file=http:", "file=https:", "file/http:", "file/https:", "proxy=", "process_recording", "deep_link", "custom_component/",
                 "component_server", "dev/", "vibe-", "undo-vibe-edit", "run-history/", "upload_progress")
)  # fmt: skip
# What Gradio's routes raise when a body is not what they take it for.
MALFORMED = (ArithmeticError, AttributeError, FnIndexInferError, LookupError, TypeError, ValueError)
# Where functions are called past the queue; whatever goes wrong there, Gradio answers with 500.
DIRECT = (f"{API}/run/", f"{API}/api/")
REFUSED_WITH = "refused_with"  # of a request's state: the status that a call's own end has, where it has one


class Doors:
    """ASGI middleware in front of Gradio's own routes; in `there` it counts who is there, by their sessions."""

    def __init__(self, app: ASGIApp, there: Counter[str]) -> None:
        self._app, self._there = app, there

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False
        state = scope.setdefault("state", {})

        async def noting(message: Message) -> None:
            nonlocal begun
            begun = True
            if message.get("status") == 500 and scope["path"].startswith(DIRECT):
                # Our part of a call says what was wrong with it; before that only the call itself can be.
                message = {**message, "status": state.get(REFUSED_WITH, 400)}
            await send(message)

        try:
            _check(scope)
            if scope["path"] == UPLOAD:
                scope["query_string"] = b""  # the name under which Gradio would keep account of its progress
            with counted(scope, self._there):
                await self._app(scope, _limited(scope, receive), noting)
        except Exception as error:
            if begun:
                raise
            status, sentence = refusal(error)
            # The page shows the body of a refused upload as it is.
            answer = PlainTextResponse(sentence, status) if scope["path"] == UPLOAD else JSONResponse({"detail": sentence}, status)
            await answer(scope, receive, send)


def _check(scope: Scope) -> None:
    """What can be told before anything is read."""
    path, length = scope["path"], Headers(scope=scope).get("content-length", "")
    if path.startswith(CLOSED):
        raise HTTPException(404, "There is nothing at this address.")
    limit = _limit(path)
    if length.isdecimal() and int(length) > limit:
        raise HTTPException(413, f"The request has {int(length):,} bytes; the limit is {limit:,}.")
    if path == UPLOAD:
        folder = Path(get_upload_folder())
        drop_broken_off(folder, time.time() - MAX_BODY_SECONDS)
        check_room(folder)


async def short_session(request: Request) -> None:
    """For all of Gradio's routes, after it has read the body.

    Raises:
        HTTPException: the name that a session is given is longer than such names are.
    """
    named: list[object] = [request.query_params.get("session_hash"), request.path_params.get("session_hash")]
    if request.method == "POST" and request.scope["path"] != UPLOAD:
        with contextlib.suppress(ValueError):  # what is no JSON names no session
            body = await request.json()
            named.append(body.get("session_hash") if isinstance(body, dict) else None)
    longest = max(len(name) if isinstance(name, str) else 0 for name in named)
    if longest > MAX_SESSION_NAME:
        raise HTTPException(400, f"The name of a session has {longest:,} characters; the limit is {MAX_SESSION_NAME}.")


async def place_in_the_queue(request: Request) -> None:
    """For all of Gradio's routes: it refuses as many itself, but in its own words.

    Raises:
        HTTPException: as many wait as may.
    """
    queue = request.app.get_blocks()._queue
    if request.method == "POST" and request.scope["path"].startswith(JOIN) and queue.max_size is not None and len(queue) >= queue.max_size:
        raise HTTPException(503, full(len(queue), queue.max_size, language(request.headers.get("accept-language", ""))))


def check_room(folder: Path) -> None:
    """Whether more may be taken in.

    Raises:
        OSError: one of `NO_ROOM`.
    """
    disk = os.statvfs(folder)
    inodes = disk.f_favail if disk.f_files else MIN_FREE_INODES  # some file systems have no such limit
    if disk.f_bavail * disk.f_frsize < MIN_FREE_BYTES or inodes < MIN_FREE_INODES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _limited(scope: Scope, receive: Receive) -> Receive:
    """What comes of a body, until it is too much or takes too long."""
    limit, left, whole = _limit(scope["path"]), _limit(scope["path"]), False
    # Gradio deletes what it has of an upload only if the upload itself is at fault.
    refuse = MultiPartException if scope["path"] == UPLOAD else None
    end = asyncio.get_running_loop().time() + MAX_BODY_SECONDS

    async def limited() -> Message:
        nonlocal left, whole
        if whole:
            return await receive()
        try:
            async with asyncio.timeout_at(end):
                message = await receive()
        except TimeoutError:
            raise _broken(refuse, 408, f"The request took longer than {MAX_BODY_SECONDS:.0f} s to arrive.") from None
        if message["type"] == "http.disconnect" and refuse:
            raise refuse("The upload broke off.")
        left -= len(message.get("body", b""))
        if left < 0:
            raise _broken(refuse, 413, f"The request exceeds the maximum allowed size of {limit:,} bytes.")
        whole = not message.get("more_body", False)
        return message

    return limited


def _limit(path: str) -> int:
    return MAX_UPLOAD_BYTES if path == UPLOAD else MAX_BODY_BYTES


def _broken(refuse: type[MultiPartException] | None, status: int, sentence: str) -> Exception:
    return refuse(sentence) if refuse else HTTPException(status, sentence)


def refusal(error: Exception) -> tuple[int, str]:
    """The status and the sentence that are answered; the log goes without the error's message, which may quote what people wrote."""
    if isinstance(error, HTTPException):
        return error.status_code, error.detail
    if isinstance(error, InputError):
        return 400, str(error)
    if isinstance(error, PipelineError):
        return 503, str(error)
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        logger.error("The disk is full: an upload was refused.")
        return 507, DISK_FULL
    frame = traceback.extract_tb(error.__traceback__)[-1]
    if isinstance(error, MALFORMED):
        logger.debug("A malformed request was refused: %s in %s, line %s", type(error).__name__, frame.filename, frame.lineno)
        return 400, "This request cannot be understood."
    logger.error("%s in %s, line %s", type(error).__name__, frame.filename, frame.lineno)
    return 500, FAULT
