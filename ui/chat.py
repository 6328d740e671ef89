"""A model -> the chat that a visitor sees, with its message box, its controls, and the API endpoint `/chat`."""

import json
from collections.abc import Iterator
from typing import Any

import gradio as gr
from gradio.context import get_blocks_context
from gradio.events import Dependency

from ui.answering import CONCURRENCY
from ui.controls import Controls
from ui.conversation import FAILED, FILE_TYPES, PROGRESS, STOPPED, aside, aside_kind
from ui.cost import Estimates
from ui.examples import examples
from ui.model import Model
from ui.respond import pricer, responder
from ui.sentences import line
from ui.words import Language, word

LATEX: list[dict[str, str | bool]] = [
    {"left": left, "right": right, "display": display} for left, right, display in (("$$", "$$", True), (r"\[", r"\]", True), (r"\(", r"\)", False))
]

# Of events that only move things about in the page.
_QUIET: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "undocumented"}
# How an answer ended before its end: by the visitor, or because the server did not take the question or the connection broke off (see `repairs.js`).
# The page remembers it until the next is asked for: words of this one are still on their way to it.
CLEARED, UNTAKEN, BROKEN = "cleared", "untaken", "broken"
_ENDED = {how: f"() => {{ window.ended = '{how}'; }}" for how in (STOPPED, CLEARED)}
_UNLESS_ENDED = "(...given) => { if (window.ended) throw new Error(window.ended); return given; }"
_AND_HOW = "(conversation, _, visitor) => [conversation, window.ended, visitor]"
# The message box while an answer comes, and when it is the visitor's again. The page does it: from the server it would come late, perhaps when the
# next answer has begun. After Stop and Clear it waits for the server, which has the last word on what is shown.
_BUSY, _IDLE = (
    json.dumps({"__type__": "update", "interactive": free, "submit_btn": free, "stop_btn": not free, **more})
    for free, more in ((False, {}), (True, {"placeholder": str(word("ask"))}))
)
_LOCKED = f"() => (window.ended = '', {_BUSY})"
_FREE_ANYHOW = f"() => ({_IDLE})"
_FREE, _FREE_AT_LAST = (f"() => {when} ? {_IDLE} : {{__type__: 'update'}}" for when in ("!window.ended", "window.ended"))

_PRICE_OF_SOMETHING = "(message, price) => message?.text?.trim() || message?.files?.length ? price : ''"


