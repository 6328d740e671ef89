"""The controls below the chat: how much the model looks at, how it answers, and worked examples -> further inputs of the function behind the chat."""

from typing import Any

import gradio as gr

from pipeline import GenerationConfig
from ui.conversation import FILE_TYPES
from ui.sentences import line
from ui.settings import DETAILS, FRAMES, LONGEST_ANSWER, MODES
from ui.words import Language, word


class Controls:
    """`inputs` are in the order in which the function behind the chat takes them, with what they say before anybody touched them."""

    def __init__(self) -> None:
        sampling, beams = GenerationConfig.sampling(), GenerationConfig.beams()
        self.detail = gr.Radio([(word(name), name) for name in DETAILS], value="auto", label=word("detail"), info=word("detail_info"), render=False)
        self.frames = gr.Radio([(word("auto") if count == 0 else str(count), count) for count in FRAMES], value=0, label=word("frames"), render=False)
        self.system_prompt = gr.Textbox("", label=word("system_prompt"), info=word("system_prompt_info"), lines=2, render=False)
        self.mode = gr.Radio([(word(name), name) for name in MODES], value="sampling", label=word("mode"), render=False)
        self.max_new_tokens = gr.Slider(
            1, LONGEST_ANSWER, sampling.max_new_tokens, step=1, precision=0, label=word("max_new_tokens"), buttons=[], render=False
        )
        self.temperature = gr.Slider(0.01, 2, sampling.temperature, step=0.01, label=word("temperature"), buttons=[], render=False)
        self.top_p = gr.Slider(0.01, 1, sampling.top_p, step=0.01, label=word("top_p"), buttons=[], render=False)
        self.top_k = gr.Slider(0, 1000, sampling.top_k, step=1, precision=0, label=word("top_k"), buttons=[], render=False)
        self.num_beams = gr.Slider(1, 8, beams.num_beams, step=1, precision=0, label=word("num_beams"), buttons=[], render=False, visible=False)
        self.repetition_penalty = gr.Number(0, label=word("repetition_penalty"), info=word("repetition_penalty_info"), step=0.05, render=False)
        self.seed = gr.Number(0, label=word("seed"), info=word("seed_info"), precision=0, render=False)
        self.shots = gr.Chatbot([], label=word("shot_list"), height=260, buttons=[], layout="panel", allow_file_downloads=False, render=False)
        #: The language of whoever has the page open, None for a client of the API, who gets nothing but the answer.
        self.visitor = gr.State(None, render=False)
        self.inputs: list[Any] = [
            self.detail,
            self.frames,
            self.system_prompt,
            self.mode,
            self.max_new_tokens,
            self.temperature,
            self.top_p,
            self.top_k,
            self.num_beams,
            self.repetition_penalty,
            self.seed,
            self.shots,
            self.visitor,
        ]

    def render(self) -> None:
        """Lay them out here."""
        self.visitor.render()
        with gr.Accordion(word("settings"), open=False):
            with gr.Row():
                self.detail.render()
                self.frames.render()
            self.system_prompt.render()
            with gr.Row():
                self.mode.render()
                self.max_new_tokens.render()
            with gr.Row():
                for component in (self.temperature, self.top_p, self.top_k, self.num_beams):
                    component.render()
            with gr.Row():
                self.repetition_penalty.render()
                self.seed.render()
        with gr.Accordion(word("shots"), open=False):
            gr.Markdown(word("shots_info"))
            question = gr.MultimodalTextbox(
                label=word("shot_question"),
                placeholder=word("shot_question"),
                file_count="multiple",
                file_types=FILE_TYPES,
                submit_btn=False,
                max_plain_text_length=100_000,
            )
            answer = gr.Textbox(label=word("shot_answer"), lines=1)
            add = gr.Button(word("shot_add"))
            self.shots.render()
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "undocumented"}
        # By way of the queue: past it Gradio keeps what a visitor is told to itself.
        add.click(_with_shot, [self.shots, question, answer, self.visitor], [self.shots, question, answer], **quiet)
        self.mode.change(_used_by, [self.mode], [self.temperature, self.top_p, self.top_k, self.num_beams, self.seed], queue=False, **quiet)


def _with_shot(shots: list[Any], question: dict[str, Any] | None, answer: str, visitor: Language | None) -> tuple[list[Any], Any, str]:
    """The examples and one more, and empty fields for the next; what is incomplete stays where it is."""
    question = question or {"text": "", "files": []}
    if not answer.strip() or not (question["text"].strip() or question["files"]):
        gr.Warning(line("incomplete", visitor or "en"))
        return shots, question, answer
    asked = [*({"path": path} for path in question["files"]), *([question["text"]] if question["text"].strip() else [])]
    return [*shots, {"role": "user", "content": asked}, {"role": "assistant", "content": answer}], None, ""


def _used_by(mode: str) -> list[Any]:
    """Show what the mode makes use of."""
    samples = mode == "sampling"
    return [gr.Slider(visible=samples)] * 3 + [gr.Slider(visible=mode == "beams"), gr.Number(visible=samples)]
