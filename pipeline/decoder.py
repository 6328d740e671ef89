"""A picture or video file -> its pictures, decoded and cut in another process: what a file does to a codec is a sentence for its sender, no more."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic as clock
from typing import Self

import PIL.Image

from pipeline.config import MediaLimits
from pipeline.cutting import CutPicture, Cutting, Loaded
from pipeline.decoder_process import TICK_MS, Process
from pipeline.decoder_program import encode_request
from pipeline.errors import InputError, Overloaded, PipelineError
from pipeline.media import Head, Used, decode_seconds, error_for, opened, out_of_time
from pipeline.message import Image, Video
from pipeline.still import image_head, load_image

# Decoding files at a time: as many as threads have files read for answers. Each takes memory.
MAX_DECODING = 3
# And reading heads, for which nobody's decoding waits, nor they for it.
MAX_HEADS = 1


class Decoder:
    """Reads files in a few other processes at a time; each is started when it is needed and kept for the next file.

    Use it as a context manager, or call `close`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._room, self._head_room = threading.BoundedSemaphore(MAX_DECODING), threading.BoundedSemaphore(MAX_HEADS)
        self._closed = False
        self._busy: set[Process] = set()
        self._idle: list[Process] = []
        self.peak_kib = 0  # the most memory that a file has taken

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def warm_up(self) -> None:
        """Start a process, so that the first file need not wait for it."""
        with self._lock:
            self._idle.append(Process())

    def close(self) -> None:
        """End all processes; whoever waits for a file gets a `PipelineError`."""
        with self._lock:
            self._closed = True
            for process in self._busy:
                process.kill()
            idle, self._idle = self._idle, []
        for process in idle:
            process.close()

    def load(
        self,
        item: Image | Video,
        cutting: Cutting,
        limits: MediaLimits,
        name: str,
        used: Used | None = None,
        cancelled: threading.Event | None = None,
    ) -> Loaded:
        """Decode a file as `load_image` and `load_video` do, and cut each of its pictures. Setting `cancelled` ends it, with a `PipelineError`.

        Raises:
            ImageError, VideoError: as those do, and when decoding takes too long or crashes.
            Overloaded: other files took all the time in which this one could have been decoded.
            PipelineError: cancelled, closed, or a fault of ours.
        """
        used = used or Used()
        if isinstance(item, Image) and isinstance(item.source, PIL.Image.Image):
            started = clock()
            return [cutting.picture(load_image(item, limits, name, used), name)], clock() - started
        found, seconds = self._read(item, cutting, limits, name, used, cancelled)
        return [one for one in found if isinstance(one, CutPicture)], seconds

    def head(self, item: Image | Video, limits: MediaLimits, name: str, used: Used | None = None) -> Head:
        """Read the head of a file as `image_head` and `video_head` do; raises as `load` does."""
        if isinstance(item, Image) and isinstance(item.source, PIL.Image.Image):
            return image_head(item, limits, name)
        found, _ = self._read(item, None, limits, name, used or Used(), None)
        return next(one for one in found if isinstance(one, Head))

    def _read(
        self, item: Image | Video, cutting: Cutting | None, limits: MediaLimits, name: str, used: Used, cancelled: threading.Event | None
    ) -> tuple[list[CutPicture | Head], float]:
        """What a file gave, cut so or its head alone, and the seconds from when its turn came."""
        give_up, begun = clock() + decode_seconds(False, limits, used) - used.waited, False

        def check() -> None:
            if cancelled is not None and cancelled.is_set():
                raise PipelineError(f"{name} is not wanted any more.")
            if clock() > give_up and not begun:
                raise Overloaded(f"{name} waited too long for its turn to be read: please try again in a while.")
            if clock() > give_up:
                raise error_for(type(item))(out_of_time(name, limits))

        with opened(item, limits, name) as file, self._process(self._head_room if cutting is None else self._room, check) as process:
            started, begun = clock(), True
            give_up = started + decode_seconds(cutting is None or isinstance(item, Image), limits, used)
            process.ask(encode_request(item, cutting, name, limits, used), file)
            replies = list(process.replies(cutting, check))
            for reply in replies:
                if isinstance(reply, InputError):
                    raise reply
            if process.exit_status == 0:
                return [reply for reply in replies if not isinstance(reply, InputError)], clock() - started
            if process.exit_status in (-signal.SIGALRM, -signal.SIGXCPU):
                raise error_for(type(item))(out_of_time(name, limits))
            if process.exit_status < 0 and not self._closed:
                cause = RuntimeError(f"Decoding ended with {signal.Signals(-process.exit_status).name}.")
                raise error_for(type(item))(f"{name} cannot be read: the file is damaged, and decoding it crashed.") from cause
            raise PipelineError(f"{name} was not read: the decoder {'was shut down' if self._closed else 'failed'}.")

    @contextmanager
    def _process(self, room: threading.Semaphore, check: Callable[[], None]) -> Iterator[Process]:
        """One for a single caller, who gives it back as it was or not at all; `check` is called while there is no room and may raise."""
        while not room.acquire(timeout=TICK_MS / 1000):
            check()
        try:
            with self._taken() as process:
                yield process
        finally:
            room.release()

    @contextmanager
    def _taken(self) -> Iterator[Process]:
        with self._lock:
            if self._closed:
                raise PipelineError("The decoder was shut down.")
            process = self._idle.pop() if self._idle else Process()
            if not process.is_alive():  # the system ends processes when memory is short
                process.close()
                process = Process()
            self._busy.add(process)
        try:
            yield process
        finally:
            with self._lock:
                self._busy.remove(process)
                self.peak_kib = max(self.peak_kib, process.peak_kib)
                reusable = process.is_ready and not self._closed
                if reusable:
                    self._idle.append(process)
            if not reusable:
                process.close()
