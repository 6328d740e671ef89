"""Requests -> events, one request at a time in a thread of its own; the state of the last one is kept, so that a follow-up computes only what is new.

This is the plainest correct engine: the reference that any other is measured against.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from pipeline.config import EngineConfig, ModelConfig
from pipeline.engine.compiled import Embedder, Logits
from pipeline.engine.job import keys as keys_of
from pipeline.engine.request import Event, Failed, Finished, FinishReason, Progress, Request, Stats, Ticket, Tokens, check_memory
from pipeline.engine.sampler import BeamSearch, Choice, TokenSampler, next_tokens
from pipeline.engine.sequence import Key
from pipeline.engine.stateful_runner import StatefulRunner
from pipeline.errors import EngineDead, Overloaded
from pipeline.vision import Embeds, VisionEncoder

logger = logging.getLogger("pipeline")


class StatefulEngine:
    """Owns the model. `close` ends the thread after the requests already handed in were cancelled."""

    def __init__(
        self,
        runner: StatefulRunner,
        embedder: Embedder,
        vision: VisionEncoder,
        config: ModelConfig,
        engine: EngineConfig,
        terminators: Sequence[int],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._runner, self._embedder = runner, embedder
        self._vision = vision
        self._engine = engine
        self._context_tokens = config.text.max_position_embeddings
        self._terminators = tuple(terminators)
        self._clock = clock
        self._held: list[Key] = []  # what the runner's state was computed from
        self._waiting: deque[Ticket] = deque()
        self._running: Ticket | None = None
        self._generated_tokens = self._failures = 0
        self._closed, self._why_closed = False, "The model was shut down."
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._serve, name="engine", daemon=True)
        self._thread.start()

    def submit(self, request: Request, publish: Callable[[Event], None]) -> Ticket:
        """Queue a request; its events are published from whatever thread they arise in, a `Finished` or `Failed` last.

        Raises:
            Overloaded: `max_waiting` requests wait already, or there is no memory for further pictures.
            EngineDead: the engine was closed.
        """
        ticket = Ticket(request, publish, threading.Event())
        with self._changed:
            if self._closed:
                raise EngineDead(self._why_closed)
            self._drop_cancelled()
            others = [*self._waiting, *([self._running] if self._running else [])]
            ahead = len(others)
            if ahead > self._engine.max_waiting:
                raise Overloaded(f"The queue is full ({ahead - 1} waiting, the limit is {self._engine.max_waiting}): please try again in a while.")
            check_memory(request, others, self._engine.max_picture_bytes)
            if ahead:
                publish(Progress("queued", 0, ahead))
            self._waiting.append(ticket)
            self._changed.notify()
        return ticket

    def close(self, grace_seconds: float = 0.0) -> None:
        """Take no more requests, cancel those that wait, and the one under way after `grace_seconds`; the thread ends within one decode step,
        prefill chunk or batch of pictures."""
        with self._changed:
            self._closed = True
            for ticket in self._waiting:
                ticket.cancel()
            self._drop_cancelled()
            self._changed.notify()
        self._thread.join(grace_seconds)
        if running := self._running:
            running.cancel()
        self._thread.join()

    def stats(self) -> Stats:
        return Stats(
            running=int(self._running is not None),
            waiting=len(self._waiting),
            num_blocks=0,
            num_free_blocks=0,
            block_hits=0,
            block_evictions=0,
            preemptions=0,
            encoded_slices=self._vision.encoded,
            generated_tokens=self._generated_tokens,
            tokens_per_second=0.0,
            failures=self._failures,
            health="dead" if self._closed else "serving",
            kv_cache_bytes=0,
            vision_cache_bytes=self._vision.cached_bytes,
        )

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._running = None
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return
                self._running = ticket = self._waiting.popleft()
                self._drop_cancelled()
                for ahead, waiting in enumerate(self._waiting, start=1):
                    waiting.publish(Progress("queued", 0, ahead))
            try:
                outcome: Event = self._answer(ticket)
            except Exception as cause:
                # Whatever it was, the state may be half-written: the next request starts from none.
                logger.exception("A request failed in the engine")
                outcome = Failed.because(cause)
                self._failures += 1
                if not self._forget():
                    self._give_up(cause)
            ticket.publish(outcome)

    def _answer(self, ticket: Ticket) -> Finished:
        started = self._clock()
        request, encoded = ticket.request, self._vision.encoded
        read_from: float | None = None
        read_at: float | None = None
        first_token_at: float | None = None
        keys = keys_of(request)
        # The last token is always computed: its logits are what the answer starts from.
        cached = min(_common_prefix(self._held, keys), len(keys) - 1)
        image_embeds = self._encode(ticket, cached)
        vision_s = self._clock() - started
        token_ids: list[int] = []
        reason: FinishReason = "cancelled"
        if image_embeds is not None:
            read_from = self._clock()
            logits = self._prefill(ticket, keys, cached, image_embeds)
            if logits is not None:
                read_at = self._clock()
                search = self._beam_search if request.generation.num_beams > 1 else self._decode
                for tokens, ending in search(ticket, logits):
                    reason = ending
                    if tokens:
                        first_token_at = first_token_at or self._clock()
                        token_ids += tokens
                        self._generated_tokens += len(tokens)
                        ticket.publish(Tokens(tuple(tokens)))
        times = read_from, read_at, first_token_at, self._clock()
        return Finished(reason, tuple(token_ids), cached, self._vision.encoded - encoded, vision_s, *times)

    def _encode(self, ticket: Ticket, cached: int) -> list[Embeds | None] | None:
        """Embeds of each slice, None for those whose whole span is in the state; None for all when cancelled."""
        bounds, slices = ticket.request.prompt.image_bound, ticket.request.slices
        needed = [piece for (_, end), piece in zip(bounds, slices, strict=True) if end > cached]
        encoded = self._vision.encode(needed, ticket.cancelled, lambda done, total: ticket.publish(Progress("vision", done, total)))
        return None if encoded is None else [None] * (len(slices) - len(needed)) + encoded

    def _prefill(self, ticket: Ticket, keys: list[Key], cached: int, image_embeds: Sequence[Embeds | None]) -> Logits | None:
        """Compute the prompt from position `cached` on, a chunk at a time; its last logits (1, vocabulary), or None when cancelled."""
        prompt, chunk = ticket.request.prompt, self._engine.prefill_chunk_tokens
        inputs_embeds = self._embedder.embed(prompt.input_ids[cached:])
        for (start, end), embeds in zip(prompt.image_bound, image_embeds, strict=True):
            if embeds is not None:
                inside = max(cached - start, 0)
                inputs_embeds[start + inside - cached : end - cached] = embeds[inside:]
        self._runner.truncate(cached)
        del self._held[cached:]
        logits = None
        for start in range(cached, len(keys), chunk):
            if ticket.cancelled.is_set():
                return None
            ticket.publish(Progress("prefill", start - cached, len(keys) - cached))
            logits = self._runner.forward(inputs_embeds[None, start - cached : start - cached + chunk])
            self._held += keys[start : start + chunk]
        return logits

    def _decode(self, ticket: Ticket, logits: Logits) -> Iterator[tuple[list[int], FinishReason]]:
        """Token by token; each with how the answer ends if it ends here."""
        sampler = TokenSampler(ticket.request.generation, self._terminators)
        generated: list[int] = []
        limit = self._max_new_tokens(ticket)
        while not ticket.cancelled.is_set():
            (token,) = next_tokens(logits, [Choice(sampler, generated)])
            if token in self._terminators:
                yield [], "stop"
                return
            generated.append(token)
            yield [token], "length" if len(generated) == limit else "cancelled"
            if len(generated) == limit:
                return
            logits = self._runner.forward(self._embedder.embed([token])[None])
            self._held.append(token)

    def _beam_search(self, ticket: Ticket, logits: Logits) -> Iterator[tuple[list[int], FinishReason]]:
        """What all beams agree on as soon as they do, and the rest of the best one at the end."""
        search = BeamSearch(ticket.request.generation, self._terminators)
        published = 0
        prompt_tokens = len(self._held)
        for _ in range(self._max_new_tokens(ticket) - 1):
            beam_idx = search.step(logits)
            agreed = search.agreed()
            yield list(agreed[published:]), "cancelled"
            published = len(agreed)
            if search.done or ticket.cancelled.is_set():
                break
            last = self._embedder.embed([beam.token_ids[-1] for beam in search.live])
            logits = self._runner.forward(last[:, None], beam_idx)
            self._held[prompt_tokens:] = search.live[0].token_ids  # the first row is the one that stays
        else:
            search.step(logits)
        if ticket.cancelled.is_set():
            return
        best = search.best().token_ids
        ended = best[-1] in self._terminators
        yield list(best[published : len(best) - ended]), "stop" if ended else "length"

    def _max_new_tokens(self, ticket: Ticket) -> int:
        return min(ticket.request.generation.max_new_tokens, self._context_tokens - len(ticket.request.prompt.input_ids))

    def _forget(self) -> bool:
        """Start from nothing; whether the model still lets us."""
        self._held.clear()
        try:
            self._runner.truncate(0)
        except Exception:
            logger.exception("The model's state cannot be reset")
            return False
        return True

    def _give_up(self, cause: Exception) -> None:
        """Take no more requests, and tell those that wait."""
        with self._changed:
            self._closed, self._why_closed = True, "The model stopped working and could not be started again."
            for ticket in self._waiting:
                ticket.publish(Failed.because(cause, self._why_closed))
            self._waiting.clear()

    def _drop_cancelled(self) -> None:
        """Let go of what nobody waits for any more, pictures included."""
        for ticket in [ticket for ticket in self._waiting if ticket.cancelled.is_set()]:
            self._waiting.remove(ticket)
            ticket.publish(Finished("cancelled", (), 0, 0, 0.0, None, None, None, self._clock()))


def _common_prefix(one: Sequence[Key], other: Sequence[Key]) -> int:
    return next((index for index, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
