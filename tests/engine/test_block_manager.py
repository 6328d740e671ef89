"""Blocks: what is found again and what is not, whose turn it is to be evicted, and books that notice when they are wrong."""

from collections.abc import Callable

import pytest

from pipeline.engine.block_manager import BlockManager
from pipeline.engine.sequence import Key, Sequence
from pipeline.errors import PipelineError


def computed(blocks: BlockManager, keys: list[Key]) -> Sequence:
    """A sequence all of whose tokens were computed, what the cache had excepted."""
    sequence = Sequence(keys)
    blocks.attach(sequence)
    assert blocks.reserve([sequence], sequence.num_uncomputed_tokens) == []
    blocks.publish(sequence, sequence.num_uncomputed_tokens)
    return sequence


@pytest.mark.parametrize(("tokens", "found"), [(1, 0), (4, 0), (5, 4), (8, 4), (9, 8), (12, 8), (13, 12)])
def test_full_blocks_are_found_again_but_never_the_last_token(tokens: int, found: int) -> None:
    blocks = BlockManager(8, 4)
    computed(blocks, list(range(16)))
    sequence = Sequence(list(range(tokens)))
    assert blocks.attach(sequence) == sequence.num_computed_tokens == found
    assert blocks.hits == len(sequence.block_table) == found // 4


@pytest.mark.parametrize("keys", [[0, 1, 2, 3, 4, 5, 9, 7, 8], [0, 1, 2, 3, (b"a", 0), 5, 6, 7, 8], [9, 1, 2, 3, 4, 5, 6, 7, 8]])
def test_a_block_is_found_only_after_the_same_blocks_and_with_the_same_keys(keys: list[Key]) -> None:
    blocks = BlockManager(8, 4)
    computed(blocks, list(range(9)))
    assert blocks.attach(Sequence(keys)) == (4 if keys[0] == 0 else 0)


def test_what_stands_second_in_one_sequence_is_not_found_as_the_first_of_another() -> None:
    blocks = BlockManager(8, 4)
    computed(blocks, list(range(8)))
    assert blocks.attach(Sequence([4, 5, 6, 7, 0])) == 0


def test_what_only_hashes_alike_is_not_found() -> None:
    assert hash((-1, 1, 2, 3)) == hash((-2, 1, 2, 3))
    blocks = BlockManager(8, 4)
    computed(blocks, [-1, 1, 2, 3, 4])
    assert blocks.attach(Sequence([-2, 1, 2, 3, 4])) == 0
    assert blocks.attach(Sequence([-1, 1, 2, 3, 4])) == 4


def test_a_half_computed_block_takes_over_nothing() -> None:
    blocks = BlockManager(8, 4)
    computed(blocks, list(range(12)))
    sequence = Sequence(list(range(12)))
    blocks.reserve([sequence], 2)
    blocks.publish(sequence, 2)
    assert blocks.attach(sequence) == 0
    assert blocks.hits == 0


def test_a_sequence_under_way_takes_over_what_another_has_computed_meanwhile() -> None:
    blocks = BlockManager(8, 4)
    late = Sequence(list(range(13)))
    blocks.reserve([late], 4)
    blocks.publish(late, 4)
    computed(blocks, list(range(13)))
    assert blocks.attach(late) == 8
    assert late.num_computed_tokens == 12


def test_two_that_computed_the_same_share_it_from_then_on() -> None:
    blocks = BlockManager(8, 4)
    first, second = (Sequence(list(range(6))) for _ in range(2))
    for sequence in (first, second):
        blocks.reserve([sequence], 6)
    assert blocks.num_free_blocks == 4
    for sequence in (first, second):
        blocks.publish(sequence, 6)
    assert first.block_table[0] == second.block_table[0]
    assert first.block_table[1] != second.block_table[1]
    assert blocks.num_free_blocks == 5
    blocks.check_integrity([first, second])


def test_what_there_is_no_room_for_changes_nothing() -> None:
    blocks = BlockManager(3, 4)
    sequence = Sequence(list(range(20)))
    assert blocks.reserve([sequence], 13) is None
    assert (sequence.block_table, blocks.num_free_blocks) == ([], 3)
    assert blocks.reserve([sequence], 12) == []
    assert blocks.num_free_blocks == 0


def test_empty_blocks_are_taken_first_then_those_least_recently_freed_and_ends_before_beginnings() -> None:
    blocks = BlockManager(6, 4)
    older, newer = computed(blocks, [*range(8)]), computed(blocks, [*range(50, 58)])
    beginning, end = older.block_table
    blocks.free(older)
    blocks.free(newer)
    assert blocks.num_free_blocks == 6
    taken = Sequence(list(range(100, 116)))
    blocks.reserve([taken], 8)
    assert blocks.evictions == 0
    blocks.publish(taken, 8)
    blocks.reserve([taken], 4)
    assert (blocks.evictions, taken.block_table[-1]) == (1, end)
    blocks.publish(taken, 4)
    blocks.reserve([taken], 4)
    assert (blocks.evictions, taken.block_table[-1]) == (2, beginning)
    assert blocks.attach(Sequence([*range(8), 0])) == 0
    assert blocks.attach(Sequence([*range(50, 58), 0])) == 8


