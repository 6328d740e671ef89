"""An assistant, the real one or one that plays a script -> the page served on 127.0.0.1, and what was asked and answered meanwhile."""

import asyncio
import dataclasses
import os
import socket
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

import gradio
import pytest
from gradio_client import Client, handle_file

import app
from pipeline import Answer, Assistant, Delta, GenerationConfig, Message, Options, Processor, TextDelta
from pipeline.artifacts import BUNDLED
from pipeline.engine.request import Health, Stats
from pipeline.message import Prompt
from pipeline.pace import Pace
from pipeline.processor import Plan
from ui.health import routes
from ui.metrics import Metrics
from ui.model import Model, Ready, Starting
from ui.server import launch

T = TypeVar("T")
MEDIA = Path(gradio.__path__[0]) / "media_assets"
PHOTO = MEDIA / "images" / "cheetah1.jpg"
VIDEO = MEDIA / "videos" / "world.mp4"

#: In a script: nothing more comes until somebody cancels.
HOLD = "hold"


def answer(text: str, **values: Any) -> Answer:
    """The last delta of an answer, with nothing remarkable about it but what is given."""
    numbers = {"prompt_tokens": 1, "image_tokens": 0, "cached_tokens": 0, "encoded_slices": 0, "dropped_turns": 0, "vision_s": 0.0}
    return Answer(**{"text": text, "token_ids": (1,), "finish_reason": "stop", "ttft_s": None, "decode_tps": None, **numbers, **values})


class StandIn:
    """What the page wants of an assistant besides answers."""

    health: Health = "serving"
    let_go = False
    max_prompt_tokens = 8192

    def __init__(self) -> None:
        self.processor, self.pace = Processor(BUNDLED), Pace()
        self.metrics = Metrics(self.stats)

    @property
    def assistant(self) -> Self:
        """It is a model's assistant, and a model that has one, too."""
        return self

    async def arrival(self) -> AsyncGenerator[Starting, None]:
        """It is there."""
        return
        yield

    def stats(self) -> Stats:
        return Stats(0, 0, 0, 0, 0, 0, 0, 0, 0, 0.0, 0, self.health, 0, 0)

    def close(self, _: float = 0.0) -> None:
        self.let_go = True


class Scripted(StandIn):
    """Stands in for an assistant: plays one script for each request, the last one over again, and remembers what it was asked."""

    def __init__(self, *scripts: Sequence[Delta | Exception | str]) -> None:
        super().__init__()
        self._scripts = scripts
        self.asked: list[Sequence[Message]] = []
        self.settings: list[tuple[GenerationConfig | None, Options | None]] = []
        self.closed = threading.Semaphore(0)  # released once for each request that has ended, in whatever way

    async def stream(
        self, messages: Sequence[Message], generation: GenerationConfig | None = None, options: Options | None = None, on_plan: Any = None
    ) -> AsyncGenerator[Delta, None]:
        script = self._scripts[min(len(self.asked), len(self._scripts) - 1)]
        self.asked.append(messages)
        self.settings.append((generation, options))
        if on_plan is not None:
            on_plan(Plan(Prompt("", (), ()), ()))
        try:
            for step in script:
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, str):
                    await asyncio.Event().wait()
                else:
                    yield step
        finally:
            self.closed.release()


class Heard(StandIn):
    """A real assistant, asked in a way that a test can rely on, and every answer it gave to the end."""

    def __init__(self, assistant: Assistant) -> None:
        super().__init__()
        self._assistant = assistant
        self.answers: list[Answer] = []
        self.answer_tokens = 20
        self.closed = threading.Semaphore(0)

    def stats(self) -> Stats:
        return self._assistant.stats()

    def slow_down(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A word takes what it takes the model of the real size on a fast machine: the small one fills its context in seconds."""
        runner = self._assistant._engine._runner
        forward = runner.forward

        def slow(batch: Any) -> Any:
            threading.Event().wait(0.1)
            return forward(batch)

        monkeypatch.setattr(runner, "forward", slow)

    async def stream(
        self, messages: Sequence[Message], _: GenerationConfig | None = None, options: Options | None = None, on_plan: Any = None
    ) -> AsyncGenerator[Delta, None]:
        # As many tokens whatever is shown: enough to see them come, and few enough to wait for.
        generation = GenerationConfig(min_new_tokens=self.answer_tokens, max_new_tokens=self.answer_tokens, seed=1)
        try:
            async with aclosing(self._assistant.stream(messages, generation, options, on_plan)) as stream:
                async for delta in stream:
                    if isinstance(delta, Answer):
                        self.answers.append(delta)
                    yield delta
        finally:
            self.closed.release()


class Seeded(StandIn):
    """A real assistant as it is asked, but that it draws the same words each time."""

    def __init__(self, assistant: Assistant) -> None:
        super().__init__()
        self._assistant = assistant

    async def stream(
        self, messages: Sequence[Message], generation: GenerationConfig | None = None, options: Options | None = None, on_plan: Any = None
    ) -> AsyncGenerator[Delta, None]:
        seeded = dataclasses.replace(generation or GenerationConfig(), seed=1)
        async with aclosing(self._assistant.stream(messages, seeded, options, on_plan)) as stream:
            async for delta in stream:
                yield delta


def words(*texts: str) -> list[Delta]:
    """A script that says the texts one after the other and ends."""
    return [*map(TextDelta, texts), answer("".join(texts))]


def connect(address: str) -> Client:
    """A client of the API, which waits for a busy machine. Closing one takes a second of waiting for its heartbeat; they end with the server."""
    return Client(address, verbose=False, analytics_enabled=False, httpx_kwargs={"timeout": None})


def message(question: str, *files: Path) -> dict[str, Any]:
    """What such a client sends to `/chat`."""
    return {"text": question, "files": [handle_file(str(path)) for path in files]}


def until(condition: Callable[[], bool]) -> None:
    """Return as soon as something that another thread brings about is so; that it never is, pytest's time limit finds."""
    while not condition():
        threading.Event().wait(0.01)


def in_a_loop(function: Callable[[], T]) -> T:
    """Call in a thread where an event loop runs: where none does, Gradio makes some and forgets to close them."""

    async def call() -> T:
        return function()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(call())).result()


@contextmanager
def served(assistant: Any, uploads: Path, notice: str = "") -> Iterator[str]:
    """The address of the page while it is served, with its model there."""
    model = Model(lambda _: assistant)
    with served_model(model, uploads, notice) as address:
        until(lambda: model.state == Ready())
        yield address


@contextmanager
def served_model(model: Model, uploads: Path, notice: str = "") -> Iterator[str]:
    """The address of the page while it is served, from before its model is there."""
    before = os.environ.get("GRADIO_TEMP_DIR")
    os.environ["GRADIO_TEMP_DIR"] = str(uploads)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]

    def start() -> tuple[Any, str]:
        page = app.build(model, notice)
        return page, launch(page, "127.0.0.1", port, routes(page, model))

    page, address = in_a_loop(start)
    try:
        with model:
            yield address
    finally:
        page.close()
        os.environ.pop("GRADIO_TEMP_DIR")
        if before is not None:
            os.environ["GRADIO_TEMP_DIR"] = before
