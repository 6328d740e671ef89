"""Untrusted files -> open ones no larger than allowed; and what all decoding gives: `Picture`, an upright RGB image (height, width, 3) 8 bit."""

import io
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import PIL.Image

from pipeline.config import MediaLimits
from pipeline.errors import ImageError, InputError, VideoError
from pipeline.message import Image, Video

# How files begin that only one of the two can be: what either reads, a GIF, is in neither.
_PICTURE = re.compile(rb"\xff\xd8\xff|\x89PNG|BM|II\*\0|MM\0\*|RIFF.{4}WEBP|.{4}ftyp(?:avif|avis|heic|heix|heim|heis|mif1|msf1)", re.DOTALL)
_VIDEO = re.compile(rb".{4}(?:ftyp|moov|mdat|wide|free|skip)|\x1aE\xdf\xa3|RIFF.{4}AVI |FLV\x01|OggS|\0\0\x01[\xba\xb3]|G.{187}G", re.DOTALL)
_BEGINNING = 192  # bytes


@dataclass(frozen=True)
class Picture:
    """One RGB image; `time` is where it stands in its video, in seconds, and None for a still picture.

    `others` says that its file holds further frames or pages, which are not shown.
    """

    image: PIL.Image.Image
    time: float | None = None
    others: bool = False


@dataclass(frozen=True)
class Head:
    """What the head of a file says: (width, height) as stored, so maybe lying down, and a video's seconds up to its last frame."""

    size: tuple[int, int]
    seconds: float | None = None


@dataclass(frozen=True)
class Used:
    """What a conversation's files have taken so far of what all of them may take together: pixels of RGB images and seconds of decoding.

    `waited` are the seconds for which they waited while others' files were decoded.
    """

    pixels: int = 0
    seconds: float = 0.0
    waited: float = 0.0


def error_for(kind: type[Image | Video]) -> type[InputError]:
    """The class of errors about this kind of file."""
    return ImageError if kind is Image else VideoError


def kind_by_content(path: Path | str) -> type[Image | Video] | None:
    """Whether a file is a picture or a video, by how it begins; None if that says neither, or there is no such file."""
    try:
        if not Path(path).is_file():
            return None
        with Path(path).open("rb") as file:
            beginning = file.read(_BEGINNING)
    except (OSError, ValueError):
        return None
    return Image if _PICTURE.match(beginning) else Video if _VIDEO.match(beginning) else None


def file_size(item: Image | Video, name: str) -> int:
    """Bytes of a file, 0 of an image in memory.

    Raises:
        InputError: there is no such regular file.
    """
    if isinstance(item.source, PIL.Image.Image):
        return 0
    if isinstance(item.source, bytes):
        return len(item.source)
    try:
        found = Path(item.source).stat()
    except (OSError, ValueError) as cause:  # a path with a zero byte is a ValueError
        raise _missing(item, name) from cause
    if not stat.S_ISREG(found.st_mode):  # opening a pipe would wait for whoever writes to it
        raise _missing(item, name)
    return found.st_size


@contextmanager
def opened(item: Image | Video, limits: MediaLimits, name: str) -> Iterator[BinaryIO]:
    """A file open for reading, without its name: formats are known by content. `name` is what the sentence of an error calls it.

    Raises:
        InputError: it is missing, empty or over the limit on bytes.
    """
    if isinstance(item.source, PIL.Image.Image):
        raise TypeError("An image in memory is no file.")
    size = file_size(item, name)
    if size > limits.max_file_bytes:
        raise error_for(type(item))(f"{name} has {size:,} bytes; the limit is {limits.max_file_bytes:,}.")
    if size == 0:
        raise error_for(type(item))(f"{name} is empty: it has 0 bytes.")
    if isinstance(item.source, bytes):
        yield io.BytesIO(item.source)
        return
    try:
        named = Path(item.source).open("rb")  # noqa: SIM115 (closed below; what its reader raises is another matter)
    except OSError as cause:
        raise _missing(item, name) from cause
    with named, open(named.fileno(), "rb", closefd=False) as file:
        yield file


def check_pixels(error: type[InputError], pixels: int, limits: MediaLimits, used: Used, name: str) -> None:
    """Raise the `error` if a file's `pixels` would be more than a conversation may have."""
    pixels += used.pixels
    if pixels > limits.max_conversation_pixels:
        raise error(
            f"With {name[0].lower()}{name[1:]} the conversation has {pixels:,} pixels in all its pictures and frames; "
            f"the limit is {limits.max_conversation_pixels:,}."
        )


def decode_seconds(quick: bool, limits: MediaLimits, used: Used) -> float:
    """How long the next file of a conversation may be decoded; pictures and heads are `quick`."""
    left = max(limits.max_decode_seconds - used.seconds, 0.0)
    return min(left, limits.max_picture_seconds) if quick else left


def out_of_memory(name: str, limits: MediaLimits) -> str:
    """The sentence for a file whose decoding takes more memory than it may."""
    return f"{name} takes too much memory to decode; the limit is {limits.max_decode_bytes:,} bytes."


def out_of_time(name: str, limits: MediaLimits) -> str:
    """The sentence for a file whose decoding takes longer than it may."""
    limit = f"{limits.max_picture_seconds:.0f} s for a picture and {limits.max_decode_seconds:.0f} s for all files of a conversation"
    return f"{name} takes too long to decode; the limit is {limit}."


def _missing(item: Image | Video, name: str) -> InputError:
    return error_for(type(item))(f"{name} is missing: there is no such file, or it was deleted meanwhile.")
