"""A conversation -> a stream of deltas: notices, how far the work is, text as it comes, and at the end the whole answer with its statistics."""

import asyncio
import contextlib
import functools
import logging
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self, TypeAlias

import numpy as np
import PIL.Image

from pipeline.artifacts import check_complete
from pipeline.config import EngineConfig, GenerationConfig, MediaLimits
from pipeline.decoder import Decoder
from pipeline.engine.compiled import Compiler, Embedder
from pipeline.engine.engine import Engine
from pipeline.engine.model_runner import BLOCK_SIZE, ModelRunner, kv_cache_bytes_here
from pipeline.engine.request import Event, Failed, Finished, Progress, Request, Stats, Tokens
from pipeline.engine.stateful import StatefulEngine
from pipeline.engine.stateful_runner import StatefulRunner
from pipeline.errors import InputError, PipelineError
from pipeline.message import Image, Message, Text
from pipeline.pace import Pace
from pipeline.processor import Options, Plan, Processor
from pipeline.readers import Readers
from pipeline.stream import TextStream

logger = logging.getLogger("pipeline")


@dataclass(frozen=True)
class Notice:
    """Something the person should know about what they sent; the answer comes all the same. `picture` is what a sentence calls it: "Picture 1"."""

    picture: str

    @property
    def text(self) -> str:
        """One sentence."""
        return f"{self.picture} has several frames or pages; only the first is shown to the model."


@dataclass(frozen=True)
class Status:
    """How far the work before the next words is: `done` of `total` requests ahead, slices, or prompt tokens; `seconds` is how long those ahead may
    take, None while it is not known."""

    stage: Literal["queued", "vision", "prefill"]
    done: int
    total: int
    seconds: float | None = None


@dataclass(frozen=True)
class TextDelta:
    """Further words of the answer, whole characters."""

    text: str


