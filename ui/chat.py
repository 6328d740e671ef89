"""A visitor's messages -> a streamed answer in the chat, and at the API endpoint `/chat`."""

import asyncio
import html
import json
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any, TypeAlias

import gradio as gr
import PIL.Image
from gradio.processing_utils import save_pil_to_cache
from gradio.utils import get_upload_folder

from pipeline import Answer, PipelineError, Status, TextDelta
from pipeline.processor import Plan
from ui.controls import Controls
from ui.conversation import CUT, NO_WORDS, PROGRESS, REFUSED, SEEN, STOPPED, aside, aside_kind, normalise, shown
from ui.cost import Estimates
from ui.examples import examples
from ui.model import Model, Starting
from ui.seen import measured as figures
from ui.seen import sheet
from ui.sentences import cost, cut, line, measured, progress, sentence
from ui.settings import settings
from ui.words import Language, read_by, word

#: What is shown of an answer: its text so far, an aside, or both. Each replaces the one before.
Shown: TypeAlias = str | dict[str, Any] | list[Any]

# Requests that are with the engine at once: those it computes together, and as many again in its queue, where each sees how many are ahead.
CONCURRENCY = 16
# Every update sends and renders the whole answer; oftener than this nobody sees and the processor is wanted elsewhere.
UPDATE_SECONDS = 0.05
LATEX: list[dict[str, str | bool]] = [
    {"left": left, "right": right, "display": display} for left, right, display in (("$$", "$$", True), (r"\[", r"\]", True), (r"\(", r"\)", False))
]

# Of events that only move things about in the page.
_QUIET: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "undocumented"}


def responder(model: Model, estimates: Estimates) -> Callable[..., AsyncGenerator[Shown, None]]:
    """The function behind the chat."""

    async def respond(
        message: str | dict[str, Any],
        history: list[dict[str, Any]],
        detail: str = "auto",
        frames: int = 0,
        system_prompt: str = "",
        mode: str = "sampling",
        max_new_tokens: float | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        top_k: float | None = None,
        num_beams: float | None = None,
        repetition_penalty: float = 0,
        seed: float = 0,
        shots: list[dict[str, Any]] | None = None,
        visitor: Language | None = None,
    ) -> AsyncGenerator[Shown, None]:
        """Ask about pictures and videos. How far the work is comes first, then the growing answer; the last item is the whole answer.

        Args:
            message: the question as "text", and the pictures and videos it is about as "files".
            detail: of pictures: "fast" (overview only), "balanced" (up to 4 slices), "full" (up to 9) or "auto": as much as half a minute allows.
            frames: of each video at most: 8, 16, 32 or 64; 0 is as many as half a minute allows.
            system_prompt: what the model should keep to.
            mode: "sampling", "greedy" or "beams".
            max_new_tokens: length of the answer at most.
            temperature: of sampling; lower is more of the same.
            top_p: of sampling; only the likeliest tokens that have this probability together.
            top_k: of sampling; only that many of the likeliest tokens.
            num_beams: of beams.
            repetition_penalty: 0 is the official one of the mode.
            seed: of sampling; 0 is another answer each time.
            shots: worked examples, shown to the model first: turns of "user" and "assistant".
        """
        text, next_update = "", 0.0
        sheets: list[PIL.Image.Image] = []
        language = visitor or "en"
        try:
            messages = normalise(message, [*(shots or []), *history])
            wanted = settings(
                mode=mode, detail=detail, frames=frames, system_prompt=system_prompt, max_new_tokens=max_new_tokens, temperature=temperature,
                top_p=top_p, top_k=top_k, num_beams=num_beams, repetition_penalty=repetition_penalty, seed=seed,
            )  # fmt: skip
            async with aclosing(model.arrival()) as arrival:
                async for starting in arrival:
                    yield aside(progress(starting, language), PROGRESS)
            estimator = estimates.now()
            options = (await asyncio.to_thread(estimator.chosen, messages, wanted.candidates))[0] if estimator else wanted.candidates[0]

            def look(plan: Plan) -> None:
                if visitor is not None and (drawn := sheet(plan)) is not None:
                    sheets.append(drawn)

            # Closing it is what cancels the request: Stop and a closed tab end up here.
            async with aclosing(model.stream(messages, wanted.generation, options, look)) as stream:
                async for delta in stream:
                    match delta:
                        case Status() | Starting():
                            yield aside(progress(delta, language), PROGRESS)
                        case TextDelta():
                            text += delta.text
                            if text.strip() and time.monotonic() >= next_update:
                                yield text if visitor is None else shown(text)
                                next_update = time.monotonic() + UPDATE_SECONDS
                        case Answer():
                            answer = delta
            if estimator:
                await asyncio.to_thread(estimator.remember, messages, options)
            said = answer.text or NO_WORDS
            yield said if visitor is None else [shown(said), *_below(answer, sheets, language)]
        except Exception as error:
            told = sentence(error)
            # In the chat, where it stays below what was answered so far; and as the error that clients of the API receive.
            refusal = aside(told, REFUSED)
            yield [shown(text), refusal] if text.strip() else refusal
            raise gr.Error(told, visible=False, print_exception=False) from None

    # Not offered as an MCP tool: calls of one share no session, so it would remember nothing; `ask` says so.
    respond._mcp_type = "none"  # type: ignore[attr-defined]
    return respond


