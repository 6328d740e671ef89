"""A `Request` of token ids and slices flows into an engine; `Progress`, `Tokens`, and last one `Finished` or `Failed`, flow out."""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, Self, TypeAlias

from pipeline.config import GenerationConfig
from pipeline.errors import EngineDead, Overloaded
from pipeline.message import Prompt
from pipeline.preprocess import Slice

FinishReason: TypeAlias = Literal["stop", "length", "cancelled"]
Stage: TypeAlias = Literal["queued", "vision", "prefill"]
Health: TypeAlias = Literal["serving", "restarting", "dead"]


@dataclass(frozen=True)
class Request:
    """One answer to make. `slices[i]` belongs at `prompt.image_bound[i]`."""

    prompt: Prompt
    slices: tuple[Slice, ...]
    generation: GenerationConfig

    @property
    def picture_bytes(self) -> int:
        """Memory of its slices' pixels."""
        return sum(piece.pixels.nbytes for piece in self.slices)


@dataclass(frozen=True)
class Progress:
    """How far a stage is: requests ahead, slices encoded, prompt tokens computed."""

    stage: Stage
    done: int
    total: int


@dataclass(frozen=True)
class Tokens:
    """Further ids of the answer; terminators are not among them."""

    token_ids: tuple[int, ...]


@dataclass(frozen=True)
class Finished:
    """How the answer ended, and the books of the request. Times in seconds by the engine's clock, None for what was not reached."""

    reason: FinishReason
    token_ids: tuple[int, ...]
    cached_tokens: int
    encoded_slices: int
    vision_s: float
    read_from: float | None  # since when its prompt was computed, and when it had been
    read_at: float | None
    first_token_at: float | None  # with several beams, of what all of them agree on
    ended_at: float


@dataclass(frozen=True)
class Failed:
    """The request was lost through a fault of the engine."""

    error: EngineDead

    @classmethod
    def because(cls, cause: Exception, sentence: str = "The model failed while it was answering; please try again.") -> Self:
        """What a person is told, and for a developer what happened."""
        error = EngineDead(sentence)
        error.__cause__ = cause
        return cls(error)


Event: TypeAlias = Progress | Tokens | Finished | Failed


@dataclass(frozen=True, eq=False)
class Ticket:
    """A request handed in. Events are published from any thread; `cancel` may be called from any, any number of times."""

    request: Request
    publish: Callable[[Event], None]
    cancelled: threading.Event

    def cancel(self) -> None:
        self.cancelled.set()


def check_memory(request: Request, held: Iterable[Ticket], limit: int) -> None:
    """Raise `Overloaded` if a request's pictures take more than `limit` bytes together with those of others, who wait or are under way."""
    size, others = request.picture_bytes, sum(ticket.request.picture_bytes for ticket in held)
    if size and others and (total := size + others) > limit:
        raise Overloaded(f"The pictures of all who wait would take {total:,} bytes of memory (the limit is {limit:,}): please try again in a while.")


@dataclass(frozen=True)
class Stats:
    """An engine's books: requests, KV blocks (none where there is no pool), what was done since it was started, and whether it goes on."""

    running: int
    waiting: int
    num_blocks: int
    num_free_blocks: int
    block_hits: int
    block_evictions: int
    preemptions: int
    encoded_slices: int
    generated_tokens: int
    tokens_per_second: float  # over the last steps
    failures: int  # after each of which it started from nothing, or died
    health: Health
    kv_cache_bytes: int  # of all the blocks, once each has been used
    vision_cache_bytes: int  # of what was encoded and is kept
