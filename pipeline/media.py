"""Untrusted picture or video files -> upright RGB images (height, width, 3) 8 bit, and the presentation time of each video frame in seconds."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic as clock

import av
import numpy as np
import PIL.ExifTags
import PIL.Image
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL.Image import Transpose

from pipeline.config import MediaLimits
from pipeline.errors import ImageError, InputError, VideoError
from pipeline.message import Image, Video

# Formats by content, not by name: what else Pillow would open either starts another program (EPS) or is no photograph.
IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
TURNS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
# Containers that hold their own data. FFmpeg would also open playlists, which name other files and addresses.
VIDEO_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,flv,ogg,gif"


@dataclass(frozen=True)
class Picture:
    """One RGB image; `time` is where it stands in its video, in seconds, and None for a still picture."""

    image: PIL.Image.Image
    time: float | None = None


@dataclass(frozen=True)
class Head:
    """What the head of a file says: (width, height) as stored, so maybe lying down, and a video's seconds up to its last frame."""

    size: tuple[int, int]
    seconds: float | None = None


def load_image(image: Image, limits: MediaLimits, name: str = "The picture") -> Picture:
    """Decode a still picture, the first frame of an animated one. `name` is what the sentence of an error calls it.

    Raises:
        ImageError: unreadable, of an unsupported format, or over a limit; limits are checked before any pixel is decoded.
    """
    if isinstance(image.source, PIL.Image.Image):
        with _refusing(limits, name):
            return Picture(_decoded(image.source, limits, name))
    with _opened_image(image.source, limits, name) as opened:
        return Picture(_decoded(opened, limits, name))


def load_video(video: Video, limits: MediaLimits, name: str = "The video") -> list[Picture]:
    """Sample a video by presentation time: what is on screen at 0 s, 1 s, 2 s, ..., evenly thinned to `max_frames`.

    Raises:
        VideoError: unreadable, without pictures, of an unsupported format, or over a limit.
    """
    seconds = video_head(video, limits, name).seconds or 0.0
    try:
        with _opened(video.source, name) as container:
            pictures = list(_on_screen(container, sample_times(seconds, limits), limits, name))
    except av.FFmpegError as cause:
        raise VideoError(f"{name} cannot be read: the file is damaged or in an unsupported format.") from cause
    if not pictures:
        raise VideoError(f"{name} has no frames that can be read.")
    return pictures


def image_head(image: Image, limits: MediaLimits, name: str = "The picture") -> Head:
    """What is known of a still picture before any pixel is decoded.

    Raises:
        ImageError: unreadable, or of an unsupported format.
    """
    if isinstance(image.source, PIL.Image.Image):
        return Head(image.source.size)
    with _opened_image(image.source, limits, name) as opened:
        return Head(opened.size)


def video_head(video: Video, limits: MediaLimits, name: str = "The video") -> Head:
    """What the packets of a video tell without being decoded.

    Raises:
        VideoError: unreadable, without pictures, of an unsupported format, or over a limit.
    """
    _check_size(video.source, limits, VideoError, name)
    try:
        with _opened(video.source, name) as container:
            stream = container.streams.video[0]
            if stream.width * stream.height > limits.max_video_pixels:
                raise VideoError(f"{name} has {stream.width} x {stream.height} pixels a frame; the limit is {limits.max_video_pixels:,} in all.")
            seconds = _last_time(container, stream)
            if seconds > limits.max_video_seconds:
                raise VideoError(f"{name} is {seconds:.0f} s long; the limit is {limits.max_video_seconds:.0f} s.")
            return Head((stream.width, stream.height), seconds)
    except av.FFmpegError as cause:
        raise VideoError(f"{name} cannot be read: the file is damaged or in an unsupported format.") from cause


def sample_times(seconds: float, limits: MediaLimits) -> list[float]:
    """When to look at a video whose last frame appears at `seconds`: at the given rate, and of too many moments the middle of each equal share."""
    count = int((seconds + _TICK) * limits.frames_per_second) + 1
    share = max(count / limits.max_frames, 1.0)
    return [int(index * share + share / 2) / limits.frames_per_second for index in range(min(count, limits.max_frames))]


# Presentation times are rounded to the container's clock; a frame this much late still counts as on time.
_TICK = 0.002


def _last_time(container: InputContainer, stream: VideoStream) -> float:
    """Seconds from the first frame's presentation to the last one's, from the packets alone: nothing is decoded and no header is believed."""
    stamps = [
        stamp for packet in container.demux(stream) if packet.size and (stamp := packet.pts if packet.pts is not None else packet.dts) is not None
    ]
    return float((max(stamps) - min(stamps)) * stream.time_base) if stamps and stream.time_base else 0.0


