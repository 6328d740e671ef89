"""A visitor's pictures, videos and questions -> a streamed answer on a web page and at the API endpoint `/chat`. The only file that knows Gradio."""

import logging
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from itertools import zip_longest
from pathlib import Path
from typing import Any

import gradio as gr

from pipeline import (
    Answer,
    ArtifactError,
    Assistant,
    EngineConfig,
    Image,
    InputError,
    MediaLimits,
    Message,
    PipelineError,
    Status,
    Text,
    TextDelta,
    Video,
    obtain,
)
from pipeline.artifacts import BUNDLED

logger = logging.getLogger("app")

TITLE = "MiniCPM-V 2.6 on OpenVINO"
DESCRIPTION = """<div style="text-align: center">
Ask about pictures and videos. The model runs on this server's own processor: an answer takes its time and may be wrong.<br>
<small>Files you upload are deleted within two hours; what you write is kept in memory only; neither is logged.</small>
</div>"""
DEMO_NOTICE = (
    "> **This is the small bundled demo model: it knows only drawn scenes** of coloured shapes, numbers and short words. "
    "To talk about photographs set `MODEL_REPO` or `MODEL_DIR` to a converted MiniCPM-V 2.6."
)
# Not by the system's table of types, which a slim container lacks. What a file really is, its decoder finds out.
VIDEO_SUFFIXES = frozenset({".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".ts", ".webm"})
PROGRESS, REFUSED = "progress", "refused"  # kinds of asides: lines in the chat that are no part of the conversation
NO_WORDS = "*(The model had nothing to say.)*"
FAULT = "Something went wrong here, through no fault of yours. Please try again."

# Looked for every hour and deleted when older than an hour: gone after two at the latest.
DELETE_CACHE_SECONDS = (3600, 3600)
# Requests that are with the engine at once: those it computes together, and as many again in its queue, where each sees how many are ahead.
CONCURRENCY = 16
MAX_WAITING_FOR_THE_QUEUE = 32
# Every update sends and renders the whole answer; oftener than this nobody sees and the processor is wanted elsewhere.
UPDATE_SECONDS = 0.05
LATEX: list[dict[str, str | bool]] = [
    {"left": left, "right": right, "display": display} for left, right, display in (("$$", "$$", True), (r"\[", r"\]", True), (r"\(", r"\)", False))
]
# A picture in the page can tell a model to answer with a link to a picture elsewhere; the browser must not follow it.
HEAD = """<meta http-equiv="Content-Security-Policy" content="img-src 'self' data: blob:; media-src 'self' data: blob:; object-src 'none'">"""
# Share would publish a visitor's picture on huggingface.co. An aside is one line: there is nothing to fold out.
CSS = """
button[aria-label="Share"], .thought-group :is(.arrow, .content) { display: none !important; }
.thought-group { border: none !important; padding: 0 !important; box-shadow: none !important; }
"""


def normalise(message: str | Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> list[Message]:
    """What Gradio hands over, in any of its shapes -> the conversation, the new message last.

    The history may come from the browser, so whatever is not a user's or an assistant's turn in a known shape is left out. So is a user's turn
    that nothing followed or that was refused: what was wrong with it, say a broken file, would be wrong with every later message.
    """
    turns = [entry for entry in history if entry.get("role") in ("user", "assistant")]
    messages = []
    for turn, following in zip_longest(turns, turns[1:]):
        parts, aside = _parts(turn.get("content")), _aside_kind(turn)
        if turn["role"] == "user":
            if following is not None and following["role"] == "assistant" and _aside_kind(following) != REFUSED:
                messages.append(Message("user", parts))
        elif aside is None:
            messages.append(Message("assistant", tuple(part for part in parts if isinstance(part, Text) and part.text != NO_WORDS)))
    if isinstance(message, str):
        message = {"text": message}
    files = [{"path": file} if isinstance(file, str) else file for file in message.get("files") or []]
    return [*messages, Message("user", _parts([*files, message.get("text")]))]


def _parts(content: object) -> tuple[Text | Image | Video, ...]:
    """The texts and files of a message's content, in order; items of any other kind are none of the model's business."""
    parts: list[Text | Image | Video] = []
    for item in content if isinstance(content, list) else [content]:
        match item:
            case {"type": "text", "text": str(text)} | str(text) if text.strip():
                parts.append(Text(text.strip()))
            case {"path": str(path)} | {"type": "file", "file": {"path": str(path)}}:
                parts.append(Video(path) if Path(path).suffix.lower() in VIDEO_SUFFIXES else Image(path))
    return tuple(parts)


def build(assistant: Assistant, notice: str = "") -> gr.ChatInterface:
    """The page over a loaded model; `notice` (markdown) stands above the chat."""

    async def respond(message: str | dict[str, Any], history: list[dict[str, Any]]) -> AsyncGenerator[str | dict[str, Any] | list[Any], None]:
        """Ask about pictures and videos. How far the work is comes first, then the growing answer; the last item is the whole answer.

        Args:
            message: the question as "text", and the pictures and videos it is about as "files".
        """
        text, next_update = "", 0.0
        try:
            # Closing it is what cancels the request: Stop and a closed tab end up here.
            async with aclosing(assistant.stream(normalise(message, history))) as stream:
                async for delta in stream:
                    match delta:
                        case Status():
                            yield _aside(_progress(delta), PROGRESS)
                        case TextDelta():
                            text += delta.text
                            if text.strip() and time.monotonic() >= next_update:
                                yield text
                                next_update = time.monotonic() + UPDATE_SECONDS
                        case Answer():
                            if delta.finish_reason == "length":
                                gr.Info("The answer was cut: it reached the greatest length.")
                            yield delta.text or NO_WORDS
        except Exception as error:
            sentence = _sentence(error)
            # In the chat, where it stays below what was answered so far; and as the error that clients of the API receive.
            aside = _aside(sentence, REFUSED)
            yield [text, aside] if text.strip() else aside
            raise gr.Error(sentence, visible=False, print_exception=False) from None

    demo = _Chat(
        respond,
        multimodal=True,
        title=TITLE,
        description=f"{DESCRIPTION}\n\n{notice}",
        chatbot=gr.Chatbot(
            scale=1,
            show_label=False,
            buttons=["copy", "copy_all"],
            latex_delimiters=LATEX,
            allow_tags=True,  # tags that are not HTML's, such as the model's own <box>, are shown as they are written and not dropped
            sanitize_html=True,
            placeholder="Add a picture or a video below and ask about it.",
        ),
        textbox=gr.MultimodalTextbox(
            scale=7,
            file_count="multiple",
            file_types=["image", "video"],
            label="Message",
            placeholder="Ask something…",
            stop_btn=True,
            autofocus=True,
            max_plain_text_length=100_000,  # more than this is pasted as a text file, which would be refused
        ),
        api_name="chat",
        flagging_mode="never",
        analytics_enabled=False,
        cache_examples=False,
        concurrency_limit=CONCURRENCY,
        show_progress="hidden",  # its only error display covers the whole conversation; ours stands in it
        delete_cache=DELETE_CACHE_SECONDS,
    )
    demo.queue(max_size=MAX_WAITING_FOR_THE_QUEUE)
    return demo


class _Chat(gr.ChatInterface):
    """A chat that goes on after an error: in Gradio 6.31's page `then` does not follow a failed event, and the message box would stay locked."""

    def _setup_stop_events(self, event_triggers: list[Any], events_to_cancel: list[Any], after_success: Any) -> None:
        super()._setup_stop_events(event_triggers, events_to_cancel, after_success)
        for event in events_to_cancel:
            event.failure(
                lambda shown: (gr.MultimodalTextbox(interactive=True, submit_btn=True, stop_btn=False), shown, shown),
                inputs=[self.chatbot],
                outputs=[self.textbox, self.chatbot_state, self.chatbot_value],
                api_visibility="undocumented",
                queue=False,
            )


def launch(demo: gr.ChatInterface, host: str, port: int) -> str:
    """Serve the page in threads of its own; its address."""
    _, address, _ = demo.launch(
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
        mcp_server=False,
        max_file_size=MediaLimits().max_file_bytes,
        footer_links=["api", "gradio", "settings"],
        head=HEAD,
        css=CSS,
    )
    return str(address)


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
        demo = build(assistant, DEMO_NOTICE if folder == BUNDLED else "")
        try:
            launch(demo, host, int(port))
        except OSError as cause:
            raise InputError(f"The page cannot be served at {host}:{port}: the port is taken or not allowed.") from cause
        logger.info("Ready on port %s%s.", port, _since_start())
        demo.block_thread()


def _progress(status: Status) -> str:
    """One line for the person who waits."""
    match status.stage:
        case "queued":
            return f"Waiting: {status.total} request{'s' if status.total > 1 else ''} ahead"
        case "vision":
            return f"Encoding pictures: {status.done} of {status.total} slices done"
        case "prefill":
            return f"Reading the prompt: {100 * status.done // status.total} %"


def _aside(title: str, kind: str) -> dict[str, Any]:
    """A line in the chat that is no part of the conversation."""
    return {"role": "assistant", "content": "", "metadata": {"title": title, "id": kind}}


def _aside_kind(turn: Mapping[str, Any]) -> str | None:
    metadata = turn.get("metadata") or {}
    return str(metadata.get("id")) if metadata.get("title") else None


def _sentence(error: Exception) -> str:
    """What the person is told; a fault of ours is logged by where it happened, without its message, which may quote what people wrote."""
    if isinstance(error, PipelineError):
        return str(error)
    logger.error("%s while answering\n%s", type(error).__name__, "".join(traceback.format_tb(error.__traceback__)))
    return FAULT


def _since_start() -> str:
    """How long this process has lived, imports included, where the system keeps it (Linux does, in clock ticks since boot)."""
    try:
        started = int(Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()[19])
    except OSError:
        return ""
    return f", {time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf('SC_CLK_TCK'):.1f} s after the process started"


if __name__ == "__main__":
    main()
