"""A conversation, and the pace of answers so far -> what the next one will cost: slices, tokens, and the seconds until its first words."""

import asyncio
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import monotonic as clock
from typing import Self, TypeVar

import PIL.Image

from pipeline import Assistant, EngineConfig, Image, Message, Options, Processor, Video
from pipeline.media import Head, Used
from pipeline.pace import Pace
from pipeline.preprocess import Layout
from pipeline.processor import named
from ui.model import Model

K = TypeVar("K")
V = TypeVar("V")

# The time that the most detail may take until the first words, where the choice is left to us. Half a minute is what people wait for while they see
# that something moves; a photograph in ten slices takes about twice as long on the two cores of a free Space.
TARGET_SECONDS = 30.0
_AT_ONCE = 32  # answers whose files are looked at; one head is read at a time, but most are known
_REMEMBERED = 256  # conversations, and heads of files


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

    def __init__(self, processor: Processor, pace: Pace, max_prompt_tokens: int, vision_cache_bytes: int) -> None:
        self._pace, self._processor, self._max_prompt_tokens = pace, processor, max_prompt_tokens
        config = processor.config
        self._most_slices = vision_cache_bytes // (config.query_num * config.text.hidden_size * 4)
        self._lock = threading.Lock()
        self._heads: OrderedDict[str, Head] = OrderedDict()
        self._shown: OrderedDict[tuple[str, tuple[Layout, ...]], int] = OrderedDict()  # and in how many slices
        self._answered: OrderedDict[int, None] = OrderedDict()  # digests: what people wrote is not kept

    @classmethod
    def of(cls, assistant: Assistant) -> Self:
        return cls(assistant.processor, assistant.pace, assistant.max_prompt_tokens, EngineConfig().vision_cache_bytes)

    def is_of(self, assistant: Assistant) -> bool:
        """Whether it was made for this one; by what is light of that, because a dead one should leave no more in memory."""
        return self._processor is assistant.processor

    def chosen(self, messages: Sequence[Message], candidates: Sequence[Options]) -> tuple[Options, Cost]:
        """The first of the candidates that fits the context and is within the target, or the last; and what it costs.

        Raises:
            InputError: a file cannot be used, or there is too much of the conversation.
        """
        self._processor.check(messages, candidates[0], self._max_prompt_tokens)
        for options in candidates if _media(messages) else candidates[:1]:  # they differ in how pictures are shown
            cost = self._cost(messages, options)
            if cost.prompt_tokens <= self._max_prompt_tokens and (cost.seconds is None or cost.seconds <= TARGET_SECONDS):
                break
        return options, cost

    def remember(self, messages: Sequence[Message], options: Options) -> None:
        """An answer came: its pictures and its prompt are in the caches now."""
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
        seconds = self._pace.seconds(slices[Image] + slices[Video], tokens)
        return Cost(len(new) - len(videos), slices[Image], videos, slices[Video], tokens, prompt_tokens, seconds)

    def _known_tokens(self, messages: Sequence[Message], options: Options) -> int:
        """Of the prompt's beginning, where the question before this one was answered with the same options."""
        if len(messages) < 3 or hash((options, tuple(messages[:-2]))) not in self._answered:
            return 0
        return len(self._processor.outline(messages[:-1], self._heads_of(messages[:-1]), options).prompt.input_ids)

    def _heads_of(self, messages: Sequence[Message]) -> list[Head]:
        heads, started = [], clock()
        for item, called in named(messages):
            name = _name(item)
            head = self._heads.get(name or "") or self._processor.head(item, called, Used(seconds=clock() - started))
            heads.append(head)
            if name is not None:
                with self._lock:
                    _keep(self._heads, name, head)
        return heads


class Estimates:
    """The estimator for a model's assistant, a new one with each assistant that comes."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._newest: Estimator | None = None
        # Heads of files may take seconds to read: nobody's words wait for them, and no answer for those that are only typed at.
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="estimate")
        self._preview = ThreadPoolExecutor(1, thread_name_prefix="preview")

    def now(self) -> Estimator | None:
        """None while there is no assistant."""
        if (assistant := self._model.assistant) is None:
            return None
        if self._newest is None or not self._newest.is_of(assistant):
            self._newest = Estimator.of(assistant)
        return self._newest

    async def run(self, messages: Sequence[Message], work: Callable[[], V], *, preview: bool = False) -> V:
        """What `work` with these messages gives, and raises, in a thread beside the event loop; a preview is of what may never be sent."""
        of_files = self._preview if preview else self._threads
        return await asyncio.get_running_loop().run_in_executor(of_files if _media(messages) else None, work)


def _media(messages: Sequence[Message]) -> list[Image | Video]:
    return [item for message in messages for item in message.media]


def _name(item: Image | Video) -> str | None:
    """What a file is known by: a digest of its content, which the path of an upload holds."""
    match item.source:
        case bytes(content):
            return hashlib.sha256(content).hexdigest()
        case PIL.Image.Image():
            return None
        case path:
            return str(path)


def _keep(kept: OrderedDict[K, V], key: K, value: V) -> None:
    """The newest few of what is remembered."""
    kept[key] = value
    kept.move_to_end(key)
    while len(kept) > _REMEMBERED:
        kept.popitem(last=False)
