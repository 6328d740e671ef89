"""A question with pictures, a video and what was said before -> a streamed answer at the stateless API endpoint `/ask`, which is an MCP tool too."""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any, Literal, TypedDict

import gradio as gr
from gradio import FileData
from gradio.events import api

from pipeline import Answer, Image, InputError, Message, Status, Text, Video
from ui.answering import CONCURRENCY, Request, answered, tell_unfinished
from ui.cost import Estimates
from ui.download import Allowance, in_time
from ui.files import source
from ui.model import Model, Starting
from ui.sentences import progress, sentence
from ui.settings import Settings, settings


class Part(TypedDict, total=False):
    """One part of an earlier message: a text or a file."""

    text: str
    image: FileData
    video: FileData


class Turn(TypedDict):
    """An earlier message."""

    role: Literal["user", "assistant"]
    content: str | list[Part]


class Wishes(TypedDict, total=False):
    """What a caller may choose: the page's own settings. docs/api.md says what each means and what it is by default."""

    mode: Literal["sampling", "greedy", "beams"]
    detail: Literal["auto", "fast", "balanced", "full"]
    frames: int
    system_prompt: str
    max_new_tokens: int
    seed: int
    temperature: float
    top_p: float
    top_k: int
    num_beams: int
    repetition_penalty: float


def ask_endpoint(model: Model, estimates: Estimates) -> None:
    """Offer `/ask` in the layout it is made in."""
    api(asker(model, estimates), api_name="ask", concurrency_limit=CONCURRENCY)


def asker(model: Model, estimates: Estimates) -> Callable[..., AsyncGenerator[str, None]]:
    """The function behind `/ask`."""

    async def ask(
        images: list[FileData] | None = None,
        video: FileData | None = None,
        question: str = "",
        history: list[Turn] | None = None,
        settings: Wishes | None = None,
    ) -> AsyncGenerator[str, None]:
        """Look at pictures or a video and answer a question about them. Nothing is remembered between calls.

        Args:
            images: the pictures, in the order in which the model is to count them; each an uploaded file, a public URL or a data: URL.
            video: one video, shown after the pictures.
            question: what to ask about them; pictures alone are described.
            history: earlier messages, the oldest first: {"role": "user" or "assistant", "content": a text, or a list of {"text": ...}, {"image": ...} and {"video": ...}}.
            settings: "mode" (sampling, greedy or beams), "detail" (auto, fast, balanced or full), "frames" of a video, "max_new_tokens", "seed", "system_prompt", "temperature", "top_p", "top_k", "num_beams", "repetition_penalty"; all optional.

        Returns:
            The answer, as far as it is known; the last one is whole.
        """  # noqa: E501  one argument a line is what Gradio reads
        text, told = "", gr.Progress()

        async def read() -> Request:
            given: dict[str, tuple[object, type, str]] = {
                "images": (images, list, "a list"),
                "question": (question, str, "a text"),
                "history": (history, list, "a list"),
                "settings": (settings, dict, "an object"),
            }
            for name, (value, kind, called) in given.items():
                if not isinstance(value, kind | None):  # Gradio takes any JSON for them
                    raise InputError(f"The argument {name!r} must be {called}.")
            wanted = _wanted(settings or {})
            async with in_time() as allowed:
                messages = [await _turn(number, turn, allowed) for number, turn in enumerate(history or [], start=1)]
                return [*messages, await _question(images or [], video, question or "", allowed)], wanted

        try:
            async with aclosing(answered(model, estimates, read)) as stream:
                async for item in stream:
                    match item:
                        case Status() | Starting():
                            told((item.done, item.total), desc=progress(item))
                            yield text  # a client that hung up is noticed when something is sent
                        case str():
                            text = item
                            yield text
                        case Answer():
                            tell_unfinished(item)
                            yield item.text
        except Exception as error:
            raise gr.Error(sentence(error), print_exception=False) from None

    return ask


def _wanted(wishes: Mapping[str, Any]) -> Settings:
    unknown = [str(name) for name in wishes if name not in Wishes.__annotations__]
    if unknown:
        raise InputError(f"There is no setting {unknown[0]!r}; there are {', '.join(Wishes.__annotations__)}.")
    # Agents write null where they have no wish.
    return settings(**{name: value for name, value in wishes.items() if value is not None})


async def _question(images: list[Any], video: Any, question: str, allowed: Allowance) -> Message:
    shown = [Image(await source(image, allowed)) for image in images]
    return Message("user", (*shown, *([Video(await source(video, allowed))] if video else []), *([Text(question)] if question.strip() else [])))


async def _turn(number: int, turn: object, allowed: Allowance) -> Message:
    """One turn of a history as a client writes it."""
    match turn:
        case {"role": "user" | "assistant" as role, "content": str(text)}:
            return Message(role, (Text(text),))
        case {"role": "user" | "assistant" as role, "content": [*parts]}:
            return Message(role, tuple([await _part(number, part, allowed) for part in parts]))
    raise InputError(f"Turn {number} of the history cannot be read: it must have a role, user or assistant, and a content.")


async def _part(number: int, part: object, allowed: Allowance) -> Text | Image | Video:
    match part:
        case {"text": str(text)}:
            return Text(text)
        case {"image": file} if file:
            return Image(await source(file, allowed))
        case {"video": file} if file:
            return Video(await source(file, allowed))
    raise InputError(f"Turn {number} of the history cannot be read: each part must be a text, an image or a video.")
