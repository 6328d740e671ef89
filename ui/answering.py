"""A request, read when its turn comes -> what people hear of it, counted: how far the work is, the text so far, and the whole `Answer` last."""

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from functools import partial
from typing import TypeAlias

import gradio as gr

from pipeline import Answer, Delta, Message, Notice, PipelineError, Status, TextDelta
from pipeline.processor import Plan
from ui.cost import Estimates
from ui.model import Model, Starting
from ui.sentences import notice, unfinished
from ui.settings import Settings
from ui.words import Language

#: A conversation, and how it is to be answered.
Request: TypeAlias = tuple[Sequence[Message], Settings]

# Requests that are with the engine at once: those it computes together, and as many again in its queue, where each sees how many are ahead.
CONCURRENCY = 16
#: All that may be with the engine: by the message box, by an edited message, by `/chat` and by `/ask`.
PLACES = 4 * CONCURRENCY
# Every update sends and renders the whole answer; oftener than this nobody sees and the processor is wanted elsewhere.
UPDATE_SECONDS = 0.05


async def answered(
    model: Model,
    estimates: Estimates,
    read: Callable[[], Awaitable[Request]],
    on_plan: Callable[[Plan], object] | None = None,
    language: Language = "en",
) -> AsyncGenerator[Starting | Status | str | Answer, None]:
    """The way of every request. What its sender should know of it is told beside the answer, as Gradio tells such things.

    Closing it cancels the request: Stop, a cancelled job and a client that went away end up here.

    Raises:
        PipelineError: one plain sentence; what was said before comes first.
    """
    text, next_update = "", 0.0
    async with aclosing(model.metrics.observe(_deltas(model, estimates, read, on_plan))) as stream:
        try:
            async for delta in stream:
                match delta:
                    case Notice():
                        gr.Info(notice(delta, language), duration=None)  # until it is closed: an answer can take minutes
                    case TextDelta():
                        text += delta.text
                        if text.strip() and time.monotonic() >= next_update:
                            yield text
                            next_update = time.monotonic() + UPDATE_SECONDS
                    case _:
                        yield delta
        except Exception:
            if text.strip():
                yield text
            raise


def tell_unfinished(answer: Answer) -> None:
    """Tell a client of the API, beside the answer, why it ends before its end; a visitor reads it below."""
    if why := unfinished(answer):
        gr.Info(why, duration=None)


async def _deltas(
    model: Model, estimates: Estimates, read: Callable[[], Awaitable[Request]], on_plan: Callable[[Plan], object] | None
) -> AsyncGenerator[Starting | Delta, None]:
    """With the detail that was left open chosen by what is known of the machine, once there is a model."""
    messages, wanted = await read()
    async with aclosing(model.arrival()) as arrival:
        async for starting in arrival:
            yield starting
    estimator = estimates.now()
    options = wanted.candidates[0]
    if estimator:
        options, _ = await estimates.run(messages, partial(estimator.chosen, messages, wanted.candidates))
    async with aclosing(model.stream(messages, wanted.generation, options, on_plan)) as stream:
        async for delta in stream:
            # Before it is told: what follows may be asked at once.
            if isinstance(delta, Answer) and estimator:
                with suppress(PipelineError):  # a file that went meanwhile spoils no answer
                    await estimates.run(messages, partial(estimator.remember, messages, options))
            yield delta
