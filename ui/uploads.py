"""A folder for what visitors upload: each file goes within two hours, all of them with this process, and a killed one's when the next one starts."""

import asyncio
import fcntl
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

from ui.sessions import close_absent

PREFIX, LOCK = "uploads-", ".lock"
# Looked for every half hour and deleted when older than an hour.
LOOK_SECONDS, KEEP_SECONDS = 1800.0, 3600.0


@contextmanager
def uploads_folder() -> Iterator[Path]:
    """The folder, for as long as it is needed. The system drops its lock when a process ends, however it ends."""
    _clear()
    with tempfile.TemporaryDirectory(prefix=PREFIX) as name, (Path(name) / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield Path(name)


def _clear() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            with (folder / LOCK).open() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # in use, another user's, or not one of ours
            continue
        shutil.rmtree(folder, ignore_errors=True)


def deleting(page: gr.Blocks, there: Counter[str]) -> Callable[[Any], AbstractAsyncContextManager[None]]:
    """What to do while the page is served: delete what is too old, and forget who waits for nothing or is not `there`. Gradio's own way of deleting
    stops for good at a folder that a visitor names as a file; of sessions it forgets none.
    """

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        async def go_on() -> None:
            while True:
                await asyncio.sleep(LOOK_SECONDS)
                close_absent(page.state_holder.session_data, there)
                folder, before = Path(get_upload_folder()), time.time() - KEEP_SECONDS
                await asyncio.to_thread(drop_old, page, folder, before)
                await asyncio.to_thread(drop_broken_off, folder, before)
                forget_idle(page._queue.pending_event_ids_session)

        task = asyncio.create_task(go_on())
        yield
        task.cancel()

    return lifespan


def forget_idle(waiting: dict[str, set[str]]) -> None:
    """Forget the sessions that wait for no request, in the thread of the event loop, where all is done to them."""
    for session in [session for session, events in waiting.items() if not events]:
        del waiting[session]


def drop_old(page: gr.Blocks, folder: Path, before: float) -> None:
    """Delete every file that was last written `before` that time, but those that the page shows to everybody; and every folder empty since then."""
    shown = {Path(path) for block in page.blocks.values() for path in getattr(block, "keep_in_cache", ())}
    for path in folder.glob("*/**/*"):
        try:
            if path.is_file() and path not in shown and path.stat().st_mtime < before:
                path.unlink()
                for known in page.temp_file_sets:  # from which Gradio takes only what it deletes itself
                    known.discard(str(path))
        except FileNotFoundError:  # somebody else was faster
            continue
    for path in folder.glob("*/"):
        with suppress(OSError):  # it is not empty
            if path.stat().st_mtime < before:  # one that was just made waits for its file
                path.rmdir()


def drop_broken_off(folder: Path, before: float) -> None:
    """Delete uploads that broke off and were last written `before` that time; whole ones are moved out of this folder into one of their own."""
    for path in folder.glob("tmp*"):
        try:
            if path.is_file() and path.stat().st_mtime < before:
                path.unlink()
        except FileNotFoundError:  # it became whole meanwhile
            continue
