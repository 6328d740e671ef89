"""A visitor's message and history -> what the chat shows of its answer, item by item; and what a message will cost, before it is sent."""

import html
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from functools import partial
from typing import Any, TypeAlias

import gradio as gr
import PIL.Image
from gradio.processing_utils import save_pil_to_cache
from gradio.utils import get_upload_folder

from pipeline import Answer, InputError, PipelineError, Status
from pipeline.processor import Plan
from ui.answering import Request, answered, tell_unfinished
from ui.conversation import CUT, FAILED, NO_WORDS, PROGRESS, REFUSED, SEEN, aside, folded, normalise, shown
from ui.cost import Estimates
from ui.model import Model, Starting
from ui.seen import measured as figures
from ui.seen import sheet
from ui.sentences import cost, line, measured, progress, sentence, unfinished
from ui.settings import settings
from ui.words import Language

#: What is shown of an answer: its text so far, an aside, or both. Each replaces the one before.
Shown: TypeAlias = str | dict[str, Any] | list[Any]


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
        text, language = "", visitor or "en"
        sheets: list[PIL.Image.Image] = []

        async def read() -> Request:
            messages = normalise(message, [*(shots or []), *history])
            return messages, settings(
                mode=mode, detail=detail, frames=frames, system_prompt=system_prompt, max_new_tokens=max_new_tokens, temperature=temperature,
                top_p=top_p, top_k=top_k, num_beams=num_beams, repetition_penalty=repetition_penalty, seed=seed,
            )  # fmt: skip

        def look(plan: Plan) -> None:
            if visitor is not None and (drawn := sheet(plan)) is not None:
                sheets.append(drawn)

        try:
            async with aclosing(answered(model, estimates, read, look, language)) as stream:
                async for item in stream:
                    match item:
                        case Status() | Starting():
                            yield aside(progress(item, language), PROGRESS)
                        case str():
                            text = item
                            yield text if visitor is None else shown(text)
                        case Answer():
                            said = item.text or NO_WORDS[language]
                            if visitor is None:
                                tell_unfinished(item)
                            yield said if visitor is None else [shown(said), *_below(item, sheets, language)]
        except Exception as error:
            told = sentence(error)
            # In the chat, where it stays below what was answered so far; and as the error that clients of the API receive.
            below = aside(told, REFUSED if isinstance(error, InputError) else FAILED)
            yield [shown(text), below] if text else below
            raise gr.Error(told, visible=False, print_exception=False) from None

    return respond


def _below(answer: Answer, sheets: Sequence[PIL.Image.Image], language: Language) -> list[dict[str, Any]]:
    """What a visitor reads below an answer: why it ends if it is not finished, and what it took, to be folded out to what the model saw."""
    below = [aside(why, CUT)] if (why := unfinished(answer, language)) else []
    paths: list[str] = []
    with suppress(OSError):  # the disk is full: a picture of what the model saw is not worth an answer
        # Kept where uploads are, and deleted with them.
        paths = [save_pil_to_cache(drawn, get_upload_folder(), format="webp") for drawn in sheets]
    took = measured(figures(answer), language)
    if paths:
        return [*below, *folded(aside(took, SEEN), paths[0], line("seen", language))]
    return [*below, aside(took, SEEN)] if took else below


def pricer(estimates: Estimates) -> Callable[..., Awaitable[str]]:
    """The function behind the line below the message box."""

    async def price(
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
            messages = normalise(message, [*shots, *history])
            _, expected = await estimates.run(messages, partial(estimator.chosen, messages, wanted.candidates), preview=True)
        except PipelineError as error:
            return html.escape(str(error))
        return cost(expected, visitor or "en")

    return price
