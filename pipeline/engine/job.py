"""What the engine keeps of one request while it is under way: its tokens and pictures, how its answer is chosen, and its books."""

import bisect
import math
from collections.abc import Sequence as AbstractSequence

import numpy as np
from numpy.typing import NDArray

from pipeline.engine.block_manager import BlockManager
from pipeline.engine.compiled import Logits
from pipeline.engine.request import Finished, FinishReason, Progress, Request, Ticket
from pipeline.engine.sampler import BeamSearch, Choice, TokenSampler
from pipeline.engine.sequence import Group, Key, Sequence
from pipeline.preprocess import Slice
from pipeline.vision import Embeds


class Job:
    """One request. `group` is what the scheduler knows of it; `missing` are the slices whose embeds it waits for, by their place in the prompt."""

    def __init__(self, ticket: Ticket, terminators: AbstractSequence[int], context_tokens: int) -> None:
        request = ticket.request
        self.ticket, self.prompt, self.slices = ticket, request.prompt, request.slices
        self.group = Group([Sequence(keys(request))], ready=not request.slices)
        self.max_new_tokens = min(request.generation.max_new_tokens, context_tokens - len(request.prompt.input_ids))
        self._terminators = terminators
        self._sampler = (BeamSearch if request.generation.num_beams > 1 else TokenSampler)(request.generation, terminators)
        self.embeds: dict[int, Embeds] = {}
        self.missing: list[int] = []
        self.generated: list[int] = []
        self.ahead: int | None = None  # requests that it was told are before it
        self.begun = False
        self.last_encoded = 0  # in which step; at first that in which it began to wait
        self.cached_tokens = self.encoded_slices = 0
        self.waits_since = math.inf  # for its pictures
        self.vision_s = 0.0  # from then on to the last of them
        self.read_from: float | None = None
        self.read_at: float | None = None
        self.first_token_at: float | None = None
        self._ends = [end for _, end in self.prompt.image_bound]

    @property
    def slices_missing(self) -> list[Slice]:
        """Each once, in the order of the prompt."""
        return list({self.slices[index].digest: self.slices[index] for index in self.missing}.values())

    def begin(self) -> None:
        """It runs now, maybe not for the first time, and goes on after what its sequences have computed."""
        computed = min(sequence.num_computed_tokens for sequence in self.group.sequences)
        if not self.begun:
            self.begun, self.cached_tokens = True, computed
        self.missing = [index for index in range(bisect.bisect_right(self._ends, computed), len(self.slices)) if index not in self.embeds]
        self.group.ready = not self.missing

    def receive(self, embeds: dict[bytes, Embeds]) -> None:
        """Take what it waits for from embeds by the digest of their slice."""
        self.embeds |= {index: embeds[digest] for index in self.missing if (digest := self.slices[index].digest) in embeds}
        self.missing = [index for index in self.missing if index not in self.embeds]
        self.group.ready = not self.missing

    def token_ids(self, sequence: Sequence, start: int, end: int) -> list[int]:
        """Ids at positions [start, end); a picture's are those of its placeholders."""
        prompt_tokens = len(self.prompt.input_ids)
        generated = sequence.keys[max(start, prompt_tokens) : max(end, prompt_tokens)]
        return [*self.prompt.input_ids[start:end], *(key for key in generated if isinstance(key, int))]

    def show(self, inputs_embeds: NDArray[np.float32], start: int) -> None:
        """Write the pictures into the embeds (tokens, hidden) of the positions from `start` on."""
        end = start + len(inputs_embeds)
        for index in range(bisect.bisect_right(self._ends, start), len(self._ends)):
            first, last = self.prompt.image_bound[index]
            if first >= end:
                break
            low, high = max(first, start), min(last, end)
            inputs_embeds[low - start : high - start] = self.embeds[index][low - first : high - first]

    @property
    def searches(self) -> bool:
        """Whether it follows several beams."""
        return isinstance(self._sampler, BeamSearch)

    def choices(self) -> list[Choice]:
        """Of the next token, and one more after each guess; none while it searches."""
        if isinstance(self._sampler, BeamSearch):
            return []
        guesses = self.group.sequences[0].guesses
        return [Choice(self._sampler, (*self.generated, *guesses[:count])) for count in range(1 + len(guesses))]

    def advance(self, logits: Logits, chosen: AbstractSequence[int], blocks: BlockManager) -> tuple[tuple[int, ...], FinishReason | None]:
        """Go on by the tokens of its `choices`, or by what a search makes of the logits (sequences, vocabulary).

        Returns:
            Further tokens of the answer, and why it ends with them, if it does.
        """
        before = len(self.generated)
        reason = self._next_beams(self._sampler, logits, blocks) if isinstance(self._sampler, BeamSearch) else self._next_tokens(chosen, blocks)
        return tuple(self.generated[before:]), reason

    def _next_tokens(self, chosen: AbstractSequence[int], blocks: BlockManager) -> FinishReason | None:
        """A token, and one more for each guess that turns out right."""
        (sequence,) = self.group.sequences
        for token, guess in zip(chosen, [*sequence.take_back(), None], strict=True):
            if token in self._terminators:
                return "stop"
            self.generated.append(token)
            sequence.keys.append(token)
            if len(self.generated) == self.max_new_tokens:
                return "length"
            if token != guess:
                break
            blocks.publish(sequence, 1)
        return None

    def _next_beams(self, search: BeamSearch, logits: Logits, blocks: BlockManager) -> FinishReason | None:
        """A token for every beam, sequences forked and dropped with them; what all agree on belongs to the answer at once."""
        former = self.group.sequences
        self.group.sequences = [blocks.fork(former[parent]) for parent in search.step(logits)]
        for sequence in former:
            blocks.free(sequence)
        for sequence, beam in zip(self.group.sequences, search.live, strict=True):
            sequence.keys.append(beam.token_ids[-1])
        if not search.done and len(search.live[0].token_ids) < self.max_new_tokens:
            self.generated += search.agreed()[len(self.generated) :]
            return None
        return self._settle(search)

    def give_up(self) -> tuple[tuple[int, ...], FinishReason]:
        """What is still to be said of an answer for which there is no room to go on, and how it ends."""
        before = len(self.generated)
        reason = self._settle(self._sampler) if isinstance(self._sampler, BeamSearch) and self._sampler.live[0].token_ids else "length"
        return tuple(self.generated[before:]), reason

    def _settle(self, search: BeamSearch) -> FinishReason:
        """For the best of its beams."""
        best = search.best().token_ids
        ended = best[-1] in self._terminators
        self.generated += best[len(self.generated) : len(best) - ended]
        return "stop" if ended else "length"

    def prefilled(self) -> Progress:
        """How far the prompt is."""
        computed = min(len(self.prompt.input_ids), *(sequence.num_computed_tokens for sequence in self.group.sequences))
        return Progress("prefill", max(computed - self.cached_tokens, 0), len(self.prompt.input_ids) - self.cached_tokens)

    def finished(self, reason: FinishReason, now: float) -> Finished:
        times = self.read_from, self.read_at, self.first_token_at, now
        return Finished(reason, tuple(self.generated), self.cached_tokens, self.encoded_slices, self.vision_s, *times)


def keys(request: Request) -> list[Key]:
    """What identifies each position of the prompt."""
    found: list[Key] = list(request.prompt.input_ids)
    for (start, end), piece in zip(request.prompt.image_bound, request.slices, strict=True):
        found[start:end] = [(piece.digest, place) for place in range(end - start)]
    return found