def test_a_block_that_never_held_anything_goes_back_to_the_front() -> None:
    blocks = BlockManager(4, 4)
    blocks.free(computed(blocks, [*range(12)]))
    unfinished = Sequence([90, 91])
    blocks.reserve([unfinished], 2)
    (own,) = unfinished.block_table
    blocks.free(unfinished)
    following = Sequence([80])
    blocks.reserve([following], 1)
    assert following.block_table == [own]
    assert blocks.evictions == 0


def test_what_is_used_again_is_evicted_last() -> None:
    blocks = BlockManager(2, 4)
    first, second = computed(blocks, [*range(4)]), computed(blocks, [*range(10, 14)])
    (kept,), (lost,) = first.block_table, second.block_table
    blocks.free(first)
    blocks.free(second)
    again = Sequence([*range(4), 9])
    blocks.attach(again)
    assert again.block_table == [kept]
    blocks.free(again)
    taken = Sequence([7])
    blocks.reserve([taken], 1)
    assert taken.block_table == [lost]


def test_a_fork_shares_full_blocks_and_copies_the_one_that_it_writes_to_unless_it_is_the_last_holder() -> None:
    blocks = BlockManager(8, 4)
    parent = computed(blocks, [*range(6)])
    child, twin = blocks.fork(parent), blocks.fork(parent)
    assert child.block_table == twin.block_table == parent.block_table
    assert (child.keys, child.num_computed_tokens) == (parent.keys, 6)
    for sequence in (parent, child, twin):
        sequence.keys.append(7)
    shared = parent.block_table[1]
    copies = blocks.reserve([parent, child, twin], 1)
    assert copies == [(shared, parent.block_table[1]), (shared, child.block_table[1])]
    assert twin.block_table[1] == shared
    assert len({sequence.block_table[0] for sequence in (parent, child, twin)}) == 1
    assert len({sequence.block_table[1] for sequence in (parent, child, twin)}) == 3
    blocks.check_integrity([parent, child, twin])


def test_copies_need_room_too() -> None:
    blocks = BlockManager(2, 4)
    parent = computed(blocks, [*range(6)])
    child = blocks.fork(parent)
    for sequence in (parent, child):
        sequence.keys.append(7)
    assert blocks.reserve([parent, child], 1) is None
    assert child.block_table == parent.block_table
    blocks.free(child)
    assert blocks.reserve([parent], 1) == []


def _wrong_references(blocks: BlockManager, sequence: Sequence) -> None:
    blocks._blocks[sequence.block_table[0]].references += 1


def _free_though_held(blocks: BlockManager, sequence: Sequence) -> None:
    blocks._free[sequence.block_table[0]] = None


def _neither_held_nor_free(blocks: BlockManager, _: Sequence) -> None:
    blocks._free.popitem()


def _other_content(blocks: BlockManager, sequence: Sequence) -> None:
    sequence.keys[0] = 99


def _not_found(blocks: BlockManager, _: Sequence) -> None:
    blocks._published.clear()


def _found_without_content(blocks: BlockManager, _: Sequence) -> None:
    blocks._published[0, (1, 2, 3, 4)] = 5


def _more_computed_than_held(blocks: BlockManager, sequence: Sequence) -> None:
    sequence.num_computed_tokens = 9
    sequence.keys += [1, 2, 3]


def _more_computed_than_there_are_tokens(blocks: BlockManager, sequence: Sequence) -> None:
    sequence.num_computed_tokens = 7


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (_wrong_references, "A block's references are not the sequences that hold it."),
        (_free_though_held, "A block is held and free, or neither."),
        (_neither_held_nor_free, "A block is held and free, or neither."),
        (_other_content, "A sequence holds a block of other content."),
        (_not_found, "A block has content under which it is not found."),
        (_found_without_content, "A content is found that no block has."),
        (_more_computed_than_held, "A sequence has computed more than its blocks or tokens hold."),
        (_more_computed_than_there_are_tokens, "A sequence has computed more than its blocks or tokens hold."),
    ],
)
def test_books_that_contradict_each_other_are_noticed(spoil: Callable[[BlockManager, Sequence], None], fault: str) -> None:
    blocks = BlockManager(8, 4)
    sequence = computed(blocks, [*range(6)])
    blocks.check_integrity([sequence])
    spoil(blocks, sequence)
    with pytest.raises(PipelineError) as error:
        blocks.check_integrity([sequence])
    assert str(error.value) == fault
