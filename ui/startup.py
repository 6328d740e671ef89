"""The state of a model -> a line above the chat that follows it, and goes when the model is there."""

from html import escape

import gradio as gr

from ui.model import Model, Ready, Starting, State
from ui.sentences import state_line
from ui.words import Language, read_by

SECONDS_BETWEEN_LOOKS = 1
BAR = "width: min(100%, 30em); accent-color: var(--primary-500)"
WAITS: dict[Language, str] = {
    "en": "What you send meanwhile is answered as soon as the model is there.",
    "zh": "您此时发送的消息会在模型就绪后得到回答。",
}


def startup_line(page: gr.Blocks, model: Model) -> None:
    """The line, in whatever layout it is made in. The page asks for it, so that it works again after a lost connection."""
    line, clock = gr.HTML(visible=False), gr.Timer(SECONDS_BETWEEN_LOOKS)

    def look(request: gr.Request) -> tuple[gr.HTML, gr.Timer]:
        state = model.state
        return gr.HTML(_html(state, read_by(request)), visible=state != Ready()), gr.Timer(active=state != Ready())

    for happens in (page.load, clock.tick):
        happens(look, None, [line, clock], queue=False, show_progress="hidden", api_visibility="private")


def _html(state: State, language: Language) -> str:
    bar, waits = "", ""
    if isinstance(state, Starting):
        waits = f"<br><small>{WAITS[language]}</small>"
        if state.total:
            bar = f'<br><progress aria-label="Download" value="{state.done}" max="{state.total}" style="{BAR}"></progress>'
    return f'<div role="status" style="text-align: center"><strong>{escape(state_line(state, language))}</strong>{bar}{waits}</div>'
