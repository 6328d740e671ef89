"""Pictures that differ in one colour or one number; visitors who talk about them with a served page over plain HTTP; and what a process holds."""

import gc
import io
import json
import os
import re
import threading
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from functools import lru_cache
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from demo.scenes import COLOURS, Print, Scene, Thing, draw
from pipeline import Assistant, Delta, GenerationConfig, Message, Options, Text
from pipeline.engine.request import Stats
from tests.serving import StandIn, until

COLOUR, NUMBER = "What colour is the circle?", "What number is written in the picture?"
# What the bundled model tells apart in such a picture: it may take a final 8 for a 3, and the square for a purple circle beside a number below 20.
SAYABLE = tuple(colour for colour in COLOURS if colour != "black")
READABLE = tuple(number for number in range(20, 99) if number % 10 != 8)


def picture(colour: str, number: int, suffix: str = "PNG") -> bytes:
    """A circle of a colour, the same black square, and a number of two digits, always in the same places: the file."""
    things = (
        Thing("circle", colour, "large", 0.3, 0.35, 0.16, COLOURS[colour][0]),
        Thing("square", "black", "small", 0.72, 0.3, 0.09, COLOURS["black"][0]),
    )
    scene = Scene((224, 224), (200, 205, 210), things, (Print(str(number), 0.5, 0.78, 0.16, (20, 20, 20)),))
    file = io.BytesIO()
    draw(scene, np.random.default_rng(0)).save(file, suffix)
    return file.getvalue()


class Exact(StandIn):
    """A real assistant that always says what is likeliest."""

    def __init__(self, assistant: Assistant) -> None:
        super().__init__()
        self._assistant, self.processor, self.pace = assistant, assistant.processor, assistant.pace

    def stats(self) -> Stats:
        return self._assistant.stats()

    def close(self, grace_seconds: float = 0.0) -> None:
        self._assistant.close(grace_seconds)

    def generation(self, _: Sequence[Message]) -> GenerationConfig:
        return GenerationConfig.greedy(max_new_tokens=12)

    async def stream(
        self, messages: Sequence[Message], _: GenerationConfig | None = None, options: Options | None = None, on_plan: Any = None
    ) -> AsyncGenerator[Delta, None]:
        async with aclosing(self._assistant.stream(messages, self.generation(messages), options, on_plan)) as stream:
            async for delta in stream:
                yield delta


class Talkative(Exact):
    """Goes on for ever if that is what it is asked for, and else for forty tokens."""

    def generation(self, messages: Sequence[Message]) -> GenerationConfig:
        tokens = 32_768 if Text("endless") in messages[-1].content else 40
        return GenerationConfig.greedy(min_new_tokens=tokens, max_new_tokens=tokens)


class Halting(Talkative):
    """Four at once: as soon as all of them have begun to speak no further word comes, until the engine is told to end."""

    def __init__(self, assistant: Assistant) -> None:
        super().__init__(assistant)
        engine = assistant._engine
        forward = engine._runner.forward

        def halting(batch: Any) -> Any:
            speaking, stats = sum(group.decoding for group in engine._scheduler.running), engine.stats
            until(lambda: engine._closed or (speaking < 4 and stats().running + stats().waiting >= 4))
            return forward(batch)

        engine._runner.forward = halting


def request(address: str | httpx.URL, text: str, *files: Any, session: str | None = None) -> dict[str, Any]:
    """What `/gradio_api/call/chat` of a page takes: everything but the message as the page has it at first."""
    _, *others = _parameters(str(address))
    return {"data": [{"text": text, "files": list(files)}, *(one["parameter_default"] for one in others)], "session_hash": session}


@lru_cache(maxsize=8)
def _parameters(address: str) -> list[dict[str, Any]]:
    parameters: list[dict[str, Any]] = httpx.get(f"{address}gradio_api/info").json()["named_endpoints"]["/chat"]["parameters"]
    return parameters


class Visitor:
    """Somebody with a conversation of their own."""

    def __init__(self, http: httpx.AsyncClient, name: str) -> None:
        self._http, self._name = http, name

    async def upload(self, name: str, content: bytes) -> dict[str, Any]:
        """A file that was uploaded, as messages carry it."""
        answer = await self._http.post("gradio_api/upload", files={"files": (name, content)})
        answer.raise_for_status()
        return {"path": answer.json()[0], "meta": {"_type": "gradio.FileData"}}

    async def events(self, text: str, *files: dict[str, Any]) -> AsyncGenerator[tuple[str, Any], None]:
        """What a request yields: "generating", "complete" or "error", and what with."""
        body = request(self._http.base_url, text, *files, session=self._name)
        answer = await self._http.post("gradio_api/call/chat", json=body)
        answer.raise_for_status()
        async with self._http.stream("GET", f"gradio_api/call/chat/{answer.json()['event_id']}") as stream:
            kind = ""
            async for line in stream.aiter_lines():
                if line.startswith("event: "):
                    kind = line.removeprefix("event: ")
                elif line.startswith("data: ") and kind != "heartbeat":
                    yield kind, json.loads(line.removeprefix("data: "))

    async def ask(self, text: str, *files: dict[str, Any]) -> str:
        """The whole answer, or what was told instead of one."""
        async for kind, data in self.events(text, *files):
            last = data[0] if kind == "complete" else data
        return last if isinstance(last, str) else str(last)


def visiting(address: str) -> httpx.AsyncClient:
    """Connections enough for everybody at once. An idle one is let go before the server does so, perhaps just when it is used again."""
    return httpx.AsyncClient(base_url=address, timeout=120, limits=httpx.Limits(max_connections=300, keepalive_expiry=1.0))


def held() -> dict[str, int]:
    """Threads and file descriptors of this process.

    Without the workers of pools beside the event loop: how many of those there are, up to a fixed number, is how many calls once met by chance.
    """
    gc.collect()
    threads = [thread for thread in threading.enumerate() if not thread.name.startswith(("AnyIO worker", "asyncio_", "estimate_"))]
    return {"threads": len(threads), "fds": len(list(Path("/proc/self/fd").iterdir()))}


def pictures_in(folder: Path) -> int:
    """How many uploaded pictures lie there."""
    return len(list(folder.glob("*/*.png")))


def begin_peak() -> None:
    """Let `peak_mib` count from here on."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_mib() -> float:
    """The most memory of this process that was in use at once since `begin_peak`, MiB."""
    [kib] = re.findall(r"^VmHWM:\s+(\d+)", Path("/proc/self/status").read_text(encoding="ascii"), re.MULTILINE)
    return int(kib) / 2**10


def rss_mib(process: int | str = "self") -> float:
    """Memory of a process that is in use, MiB."""
    fields = Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
