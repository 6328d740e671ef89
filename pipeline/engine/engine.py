"""Requests -> events: one thread that schedules, runs the model, samples and publishes, step after step, for everybody at once."""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from pipeline.config import EngineConfig, ModelConfig
from pipeline.engine.block_manager import BlockManager
from pipeline.engine.compiled import Embedder, Logits
from pipeline.engine.job import Job
from pipeline.engine.model_runner import BLOCK_SIZE, ModelRunner, Rows
from pipeline.engine.prompt_lookup import looked_up
from pipeline.engine.request import Event, Failed, Finished, FinishReason, Progress, Request, Stats, Ticket, Tokens, check_memory
from pipeline.engine.sampler import next_tokens
from pipeline.engine.scheduler import Scheduler, Step
from pipeline.engine.sequence import Group
from pipeline.errors import EngineDead, Overloaded, PromptTooLong
from pipeline.vision import VisionEncoder

logger = logging.getLogger("pipeline")


class Engine:
    """Owns the model. `close` ends the thread after the requests already handed in were cancelled."""

    def __init__(
        self,
        runner: ModelRunner,
        embedder: Embedder,
        vision: VisionEncoder,
        config: ModelConfig,
        engine: EngineConfig,
        terminators: Sequence[int],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._runner, self._embedder, self._vision = runner, embedder, vision
        self._config, self._engine, self._terminators, self._clock = config, engine, tuple(terminators), clock
        self._arrived: deque[Job] = deque()
        self._jobs: dict[Group, Job] = {}
        self._steps = self._generated_tokens = self._failures = 0
        self._restarting = False
        self._encode_again_at = 0.0
        self._recent: deque[tuple[float, int]] = deque(maxlen=32)  # when a step ended, and how many tokens had been generated
        self._closed, self._why_closed, self._patient = False, "The model was shut down.", False
        self._changed = threading.Condition()
        self._start_afresh()
        self._thread = threading.Thread(target=self._serve, name="engine", daemon=True)
        self._thread.start()

    def submit(self, request: Request, publish: Callable[[Event], None]) -> Ticket:
        """Queue a request; its events are published from whatever thread they arise in, a `Finished` or `Failed` last.

        Raises:
            Overloaded: `max_waiting` requests wait already, or there is no memory for further pictures.
            PromptTooLong: the prompt takes more than the memory for keys and values holds.
            EngineDead: the engine was closed, or could not be started again after a failure.
        """
        tokens, limit = len(request.prompt.input_ids), self._runner.num_blocks * BLOCK_SIZE - 1
        if tokens > limit:
            raise PromptTooLong(tokens, limit)
        ticket = Ticket(request, publish, threading.Event())
        job = Job(ticket, self._terminators, self._config.text.max_position_embeddings)
        with self._changed:
            if self._closed:
                raise EngineDead(self._why_closed)
            # The engine's thread adds and removes jobs meanwhile; copying them is one step of the interpreter.
            others = [other.ticket for other in (*self._arrived, *tuple(self._jobs.values()))]
            ahead, limit = sum(not other.cancelled.is_set() for other in others), self._engine.max_waiting
            waiting = ahead - self._engine.max_running
            if waiting >= limit:
                raise Overloaded(f"The queue is full ({waiting} waiting, the limit is {limit}): please try again in a while.")
            check_memory(request, others, self._engine.max_picture_bytes)
            if waiting >= 0:
                job.ahead = ahead
                publish(Progress("queued", 0, ahead))
            self._arrived.append(job)
            self._changed.notify()
        return ticket

    def close(self, grace_seconds: float = 0.0) -> None:
        """Take no more requests, cancel those that wait, and those under way after `grace_seconds`; the thread ends within one step or batch of
        pictures."""
        with self._changed:
            self._closed, self._patient = True, grace_seconds > 0
            self._changed.notify()
        self._thread.join(grace_seconds)
        self._patient = False
        self._thread.join()
        # There are none, unless the thread ended in a way that nobody thought of.
        for job in (*self._jobs.values(), *self._arrived):
            job.ticket.publish(Failed.because(RuntimeError("The engine's thread ended."), "The model stopped working; please try again."))

    def stats(self) -> Stats:
        (since, before), (until, after) = (self._recent[0], self._recent[-1]) if self._recent else ((0.0, 0), (0.0, 0))
        return Stats(
            running=len(self._scheduler.running),
            waiting=len(self._arrived) + len(self._scheduler.waiting),
            num_blocks=self._blocks.num_blocks,
            num_free_blocks=self._blocks.num_free_blocks,
            block_hits=self._blocks.hits,
            block_evictions=self._blocks.evictions,
            preemptions=self._scheduler.preemptions,
            encoded_slices=self._vision.encoded,
            generated_tokens=self._generated_tokens,
            tokens_per_second=(after - before) / max(until - since, 1e-9),
            failures=self._failures,
            health="dead" if self._closed or not self._thread.is_alive() else "restarting" if self._restarting else "serving",
            kv_cache_bytes=self._runner.kv_cache_bytes,
            vision_cache_bytes=self._vision.cached_bytes,
        )

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._arrived or self._jobs or self._closed)
                while self._arrived:
                    job = self._arrived.popleft()
                    job.group.ready = all(self._vision.cached(piece) is not None for piece in job.slices)  # a further question about a picture
                    self._jobs[job.group] = job
                    self._scheduler.add(job.group)
                if self._closed:
                    for job in self._jobs.values():
                        # Who waits for pictures is minutes away from an answer, and a slice of them would outlast the patience.
                        if not (self._patient and job.begun and job.group.ready):
                            job.ticket.cancel()
            try:
                self._step()
            except Exception as cause:
                # Whatever it was, blocks may be half-written: everybody is told, and the next request starts from nothing.
                logger.exception("A step of the engine failed")
                self._fail(cause)
            if self._closed and not self._jobs:
                return

    def _step(self) -> None:
        self._drop_cancelled()
        for group in self._scheduler.admit():
            self._jobs[group].begin()
        self._tell_places()
        self._encode()
        self._drop_cancelled()  # who left while their last slices were encoded begins no prompt
        self._guess()
        step = self._scheduler.schedule()
        if step.chunks:
            self._sample(step, self._run(step))
        for group in step.exhausted:
            further, reason = self._jobs[group].give_up()
            self._generated_tokens += len(further)
            self._tell(self._jobs[group], further, reason)
        self._steps += 1

    def _drop_cancelled(self) -> None:
        for job in [job for job in self._jobs.values() if job.ticket.cancelled.is_set()]:
            self._finish(job, "cancelled")

    def _tell_places(self) -> None:
        """Whoever has not begun hears how many are ahead, whenever that changes."""
        for ahead, group in enumerate(self._scheduler.waiting, start=len(self._scheduler.running)):
            job = self._jobs[group]
            if not job.begun and job.ahead != ahead:
                job.ahead = ahead
                job.ticket.publish(Progress("queued", 0, ahead))

    def _encode(self) -> None:
        """A batch of somebody's pictures, those who wait for theirs taking turns. While others have something to compute, a single one, and the next
        after they have had as long.
        """
        started = self._clock()
        for job in self._waiting_for_pictures():
            if math.isinf(job.waits_since):
                job.waits_since, job.last_encoded = started, self._steps  # not before those who have waited through a batch of somebody else's
            job.receive({piece.digest: embeds for piece in job.slices_missing if (embeds := self._vision.cached(piece)) is not None})
            job.vision_s = started - job.waits_since
        waiting = self._waiting_for_pictures()
        others_wait = any(group.ready for group in self._scheduler.running)
        if not waiting or (others_wait and started < self._encode_again_at):
            return
        job = min(waiting, key=lambda job: job.last_encoded)
        first, *others = job.slices_missing
        batch = [first, *(piece for piece in others if piece.tgt_size == first.tgt_size)][: 1 if others_wait else self._vision.batch_size]
        job.ticket.publish(Progress("vision", job.encoded_slices, job.encoded_slices + 1 + len(others)))
        try:
            encoded = self._vision.encode_batch(batch)
        except Exception as cause:
            # No keys and values were being written: it is a matter of this request alone.
            logger.exception("Pictures could not be encoded")
            self._failures += 1
            self._end(job, Failed.because(cause))
            return
        job.receive(dict(zip((piece.digest for piece in batch), encoded, strict=True)))
        job.encoded_slices += len(batch)
        ended = self._clock()
        job.vision_s = ended - job.waits_since
        self._encode_again_at = ended + (ended - started)
        job.last_encoded = self._steps

    def _guess(self) -> None:
        """Let whoever decodes a single sequence compute what may come after its next token along with it."""
        if self._engine.prompt_lookup_tokens:
            for group in self._scheduler.running:
                if group.ready and group.decoding and not self._jobs[group].searches:
                    group.sequences[0].guess(looked_up(group.sequences[0].keys, self._engine.prompt_lookup_tokens))

    def _run(self, step: Step) -> Logits:
        """Compute a step; the logits of the last position, and of those with guesses after them, of each chunk that ends its sequence."""
        self._runner.copy(step.copies)
        ids: list[int] = []
        for chunk in step.chunks:
            job, start = self._jobs[chunk.group], chunk.sequence.num_computed_tokens
            ids += job.token_ids(chunk.sequence, start, start + chunk.num_tokens)
            job.read_from = self._clock() if job.read_from is None else job.read_from
            if not chunk.group.decoding and job.read_at is None:  # not where an answer under way that gave way is read anew
                job.ticket.publish(job.prefilled())
        embeds, batch, offset = self._embedder.embed(ids), [], 0
        for chunk in step.chunks:
            own, start = embeds[offset : offset + chunk.num_tokens], chunk.sequence.num_computed_tokens
            self._jobs[chunk.group].show(own, start)
            ends = chunk.num_tokens == chunk.sequence.num_uncomputed_tokens
            batch.append(Rows(own, start, chunk.sequence.block_table, ends * (1 + chunk.sequence.num_guesses)))
            offset += chunk.num_tokens
        logits = self._runner.forward(batch)
        for chunk in step.chunks:
            self._blocks.publish(chunk.sequence, chunk.num_tokens - chunk.sequence.num_guesses)
        return logits

    def _sample(self, step: Step, logits: Logits) -> None:
        rows: dict[Group, list[int]] = {}
        ended = [chunk for chunk in step.chunks if chunk.sequence.num_uncomputed_tokens == chunk.sequence.num_guesses]
        owners = [chunk.group for chunk in ended for _ in range(1 + chunk.sequence.num_guesses)]
        for row, group in enumerate(owners):
            rows.setdefault(group, []).append(row)
        for job in (self._jobs[group] for group in rows):
            job.read_at = self._clock() if job.read_at is None else job.read_at
        choices = {row: choice for group, own in rows.items() for row, choice in zip(own, self._jobs[group].choices(), strict=False)}
        chosen_from = logits if len(choices) == len(owners) else logits[list(choices)]  # copied only where some search
        tokens = dict(zip(choices, next_tokens(chosen_from, list(choices.values())), strict=True))
        advanced = []
        for group, own in rows.items():
            job = self._jobs[group]
            advanced.append((job, *job.advance(logits[own] if job.searches else logits, [tokens[row] for row in own if row in tokens], self._blocks)))
        # Counted before it is told: whoever hears of an answer's end finds it in the figures.
        self._generated_tokens += sum(len(further) for _, further, _ in advanced)
        self._recent.append((self._clock(), self._generated_tokens))
        for job, further, reason in advanced:
            self._tell(job, further, reason)

    def _tell(self, job: Job, further: tuple[int, ...], reason: FinishReason | None) -> None:
        if further:
            job.first_token_at = self._clock() if job.first_token_at is None else job.first_token_at
            job.ticket.publish(Tokens(further))
        if reason is not None:
            self._finish(job, reason)

    def _finish(self, job: Job, reason: FinishReason) -> None:
        self._end(job, job.finished(reason, self._clock()))

    def _end(self, job: Job, last: Finished | Failed) -> None:
        self._scheduler.remove(job.group)
        del self._jobs[job.group]
        job.ticket.publish(last)

    def _fail(self, cause: Exception) -> None:
        """Tell everybody, and start from nothing; if the model does not let us, take no more."""
        jobs, self._jobs = list(self._jobs.values()), {}
        self._failures += 1
        self._restarting = True
        try:
            self._start_afresh()
            self._restarting = False
        except Exception:
            logger.exception("The engine cannot be started again")
            with self._changed:
                self._closed, self._why_closed = True, "The model stopped working and could not be started again."
                jobs += self._arrived
                self._arrived.clear()
        for job in jobs:
            job.ticket.publish(Failed.because(cause, self._why_closed) if self._closed else Failed.because(cause))

    def _start_afresh(self) -> None:
        """With nothing computed, and the model run once in the shapes of serving."""
        self._blocks = BlockManager(self._runner.num_blocks, BLOCK_SIZE)
        engine, text = self._engine, self._config.text
        self._scheduler = Scheduler(self._blocks, engine.max_running, engine.prefill_chunk_tokens, engine.mixed_step_tokens)
        self._runner.warm_up(
            text.hidden_size, engine.prefill_chunk_tokens, engine.mixed_step_tokens, engine.max_running, text.max_position_embeddings
        )

    def _waiting_for_pictures(self) -> list[Job]:
        return [self._jobs[group] for group in self._scheduler.running if not group.ready]
