"""What the environment asks for -> an assistant, made in a thread of its own while the page is already there, until the server stops."""

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Literal, Self, TypeAlias

from pipeline import Answer, ArtifactError, Assistant, Delta, EngineConfig, EngineDead, GenerationConfig, Message, Options, PipelineError, obtain
from pipeline.engine.request import Stats
from pipeline.processor import Plan
from ui.metrics import Metrics

logger = logging.getLogger("app")

POLL_SECONDS = 0.2
RETRY_SECONDS = 300
# Answers under way have so long when the server is told to stop; Docker and systemd kill it after ten seconds.
GRACE_SECONDS = 6.0
STOPPING = "This server is stopping: please try again in a minute."
VARIABLES = ("MODEL_DIR", "MODEL_REPO", "MODEL_REVISION", "MODEL_VARIANT")


@dataclass(frozen=True)
class Starting:
    """How far a start is: `done` of `total` bytes, while they come from the Hub."""

    stage: Literal["checking", "downloading", "loading"]
    done: int = 0
    total: int = 0


@dataclass(frozen=True)
class Ready:
    """The model answers."""


@dataclass(frozen=True)
class Degraded:
    """The model does not answer, and why, in a sentence for a person."""

    reason: str


State: TypeAlias = Starting | Ready | Degraded
Report: TypeAlias = Callable[[Starting], None]


class Model:
    """An assistant that comes when it is made, goes when its engine dies and is then made again. Use it as a context manager.

    Args:
        load: makes the assistant, and reports how far it is. What it raises is told to everybody who asks, and it is called again after
            `retry_seconds`: a Hub comes back, a volume is mounted at last.
        grace_seconds: on leaving, answers under way have so long to end; those who wait, or come then, are told at once.
    """

    def __init__(self, load: Callable[[Report], Assistant], retry_seconds: float = RETRY_SECONDS, grace_seconds: float = GRACE_SECONDS) -> None:
        self._load, self._retry_seconds, self._grace_seconds = load, retry_seconds, grace_seconds
        self._assistant: Assistant | None = None
        self._without: Starting | Degraded = Starting("checking")  # the state while there is no assistant
        self.metrics = Metrics(self._stats)
        self._closing = threading.Event()
        # A download or a compilation cannot be interrupted: the process does not wait for either.
        self._thread = threading.Thread(target=self._keep, name="model", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        assistant = self._assistant
        self._closing.set()
        if assistant is not None:
            self._thread.join()

    @property
    def assistant(self) -> Assistant | None:
        """The assistant, once there is one."""
        return self._assistant

    @property
    def state(self) -> State:
        if (stats := self._stats()) is None or self._closing.is_set():
            return self._lacking
        match stats.health:
            case "serving":
                return Ready()
            case "restarting":
                return Degraded("The model failed and is starting again.")
            case "dead":
                return Degraded("The model stopped working and is loaded again.")

    @property
    def _lacking(self) -> Starting | Degraded:
        """Why nobody new is answered."""
        return Degraded(STOPPING) if self._closing.is_set() else self._without

    async def arrival(self) -> AsyncGenerator[Starting, None]:
        """How far the start is, for as long as it takes: when this ends, there is an assistant.

        Raises:
            PipelineError: there is no model, and why; or the server stops.
        """
        told = None
        while self._assistant is None or self._closing.is_set():
            match self._lacking:
                case Degraded(reason):
                    raise PipelineError(reason)
                case starting if starting != told:
                    yield starting
                    told = starting
            await asyncio.sleep(POLL_SECONDS)

    async def stream(
        self,
        messages: Sequence[Message],
        generation: GenerationConfig | None = None,
        options: Options | None = None,
        on_plan: Callable[[Plan], object] | None = None,
    ) -> AsyncGenerator[Starting | Delta, None]:
        """What `Assistant.stream` yields and raises; before that, how far the start is, for as long as it takes.

        Raises:
            PipelineError: there is no model, and why; or the server stops.
        """
        while (assistant := self._assistant) is None or self._closing.is_set():
            async with aclosing(self.arrival()) as arrival:
                async for starting in arrival:
                    yield starting
        try:
            async with aclosing(assistant.stream(messages, generation, options, on_plan)) as stream:
                async for delta in stream:
                    if isinstance(delta, Answer) and delta.finish_reason == "cancelled" and self._closing.is_set():
                        raise PipelineError(STOPPING)
                    yield delta
        except EngineDead as error:
            if self._closing.is_set():
                raise PipelineError(STOPPING) from error
            raise

    def _keep(self) -> None:
        """Make an assistant and keep it as long as it lives, again and again."""
        while not self._closing.is_set():
            try:
                assistant = self._load(self._report)
            except PipelineError as error:
                logger.error("%s", error)
                self._without = Degraded(str(error))
                self._closing.wait(self._retry_seconds)
            except Exception:  # whatever it was, a page that says so helps more than none
                logger.exception("The model could not be loaded")
                self._without = Degraded("The model could not be loaded, through a fault of this server; its log says more.")
                self._closing.wait(self._retry_seconds)
            else:
                self._without = Starting("loading")
                self._assistant = assistant
                while not self._closing.wait(1) and assistant.stats().health != "dead":
                    pass
                self._assistant = None
                assistant.close(self._grace_seconds)
                del assistant  # else it would be in memory beside the next one

    def _stats(self) -> Stats | None:
        return None if (assistant := self._assistant) is None else assistant.stats()

    def _report(self, starting: Starting) -> None:
        self._without = starting


def load(environ: Mapping[str, str], engine: EngineConfig, report: Report) -> Assistant:
    """Obtain the model folder that the environment asks for, load it, and see how fast it is here.

    Raises:
        ArtifactError: it cannot be had or read; the sentence ends with which variable to correct.
    """

    def progress(done: int, total: int) -> None:
        report(Starting("downloading", done, total) if done < total else Starting("checking"))

    report(Starting("checking"))
    try:
        folder = obtain(environ, progress)
        report(Starting("loading"))
        return _calibrated(Assistant(folder, engine))
    except ArtifactError as error:
        if not (asked := [name for name in VARIABLES if environ.get(name)]):
            raise
        where = "the Space's settings" if environ.get("SPACE_ID") else "the environment of this server"
        raise ArtifactError(
            f"{error} Correct {' and '.join(asked)} in {where}, or take {'them' if asked[1:] else 'it'} away for the bundled demo model."
        ) from error


def _calibrated(assistant: Assistant) -> Assistant:
    """The same, which now knows its pace; let go if it cannot answer, or each attempt would leave a whole model in memory."""
    try:
        asyncio.run(assistant.calibrate())
    except BaseException as error:
        assistant.close()
        if isinstance(error, EngineDead):
            raise ArtifactError("The model can be loaded, but not asked: it fails at a first question, and the log says how.") from error
        raise
    return assistant
