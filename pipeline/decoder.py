"""A picture or video file -> its pictures, decoded in another process: what a file does to a codec is a sentence for its sender and nothing else."""

import contextlib
import io
import json
import mmap
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic as clock
from typing import Any, BinaryIO, Self, cast

import PIL.Image

from pipeline.config import MediaLimits
from pipeline.decoder_process import MESSAGE_BYTES, SOCKET_TYPE, encode_request, raised
from pipeline.errors import InputError, PipelineError
from pipeline.media import Head, Picture, Used, error_for, opened, out_of_time
from pipeline.message import Image, Video
from pipeline.still import image_head, load_image

# Without the package's own imports, among which is OpenVINO: that process decodes and nothing else.
PROGRAM = """
import sys, types
folder, *sys.path = sys.argv[1:]
sys.modules["pipeline"] = package = types.ModuleType("pipeline")
package.__path__ = [folder]
from pipeline.decoder_process import main
main()
"""
# Each takes memory, and there are not more processors than this to be had for long.
MAX_PROCESSES = 4
# How often somebody who waits for a file looks whether they still want it.
TICK_MS = 50


class Decoder:
    """Reads files in other processes, up to `MAX_PROCESSES` at a time; each is started when it is needed and kept for the next file.

    Use it as a context manager, or call `close`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._room = threading.BoundedSemaphore(MAX_PROCESSES)
        self._closed = False
        self._busy: set[_Process] = set()
        self._idle: list[_Process] = []
        self.peak_kib = 0  # the most memory that a file has taken

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def warm_up(self) -> None:
        """Start a process, so that the first file need not wait for it."""
        with self._lock:
            self._idle.append(_Process())

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
        self, item: Image | Video, limits: MediaLimits, name: str, used: Used | None = None, cancelled: threading.Event | None = None
    ) -> list[Picture]:
        """Decode a file as `load_image` and `load_video` do. Setting `cancelled` ends it, with a `PipelineError`.

        Raises:
            ImageError, VideoError: as those do, and when decoding takes too long or crashes.
            PipelineError: cancelled, closed, or a fault of ours.
        """
        used = used or Used()
        if isinstance(item, Image) and isinstance(item.source, PIL.Image.Image):
            return [load_image(item, limits, name, used)]
        wish = "picture" if isinstance(item, Image) else "video"
        return [found for found in self._read(wish, item, limits, name, used, cancelled) if isinstance(found, Picture)]

    def head(self, item: Image | Video, limits: MediaLimits, name: str) -> Head:
        """Read the head of a file as `image_head` and `video_head` do; raises as `load` does."""
        if isinstance(item, Image) and isinstance(item.source, PIL.Image.Image):
            return image_head(item, limits, name)
        wish = "picture head" if isinstance(item, Image) else "video head"
        return next(found for found in self._read(wish, item, limits, name, Used(), None) if isinstance(found, Head))

    def _read(
        self, wish: str, item: Image | Video, limits: MediaLimits, name: str, used: Used, cancelled: threading.Event | None
    ) -> list[Picture | Head]:
        give_up = clock() + limits.max_decode_seconds - used.seconds

        def check() -> None:
            if cancelled is not None and cancelled.is_set():
                raise PipelineError(f"{name} is not wanted any more.")
            if clock() > give_up:
                raise error_for(item)(out_of_time(name, limits))

        with opened(item, limits, name) as file, self._process(check) as process:
            process.ask(encode_request(wish, name, limits, used), file)
            replies = list(process.replies(check))
            for reply in replies:
                if isinstance(reply, InputError):
                    raise reply
            if process.exit_status == 0:
                return [reply for reply in replies if not isinstance(reply, InputError)]
            if process.exit_status in (-signal.SIGALRM, -signal.SIGXCPU):
                raise error_for(item)(out_of_time(name, limits))
            if process.exit_status < 0 and not self._closed:
                cause = RuntimeError(f"Decoding ended with {signal.Signals(-process.exit_status).name}.")
                raise error_for(item)(f"{name} cannot be read: the file is damaged, and decoding it crashed.") from cause
            raise PipelineError(f"{name} was not read: the decoder {'was shut down' if self._closed else 'failed'}.")

    @contextmanager
    def _process(self, check: Callable[[], None]) -> Iterator["_Process"]:
        """One for a single caller, who gives it back as it was or not at all; `check` is called while there is no room and may raise."""
        while not self._room.acquire(timeout=TICK_MS / 1000):
            check()
        try:
            with self._taken() as process:
                yield process
        finally:
            self._room.release()

    @contextmanager
    def _taken(self) -> Iterator["_Process"]:
        with self._lock:
            if self._closed:
                raise PipelineError("The decoder was shut down.")
            process = self._idle.pop() if self._idle else _Process()
            if not process.is_alive():  # the system ends processes when memory is short
                process.close()
                process = _Process()
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


class _Process:
    """One process of `pipeline.decoder_process` and our end of the socket to it."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, SOCKET_TYPE)
        with theirs:
            # An environment without secrets; a session of its own, so that it and what it forks can be killed together.
            self._popen = subprocess.Popen(  # noqa: S603
                [sys.executable, "-I", "-c", PROGRAM, str(Path(__file__).parent), *filter(None, sys.path)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={"OPENBLAS_NUM_THREADS": "1"},
                start_new_session=True,
            )
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self.is_ready = True
        self.exit_status = 0
        self.peak_kib = 0

    def is_alive(self) -> bool:
        return self._popen.poll() is None

    def ask(self, request: bytes, file: BinaryIO) -> None:
        self.is_ready = False
        with contextlib.ExitStack() as stack:
            if isinstance(file, io.BytesIO):
                memory = stack.enter_context(os.fdopen(os.memfd_create("file"), "wb"))
                memory.write(file.getbuffer())
                memory.flush()
                file = memory
            file.seek(0)
            with contextlib.suppress(OSError):  # it is gone, which the reply will tell
                socket.send_fds(self._socket, [request], [file.fileno()])

    def replies(self, check: Callable[[], None]) -> Iterator[Picture | Head | InputError]:
        """What it says until decoding has ended, with its `exit_status`; `check` is called while nothing comes and may raise."""
        while True:
            check()
            if not self._poll.poll(TICK_MS):
                continue
            try:
                message, descriptors, _, _ = socket.recv_fds(self._socket, MESSAGE_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
            except ConnectionResetError:
                message, descriptors = b"", []
            if not message:
                self.exit_status = self._popen.wait() or 1  # it does not end by itself
                return
            reply = json.loads(message)
            if "exit" in reply:
                self.exit_status, self.peak_kib, self.is_ready = reply["exit"], reply["peak_kib"], True
                return
            if "error" in reply:
                yield raised(reply)
            elif descriptors:
                yield _picture(reply, descriptors[0])
            else:
                width, height = reply["size"]
                yield Head((width, height), reply["seconds"])

    def kill(self) -> None:
        """End it and what it forked; another thread may be waiting for its replies, and then gets the last of them."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)

    def close(self) -> None:
        """End it and give back what it took."""
        self.kill()
        self._popen.wait()
        self._socket.close()


def _picture(reply: dict[str, Any], descriptor: int) -> Picture:
    width, height = reply["size"]
    with (
        os.fdopen(descriptor, "rb") as file,
        mmap.mmap(file.fileno(), 0, mmap.MAP_SHARED | mmap.MAP_POPULATE, mmap.PROT_READ) as memory,
        memoryview(memory) as whole,
        whole[-3 * width * height :] as pixels,  # they follow a header
    ):
        image = PIL.Image.frombuffer("RGB", (width, height), cast("bytes", pixels), "raw", "RGB", 0, 1)
    return Picture(image, reply["time"], reply["others"])