class Chat(gr.ChatInterface):
    """The chat, its message box and the controls below it, in whatever layout it is made in.

    Beside what Gradio's chat does, an edited message keeps its pictures, an answer that was stopped says so, every way of asking can be stopped, and
    it goes on after an error: in Gradio 6.31's page `then` does not follow a failed event, and the message box would stay locked.

    Gradio has no public way to put something between the message box and the controls, or to hold the events that an answer comes from: three of its
    private methods are extended at the end of this class, three are called, and some of its steps are changed (`_keep_what_is_shown`) or taken out
    (`_take_out`).
    `test_chat.py` and the browser's tests notice when a Gradio to come has changed them.
    """

    def __init__(self, model: Model, estimates: Estimates) -> None:
        self.controls, self._estimates = Controls(), estimates
        super().__init__(
            responder(model, estimates),
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
                file_types=FILE_TYPES,
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

    def example_clicked(self, example: gr.SelectData) -> Iterator[tuple[list[Any], dict[str, Any]]]:  # type: ignore[override]
        """The conversation and the message that an example begins: the one at this place, whatever the page says stands there."""
        shown = (self.chatbot.examples or [])[example.index]
        yield (
            self._append_message_to_history({"text": shown["text"], "files": shown["files"]}, []),
            {"text": shown["text"], "files": [file["path"] for file in shown["files"]]},
        )

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

    def _render_footer(self) -> None:
        self.price = gr.HTML("", elem_id="price", html_template="<div role='status'>${value}</div>", padding=False)
        self.edited = gr.Textbox(visible="hidden", elem_id="edited")
        self.ended = gr.Textbox(visible=False)
        self.controls.render()
        super()._render_footer()

    def _setup_events(self) -> None:
        self._stoppable: list[Any] = []
        # Before Gradio's own steps, each of which waits for the server.
        for asking in (self.chatbot.retry, self.chatbot.example_select):
            asking(None, None, [self.textbox], js=_LOCKED, **_QUIET)
        cleared = self.chatbot.clear(None, None, None, js=_ENDED[CLEARED], **_QUIET)
        super()._setup_events()
        self._keep_what_is_shown()
        edited = self.edited.input(self._replaced, [self.chatbot_state, self.edited], [self.chatbot, self.chatbot_state, self.saved_input], **_QUIET)
        asked = edited.then(self._append_message_to_history, [self.saved_input, self.chatbot_state], [self.chatbot], **_QUIET).then(
            self._api_wrapper(self.fn, self._stream_fn),
            [self.saved_input, self.chatbot_state, *self.additional_inputs],
            [self.null_component, self.chatbot],
            api_visibility="undocumented",
            concurrency_limit=CONCURRENCY,
            show_progress="hidden",
        )
        self._setup_stop_events([], [asked], edited)
        self.textbox.stop(None, None, None, js=_ENDED[STOPPED], cancels=self._stoppable, **_QUIET)
        controls = self.controls
        priced: list[Any] = [controls.detail, controls.frames, controls.system_prompt, controls.shots]
        told = gr.on(
            [self.textbox.change, *(component.change for component in priced)],
            pricer(self._estimates),
            [self.textbox, self.chatbot_state, *priced, controls.visitor],
            [self.price],
            trigger_mode="always_last",
            **_QUIET,
        )
        # Two changes at once are asked about at once, whatever the mode: the price of a message may come when that has long been sent.
        told.then(None, [self.textbox, self.price], [self.price], js=_PRICE_OF_SOMETHING, **_QUIET)
        events = get_blocks_context().fns  # type: ignore[union-attr]  # there is one while events are set up
        events[cleared["id"]].cancels = [event["id"] for event in self._stoppable]
        for event in self._stoppable:
            # Stop and Clear find nothing to cancel before it has begun.
            events[event["id"]].js = _UNLESS_ENDED
        self._take_out(events)
        for step in {step for event in self._stoppable for step in _before(event["id"], events)}:
            Dependency(None, {}, step, None).failure(None, None, [self.textbox], js=_FREE_ANYHOW, **_QUIET)

    def _setup_stop_events(self, event_triggers: list[Any], events_to_cancel: list[Any], after_success: Any) -> None:  # noqa: ARG002  # Gradio names it
        after_success.success(None, None, [self.textbox], js=_LOCKED, **_QUIET)
        for event in events_to_cancel:
            for ended in (event.then, event.failure):
                left = ended(_left, [self.chatbot, self.ended, self.controls.visitor], [self.chatbot, self.chatbot_state], js=_AND_HOW, **_QUIET)
                ended(None, None, [self.textbox], js=_FREE, **_QUIET)
                for known in (left.then, left.failure):
                    known(None, None, [self.textbox], js=_FREE_AT_LAST, **_QUIET)
        self._stoppable += events_to_cancel

    def _keep_what_is_shown(self) -> None:
        """A message is about the conversation as the page shows it, and Retry asks its last one again: what the server remembers may be less, after
        an hour or a lost connection, or already without what is asked again.
        """
        for event in get_blocks_context().fns.values():  # type: ignore[union-attr]  # there is one while events are set up
            if event.inputs == [self.saved_input, self.chatbot]:
                event.fn, event.outputs = self._sent, [self.chatbot, self.chatbot_state]
            elif event.outputs == [self.chatbot_state, self.saved_input]:
                event.inputs = [self.chatbot]

    def _sent(self, message: Any, conversation: list[Any]) -> tuple[list[Any], list[Any]]:
        """The conversation with a message, and without it."""
        return self._append_message_to_history(message, conversation), conversation

    def _take_out(self, events: dict[int, Any]) -> None:
        """Without the steps with which Gradio locks, empties and unlocks the message box around an answer, by the server: late, so that what a
        visitor had typed since, or even sent, would be lost. And without those that keep what is shown when an answer has ended, however it ended.
        """
        answers = [event["id"] for event in self._stoppable]
        for step, event in list(events.items()):
            locks = event.outputs == [self.textbox] and event.trigger_after is not None and event.fn is not None
            if locks or (event.outputs == [self.chatbot_state, self.chatbot_value] and event.trigger_after in answers):
                for following in events.values():
                    if following.trigger_after == step:
                        following.trigger_after = event.trigger_after
                del events[step]


def _before(step: int, events: dict[int, Any]) -> Iterator[int]:
    """The steps that lead to one, from the last to the first."""
    while (before := events[step].trigger_after) is not None:
        yield (step := before)


def _left(conversation: list[dict[str, Any]], ended: str, visitor: Language | None) -> tuple[Any, list[dict[str, Any]]]:
    """What an answer leaves, in the page and for the server: nothing where the conversation was cleared meanwhile; where it was stopped or
    broke off, that it did, where its progress or its words stand; and where it was not taken, a line below which Gradio offers to ask again.
    """
    if ended == CLEARED:
        return [], []
    if ended in (STOPPED, BROKEN):
        # The page may tell of one end twice.
        kept = conversation[:-1] if conversation and aside_kind(conversation[-1]) in (PROGRESS, STOPPED) else conversation
        left = [*kept, aside(line(ended, visitor or "en"), STOPPED)]
    elif ended == UNTAKEN and conversation[-1:] and conversation[-1]["role"] == "user":
        left = [*conversation, aside(line("untaken", visitor or "en"), FAILED)]
    else:
        return gr.skip(), conversation
    return left, left
