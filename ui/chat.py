"""A visitor's messages -> a streamed answer in the chat, and at the API endpoint `/chat`."""

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, TypeAlias

import gradio as gr

from pipeline import Answer, Status, TextDelta
from ui.conversation import NO_WORDS, PROGRESS, REFUSED, aside, normalise
from ui.model import Model, Starting
from ui.sentences import progress, sentence

#: What is shown of an answer: its text so far, an aside, or both. Each replaces the one before.
Shown: TypeAlias = str | dict[str, Any] | list[Any]

# Requests that are with the engine at once: those it computes together, and as many again in its queue, where each sees how many are ahead.
CONCURRENCY = 16
# Every update sends and renders the whole answer; oftener than this nobody sees and the processor is wanted elsewhere.
UPDATE_SECONDS = 0.05
LATEX: list[dict[str, str | bool]] = [
    {"left": left, "right": right, "display": display} for left, right, display in (("$$", "$$", True), (r"\[", r"\]", True), (r"\(", r"\)", False))
]


def responder(model: Model) -> Callable[..., AsyncGenerator[Shown, None]]:
    """The function behind the chat."""

    async def respond(message: str | dict[str, Any], history: list[dict[str, Any]]) -> AsyncGenerator[Shown, None]:
        """Ask about pictures and videos. How far the work is comes first, then the growing answer; the last item is the whole answer.

        Args:
            message: the question as "text", and the pictures and videos it is about as "files".
        """
        text, next_update = "", 0.0
        try:
            # Closing it is what cancels the request: Stop and a closed tab end up here.
            async with aclosing(model.stream(normalise(message, history))) as stream:
                async for delta in stream:
                    match delta:
                        case Status() | Starting():
                            yield aside(progress(delta), PROGRESS)
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
            told = sentence(error)
            # In the chat, where it stays below what was answered so far; and as the error that clients of the API receive.
            refusal = aside(told, REFUSED)
            yield [text, refusal] if text.strip() else refusal
            raise gr.Error(told, visible=False, print_exception=False) from None

    # Not offered as an MCP tool: calls of one share no session, so it would remember nothing; `ask` says so.
    respond._mcp_type = "none"  # type: ignore[attr-defined]
    return respond


class Chat(gr.ChatInterface):
    """The chat and its message box, in whatever layout it is made in.

    It goes on after an error: in Gradio 6.31's page `then` does not follow a failed event, and the message box would stay locked.
    """

    def __init__(self, model: Model) -> None:
        super().__init__(
            responder(model),
            multimodal=True,
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
        )

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