def _on_screen(container: InputContainer, times: list[float], limits: MediaLimits, name: str) -> Iterator[Picture]:
    """The frame on screen at each of the ascending `times`, with the time at which it appeared."""
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    waiting = iter(times)
    wanted = next(waiting, None)
    start: float | None = None
    shown: tuple[VideoFrame, float] | None = None
    give_up = clock() + limits.max_decode_seconds
    for index, frame in enumerate(container.decode(stream)):
        if clock() > give_up:
            raise VideoError(f"{name} takes too long to decode; the limit is {limits.max_decode_seconds:.0f} s.")
        time = frame.time if frame.time is not None else index / float(stream.average_rate or 25)
        start = time if start is None else start
        while wanted is not None and shown is not None and time - start > wanted + _TICK:
            yield _picture(*shown)
            wanted = next(waiting, None)
        if wanted is None:
            return
        shown = frame, time - start
    if wanted is not None and shown is not None:
        yield _picture(*shown)


def _picture(frame: VideoFrame, time: float) -> Picture:
    image = PIL.Image.fromarray(frame.to_ndarray(format="rgb24"))
    # The display matrix turns counter-clockwise, as Pillow does; phones film upright videos lying down.
    return Picture(image.rotate(frame.rotation, expand=True) if frame.rotation else image, round(time, 3))


@contextmanager
def _opened_image(source: Path | str | bytes, limits: MediaLimits, name: str) -> Iterator[PIL.Image.Image]:
    _check_size(source, limits, ImageError, name)
    # Pillow warns of large pictures, for which our own limit counts, and of odd metadata, which does not matter.
    with _refusing(limits, name), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with PIL.Image.open(_readable(source), formats=IMAGE_FORMATS) as opened:
            yield opened


@contextmanager
def _refusing(limits: MediaLimits, name: str) -> Iterator[None]:
    """Whatever Pillow raises becomes one sentence."""
    try:
        yield
    except ImageError:
        raise
    except PIL.UnidentifiedImageError as cause:
        raise ImageError(f"{name} is not a picture in a known format ({', '.join(IMAGE_FORMATS)}).") from cause
    except PIL.Image.DecompressionBombError as cause:
        raise ImageError(f"{name} has too many pixels; the limit is {limits.max_image_pixels:,} in all.") from cause
    except Exception as cause:  # Pillow's decoders raise a dozen kinds on damaged files
        raise ImageError(f"{name} cannot be read: the file is damaged or cut short.") from cause


@contextmanager
def _opened(source: Path | str | bytes, name: str) -> Iterator[InputContainer]:
    options = {"protocol_whitelist": "file", "format_whitelist": VIDEO_FORMATS}
    with av.open(_readable(source), options=options, metadata_errors="ignore") as container:
        if not isinstance(container, InputContainer) or not container.streams.video:
            raise VideoError(f"{name} has no picture track.")
        if container.streams.video[0].codec_context is None:
            raise VideoError(f"{name} cannot be read: it is in an unsupported format.")
        yield container


def _readable(source: Path | str | bytes) -> str | io.BytesIO:
    return io.BytesIO(source) if isinstance(source, bytes) else str(source)


def _check_size(source: Path | str | bytes, limits: MediaLimits, error: type[InputError], name: str) -> None:
    try:
        size = len(source) if isinstance(source, bytes) else Path(source).stat().st_size
    except (OSError, ValueError) as cause:  # a path with a zero byte is a ValueError
        raise error(f"{name} is missing: there is no such file, or it was deleted meanwhile.") from cause
    if size > limits.max_file_bytes:
        raise error(f"{name} has {size:,} bytes; the limit is {limits.max_file_bytes:,}.")
    if size == 0:
        raise error(f"{name} is empty: it has 0 bytes.")


def _decoded(image: PIL.Image.Image, limits: MediaLimits, name: str) -> PIL.Image.Image:
    """Turn as the camera was held, reduce 16 bits to 8, lay what is transparent on white, and drop the rest of what a file can hold."""
    width, height = image.size
    if not 0 < width * height <= limits.max_image_pixels:
        raise ImageError(f"{name} has {width} x {height} pixels; the limit is {limits.max_image_pixels:,} pixels in all.")
    image.load()  # some formats keep the camera's notes behind the pixels
    # Of the camera's notes only this one is read: the others may be odd in a picture that is quite in order.
    turn = TURNS.get(image.getexif().get(PIL.ExifTags.Base.Orientation, 1))
    image = image if turn is None else image.transpose(turn)
    if image.mode.startswith("I;16"):
        image = PIL.Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = PIL.Image.alpha_composite(PIL.Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")
