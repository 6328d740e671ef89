"""A request with an open file -> what `pipeline.decoder_program` says of it: one process that runs it, and our end of the socket to that."""

import contextlib
import io
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pipeline.config import SliceConfig
from pipeline.cutting import CutPicture, Cutting
from pipeline.decoder_program import MESSAGE_BYTES, SOCKET_TYPE, raised
from pipeline.errors import InputError
from pipeline.media import Head
from pipeline.preprocess import Slice

# Without the package's own imports, among which is OpenVINO: that process decodes and nothing else.
PROGRAM = """
import sys, types
folder, *sys.path = sys.argv[1:]
sys.modules["pipeline"] = package = types.ModuleType("pipeline")
package.__path__ = [folder]
from pipeline.decoder_program import main
main()
"""
# How often somebody who waits for a file looks whether they still want it.
TICK_MS = 50


class Process:
    """A process of that program, for one request at a time."""

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

    def replies(self, cutting: Cutting | None, check: Callable[[], None]) -> Iterator[CutPicture | Head | InputError]:
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
            elif cutting is not None:
                with os.fdopen(descriptors[0], "rb") as file:
                    yield _picture(reply, file, cutting.config)
            else:
                yield Head(tuple(reply["size"]), reply["seconds"])

    def kill(self) -> None:
        """End it and what it forked; another thread may be waiting for its replies, and then gets the last of them."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)

    def close(self) -> None:
        """End it and give back what it took."""
        self.kill()
        self._popen.wait()
        self._socket.close()


def _picture(reply: dict[str, Any], file: BinaryIO, config: SliceConfig) -> CutPicture:
    file.seek(0)
    slices = tuple(Slice(_pixels(file, *shape), config) for shape in reply["slices"])
    return CutPicture(tuple(reply["size"]), slices, reply["time"], reply["others"])


def _pixels(file: BinaryIO, height: int, width: int, channels: int) -> NDArray[np.uint8]:
    """Those of the next slice, in memory of their own, because not all of a frame's are kept."""
    return np.frombuffer(file.read(height * width * channels), np.uint8).reshape(height, width, channels)
