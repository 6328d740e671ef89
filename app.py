"""What the environment asks for -> a model, and the page over it. The layout; its parts are in `ui/`."""

import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import gradio as gr

from pipeline import ArtifactError, Assistant, EngineConfig, InputError, obtain
from pipeline.artifacts import BUNDLED
from ui.chat import Chat
from ui.server import launch

logger = logging.getLogger("app")

TITLE = "MiniCPM-V 2.6 on OpenVINO"
HEADER = f"""<div style="text-align: center">
<h1>{TITLE}</h1>
Ask about pictures and videos. The model runs on this server's own processor: an answer takes its time and may be wrong.<br>
<small>Files you upload are deleted within two hours; what you write is kept in memory only; neither is logged.</small>
</div>"""
DEMO_NOTICE = (
    "> **This is the small bundled demo model: it knows only drawn scenes** of coloured shapes, numbers and short words. "
    "To talk about photographs set `MODEL_REPO` or `MODEL_DIR` to a converted MiniCPM-V 2.6."
)
# Looked for every hour and deleted when older than an hour: gone after two at the latest.
DELETE_CACHE_SECONDS = (3600, 3600)
MAX_WAITING_FOR_THE_QUEUE = 32


def build(assistant: Assistant, notice: str = "") -> gr.Blocks:
    """The page over a loaded model; `notice` (markdown) stands above the chat."""
    page = gr.Blocks(title=TITLE, analytics_enabled=False, fill_height=True, delete_cache=DELETE_CACHE_SECONDS)
    with page:
        gr.Markdown(HEADER)
        gr.Markdown(notice, visible=bool(notice))
        Chat(assistant)
    page.queue(max_size=MAX_WAITING_FOR_THE_QUEUE)
    return page


def main() -> None:
    """Load the model that the environment asks for and serve it until the process is told to end."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for name in ("app", "pipeline"):
        logging.getLogger(name).setLevel(logging.INFO)
    # Leaving _serve deletes the uploads; SIGTERM, which is how a container is stopped, would by itself end the process at once.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        _serve(os.environ)
    except (ArtifactError, InputError) as error:
        print(error, file=sys.stderr)  # noqa: T201
        sys.exit(2)


def _serve(environ: Mapping[str, str]) -> None:
    # A Space is reached from outside; a machine of one's own is not opened to its network unasked.
    host = environ.get("GRADIO_SERVER_NAME") or ("0.0.0.0" if environ.get("SPACE_ID") else "127.0.0.1")  # noqa: S104
    port = environ.get("PORT") or environ.get("GRADIO_SERVER_PORT") or "7860"
    threads = environ.get("CPU_CORES") or "0"
    for name, value, low, high in (("The port", port, 1, 65535), ("CPU_CORES", threads, 0, 1024)):
        if not value.isdecimal() or not low <= int(value) <= high:
            raise InputError(f"{name} is {value!r}; it must be a whole number from {low} to {high}.")
    folder = obtain(environ)
    engine = EngineConfig(device=environ.get("DEVICE") or "AUTO", threads=int(threads))
    with tempfile.TemporaryDirectory(prefix="uploads-") as uploads, Assistant(folder, engine) as assistant:
        os.environ["GRADIO_TEMP_DIR"] = uploads
        page = build(assistant, DEMO_NOTICE if folder == BUNDLED else "")
        try:
            launch(page, host, int(port))
        except OSError as cause:
            raise InputError(f"The page cannot be served at {host}:{port}: the port is taken or not allowed.") from cause
        logger.info("Ready on port %s%s.", port, _since_start())
        page.block_thread()


def _since_start() -> str:
    """How long this process has lived, imports included, where the system keeps it (Linux does, in clock ticks since boot)."""
    try:
        started = int(Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()[19])
    except OSError:
        return ""
    return f", {time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf('SC_CLK_TCK'):.1f} s after the process started"


if __name__ == "__main__":
    main()
