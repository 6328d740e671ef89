"""An open video file -> timed frames: upright RGB images (height, width, 3) 8 bit and the presentation time of each in seconds."""

import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from time import monotonic as clock
from typing import BinaryIO

import av
import PIL.Image
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from pipeline.config import MediaLimits
from pipeline.errors import VideoError
from pipeline.media import Head, Picture, Used, check_pixels, opened, out_of_memory, out_of_time
from pipeline.message import Video

# Containers that hold their own data. FFmpeg would also open playlists, which name other files and addresses.
FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,flv,ogg,gif"
# Each thread that decodes holds frames of its own.
MAX_THREADS = 8
# Presentation times are rounded to the container's clock; a frame this much late still counts as on time.
_TICK = 0.002


def load_video(video: Video, limits: MediaLimits, name: str = "The video", used: Used | None = None) -> Generator[Picture]:
    """Sample a video by presentation time: what is on screen at 0 s, 1 s, 2 s, ..., evenly thinned to `max_frames`, one frame after the other.

    Raises:
        VideoError: unreadable, without pictures, of an unsupported format, or over a limit.
    """
    with opened(video, limits, name) as file:
        yield from decode_video(file, limits, name, used or Used())


def decode_video(file: BinaryIO, limits: MediaLimits, name: str, used: Used) -> Iterator[Picture]:
    """The same for an open file. Limits are checked before the first frame is decoded."""
    give_up = clock() + limits.max_decode_seconds - used.seconds
    head = read_video_head(file, limits, name)
    times = sample_times(head.seconds or 0.0, limits)
    check_pixels(VideoError, len(times) * head.size[0] * head.size[1], limits, used, name)
    file.seek(0)
    with _in_plain_words(name, limits), _track(file, name) as (container, stream):
        pictures = _on_screen(container, stream, times, limits, name, give_up)
        pixels = 0
        for picture in pictures:
            pixels += picture.image.width * picture.image.height
            check_pixels(VideoError, pixels, limits, used, name)  # of what really comes, because the size may change within a video
            yield picture
        if not pixels:
            raise VideoError(f"{name} has no frames that can be read.")


def video_head(video: Video, limits: MediaLimits, name: str = "The video") -> Head:
    """What the packets of a video tell without being decoded.

    Raises:
        VideoError: unreadable, without pictures, of an unsupported format, or over a limit.
    """
    with opened(video, limits, name) as file:
        return read_video_head(file, limits, name)


def read_video_head(file: BinaryIO, limits: MediaLimits, name: str) -> Head:
    """The same for an open file."""
    with _in_plain_words(name, limits), _track(file, name) as (container, stream):
        if not stream.width * stream.height:  # a part of a film without the key frame that would tell
            raise VideoError(f"{name} cannot be read: the file is damaged or cut short.")
        _check_size(stream, limits, name)
        return Head((stream.width, stream.height), _last_time(container, stream, limits, name, clock() + limits.max_picture_seconds))


def sample_times(seconds: float, limits: MediaLimits) -> list[float]:
    """When to look at a video whose last frame appears at `seconds`: at the given rate, and of too many moments the middle of each equal share."""
    count = int((seconds + _TICK) * limits.frames_per_second) + 1
    share = max(count / limits.max_frames, 1.0)
    return [int(index * share + share / 2) / limits.frames_per_second for index in range(min(count, limits.max_frames))]


@contextmanager
def _in_plain_words(name: str, limits: MediaLimits) -> Iterator[None]:
    try:
        yield
    except MemoryError as cause:  # FFmpeg's own is one too
        raise VideoError(out_of_memory(name, limits)) from cause
    except av.FFmpegError as cause:
        raise VideoError(f"{name} cannot be read: the file is damaged or in an unsupported format.") from cause


@contextmanager
def _track(file: BinaryIO, name: str) -> Iterator[tuple[InputContainer, VideoStream]]:
    # No protocol at all: what a file says about other files or addresses is never followed.
    options = {"protocol_whitelist": "none", "format_whitelist": FORMATS}
    with av.open(file, "r", options=options, metadata_errors="ignore") as container:
        # A cover that is attached to music is no film.
        films = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
        if not films:
            raise VideoError(f"{name} has no picture track.")
        if films[0].codec_context is None:
            raise VideoError(f"{name} cannot be read: it is in an unsupported format.")
        yield container, films[0]


def _check_size(picture: VideoStream | VideoFrame, limits: MediaLimits, name: str) -> None:
    if picture.width * picture.height > limits.max_video_pixels:
        raise VideoError(f"{name} has {picture.width} x {picture.height} pixels a frame; the limit is {limits.max_video_pixels:,} in all.")


def _last_time(container: InputContainer, stream: VideoStream, limits: MediaLimits, name: str, give_up: float) -> float:
    """Seconds from the first frame's presentation to the last one's, from the packets alone: nothing is decoded and no header is believed."""
    stamps: list[int] = []
    for packet in container.demux(stream):
        if clock() > give_up:
            raise VideoError(out_of_time(name, limits))
        stamp = packet.pts if packet.pts is not None else packet.dts
        if packet.size and stamp is not None:
            stamps.append(stamp)
        if len(stamps) > limits.max_video_frames:
            raise VideoError(f"{name} has more than {limits.max_video_frames:,} frames, which is the limit.")
    seconds = float((max(stamps) - min(stamps)) * stream.time_base) if stamps and stream.time_base else 0.0
    if seconds > limits.max_video_seconds:
        raise VideoError(f"{name} is {seconds:.0f} s long; the limit is {limits.max_video_seconds:.0f} s.")
    return seconds


def _on_screen(
    container: InputContainer, stream: VideoStream, times: list[float], limits: MediaLimits, name: str, give_up: float
) -> Iterator[Picture]:
    """The frame on screen at each of the ascending `times`, with the time at which it appeared."""
    stream.thread_type = "AUTO"
    stream.codec_context.thread_count = min(os.cpu_count() or 1, MAX_THREADS)
    waiting = iter(times)
    wanted = next(waiting, None)
    start: float | None = None
    shown: tuple[VideoFrame, float] | None = None
    for index, frame in enumerate(container.decode(stream)):
        if clock() > give_up:
            raise VideoError(out_of_time(name, limits))
        _check_size(frame, limits, name)
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
    turned = frame.rotation and frame.rotation % 90 == 0
    return Picture(image.rotate(frame.rotation, expand=True) if turned else image, round(time, 3))
