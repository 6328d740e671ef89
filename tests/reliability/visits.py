"""A page's address, and a seed -> one visitor after the other of eight kinds, as a soak sends them; a diary takes what they met."""

import io
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import PIL.Image
from gradio_client import Client
from gradio_client.exceptions import AppError

from demo.exam import video_file
from tests.reliability.visiting import COLOUR, NUMBER, READABLE, SAYABLE, picture, request
from tests.serving import connect, message, until

#: How often each kind of visit is made.
KINDS = {"chat": 40, "compare": 15, "video": 8, "stop": 10, "leave": 10, "retry": 8, "big": 3, "wrong_file": 6}


@dataclass(frozen=True)
class Asked:
    """One request: when it was made, how long it took to its first word and in all, in seconds, and what was wrong with it, if anything was."""

    at: float
    kind: str
    first_s: float
    whole_s: float
    wrong: str = ""


@dataclass(frozen=True)
class Sample:
    """What the process holds at a time in seconds, and how many of the machine's cores others kept busy meanwhile."""

    at: float
    visits: int
    rss_mib: float
    threads: int
    fds: int
    kv_blocks_held: int
    caches_full: bool
    others_cores: float


@dataclass
class Diary:
    """Everything that was seen."""

    began: float = field(default_factory=time.monotonic)
    kinds: Counter[str] = field(default_factory=Counter)  # of visits
    asked: list[Asked] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)

    @property
    def visits(self) -> int:
        return self.kinds.total()

    def now(self) -> float:
        return time.monotonic() - self.began


class Visitor:
    """One who comes back again and again, as a new one each time. `files` is a folder of their own."""

    def __init__(self, address: str, seed: int, diary: Diary, files: Path) -> None:
        self._address, self._diary, self._files = address, diary, files
        self._random = np.random.default_rng(seed)
        self._client: Client = connect(address)
        self.visit = ""  # the kind of the one that is being made
        files.mkdir(parents=True)

    def come_until(self, over: threading.Event) -> None:
        """Once as each kind, in any order, and then by their weights."""
        share = np.array(list(KINDS.values())) / sum(KINDS.values())
        once = self._random.permutation(len(KINDS)).tolist()
        while not over.is_set():
            kind = self.visit = tuple(KINDS)[once.pop() if once else int(self._random.choice(len(KINDS), p=share))]
            self._client.reset_session()
            self._diary.kinds[kind] += 1
            try:
                getattr(self, kind)()
            except Exception as error:  # whatever it was, it is what the soak is there to find
                self._diary.asked.append(Asked(self._diary.now(), kind, 0.0, 0.0, f"{type(error).__name__}: {error}"[:200]))

    def chat(self) -> None:
        colour, number, file = self._picture()
        self._ask("chat", COLOUR, colour, file)
        self._ask("chat", NUMBER, number)
        self._ask("chat", COLOUR, colour)

    def compare(self) -> None:
        self._ask("compare", "What is the difference between the two pictures?", "", self._picture()[2], self._picture()[2])

    def video(self) -> None:
        frames = [PIL.Image.open(io.BytesIO(picture(self._one_of(SAYABLE), 11))) for _ in range(3)]
        self._ask("video", "What happens in the video?", "", self._file("film.mp4", video_file(frames).source))

    def stop(self) -> None:
        job = self._client.submit(message(COLOUR, self._picture()[2], self._picture()[2]), api_name="/chat")
        next(iter(job), None)
        job.cancel()
        # The client reads one session at a time: what the next visitor is told would not be heard before this stream has ended, as it must.
        until(lambda: not self._client.stream_open)

    def leave(self) -> None:
        """Hang up in the middle of an answer, having sent nothing else."""
        with httpx.Client(base_url=self._address, timeout=60) as http:
            event = http.post("gradio_api/call/chat", json=request(self._address, "Tell me everything.")).json()["event_id"]
            with http.stream("GET", f"gradio_api/call/chat/{event}") as stream:
                next(stream.iter_lines(), None)

    def retry(self) -> None:
        colour, _, file = self._picture()
        for _ in range(2):
            self._ask("retry", COLOUR, colour, file)
            self._client.reset_session()

    def big(self) -> None:
        pixels = self._random.integers(0, 256, (200, 300, 3), np.uint8)
        file = self._files / "big.jpg"
        PIL.Image.fromarray(pixels).resize((3000, 2000)).save(file)
        self._ask("big", "What do you see?", "", file)

    def wrong_file(self) -> None:
        content = (b"", b"not a picture", picture("red", 11)[:300])[int(self._random.integers(3))]
        try:
            self._ask("wrong_file", COLOUR, "a refusal", self._file("wrong.png", content))
        except AppError as error:
            if not str(error).startswith("Picture 1"):
                raise

    def _ask(self, kind: str, question: str, right: str, *files: Path) -> None:
        began, first_s = self._diary.now(), 0.0
        job = self._client.submit(message(question, *files), api_name="/chat", mode="greedy")
        for said in job:
            if isinstance(said, str):  # until then it is told how far the work is
                first_s = self._diary.now() - began
                break
        last: Any = job.result()
        fine = last.lower() == f"{right}." if right and isinstance(last, str) else isinstance(last, str)
        self._diary.asked.append(Asked(began, kind, first_s, self._diary.now() - began, "" if fine else f"{right!r} was called {last!r}"[:200]))

    def _picture(self) -> tuple[str, str, Path]:
        colour, number = self._one_of(SAYABLE), self._one_of(READABLE)
        return colour, str(number), self._file("picture.png", picture(colour, number))

    def _file(self, name: str, content: Any) -> Path:
        path = self._files / f"{self._random.integers(2**32)}-{name}"
        path.write_bytes(content)
        return path

    def _one_of(self, things: Sequence[str]) -> str:
        return things[int(self._random.integers(len(things)))]