@dataclass(frozen=True)
class Answer:
    """The whole answer. Times in seconds from the request on; `decode_tps` is tokens a second after the first."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: Literal["stop", "length", "cancelled"]
    prompt_tokens: int
    image_tokens: int
    cached_tokens: int
    encoded_slices: int
    dropped_turns: int
    vision_s: float
    ttft_s: float | None
    decode_tps: float | None


Delta: TypeAlias = Notice | Status | TextDelta | Answer


class Assistant:
    """The conductor: loads a model folder once and answers conversations from it, for as many callers at once as care to wait.

    Use it as a context manager, or call `close`.

    Raises:
        ArtifactError: the folder is not a complete model folder. `verify` also tells a damaged one, in the time it takes to read it all.
    """

    def __init__(
        self,
        folder: Path,
        engine: EngineConfig | None = None,
        limits: MediaLimits | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        engine = engine or EngineConfig()
        check_complete(folder)
        # Elsewhere than on Linux files are read in this process: what confines another one is not to be had.
        self._decoder = Decoder() if sys.platform == "linux" else None
        self.processor = Processor(folder, limits, self._decoder)
        config = self.processor.config
        if self._decoder is not None:
            self._decoder.warm_up()
        self.pace = Pace()
        self._engine = _started(folder, self.processor, engine, clock)
        self._max_seconds = engine.max_seconds
        self._together = 1 if isinstance(self._engine, StatefulEngine) else engine.max_running
        self._readers = Readers((limits or MediaLimits()).max_decode_seconds)
        self._clock = clock
        # At least one token of the context is left for the answer.
        self.max_prompt_tokens = min(engine.max_prompt_tokens, config.text.max_position_embeddings - 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def stats(self) -> Stats:
        """What the engine holds and has done."""
        return self._engine.stats()

    def close(self, grace_seconds: float = 0.0) -> None:
        """Take no more requests, cancel those that wait, and those under way after `grace_seconds`; then let the model go."""
        self._readers.close()
        if self._decoder is not None:
            self._decoder.close()
        self._engine.close(grace_seconds)

    async def stream(
        self,
        messages: Sequence[Message],
        generation: GenerationConfig | None = None,
        options: Options | None = None,
        on_plan: Callable[[Plan], object] | None = None,
    ) -> AsyncGenerator[Delta, None]:
        """Answer the last message. Closing the generator cancels the request.

        Args:
            on_plan: told what the model will see, pictures included, in the thread that read them and before anything is computed.

        Raises:
            InputError: before any work of the model, when the conversation cannot be answered as it stands.
            Overloaded: too many requests are waiting, or their pictures take too much memory.
            EngineDead: the model failed.
        """
        generation = generation or GenerationConfig()
        started = self._clock()
        cancelled = threading.Event()
        prepare = functools.partial(self._prepare, messages, generation, options, on_plan, cancelled)
        try:
            request, dropped_turns, in_part = await self._readers.run(messages, prepare)
        finally:
            cancelled.set()
        for picture in in_part:
            yield Notice(picture)
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[Event] = asyncio.Queue()

        def publish(event: Event) -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed, and nobody listens any more
                loop.call_soon_threadsafe(events.put_nowait, event)

        ticket = self._engine.submit(request, publish)
        submitted = self._clock()
        turn: float | None = submitted
        deadline = loop.call_later(self._max_seconds - (submitted - started), ticket.cancel)
        text = TextStream(self.processor.tokenizer.token_bytes, generation.stop)
        try:
            while True:
                match await events.get():
                    case Progress(stage, done, total):
                        queued = stage == "queued"
                        turn = None if queued else turn or self._clock()
                        yield Status(stage, done, total, self.pace.until_turn(total, self._together) if queued else None)
                    case Tokens(token_ids):
                        if words := text.push(token_ids):
                            yield TextDelta(words)
                        if text.stopped:
                            ticket.cancel()
                    case Failed(error):
                        raise error
                    case finished:
                        break
        finally:
            deadline.cancel()
            ticket.cancel()
        if rest := text.finish():
            yield TextDelta(rest)
        yield self._ended(request, finished, text, dropped_turns, started, turn)

    async def answer(self, messages: Sequence[Message], generation: GenerationConfig | None = None, options: Options | None = None) -> Answer:
        """The whole answer at once; the arguments and errors of `stream`."""
        async for delta in self.stream(messages, generation, options):
            last = delta
        if not isinstance(last, Answer):
            raise PipelineError("The stream ended without an answer.")
        return last

    async def calibrate(self) -> None:
        """Let the pace be known before anybody asks: one token about one picture of noise, which nobody else will ever show.

        Raises:
            EngineDead: the model failed.
        """
        side = self.processor.config.slices.scale_resolution
        noise = PIL.Image.fromarray(np.random.default_rng().integers(0, 256, (side, side, 3), np.uint8))
        question = Message.user(Image(noise), Text("What is this?"))
        await self.answer([question], GenerationConfig.greedy(max_new_tokens=1), Options(max_slice_nums=1))

    def _ended(self, request: Request, finished: Finished, text: TextStream, dropped_turns: int, started: float, turn: float | None) -> Answer:
        """The whole answer of a request that came at `started` and whose turn came at `turn`; the pace learns of it."""
        first, read, count = finished.first_token_at, finished.read_at, len(finished.token_ids)
        answer = Answer(
            text=text.text.strip(),
            token_ids=finished.token_ids,
            finish_reason="stop" if text.stopped else finished.reason,
            prompt_tokens=len(request.prompt.input_ids),
            image_tokens=request.prompt.image_tokens,
            cached_tokens=finished.cached_tokens,
            encoded_slices=finished.encoded_slices,
            dropped_turns=dropped_turns,
            vision_s=finished.vision_s,
            ttft_s=None if first is None else first - started,
            # Several beams may agree on the whole answer only at its end; its tokens have come one by one all the same.
            decode_tps=None if read is None or count < 2 else (count - 1) / max(finished.ended_at - read, 1e-9),
        )
        reading_s = None if finished.read_from is None or read is None else read - finished.read_from
        self.pace.learn(answer.encoded_slices, answer.vision_s, answer.prompt_tokens - answer.cached_tokens, reading_s)
        if turn is not None and count > 1:  # a single token is a calibration, no answer to wait for
            self.pace.answered(finished.ended_at - turn)
        # Counts and times only: what people wrote or showed is never logged.
        logger.info(
            "answered: finish_reason=%s prompt_tokens=%d cached_tokens=%d encoded_slices=%d tokens=%d ttft_s=%.2f",
            answer.finish_reason, answer.prompt_tokens, answer.cached_tokens, answer.encoded_slices, count, answer.ttft_s or 0.0,
        )  # fmt: skip
        return answer

    def _prepare(
        self,
        messages: Sequence[Message],
        generation: GenerationConfig,
        options: Options | None,
        on_plan: Callable[[Plan], object] | None,
        cancelled: threading.Event,
    ) -> tuple[Request, int, tuple[str, ...]]:
        """The request, how many turns were left out of it, and what is shown in part."""
        plan = self.processor.plan(messages, options, self.max_prompt_tokens, cancelled)
        if on_plan is not None:
            on_plan(plan)
        for piece in plan.slices:
            piece.know_digest()
        return Request(plan.prompt, plan.slices, generation), plan.dropped_turns, plan.in_part


def _started(folder: Path, processor: Processor, engine: EngineConfig, clock: Callable[[], float]) -> Engine | StatefulEngine:
    """The engine for a folder and a device, loaded and warm."""
    config, terminators, compiler = processor.config, processor.tokenizer.terminators, Compiler(folder, engine)
    embedder, vision = Embedder(compiler), compiler.vision(config, engine.vision_cache_bytes)
    if engine.backend == "stateful" or (engine.backend == "auto" and compiler.device != "CPU"):
        return StatefulEngine(StatefulRunner(compiler), embedder, vision, config, engine, terminators, clock)
    if compiler.device != "CPU":
        raise InputError(f"The paged backend runs on a CPU, not on {compiler.device}: choose 'auto' or 'stateful'.")
    # More than twice the longest conversations of all who are computed together would never be used.
    most_blocks = 2 * engine.max_running * -(-engine.max_prompt_tokens // BLOCK_SIZE)
    kv_cache_bytes = kv_cache_bytes_here() if engine.kv_cache_bytes is None else engine.kv_cache_bytes
    return Engine(ModelRunner(compiler, kv_cache_bytes, most_blocks), embedder, vision, config, engine, terminators, clock)