def _below(answer: Answer, sheets: Sequence[PIL.Image.Image], language: Language) -> list[dict[str, Any]]:
    """What a visitor reads below an answer: why it ends if it is not finished, and what it took, to be folded out to what the model saw."""
    ends = {"length": cut(len(answer.token_ids), language), "cancelled": line("expired", language)}
    below = [aside(ends[answer.finish_reason], CUT)] if answer.finish_reason in ends else []
    # Kept where uploads are, and deleted with them.
    paths = [save_pil_to_cache(drawn, get_upload_folder(), format="webp") for drawn in sheets]
    took = measured(figures(answer), language)
    if took or paths:
        below.append(aside(took, SEEN, (paths[0], line("seen", language)) if paths else None))
    return below


def pricer(estimates: Estimates) -> Callable[..., str]:
    """The function behind the line below the message box."""

    def price(
        message: dict[str, Any] | None,
        history: list[dict[str, Any]],
        detail: str,
        frames: int,
        system_prompt: str,
        shots: list[dict[str, Any]],
        visitor: Language | None,
    ) -> str:
        estimator = estimates.now()
        if estimator is None or not message or not (message["text"].strip() or message["files"]):
            return ""
        try:
            wanted = settings(detail=detail, frames=frames, system_prompt=system_prompt)
            _, expected = estimator.chosen(normalise(message, [*shots, *history]), wanted.candidates)
        except PipelineError as error:
            return html.escape(str(error))
        return cost(expected, visitor or "en")

    return price


