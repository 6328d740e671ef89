"""A page -> the same page served at an address, telling nobody what its visitors do."""

import io
import logging
import threading
import time
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import gradio as gr
from anyio.to_thread import current_default_thread_limiter
from fastapi import Depends
from gradio import route_utils
from starlette.middleware import Middleware
from starlette.routing import Route

from pipeline import MediaLimits
from ui.doors import Doors, place_in_the_queue, short_session
from ui.parts import Parts
from ui.sessions import keep_no_values
from ui.tools import offer
from ui.uploads import deleting
from ui.words import translations

# A picture in the page can tell a model to answer with a link to a picture elsewhere; the browser must not follow it.
HEAD = """<meta http-equiv="Content-Security-Policy" content="img-src 'self' data: blob:; media-src 'self' data: blob:; object-src 'none'">"""
REPAIRS = (Path(__file__).parent / "repairs.js").read_text(encoding="utf-8")
# Gradio's grey for what matters less is too light to be read by everybody.
THEME = gr.themes.Default().set(body_text_color_subdued="*neutral_500", input_placeholder_color="*neutral_500")
# Share would publish a visitor's picture on huggingface.co; it is known by its drawing, because its name is another in each language. An aside is one
# line, unless it says (in .duration) what it folds out; an aside inside another does not say it again. What cannot be shown is a name (see
# `repairs.js`).
CSS = """
button:has(path[d^="M23,20a5"]), .thought-group .thought-group .title,
.thought-group:not(:has(.duration), .thought-group *) :is(.arrow, .content) { display: none !important; }
.unseen { padding: var(--spacing-sm); font-size: var(--text-sm); white-space: nowrap; }
:has(> .unseen) { width: auto !important; }
.image-container .unseen { margin-right: 2em; }
img[hidden] { display: none !important; }
.thought-group { border: none !important; padding: 0 !important; box-shadow: none !important; }
"""
# Whose conversations are remembered, the latest ones; each takes 90 kB before anything is said.
MAX_SESSIONS = 1000
# For whatever of Gradio's is not asynchronous, its pages among it; a call over MCP keeps one until its answer ends, and of those as many may be under
# way as there are places with the engine and in the queue.
MAX_THREADS = 200


def unquoted(record: logging.LogRecord) -> bool:
    """A filter for the log: of the MCP library's complaints it keeps where they are made; their words quote what clients send."""
    if record.name == "root" or record.name.startswith("mcp."):
        record.msg, record.args, record.exc_info = f"{Path(record.pathname).name}, line {record.lineno}", (), None
    return True


@contextmanager
def _silently() -> Iterator[None]:
    """Without the announcement of the MCP server, and the warning that a tool for the chat would have no memory: it is taken away."""
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.filterwarnings("ignore", "This MCP server includes a tool that has a gr.State input")
        yield


def _serving(page: gr.Blocks, there: Counter[str]) -> Callable[[Any], AbstractAsyncContextManager[None]]:
    """What holds while the page is served."""

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        current_default_thread_limiter().total_tokens = MAX_THREADS
        async with deleting(page, there)(app):
            yield

    return lifespan


def _at_once(page: gr.Blocks) -> int:
    """How many calls the queue may have under way: of each function as many as it allows, or one. By itself it has forty at most, and then starts
    nothing at all, not even a step of the page. Functions that are not asynchronous have as many threads, beside `MAX_THREADS`.
    """
    limits = {one.concurrency_id: one.concurrency_limit for one in page.fns.values() if one.queue}
    return sum(limit if isinstance(limit, int) else 1 for limit in limits.values())


def launch(page: gr.Blocks, host: str, port: int, routes: Sequence[Route]) -> str:
    """Serve the page, and `routes` beside it, in threads of its own; its address."""
    route_utils.GradioMultiPartParser = Parts  # type: ignore[misc]  # it has no other way to limit what an upload may hold
    keep_no_values()
    there: Counter[str] = Counter()
    with _silently():
        _, address, _ = page.launch(
            server_name=host,
            server_port=port,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            show_error=False,
            run_history=False,
            enable_monitoring=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=True,
            max_threads=_at_once(page),
            state_session_capacity=MAX_SESSIONS,
            max_file_size=MediaLimits().max_file_bytes,
            footer_links=["api", "gradio", "settings"],
            head=f"{HEAD}\n<script>{REPAIRS}</script>",
            theme=THEME,
            i18n=translations(),
            css=CSS,
            app_kwargs={
                "routes": list(routes),
                "middleware": [Middleware(Doors, there)],
                "lifespan": _serving(page, there),
                "dependencies": [Depends(short_session), Depends(place_in_the_queue)],
            },
        )
    offer(page.mcp_server_obj)  # type: ignore[arg-type]  # there is one: it was asked for
    return str(address)


def let_them_hear(page: gr.Blocks, seconds: float) -> None:
    """Wait until everybody who listens has received how their answer ended; those who do not listen are not waited for longer than `seconds`."""
    until = time.monotonic() + seconds
    while any(page._queue.pending_event_ids_session.values()) and time.monotonic() < until:
        threading.Event().wait(0.02)
