"""Requests with an open file each, at the socket that is standard input -> its pictures, each in memory of its own, and at last how decoding ended.

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

import PIL.Image

from pipeline import errors
from pipeline.config import MediaLimits
from pipeline.errors import InputError
from pipeline.media import Head, Picture, Used, decode_seconds, out_of_memory
from pipeline.still import decode_image, read_image_head
from pipeline.video import decode_video, read_video_head

# Of a socket whose every message is whole, however the process that sends it ends.
SOCKET_TYPE = socket.SOCK_SEQPACKET
MESSAGE_BYTES = 16_384
# Whoever asked kills in time. This much later a process that nobody waits for any more ends by itself.
GRACE_SECONDS = 5


def encode_request(wish: str, name: str, limits: MediaLimits, used: Used) -> bytes:
    """A request for a "picture" or a "video", or for a "picture head" or a "video head"."""
    return json.dumps([wish, name, dataclasses.asdict(limits), dataclasses.asdict(used)]).encode()


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
    wish, name, limits, used = request[0], request[1], MediaLimits(**request[2]), Used(**request[3])
    status = 1
    try:
        confine(decode_seconds(wish != "video", limits, used), limits)
        try:
            for found in decode(wish, file, limits, name, used):
                _hand_over(control, found)
        except InputError as error:
            _send(control, {"error": type(error).__name__, "sentence": str(error), "cause": repr(error.__cause__)[:1000]})
        except MemoryError:
            error_class = "VideoError" if wish.startswith("video") else "ImageError"
            _send(control, {"error": error_class, "sentence": out_of_memory(name, limits), "cause": "MemoryError"})
        status = 0
    finally:
        os._exit(status)


def decode(wish: str, file: BinaryIO, limits: MediaLimits, name: str, used: Used) -> Iterator[Picture | Head]:
    """What is wished for of an open file."""
    match wish:
        case "picture":
            yield decode_image(file, limits, name, used)
        case "video":
            yield from decode_video(file, limits, name, used)
        case "picture head":
            yield read_image_head(file, limits, name)
        case "video head":
            yield read_video_head(file, limits, name)


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


def _hand_over(control: socket.socket, found: Picture | Head) -> None:
    if isinstance(found, Head):
        _send(control, {"size": found.size, "seconds": found.seconds})
        return
    with os.fdopen(os.memfd_create("picture"), "wb") as memory:
        found.image.save(memory, "PPM")  # a short header, then rows of RGB, written without another copy
        reply = {"size": found.image.size, "time": found.time, "others": found.others}
        socket.send_fds(control, [json.dumps(reply).encode()], [memory.fileno()])


def _send(control: socket.socket, reply: Mapping[str, Any]) -> None:
    control.send(json.dumps(reply).encode())
