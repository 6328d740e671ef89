"""What the environment asks for -> the page, at once, and the model behind it as soon as it can be. The layout; its parts are in `ui/`."""

# Before anything that might load a GPU's library: what ZeroGPU hardware asks for. Elsewhere it does nothing.
import spaces

# isort: split
import logging
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import gradio as gr

from pipeline import Assistant, EngineConfig, InputError
from ui.answering import PLACES
from ui.ask import ask_endpoint
from ui.chat import Chat
from ui.cost import Estimates
from ui.health import routes
from ui.memory import give_large_blocks_back
from ui.model import Model, Report, load
from ui.page import Page
from ui.server import launch, let_them_hear, unquoted
from ui.startup import startup_line
from ui.uploads import uploads_folder
from ui.words import shown_to, word

logger = logging.getLogger("app")

TITLE = "MiniCPM-V 2.6 on OpenVINO"
DEMO_NOTICE = word("demo_notice")
# Looked for every hour and deleted when older than an hour: gone after two at the latest. `ui/uploads.py` sees to it where this does not.
DELETE_CACHE_SECONDS = (3600, 3600)
MAX_WAITING_FOR_THE_QUEUE = 32
# When the model has gone, for the last words of its answers to be delivered.
DELIVERY_SECONDS = 1.0


def _never_called() -> None:
    """ZeroGPU hardware starts nothing that has no function for its GPU. The model runs on the processor, and no visitor's quota is spent."""


spaces.GPU(_never_called)


def build(model: Model, notice: str = "") -> gr.Blocks:
    """The page over a model; `notice` (markdown) stands above the chat."""
    estimates = Estimates(model)
    page = Page(title=TITLE, analytics_enabled=False, fill_height=True, delete_cache=DELETE_CACHE_SECONDS)
    with page:
        gr.Markdown(word("header"))
        gr.Markdown(notice, visible=bool(notice))
        startup_line(page, model)
        page.by_request[Chat(model, estimates).controls.visitor] = shown_to
        ask_endpoint(model, estimates)
    page.queue(max_size=MAX_WAITING_FOR_THE_QUEUE, api_open=False)  # nobody goes past it
    return page


def main() -> None:
    """Serve the model that the environment asks for until the process is told to end."""
    give_large_blocks_back()
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for handler in logging.getLogger().handlers:
        handler.addFilter(unquoted)
    for name in ("app", "pipeline"):
        logging.getLogger(name).setLevel(logging.INFO)
    # Leaving _serve lets answers end and deletes the uploads; by itself SIGTERM, which is how a container is stopped, would end the process at once.
    # A second one does.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    status = 0
    try:
        _serve(os.environ)
    except SystemExit:
        pass
    except InputError as error:
        print(error, file=sys.stderr, flush=True)  # noqa: T201
        status = 2
    # A download or a compilation under way cannot be interrupted, and the interpreter's own end would wait for it.
    os._exit(status)


def _serve(environ: Mapping[str, str]) -> None:
    # A Space is reached from outside; a machine of one's own is not opened to its network unasked.
    host = environ.get("GRADIO_SERVER_NAME") or ("0.0.0.0" if environ.get("SPACE_ID") else "127.0.0.1")  # noqa: S104
    port = environ.get("PORT") or environ.get("GRADIO_SERVER_PORT") or "7860"
    threads = environ.get("CPU_CORES") or "0"
    for name, value, low, high in (("The port", port, 1, 65535), ("CPU_CORES", threads, 0, 1024)):
        if not value.isdecimal() or not low <= int(value) <= high:
            raise InputError(f"{name} is {value!r}; it must be a whole number from {low} to {high}.")
    # Who has a place with the engine waits there for their turn; the others wait for a place.
    engine = EngineConfig(device=environ.get("DEVICE") or "AUTO", threads=int(threads), max_waiting=PLACES)
    notice = "" if environ.get("MODEL_DIR") or environ.get("MODEL_REPO") else DEMO_NOTICE

    def loaded(report: Report) -> Assistant:
        assistant = load(environ, engine, report)
        logger.info("Ready on port %s%s.", port, _since_start())
        return assistant

    with uploads_folder() as uploads:
        os.environ["GRADIO_TEMP_DIR"] = str(uploads)
        model = Model(loaded)
        page = build(model, notice)
        try:
            launch(page, host, int(port), routes(page, model))
        except OSError as cause:
            raise InputError(f"The page cannot be served at {host}:{port}: the port is taken or not allowed.") from cause
        try:
            with model:
                page.block_thread()
        finally:
            let_them_hear(page, DELIVERY_SECONDS)


def _since_start() -> str:
    """How long this process has lived, imports included, where the system keeps it (Linux does, in clock ticks since boot)."""
    try:
        started = int(Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()[19])
    except OSError:
        return ""
    return f", {time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf('SC_CLK_TCK'):.1f} s after the process started"


if __name__ == "__main__":
    main()
