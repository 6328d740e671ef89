"""Sequences -> block tables: KV blocks of `block_size` tokens, counted references, and a cache of full blocks by what they were computed from.

A published block is found by its content: the published block before it, and the keys of its own tokens. Equality decides, not a hash, and through
the block before it takes in everything from the first token on; so a block is never found under other words or another picture. (The idea of blocks
and of a prefix cache over them: Kwon et al. 2023, arXiv:2309.06180.)
"""

from collections import OrderedDict
from collections.abc import Iterable
from collections.abc import Sequence as AbstractSequence
from dataclasses import dataclass
from itertools import count
from typing import TypeAlias

from pipeline.engine.sequence import Key, Sequence
from pipeline.errors import PipelineError

#: The publication of the block before (0 for none), and the keys of the block's own tokens.
Content: TypeAlias = tuple[int, tuple[Key, ...]]


@dataclass
class _Block:
    """`publication` is a number that is never used again, so that what followed an evicted block is never found after another one."""

    references: int = 0
    content: Content | None = None
    publication: int = 0


class BlockManager:
    """Who holds which of `num_blocks` blocks. Pure bookkeeping: the memory is the model runner's."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.num_blocks, self.block_size = num_blocks, block_size
        self.hits = self.evictions = 0  # blocks
        self._blocks = [_Block() for _ in range(num_blocks)]
        self._published: dict[Content, int] = {}
        self._publications = count(1)
        # The next to be taken first: blocks without content, then those with content, the least recently freed first.
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(num_blocks))

    @property
    def num_free_blocks(self) -> int:
        return len(self._free)

    def blocks_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.block_size)

    def attach(self, sequence: Sequence) -> int:
        """Take over published blocks with what the sequence would compute next; how many tokens it saves.

        The last token is never taken over: its logits are what the answer goes on from.
        """
        if sequence.num_computed_tokens != len(sequence.block_table) * self.block_size:
            return 0  # its last block is its own and half computed
        before = sequence.num_computed_tokens
        while sequence.num_computed_tokens + self.block_size < len(sequence.keys):
            found = self._published.get(self._content(sequence, len(sequence.block_table)))
            if found is None:
                break
            self._hold(found)
            sequence.block_table.append(found)
            sequence.num_computed_tokens += self.block_size
            self.hits += 1
        return sequence.num_computed_tokens - before

    def reserve(self, sequences: AbstractSequence[Sequence], num_tokens: int) -> list[tuple[int, int]] | None:
        """Give each sequence blocks of its own for its next `num_tokens` tokens, or, if there are too few, change nothing and return None.

        Returns:
            Blocks to copy before the tokens are computed, (from, to): those that others hold too and that are not full yet.
        """
        missing = sum(self._missing(sequence, num_tokens) for sequence in sequences)
        shared = self._shared(sequences)
        if missing + len(shared) > self.num_free_blocks:
            return None
        copies = []
        for sequence in shared:
            index, target = sequence.num_computed_tokens // self.block_size, self._take()
            source, sequence.block_table[index] = sequence.block_table[index], target
            self._release(source)
            copies.append((source, target))
        for sequence in sequences:
            sequence.block_table += [self._take() for _ in range(self._missing(sequence, num_tokens))]
        return copies

    def publish(self, sequence: Sequence, num_tokens: int) -> None:
        """The next `num_tokens` tokens were computed: let others find the blocks that this filled, and share those that were published meanwhile."""
        first = sequence.num_computed_tokens // self.block_size
        sequence.num_computed_tokens += num_tokens
        for index in range(first, sequence.num_computed_tokens // self.block_size):
            content, own = self._content(sequence, index), sequence.block_table[index]
            published = self._published.setdefault(content, own)
            if published == own:
                self._blocks[own].content, self._blocks[own].publication = content, next(self._publications)
            else:
                self._hold(published)
                sequence.block_table[index] = published
                self._release(own)

    def fork(self, sequence: Sequence) -> Sequence:
        """Another sequence with the same tokens, in the same blocks until either writes to the last of them."""
        for block in sequence.block_table:
            self._hold(block)
        return Sequence(list(sequence.keys), list(sequence.block_table), sequence.num_computed_tokens)

    def free(self, sequence: Sequence) -> None:
        """Let go of all blocks; nothing of the sequence is computed any more. The end of it will be evicted before its beginning."""
        while sequence.block_table:
            self._release(sequence.block_table.pop())
        sequence.num_computed_tokens = 0

    def check_integrity(self, sequences: Iterable[Sequence]) -> None:
        """Compare the books with the sequences that hold blocks, all of them.

        Raises:
            PipelineError: they contradict each other.
        """
        references = [0] * self.num_blocks
        for sequence in sequences:
            held = len(sequence.block_table) * self.block_size
            _demand(0 <= sequence.num_computed_tokens <= min(held, len(sequence.keys)), "A sequence has computed more than its blocks or tokens hold")
            for index, block in enumerate(sequence.block_table):
                references[block] += 1
                if (content := self._blocks[block].content) is not None:
                    _demand(content == self._content(sequence, index), "A sequence holds a block of other content")
        for index, known in enumerate(self._blocks):
            _demand(known.references == references[index], "A block's references are not the sequences that hold it")
            _demand((known.references == 0) == (index in self._free), "A block is held and free, or neither")
            _demand(known.content is None or self._published.get(known.content) == index, "A block has content under which it is not found")
        _demand(len(self._published) == sum(block.content is not None for block in self._blocks), "A content is found that no block has")

    def _content(self, sequence: Sequence, index: int) -> Content:
        before = self._blocks[sequence.block_table[index - 1]].publication if index else 0
        return before, tuple(sequence.keys[index * self.block_size : (index + 1) * self.block_size])

    def _missing(self, sequence: Sequence, num_tokens: int) -> int:
        return max(0, self.blocks_for(sequence.num_computed_tokens + num_tokens) - len(sequence.block_table))

    def _shared(self, sequences: AbstractSequence[Sequence]) -> list[Sequence]:
        """Those that would write to a block that another still holds; the last of its holders keeps it."""
        holders: dict[int, int] = {}
        shared = []
        for sequence in sequences:
            if sequence.num_computed_tokens % self.block_size:
                block = sequence.block_table[sequence.num_computed_tokens // self.block_size]
                holders[block] = holders.get(block, self._blocks[block].references) - 1
                if holders[block] > 0:
                    shared.append(sequence)
        return shared

    def _hold(self, index: int) -> None:
        self._blocks[index].references += 1
        self._free.pop(index, None)

    def _take(self) -> int:
        """A free block, without its former content."""
        index, _ = self._free.popitem(last=False)
        block = self._blocks[index]
        if block.content is not None:
            del self._published[block.content]
            self.evictions += 1
        self._blocks[index] = _Block(references=1)
        return index

    def _release(self, index: int) -> None:
        block = self._blocks[index]
        block.references -= 1
        if block.references == 0:
            self._free[index] = None
            if block.content is None:
                self._free.move_to_end(index, last=False)


def _demand(truth: bool, fault: str) -> None:
    if not truth:
        raise PipelineError(f"{fault}.")
