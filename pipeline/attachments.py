"""A conversation's files -> the pictures of each, in order, within the limits on all of them together; and what to tell their sender about them."""

from collections.abc import Callable, Sequence
from time import monotonic as clock
from typing import TypeAlias

from pipeline.config import MediaLimits
from pipeline.errors import InputError
from pipeline.media import Picture, Used, file_size
from pipeline.message import Image, Message, Video
from pipeline.still import load_image
from pipeline.video import load_video

# Each with what a sentence calls it.
Files: TypeAlias = Sequence[tuple[Image | Video, str]]
# Decodes one file: item, limits, what a sentence calls it, what the files before it used.
Load: TypeAlias = Callable[[Image | Video, MediaLimits, str, Used], list[Picture]]


def load(item: Image | Video, limits: MediaLimits, name: str, used: Used) -> list[Picture]:
    """Decode a file in this process, which is right for files of one's own."""
    return [load_image(item, limits, name, used)] if isinstance(item, Image) else load_video(item, limits, name, used)


def load_all(messages: Sequence[Message], files: Files, limits: MediaLimits, load: Load = load) -> list[list[Picture]]:
    """Decode the `files` of a conversation.

    Raises:
        InputError: a file cannot be used, or there are too many or too much of them; as far as their number and bytes tell, before any is decoded.
    """
    for message in messages:
        if len(message.media) > limits.max_message_files:
            raise InputError(f"A message has {len(message.media)} pictures and videos; the limit is {limits.max_message_files}.")
    if len(files) > limits.max_conversation_files:
        raise InputError(
            f"The conversation has {len(files)} pictures and videos; the limit is {limits.max_conversation_files}. Please start a new one."
        )
    size = sum(file_size(item, name) for item, name in files)
    if size > limits.max_conversation_bytes:
        raise InputError(
            f"The conversation's files have {size:,} bytes; the limit is {limits.max_conversation_bytes:,}. "
            "Please start a new one or send smaller files."
        )
    loaded: list[list[Picture]] = []
    used = Used()
    started = clock()
    for item, name in files:
        pictures = load(item, limits, name, used)
        used = Used(used.pixels + sum(picture.image.width * picture.image.height for picture in pictures), clock() - started)
        loaded.append(pictures)
    return loaded


def notices(messages: Sequence[Message], files: Files, loaded: Sequence[Sequence[Picture]]) -> tuple[str, ...]:
    """What the sender of the last message should know about its files."""
    latest = len(files) - len(messages[-1].media)
    return tuple(
        f"{name} has several frames or pages; only the first is shown to the model."
        for (_, name), pictures in zip(files[latest:], loaded[latest:], strict=True)
        if pictures[0].others
    )
