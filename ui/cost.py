"""A conversation, and answers that were given -> what the next one will cost: slices, tokens, and the seconds until its first words."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import PIL.Image

from pipeline import Answer, Assistant, GenerationConfig, Image, Message, Options, Processor, Text, Video
from pipeline.media import Head
from pipeline.preprocess import Layout
from pipeline.processor import named

K = TypeVar("K")
V = TypeVar("V")

# The time that the most detail may take until the first words, where the choice is left to us. Half a minute is what people wait for while they see
# that something moves; a photograph in ten slices takes about twice as long on the two cores of a free Space.
TARGET_SECONDS = 30.0
# Each further answer is as weighty for the pace as all that were before it are one third: after five answers a busy hour is known of.
_WEIGHT = 0.25
# A prompt with fewer new tokens than this says more about everything around it than about the pace of reading.
_TELLING_TOKENS = 32
_REMEMBERED = 256  # conversations, and heads of files


class Pace:
    """How fast this machine is at present: seconds a slice and seconds a prompt token, None before the first answer."""

    def __init__(self) -> None:
        self.slice_seconds: float | None = None
        self.token_seconds: float | None = None

    def learn(self, answer: Answer, waited: bool = False) -> None:
        """Take an answer's times into account; not the time until the first words of one that `waited` for others."""
        if answer.encoded_slices:
            self.slice_seconds = _moved(self.slice_seconds, answer.vision_s / answer.encoded_slices)
        read = answer.prompt_tokens - answer.cached_tokens
        if answer.ttft_s is not None and not waited and read >= _TELLING_TOKENS:
            self.token_seconds = _moved(self.token_seconds, max(answer.ttft_s - answer.vision_s, 0.0) / read)

    def seconds(self, slices: int, tokens: int) -> float | None:
        """Until the first words; None while it is not known."""
        if self.token_seconds is None or (slices and self.slice_seconds is None):
            return None
        return slices * (self.slice_seconds or 0.0) + tokens * self.token_seconds


@dataclass(frozen=True)
class Cost:
    """What the last message of a conversation adds. What is known from earlier answers costs nothing.

    Args:
        pictures, videos: those of the last message; of each video its frames.
        picture_slices, frame_slices: overviews and slices to encode, of pictures and of frames.
        tokens: to be read, of the `prompt_tokens` of the whole conversation.
        seconds: until the first words, None while the pace is not known.
    """

    pictures: int
    picture_slices: int
    videos: tuple[int, ...]
    frame_slices: int
    tokens: int
    prompt_tokens: int
    seconds: float | None

    @property
    def slices(self) -> int:
        return self.picture_slices + self.frame_slices


class Estimator:
    """Knows what answers have cost so far, and so what the next one will. Any thread may ask."""

    def __init__(self, processor: Processor, max_prompt_tokens: int, vision_cache_bytes: int) -> None:
        self.pace = Pace()
        self._processor, self._max_prompt_tokens = processor, max_prompt_tokens
        config = processor.config
        self._most_slices = vision_cache_bytes // (config.query_num * config.text.hidden_size * 4)
        self._lock = threading.Lock()
        self._heads: OrderedDict[str, Head] = OrderedDict()
        self._shown: OrderedDict[tuple[str, tuple[Layout, ...]], int] = OrderedDict()  # and in how many slices
        self._answered: OrderedDict[int, None] = OrderedDict()  # digests: what people wrote is not kept

    def chosen(self, messages: Sequence[Message], candidates: Sequence[Options]) -> tuple[Options, Cost]:
        """The first of the candidates that fits the context and is within the target, or the last; and what it costs.

        Raises:
            InputError: a file cannot be used.
        """
        for options in candidates:
            cost = self._cost(messages, options)
            if cost.prompt_tokens <= self._max_prompt_tokens and (cost.seconds is None or cost.seconds <= TARGET_SECONDS):
                break
        return options, cost

    def remember(self, messages: Sequence[Message], options: Options, answer: Answer, waited: bool = False) -> None:
        """An answer came: its pictures and its prompt are in the caches now."""
        self.pace.learn(answer, waited)
        shown = self._processor.outline(messages, self._heads_of(messages), options).layouts
        with self._lock:
            for item, layouts in zip(_media(messages), shown, strict=True):
                if (name := _name(item)) is not None:
                    self._shown[name, layouts] = sum(len(layout.tgt_sizes) for layout in layouts)
                    self._shown.move_to_end((name, layouts))
            while sum(self._shown.values()) > self._most_slices:
                self._shown.popitem(last=False)
            _keep(self._answered, hash((options, tuple(messages))), None)

    def _cost(self, messages: Sequence[Message], options: Options) -> Cost:
        outline = self._processor.outline(messages, self._heads_of(messages), options)
        known = self._known_tokens(messages, options)
        slices = {Image: 0, Video: 0}
        for item, layouts in zip(_media(messages), outline.layouts, strict=True):
            if (_name(item), layouts) not in self._shown:
                slices[type(item)] += sum(len(layout.tgt_sizes) for layout in layouts)
        new = messages[-1].media
        counts = [len(layouts) for layouts in outline.layouts[len(outline.layouts) - len(new) :]]
        videos = tuple(count for item, count in zip(new, counts, strict=True) if isinstance(item, Video))
        prompt_tokens = len(outline.prompt.input_ids)
        tokens = prompt_tokens - known
        seconds = self.pace.seconds(slices[Image] + slices[Video], tokens)
        return Cost(len(new) - len(videos), slices[Image], videos, slices[Video], tokens, prompt_tokens, seconds)

    def _known_tokens(self, messages: Sequence[Message], options: Options) -> int:
        """Of the prompt's beginning, where the question before this one was answered with the same options."""
        if len(messages) < 3 or hash((options, tuple(messages[:-2]))) not in self._answered:
            return 0
        return len(self._processor.outline(messages[:-1], self._heads_of(messages[:-1]), options).prompt.input_ids)

    def _heads_of(self, messages: Sequence[Message]) -> list[Head]:
        heads = []
        for item, called in named(messages):
            name = _name(item)
            head = self._heads.get(name or "") or self._processor.head(item, called)
            heads.append(head)
            if name is not None:
                with self._lock:
                    _keep(self._heads, name, head)
        return heads


async def calibrate(assistant: Assistant, pace: Pace) -> None:
    """Let the pace be known before anybody asks: one answer of one token about one picture of noise that nobody else will ever show."""
    side = assistant.processor.config.slices.scale_resolution
    noise = PIL.Image.fromarray(np.random.default_rng().integers(0, 256, (side, side, 3), np.uint8))
    question = Message.user(Image(noise), Text("What is this?"))
    pace.learn(await assistant.answer([question], GenerationConfig.greedy(max_new_tokens=1), Options(max_slice_nums=1)))


def _moved(before: float | None, now: float) -> float:
    return now if before is None else before + _WEIGHT * (now - before)


def _media(messages: Sequence[Message]) -> list[Image | Video]:
    return [item for message in messages for item in message.media]


def _name(item: Image | Video) -> str | None:
    """What a file is known by: its path, which for an upload holds a digest of its content."""
    return str(item.source) if not isinstance(item.source, bytes | PIL.Image.Image) else None


def _keep(kept: OrderedDict[K, V], key: K, value: V) -> None:
    """The newest few of what is remembered."""
    kept[key] = value
    kept.move_to_end(key)
    while len(kept) > _REMEMBERED:
        kept.popitem(last=False)
