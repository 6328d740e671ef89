"""A conversation's files -> the pictures of each, in order, within the limits on all of them together; and what to tell their sender about them."""

from collections.abc import Sequence
from contextlib import closing
from threading import Event
from time import monotonic as clock
from typing import Protocol, TypeAlias

from pipeline.config import MediaLimits
from pipeline.cutting import CutPicture, Cutting, Loaded
from pipeline.media import Head, Used, error_for, file_size
from pipeline.message import Image, Message, Video
from pipeline.still import image_head, load_image
from pipeline.video import load_video, video_head

# Each with what a sentence calls it.
Files: TypeAlias = Sequence[tuple[Image | Video, str]]


class Reader(Protocol):
    """Reads untrusted files in whatever process, and raises what `load_image` and `load_video` do; `name` is what a sentence calls a file."""

    def load(self, item: Image | Video, cutting: Cutting, limits: MediaLimits, name: str, used: Used, cancelled: Event | None = None) -> Loaded:
        """Decode it, and cut each picture as it comes. `used` is what the files before it took; setting `cancelled` ends the waiting, with a
        `PipelineError`."""

    def head(self, item: Image | Video, limits: MediaLimits, name: str, used: Used) -> Head:
        """What is known of it before anything is decoded. `used` is what the heads before it took."""


class InProcess:
    """Reads files in this process, which is right for files of one's own."""

    def load(self, item: Image | Video, cutting: Cutting, limits: MediaLimits, name: str, used: Used, cancelled: Event | None = None) -> Loaded:  # noqa: ARG002
        started = clock()
        if isinstance(item, Image):
            return [cutting.picture(load_image(item, limits, name, used), name)], clock() - started
        with closing(load_video(item, limits, name, used)) as frames:
            return list(cutting.frames(frames, name)), clock() - started

    def head(self, item: Image | Video, limits: MediaLimits, name: str, used: Used) -> Head:  # noqa: ARG002
        return image_head(item, limits, name) if isinstance(item, Image) else video_head(item, limits, name)


def excess(messages: Sequence[Message], files: Files, limits: MediaLimits) -> str | None:
    """What is too many or too much of a conversation's files, in one sentence, as far as their number and bytes tell; none is opened.

    Raises:
        InputError: a file is missing.
    """
    for message in messages:
        if len(message.media) > limits.max_message_files:
            return f"A message has {len(message.media)} pictures and videos; the limit is {limits.max_message_files}."
    if len(files) > limits.max_conversation_files:
        return f"The conversation has {len(files)} pictures and videos; the limit is {limits.max_conversation_files}. Please start a new one."
    size = sum(file_size(item, name) for item, name in files)
    if size > limits.max_conversation_bytes:
        return (
            f"The conversation's files have {size:,} bytes; the limit is {limits.max_conversation_bytes:,}. "
            "Please start a new one or send smaller files."
        )
    return None


def load_all(files: Files, cutting: Cutting, limits: MediaLimits, reader: Reader, cancelled: Event | None = None) -> list[list[CutPicture]]:
    """Decode and cut the `files` of a conversation.

    Raises:
        InputError: a file cannot be used, or all together have too many pixels or slices or take too long.
    """
    loaded: list[list[CutPicture]] = []
    used = Used()
    started = clock()
    for item, name in files:
        pictures, seconds = reader.load(item, cutting, limits, name, used, cancelled)
        pixels, seconds = used.pixels + sum(width * height for width, height in (picture.size for picture in pictures)), used.seconds + seconds
        used = Used(pixels, seconds, clock() - started - seconds)
        loaded.append(pictures)
        slices = sum(len(picture.slices) for pictures in loaded for picture in pictures)
        if slices > limits.max_conversation_slices:
            raise error_for(type(item))(
                f"With {name[0].lower()}{name[1:]} the conversation has {slices:,} slices of pictures and frames; "
                f"the limit is {limits.max_conversation_slices:,}: send fewer, or start a new conversation."
            )
    return loaded


def in_part(messages: Sequence[Message], files: Files, loaded: Sequence[Sequence[CutPicture]]) -> tuple[str, ...]:
    """Which pictures of the last message have several frames or pages, of which only the first is shown to the model."""
    latest = len(files) - len(messages[-1].media)
    return tuple(name for (_, name), pictures in zip(files[latest:], loaded[latest:], strict=True) if pictures[0].others)
