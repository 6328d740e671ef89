"""A conversation -> its plan: the prompt, and every picture as it was cut, its slices 8-bit RGB (height, width, 3) in the order of their spans."""

import dataclasses
import itertools
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pipeline.attachments import Files, InProcess, Reader, excess, in_part, load_all
from pipeline.config import MediaLimits, ModelConfig
from pipeline.cutting import CutPicture, Cutting
from pipeline.errors import InputError, PromptTooLong
from pipeline.media import Head, Used
from pipeline.message import Image, Message, Placeholder, Prompt, Text, Video, build_prompt, check_turns
from pipeline.preprocess import Layout, Slice
from pipeline.tokenizer import Tokenizer
from pipeline.video import sample_times

F = TypeVar("F")

# No text has as many characters a token on average: what is longer is refused before the tokenizer spends seconds on it.
CHARACTERS_A_TOKEN = 100


@dataclass(frozen=True)
class Options:
    """What one request may change of how its pictures are shown and how a conversation is fitted; None keeps the model's own way.

    Args:
        max_slice_nums: for every picture and frame (by default the model's own for pictures, 2 or 1 for frames).
        max_frame_slice_nums: for frames only, before the former.
        max_frames: of each video, never more than the limits say.
        use_image_id: number every picture and frame (by default pictures are numbered and frames are not).
        drop_oldest: leave out the oldest turns, whole, of a conversation that does not fit, instead of refusing it.
    """

    system_prompt: str | None = None
    max_slice_nums: int | None = None
    max_frame_slice_nums: int | None = None
    max_frames: int | None = None
    use_image_id: bool | None = None
    drop_oldest: bool = False

    def __post_init__(self) -> None:
        for name in ("max_slice_nums", "max_frame_slice_nums", "max_frames"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise InputError(f"{name} is {value}; it must be at least 1.")


@dataclass(frozen=True)
class PlannedPicture:
    """A picture as it is shown, overview first; its number in the prompt if it has one, and where it stands in its video, in seconds, if in one."""

    layout: Layout
    slices: tuple[Slice, ...]
    image_id: int | None
    time: float | None


@dataclass(frozen=True)
class Plan:
    """What the model will be shown. `dropped_turns` messages were left out to make it fit; `in_part` names pictures of the last one."""

    prompt: Prompt
    pictures: tuple[PlannedPicture, ...]
    dropped_turns: int = 0
    in_part: tuple[str, ...] = ()

    @property
    def slices(self) -> tuple[Slice, ...]:
        """One for each span of the prompt's `image_bound`."""
        return tuple(piece for item in self.pictures for piece in item.slices)


@dataclass(frozen=True)
class Outline:
    """What a plan would hold but for its pixels: the prompt, and for each file of the conversation the layouts of its picture or frames."""

    prompt: Prompt
    layouts: tuple[tuple[Layout, ...], ...]


class Processor:
    """The model's way of turning a conversation into its inputs. It needs the folder's JSON files only, and no weights.

    Files are read by `reader`, by default in this process.

    Raises:
        ArtifactError: one of those files is missing or contradicts another.
    """

    def __init__(self, folder: Path, limits: MediaLimits | None = None, reader: Reader | None = None) -> None:
        self.config = ModelConfig.from_folder(folder)
        self.tokenizer = Tokenizer(folder)
        self._limits = limits or MediaLimits()
        self._reader = reader or InProcess()

    def plan(
        self,
        messages: Sequence[Message],
        options: Options | None = None,
        max_prompt_tokens: int | None = None,
        cancelled: threading.Event | None = None,
    ) -> Plan:
        """Read and cut every picture and write the prompt. Setting `cancelled` ends the reading.

        Raises:
            InputError: the turns are not a conversation, there is too much of it, or a file cannot be used.
            PromptTooLong: the prompt takes more than `max_prompt_tokens` (and `drop_oldest` is off, or the last turn alone is too long).
        """
        options = options or Options()
        check_turns(messages)
        kept = messages
        files: Files = named(messages)
        while too_much := self._excess(kept, files, options, max_prompt_tokens):
            kept = _shorter(kept, options, InputError(too_much))
            files = _files_of(kept, files)
        media = load_all(files, self.cutting(options), self._limits_of(options), self._reader, cancelled)
        shown_in_part = in_part(messages, files, media)
        while True:
            placed = self.place(_files_of(kept, media), options)
            prompt = self.prompt(kept, placed, options.system_prompt)
            if max_prompt_tokens is None or len(prompt.input_ids) <= max_prompt_tokens:
                return Plan(prompt, tuple(item for items in placed for item in items), len(messages) - len(kept), shown_in_part)
            kept = _shorter(kept, options, PromptTooLong(len(prompt.input_ids), max_prompt_tokens))

    def check(self, messages: Sequence[Message], options: Options | None = None, max_prompt_tokens: int | None = None) -> None:
        """Whether a conversation's files and words are within the limits, as far as that is known before any file is opened.

        Raises:
            InputError: they are not, or a file is missing.
        """
        if too_much := self._excess(messages, named(messages), options or Options(), max_prompt_tokens):
            raise InputError(too_much)

    def head(self, item: Image | Video, name: str, used: Used | None = None) -> Head:
        """What the head of a file says: all that an outline needs to know of it. `name` is what an error calls it, and `used` is what the heads of
        the files before it took.

        Raises:
            ImageError, VideoError: it cannot be used.
        """
        return self._reader.head(item, self._limits, name, used or Used())

    def outline(self, messages: Sequence[Message], heads: Sequence[Head], options: Options | None = None) -> Outline:
        """What `plan` would make of a conversation whose files have these heads; nothing is decoded.

        Raises:
            ImageError: a picture is too long and thin.
        """
        options = options or Options()
        limits = self._limits_of(options)
        counts = [None if head.seconds is None else len(sample_times(head.seconds, limits)) for head in heads]
        cutting, num_frames = self.cutting(options), sum(count or 0 for count in counts)
        layouts = [
            (cutting.layout(head.size, name, None if count is None else num_frames),) * (1 if count is None else count)
            for (_, name), head, count in zip(named(messages), heads, counts, strict=True)
        ]
        ids = self._image_ids([[count is not None] * len(items) for count, items in zip(counts, layouts, strict=True)], options)
        placeholders = [
            [Placeholder(image_id, layout.grid) for layout, image_id in zip(items, own, strict=True)] for items, own in zip(layouts, ids, strict=True)
        ]
        prompt = build_prompt(messages, placeholders, self.tokenizer, self.config, options.system_prompt)
        return Outline(prompt, tuple(layouts))

    def prompt(self, messages: Sequence[Message], placed: Sequence[Sequence[PlannedPicture]], system_prompt: str | None = None) -> Prompt:
        """Write a conversation whose files are `placed`: a list of pictures for each picture and video."""
        placeholders = [[Placeholder(item.image_id, item.layout.grid) for item in items] for items in placed]
        return build_prompt(messages, placeholders, self.tokenizer, self.config, system_prompt)

    def _excess(self, messages: Sequence[Message], files: Files, options: Options, max_prompt_tokens: int | None) -> str | None:
        if max_prompt_tokens is not None:
            texts = [part.text for message in messages for part in message.content if isinstance(part, Text)]
            characters, limit = sum(map(len, texts)) + len(options.system_prompt or ""), CHARACTERS_A_TOKEN * max_prompt_tokens
            if characters > limit:
                return f"The conversation has {characters:,} characters; the limit is {limit:,}."
        return excess(messages, files, self._limits)

    def _limits_of(self, options: Options) -> MediaLimits:
        most = self._limits.max_frames
        return dataclasses.replace(self._limits, max_frames=min(options.max_frames or most, most))

    def cutting(self, options: Options) -> Cutting:
        """How the pictures of a conversation are cut."""
        slices = self.config.slices
        of_frames = options.max_frame_slice_nums or options.max_slice_nums
        return Cutting(slices, options.max_slice_nums or slices.max_slice_nums, of_frames, self._limits.max_slice_patches)

    def place(self, media: Sequence[Sequence[CutPicture]], options: Options) -> list[list[PlannedPicture]]:
        """Choose how each picture is shown, and its number among the numbered ones of the whole conversation."""
        ids = self._image_ids([[picture.time is not None for picture in pictures] for pictures in media], options)
        cutting, num_frames = self.cutting(options), sum(picture.time is not None for pictures in media for picture in pictures)
        placed: list[list[PlannedPicture]] = []
        for pictures, own in zip(media, ids, strict=True):
            placed.append([])
            for picture, image_id in zip(pictures, own, strict=True):
                layout = cutting.layout(picture.size, "The picture", None if picture.time is None else num_frames)
                placed[-1].append(PlannedPicture(layout, picture.slices[: len(layout.tgt_sizes)], image_id, picture.time))
        return placed

    def _image_ids(self, kinds: Sequence[Sequence[bool]], options: Options) -> list[list[int | None]]:
        """The number of each picture of each file, where `kinds` says which are frames."""
        numbers = itertools.count()
        by_default = self.config.slices.use_image_id
        return [
            [next(numbers) if (by_default and not is_frame if options.use_image_id is None else options.use_image_id) else None for is_frame in items]
            for items in kinds
        ]


def named(messages: Sequence[Message]) -> list[tuple[Image | Video, str]]:
    """The files of a conversation, counted as people count them in what an error says: "Picture 1", "Video 1", "Picture 2"."""
    found: list[tuple[Image | Video, str]] = []
    counts = {Image: 0, Video: 0}
    for item in (item for message in messages for item in message.media):
        counts[type(item)] += 1
        found.append((item, f"{'Picture' if isinstance(item, Image) else 'Video'} {counts[type(item)]}"))
    return found


def _files_of(latest: Sequence[Message], of_all: Sequence[F]) -> Sequence[F]:
    """Of what belongs to each file of a conversation, the part of its latest messages."""
    return of_all[len(of_all) - sum(len(message.media) for message in latest) :]


def _shorter(messages: Sequence[Message], options: Options, error: InputError) -> Sequence[Message]:
    """A conversation without its oldest turn where that was asked for and another one follows, or else the error."""
    following = next((index for index, message in enumerate(messages) if index and message.role == "user"), None)
    if not options.drop_oldest or following is None:
        raise error
    return messages[following:]
