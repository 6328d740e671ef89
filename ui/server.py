"""A page -> the same page served at an address, telling nobody what its visitors do."""

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout

import gradio as gr
from starlette.routing import Route

from pipeline import MediaLimits

# A picture in the page can tell a model to answer with a link to a picture elsewhere; the browser must not follow it.
HEAD = """<meta http-equiv="Content-Security-Policy" content="img-src 'self' data: blob:; media-src 'self' data: blob:; object-src 'none'">"""
# Share would publish a visitor's picture on huggingface.co. An aside is one line: there is nothing to fold out.
CSS = """
button[aria-label="Share"], .thought-group :is(.arrow, .content) { display: none !important; }
.thought-group { border: none !important; padding: 0 !important; box-shadow: none !important; }
"""


@contextmanager
def _silently() -> Iterator[None]:
    """Without the announcement of the MCP server, and the warning that its tool for the chat has no memory: that one is not offered."""
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.filterwarnings("ignore", "This MCP server includes a tool that has a gr.State input")
        yield


def launch(page: gr.Blocks, host: str, port: int, routes: Sequence[Route]) -> str:
    """Serve the page, and `routes` beside it, in threads of its own; its address."""
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
            max_file_size=MediaLimits().max_file_bytes,
            footer_links=["api", "gradio", "settings"],
            head=HEAD,
            css=CSS,
            app_kwargs={"routes": list(routes)},
        )
    return str(address)
