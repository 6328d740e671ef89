"""Messages and what stands for their pictures -> the prompt: text, `input_ids` (tokens,) and the span of each picture in them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self, TypeAlias

import PIL.Image

from pipeline.config import ModelConfig
from pipeline.errors import InputError
from pipeline.tokenizer import Tokenizer

DEFAULT_SYSTEM_PROMPT = "You are a helpful assistant."


@dataclass(frozen=True)
class Text:
    """What somebody wrote. Half surrogate pairs, which no UTF-8 text can hold, become U+FFFD."""

    text: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", self.text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))


@dataclass(frozen=True)
class Image:
    """A still picture: a file, its bytes, or an image in memory."""

    source: Path | str | bytes | PIL.Image.Image


@dataclass(frozen=True)
class Video:
    """A video file or its bytes."""

    source: Path | str | bytes


Part: TypeAlias = Text | Image | Video


@dataclass(frozen=True)
class Message:
    """One turn; its parts reach the model in this order."""

    role: Literal["user", "assistant"]
    content: tuple[Part, ...]

    @classmethod
    def user(cls, *parts: Part | str) -> Self:
        return cls("user", tuple(Text(part) if isinstance(part, str) else part for part in parts))

    @classmethod
    def assistant(cls, *parts: Part | str) -> Self:
        return cls("assistant", tuple(Text(part) if isinstance(part, str) else part for part in parts))

    @property
    def media(self) -> tuple[Image | Video, ...]:
        return tuple(part for part in self.content if not isinstance(part, Text))


@dataclass(frozen=True)
class Placeholder:
    """What stands for one picture in the prompt: its number, if numbers are on, and its grid (columns, rows), if it is cut."""

    image_id: int | None
    grid: tuple[int, int] | None


@dataclass(frozen=True)
class Prompt:
    """`text` has every placeholder expanded; `image_bound` has the half-open span of each overview and slice, in order."""

    text: str
    input_ids: tuple[int, ...]
    image_bound: tuple[tuple[int, int], ...]

    @property
    def image_tokens(self) -> int:
        return sum(end - start for start, end in self.image_bound)


def check_turns(messages: Sequence[Message]) -> None:
    """Raise an `InputError` unless the conversation starts and ends with a user's turn."""
    if not messages:
        raise InputError("The conversation is empty.")
    for message in messages:
        if message.role not in ("user", "assistant"):
            raise InputError(f"A turn has the role {message.role!r}; there are 'user' and 'assistant'.")
    if messages[0].role != "user":
        raise InputError("The first turn must be the user's.")
    if messages[-1].role != "user":
        raise InputError("The last turn must be the user's: there is nothing to answer.")
    if not messages[-1].content:
        raise InputError("The message is empty: write something or add a picture.")


def build_prompt(
    messages: Sequence[Message],
    placeholders: Sequence[Sequence[Placeholder]],
    tokenizer: Tokenizer,
    config: ModelConfig,
    system_prompt: str | None = None,
) -> Prompt:
    """Write a conversation in the model's ChatML template (spec 4.1, 4.2).

    Args:
        placeholders: for each picture and video of the conversation, in order, what stands for it: one for a picture, one a frame for a video.
        system_prompt: put first; without one the template says its own.
    """
    writer = _Writer(tokenizer, config)
    remaining = iter(placeholders)
    writer.open_turn("system")
    writer.write(Text(system_prompt).text if system_prompt else DEFAULT_SYSTEM_PROMPT)
    writer.close_turn()
    for message in messages:
        writer.open_turn(message.role)
        for index, part in enumerate(message.content):
            if index:
                writer.write("\n")
            if isinstance(part, Text):
                writer.write(part.text)
            else:
                writer.pictures(next(remaining))
        writer.close_turn()
    writer.open_turn("assistant")
    return writer.prompt()


class _Writer:
    """Text and control tokens in order. Neighbouring text is encoded as one piece, because the tokenizer merges across what we join."""

    def __init__(self, tokenizer: Tokenizer, config: ModelConfig) -> None:
        self._tokenizer = tokenizer
        self._marks = config.slices
        self._query_num = config.query_num
        self._written: list[str] = []
        self._pending: list[str] = []
        self._ids: list[int] = []
        self._bounds: list[tuple[int, int]] = []

    def open_turn(self, role: str) -> None:
        self._control("<|im_start|>")
        self.write(f"{role}\n")

    def close_turn(self) -> None:
        self._control("<|im_end|>")
        self.write("\n")

    def write(self, text: str) -> None:
        self._pending.append(text)

    def pictures(self, placeholders: Sequence[Placeholder]) -> None:
        """Each picture on a line of its own: its number, its overview, and its slices row by row."""
        marks = self._marks
        for index, placeholder in enumerate(placeholders):
            if index:
                self.write("\n")
            if placeholder.image_id is not None:
                self._control(marks.im_id_start)
                self.write(str(placeholder.image_id))
                self._control(marks.im_id_end)
            self._span(marks.im_start, marks.im_end)
            columns, rows = placeholder.grid or (0, 0)
            for row in range(rows):
                if row:
                    self.write("\n")
                for _ in range(columns):
                    self._span(marks.slice_start, marks.slice_end)

    def prompt(self) -> Prompt:
        self._flush()
        return Prompt("".join(self._written), tuple(self._ids), tuple(self._bounds))

    def _span(self, start: str, end: str) -> None:
        self._control(start)
        self._bounds.append((len(self._ids), len(self._ids) + self._query_num))
        self._written.append(self._marks.unk * self._query_num)
        self._ids += [self._tokenizer.control_id(self._marks.unk)] * self._query_num
        self._control(end)

    def _control(self, token: str) -> None:
        self._flush()
        self._written.append(token)
        self._ids.append(self._tokenizer.control_id(token))

    def _flush(self) -> None:
        if text := "".join(self._pending):
            self._written.append(text)
            self._ids += self._tokenizer.encode(text)
        self._pending.clear()