class Chat(gr.ChatInterface):
    """The chat, its message box and the controls below it, in whatever layout it is made in.

    Beside what Gradio's chat does, an edited message keeps its pictures, an answer that was stopped says so, every way of asking can be stopped, and
    it goes on after an error: in Gradio 6.31's page `then` does not follow a failed event, and the message box would stay locked.
    """

    def __init__(self, model: Model) -> None:
        self.controls, self.estimates = Controls(), Estimates(model)
        super().__init__(
            responder(model, self.estimates),
            multimodal=True,
            chatbot=gr.Chatbot(
                scale=1,
                min_height=440,
                label=word("chat"),
                show_label=False,
                editable="user",
                buttons=["copy", "copy_all"],
                latex_delimiters=LATEX,
                allow_tags=True,  # tags that are not HTML's, such as the model's own <box>, are shown as they are written and not dropped
                sanitize_html=True,
                placeholder=word("begin"),
            ),
            textbox=gr.MultimodalTextbox(
                scale=7,
                file_count="multiple",
                file_types=["image", "video"],
                label=word("message"),
                placeholder=word("ask"),
                stop_btn=True,
                autofocus=True,
                max_plain_text_length=100_000,  # more than this is pasted as a text file, which would be refused
            ),
            additional_inputs=self.controls.inputs,
            examples=[[example] for example in examples()],
            api_name="chat",
            flagging_mode="never",
            analytics_enabled=False,
            cache_examples=False,
            concurrency_limit=CONCURRENCY,
            show_progress="hidden",  # its only error display covers the whole conversation; ours stands in it
        )

    def _render_footer(self) -> None:
        self.price = gr.HTML("", elem_id="price", html_template="<div role='status'>${value}</div>", padding=False)
        self.edited = gr.Textbox(visible="hidden", elem_id="edited")
        self.controls.render()
        super()._render_footer()

    def _setup_events(self) -> None:
        self._stoppable: list[Any] = []
        super()._setup_events()
        edited = self.edited.input(self._replaced, [self.chatbot_state, self.edited], [self.chatbot, self.chatbot_state, self.saved_input], **_QUIET)
        asked = edited.then(self._append_message_to_history, [self.saved_input, self.chatbot_state], [self.chatbot], **_QUIET).then(
            self._api_wrapper(self.fn, self._stream_fn),
            [self.saved_input, self.chatbot_state, *self.additional_inputs],
            [self.null_component, self.chatbot],
            api_visibility="undocumented",
            concurrency_limit=CONCURRENCY,
            show_progress="hidden",
        )
        asked.then(*self._kept(), **_QUIET)
        self._setup_stop_events([], [asked], edited)
        self.textbox.stop(None, None, None, cancels=self._stoppable, api_visibility="undocumented").then(
            _stopped, [self.chatbot, self.controls.visitor], [self.chatbot], **_QUIET
        ).then(*self._kept(), **_QUIET)
        controls = self.controls
        self.load(read_by, None, [controls.visitor], **_QUIET)
        priced: list[Any] = [controls.detail, controls.frames, controls.system_prompt, controls.shots]
        gr.on(
            [self.textbox.change, *(component.change for component in priced)],
            pricer(self.estimates),
            [self.textbox, self.chatbot_state, *priced, controls.visitor],
            [self.price],
            trigger_mode="always_last",
            **_QUIET,
        )

    def _setup_stop_events(self, event_triggers: list[Any], events_to_cancel: list[Any], after_success: Any) -> None:
        for triggered in (after_success.success, *event_triggers):
            triggered(_locked, None, [self.textbox], **_QUIET)
        for event in events_to_cancel:
            event.then(_free, None, [self.textbox], **_QUIET)
            event.failure(lambda now: (_free(), now, now), [self.chatbot], [self.textbox, self.chatbot_state, self.chatbot_value], **_QUIET)
        self._stoppable += events_to_cancel

    def _kept(self) -> tuple[Any, ...]:
        """What the page shows becomes what the server knows of the conversation."""
        return lambda now: (now, now), [self.chatbot], [self.chatbot_state, self.chatbot_value]

    def _replaced(self, history: list[Any], edited: str) -> tuple[list[Any], list[Any], Any]:
        """The conversation up to the message that was edited, and that message with its new words: its pictures are those that this server knows.

        Args:
            edited: what the page says (see `repairs.js`): {"turn": which of the visitor's messages, "text": its new words} as JSON.
        """
        asked = [index for index, turn in enumerate(history) if turn["role"] == "user"]
        try:
            change = json.loads(edited)
            # The page shows messages of a visitor that follow each other, of which the first got no answer, as one.
            last = [index for index in asked if index + 1 not in asked][int(change["turn"])]
        except (ValueError, TypeError, KeyError, IndexError):
            raise gr.Error("That message is no longer known here: please send it anew.", print_exception=False) from None
        files = [item["file"] for item in history[last]["content"] if item["type"] == "file"]
        return history[:last], history[:last], {"text": str(change["text"]), "files": files}


def _locked() -> dict[str, Any]:
    """The message box while an answer comes."""
    return gr.update(interactive=False, submit_btn=False, stop_btn=True)


def _free() -> dict[str, Any]:
    """The message box when it is the visitor's again."""
    return gr.update(interactive=True, submit_btn=True, stop_btn=False, placeholder=word("ask"))


def _stopped(conversation: list[dict[str, Any]], visitor: Language | None) -> list[dict[str, Any]]:
    """Say that the answer was stopped, where its progress or its words stand."""
    kept = conversation[:-1] if conversation and aside_kind(conversation[-1]) == PROGRESS else conversation
    return [*kept, aside(line("stopped", visitor or "en"), STOPPED)]
