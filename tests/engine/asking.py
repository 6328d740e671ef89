"""A folder -> an engine of either kind, what it takes to ask it something, and a record of what it says."""

import dataclasses
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias
from unittest.mock import patch

from pipeline.config import EngineConfig, GenerationConfig
from pipeline.engine.compiled import Compiler, Embedder
from pipeline.engine.engine import Engine
from pipeline.engine.model_runner import ModelRunner
from pipeline.engine.request import Event, Failed, Finished, Progress, Request, Ticket, Tokens
from pipeline.engine.stateful import StatefulEngine
from pipeline.engine.stateful_runner import StatefulRunner
from pipeline.message import Message
from pipeline.processor import Options, Processor

GREEDY = GenerationConfig.greedy(max_new_tokens=12)


Watch: TypeAlias = Callable[[Event], object]


class Recorder:
    """Collects the events of one request and when they came. `on_event` runs in the engine's thread; the first True that it gives cancels."""

    ticket: Ticket

    def __init__(self, on_event: Watch) -> None:
        self.events: list[Event] = []
        self.times: list[float] = []
        self.cancelled_after: int | None = None  # events
        self.done = threading.Event()
        self._handed_in = threading.Event()
        self._on_event = on_event

    def hand_in(self, ticket: Ticket) -> None:
        self.ticket = ticket
        self._handed_in.set()

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        self.times.append(time.perf_counter())
        if self._on_event(event) is True and self.cancelled_after is None:
            assert self._handed_in.wait(120)
            self.ticket.cancel()
            self.cancelled_after = len(self.events)
        if isinstance(event, Finished | Failed):
            self.done.set()

    def outcome(self) -> Finished:
        last = self.last()
        assert isinstance(last, Finished), last
        return last

    def last(self) -> Event:
        assert self.done.wait(120), "the engine never finished the request"
        return self.events[-1]

    @property
    def token_ids(self) -> tuple[int, ...]:
        """What was published while the answer was under way."""
        return sum((event.token_ids for event in self.events if isinstance(event, Tokens)), ())


class Asker:
    """An engine over a folder, closed at the end of a `with`; `blocks` is the size of its pool."""

    def __init__(self, folder: Path, engine: EngineConfig, blocks: int = 1024, context_tokens: int | None = None) -> None:
        self.processor = Processor(folder)
        self.config = self.processor.config
        if context_tokens:
            self.config = dataclasses.replace(self.config, text=dataclasses.replace(self.config.text, max_position_embeddings=context_tokens))
        compiler, terminators = Compiler(folder, engine), self.processor.tokenizer.terminators
        embedder, self.vision = Embedder(compiler), compiler.vision(self.config, engine.vision_cache_bytes)
        self.engine: Engine | StatefulEngine
        if engine.backend == "stateful":
            self.runner: ModelRunner | StatefulRunner = StatefulRunner(compiler)
            self.engine = StatefulEngine(self.runner, embedder, self.vision, self.config, engine, terminators)
        else:
            self.runner = ModelRunner(compiler, 2**40, blocks)
            self.engine = Engine(self.runner, embedder, self.vision, self.config, engine, terminators)

    def __enter__(self) -> "Asker":
        return self

    def __exit__(self, *exception: object) -> None:
        self.engine.close()

    def request(self, *messages: Message, generation: GenerationConfig = GREEDY) -> Request:
        plan = self.processor.plan(messages, Options())
        return Request(plan.prompt, plan.slices, generation)

    def submit(self, request: Request, on_event: Watch = lambda _: None) -> Recorder:
        recorder = Recorder(on_event)
        recorder.hand_in(self.engine.submit(request, recorder))
        return recorder

    def ask(self, *messages: Message, generation: GenerationConfig = GREEDY) -> Finished:
        return self.submit(self.request(*messages, generation=generation)).outcome()

    def forget(self) -> None:
        """Make the next request start from nothing; nothing may be under way."""
        if isinstance(self.engine, StatefulEngine):
            self.ask(Message.user("\n"))
        else:
            with patch.object(self.runner, "warm_up"):  # which takes a second, and has been done
                self.engine._start_afresh()


class Hold:
    """An `on_event` that lets the engine's thread stand still at the first event of a kind until it is released."""

    def __init__(self, *kinds: type, stage: str | None = None) -> None:
        self._kinds, self._stage = kinds, stage
        self.reached, self.released = threading.Event(), threading.Event()

    def __call__(self, event: Event) -> None:
        if isinstance(event, self._kinds) and (self._stage is None or (isinstance(event, Progress) and event.stage == self._stage)):
            self.reached.set()
            assert self.released.wait(120)
