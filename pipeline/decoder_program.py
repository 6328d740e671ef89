"""Requests with an open file each, at the socket that is standard input -> its pictures, cut, each in memory of its own, and how decoding ended.

The program of a process that `pipeline.decoder` starts. It forks for every file, so that no two files ever meet in one process: whatever a file does
to a codec ends with it.
"""

import dataclasses
import gc
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np
import PIL.Image

from pipeline import errors
from pipeline.config import MediaLimits, SliceConfig
from pipeline.cutting import CutPicture, Cutting
from pipeline.errors import InputError
from pipeline.media import Head, Used, decode_seconds, error_for, out_of_memory
from pipeline.message import Image, Video
from pipeline.still import decode_image, read_image_head
from pipeline.video import decode_video, read_video_head

# Of a socket whose every message is whole, however the process that sends it ends.
SOCKET_TYPE = socket.SOCK_SEQPACKET
MESSAGE_BYTES = 16_384
# Whoever asked kills in time. This much later a process that nobody waits for any more ends by itself.
GRACE_SECONDS = 5
# Memory to read a head in, for which a WEBP has eight bytes a pixel set aside.
HEAD_BYTES = 1_000_000_000


def encode_request(item: Image | Video, cutting: Cutting | None, name: str, limits: MediaLimits, used: Used) -> bytes:
    """A request for the pictures of such a file, cut so, or without `cutting` for its head."""
    how = None if cutting is None else dataclasses.asdict(cutting)
    return json.dumps([isinstance(item, Image), how, name, dataclasses.asdict(limits), dataclasses.asdict(used)]).encode()


def main() -> None:
    """Serve until whoever asks is gone."""
    PIL.Image.init()  # all of Pillow's formats, which otherwise every fork would import for itself
    gc.freeze()  # what all forks share is not touched by the collector
    with socket.socket(fileno=os.dup(sys.stdin.fileno())) as control:
        while True:
            message, descriptors, _, _ = socket.recv_fds(control, MESSAGE_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
            if not message:
                return
            with os.fdopen(descriptors[0], "rb") as file:
                child = os.fork()
                if child == 0:
                    _run(control, file, json.loads(message))
            _, status, usage = os.wait4(child, 0)
            try:
                _send(control, {"exit": os.waitstatus_to_exitcode(status), "peak_kib": usage.ru_maxrss})
            except OSError:
                return


def _run(control: socket.socket, file: BinaryIO, request: list[Any]) -> None:
    """Decode one file and end this process."""
    kind, name, limits, used = Image if request[0] else Video, request[2], MediaLimits(**request[3]), Used(**request[4])
    cutting = None if request[1] is None else Cutting(**{**request[1], "config": SliceConfig(**request[1]["config"])})
    status = 1
    try:
        if cutting is None:
            limits = dataclasses.replace(limits, max_decode_bytes=min(limits.max_decode_bytes, HEAD_BYTES))
        confine(decode_seconds(cutting is None or kind is Image, limits, used), limits)
        try:
            for found in decode(kind, file, cutting, limits, name, used):
                _hand_over(control, found)
        except InputError as error:
            _send(control, {"error": type(error).__name__, "sentence": str(error), "cause": repr(error.__cause__)[:1000]})
        except MemoryError:
            _send(control, {"error": error_for(kind).__name__, "sentence": out_of_memory(name, limits), "cause": "MemoryError"})
        status = 0
    finally:
        os._exit(status)


def decode(
    kind: type[Image | Video], file: BinaryIO, cutting: Cutting | None, limits: MediaLimits, name: str, used: Used
) -> Iterator[CutPicture | Head]:
    """The pictures of an open file, cut so, or without `cutting` its head."""
    if cutting is None:
        yield (read_image_head if kind is Image else read_video_head)(file, limits, name)
    elif kind is Image:
        yield cutting.picture(decode_image(file, limits, name, used), name)
    else:
        yield from cutting.frames(decode_video(file, limits, name, used), name)


def confine(wanted_seconds: float, limits: MediaLimits) -> None:
    """Bound this process: memory, processor time, time, and nothing of what it holds is dumped if it crashes."""
    seconds = int(wanted_seconds) + GRACE_SECONDS
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (limits.max_decode_bytes,) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds * (os.cpu_count() or 1),) * 2)
    signal.alarm(seconds)


def raised(reply: Mapping[str, Any]) -> InputError:
    """The error that a reply tells of."""
    error: InputError = getattr(errors, reply["error"])(reply["sentence"])
    error.__cause__ = RuntimeError(reply["cause"])
    return error


def _hand_over(control: socket.socket, found: CutPicture | Head) -> None:
    if isinstance(found, Head):
        _send(control, {"size": found.size, "seconds": found.seconds})
        return
    with os.fdopen(os.memfd_create("picture"), "wb") as memory:
        memory.writelines(np.ascontiguousarray(piece.pixels).data for piece in found.slices)
        memory.flush()
        reply = {"size": found.size, "slices": [piece.pixels.shape for piece in found.slices], "time": found.time, "others": found.others}
        socket.send_fds(control, [json.dumps(reply).encode()], [memory.fileno()])


def _send(control: socket.socket, reply: Mapping[str, Any]) -> None:
    control.send(json.dumps(reply).encode())
