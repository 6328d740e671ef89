"""Groups that wait or run -> what the next step computes: one token of every decoding sequence, then prefill chunks within a budget of tokens."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.engine.block_manager import BlockManager
from pipeline.engine.sequence import Group, Sequence


@dataclass(frozen=True)
class Chunk:
    """The next `num_tokens` uncomputed tokens of a sequence; its block table has room for them."""

    group: Group
    sequence: Sequence
    num_tokens: int


@dataclass(frozen=True)
class Step:
    """What one call of the model computes.

    Args:
        copies: blocks to copy first, (from, to).
        exhausted: groups that have the pool to themselves and still find no room for one more token.
    """

    chunks: tuple[Chunk, ...]
    copies: tuple[tuple[int, int], ...]
    exhausted: tuple[Group, ...]


class Scheduler:
    """First come, first served, but for a quarter of the places to run, which are for those who wait for no picture: they may be through before
    another's are encoded. Who came last gives way when blocks run out, and computes anew what the cache does not still hold.

    Args:
        max_running: groups that run at once.
        prefill_chunk_tokens: of prompts a step, together; how long a cancelled prompt goes on.
        mixed_step_tokens: all of a step in which some decode, whose next token waits for it; prompts get what those leave, and half of it at least.
    """

    def __init__(self, blocks: BlockManager, max_running: int, prefill_chunk_tokens: int, mixed_step_tokens: int) -> None:
        self._blocks = blocks
        self._max_running, self._max_not_ready = max_running, max(max_running - max(max_running // 4, 1), 1)
        self._chunk_tokens, self._mixed_step_tokens = prefill_chunk_tokens, mixed_step_tokens
        self.waiting: deque[Group] = deque()
        self.running: list[Group] = []  # the longest here first
        self.preemptions = 0

    def add(self, group: Group) -> None:
        self.waiting.append(group)

    def remove(self, group: Group) -> None:
        """It has ended, one way or another; its blocks are free at once."""
        if group in self.running:
            self.running.remove(group)
        else:
            self.waiting.remove(group)
        self._free(group)

    def admit(self) -> list[Group]:
        """Let those that wait run while there is room for the whole of their prompts, and take over what is computed of them."""
        admitted: list[Group] = []
        for group in tuple(self.waiting):
            if len(self.running) == self._max_running:
                break
            if not group.ready and sum(not other.ready for other in self.running) >= self._max_not_ready:
                continue
            saved = sum(self._blocks.attach(sequence) for sequence in group.sequences)
            if self.running and self._missing([*self.running, group]) > self._blocks.num_free_blocks:
                self._free(group)
                self._blocks.hits -= saved // self._blocks.block_size  # nothing came of them, and the next step asks again
                break
            self.waiting.remove(group)
            self.running.append(group)
            admitted.append(group)
        return admitted

    def schedule(self) -> Step:
        """The next step; without chunks if nothing that runs is ready."""
        chunks: list[Chunk] = []
        copies: list[tuple[int, int]] = []
        exhausted: list[Group] = []
        # What others have computed meanwhile, the other beams of a group among them: with it a group may decode already.
        for sequence in [sequence for group in self.running if group.ready and not group.decoding for sequence in group.sequences]:
            self._blocks.attach(sequence)
        for group in [group for group in self.running if group.ready and group.decoding]:
            if group not in self.running:
                continue
            while (more := self._reserve(group)) is None and self.running[-1] is not group:
                self._preempt(self.running[-1])
            if more is not None:
                copies += more
                chunks += [Chunk(group, sequence, sequence.num_uncomputed_tokens) for sequence in group.sequences]
            elif self.running == [group]:
                exhausted.append(group)
            else:
                self._preempt(group)
        left = self._mixed_step_tokens - sum(chunk.num_tokens for chunk in chunks)
        budget = max(left, -(-self._mixed_step_tokens // 2)) if chunks else self._chunk_tokens
        # The shortest first, so that what it leaves of its share goes to the others.
        prefilling = sorted((group for group in self.running if group.ready and not group.decoding), key=_tokens_left)
        for index, group in enumerate(prefilling):
            sequence = group.next_to_prefill
            share = -(-budget // (len(prefilling) - index))
            num_tokens = min(share, sequence.num_uncomputed_tokens - (len(group.sequences) > 1))
            if num_tokens and (more := self._blocks.reserve([sequence], num_tokens)) is not None:
                copies += more
                chunks.append(Chunk(group, sequence, num_tokens))
                budget -= num_tokens
        if prefilling and not chunks:
            # They hold each other up.
            if len(self.running) > 1:
                self._preempt(self.running[-1])
                return self.schedule()
            exhausted += prefilling
        return Step(tuple(chunks), tuple(copies), tuple(exhausted))

    def _reserve(self, group: Group) -> list[tuple[int, int]] | None:
        """Room for the next token of each sequence; for guesses too, but they make nobody give way."""
        guesses = max(sequence.num_guesses for sequence in group.sequences)
        more = self._blocks.reserve(group.sequences, 1 + guesses)
        if more is None and guesses:
            for sequence in group.sequences:
                sequence.take_back()
            more = self._blocks.reserve(group.sequences, 1)
        return more

    def _preempt(self, group: Group) -> None:
        self.running.remove(group)
        self._free(group)
        self.waiting.appendleft(group)
        self.preemptions += 1

    def _free(self, group: Group) -> None:
        for sequence in group.sequences:
            sequence.take_back()
            self._blocks.free(sequence)

    def _missing(self, groups: Iterable[Group]) -> int:
        """Blocks that these still need for all tokens they have."""
        sequences = [sequence for group in groups for sequence in group.sequences]
        return sum(self._blocks.blocks_for(len(sequence.keys)) - len(sequence.block_table) for sequence in sequences)


def _tokens_left(group: Group) -> int:
    return sum(sequence.num_uncomputed_tokens for sequence in group.sequences)
