"""Steps: who gets how many tokens, who waits for whom, and who gives way."""

import pytest

from pipeline.engine.block_manager import BlockManager
from pipeline.engine.scheduler import Scheduler, Step
from pipeline.engine.sequence import Group, Sequence


def serving(num_blocks: int = 64, max_running: int = 8, chunk: int = 16, mixed: int = 8) -> tuple[BlockManager, Scheduler]:
    blocks = BlockManager(num_blocks, 4)
    return blocks, Scheduler(blocks, max_running, chunk, mixed)


def prompt(first: int, length: int) -> Group:
    return Group([Sequence([first, *range(length - 1)])])


def run(blocks: BlockManager, scheduler: Scheduler) -> Step:
    """One step; who has no token left gets one more."""
    scheduler.admit()
    step = scheduler.schedule()
    for chunk in step.chunks:
        blocks.publish(chunk.sequence, chunk.num_tokens - chunk.sequence.num_guesses)
    for group in dict.fromkeys(chunk.group for chunk in step.chunks):
        for sequence in group.sequences:
            if sequence.num_uncomputed_tokens == sequence.num_guesses:
                sequence.take_back()
                sequence.keys.append(1)
    return step


def shares(step: Step) -> list[tuple[Group, int]]:
    return [(chunk.group, chunk.num_tokens) for chunk in step.chunks]


def test_a_prompt_alone_is_read_in_whole_chunks() -> None:
    blocks, scheduler = serving()
    group = prompt(1, 40)
    scheduler.add(group)
    assert [shares(run(blocks, scheduler)) for _ in range(4)] == [[(group, 16)], [(group, 16)], [(group, 8)], [(group, 1)]]


def test_who_decodes_comes_first_and_prompts_get_what_that_leaves_of_a_step() -> None:
    blocks, scheduler = serving()
    readers = [prompt(first, 3) for first in (1, 2, 3)]
    for group in readers:
        scheduler.add(group)
    run(blocks, scheduler)
    late = prompt(9, 30)
    scheduler.add(late)
    assert shares(run(blocks, scheduler)) == [*((group, 1) for group in readers), (late, 5)]


def test_prompts_get_half_of_a_step_however_many_decode() -> None:
    blocks, scheduler = serving()
    readers = [prompt(first, 2) for first in range(1, 8)]
    for group in readers:
        scheduler.add(group)
    run(blocks, scheduler)
    late = prompt(20, 30)
    scheduler.add(late)
    assert shares(run(blocks, scheduler)) == [*((group, 1) for group in readers), (late, 4)]


def test_prompts_share_a_step_fairly_and_what_a_short_one_leaves_goes_to_the_others() -> None:
    blocks, scheduler = serving(chunk=15)
    long, middle, short = prompt(1, 40), prompt(2, 30), prompt(3, 3)
    for group in (long, middle, short):
        scheduler.add(group)
    assert shares(run(blocks, scheduler)) == [(short, 3), (middle, 6), (long, 6)]


def test_an_uneven_rest_is_not_lost() -> None:
    blocks, scheduler = serving(chunk=16)
    groups = [prompt(first, 20 + first) for first in (1, 2, 3)]
    for group in groups:
        scheduler.add(group)
    assert [tokens for _, tokens in shares(run(blocks, scheduler))] == [6, 5, 5]


def test_no_more_run_than_may_and_who_came_first_is_admitted_first() -> None:
    _, scheduler = serving(max_running=2)
    groups = [prompt(first, 3) for first in (1, 2, 3)]
    for group in groups:
        scheduler.add(group)
    assert scheduler.admit() == scheduler.running == groups[:2]
    assert list(scheduler.waiting) == groups[2:]
    scheduler.remove(groups[0])
    assert scheduler.admit() == groups[2:]
    scheduler.remove(groups[2])
    assert scheduler.running == groups[1:2]


def test_who_is_not_ready_computes_nothing_and_keeps_nobody_waiting() -> None:
    blocks, scheduler = serving()
    waits, goes_on = prompt(1, 8), prompt(2, 8)
    waits.ready = False
    for group in (waits, goes_on):
        scheduler.add(group)
    assert shares(run(blocks, scheduler)) == [(goes_on, 8)]
    assert shares(run(blocks, scheduler)) == [(goes_on, 1)]
    waits.ready = True
    assert shares(run(blocks, scheduler)) == [(goes_on, 1), (waits, 7)]


def test_a_quarter_of_the_places_is_for_those_who_wait_for_no_picture() -> None:
    _, scheduler = serving(max_running=4)
    shown, words = [prompt(first, 3) for first in range(1, 6)], [prompt(first, 3) for first in range(6, 8)]
    for group in shown:
        group.ready = False
    for group in (*shown, *words):
        scheduler.add(group)
    assert scheduler.admit() == [*shown[:3], words[0]]
    assert list(scheduler.waiting) == [*shown[3:], words[1]]
    scheduler.remove(words[0])
    assert scheduler.admit() == [words[1]]
    scheduler.remove(words[1])
    assert scheduler.admit() == []
    shown[1].ready = True
    assert scheduler.admit() == [shown[3]]
    assert list(scheduler.waiting) == [shown[4]]


@pytest.mark.parametrize(("places", "for_pictures"), [(1, 1), (2, 1), (3, 2), (7, 6), (8, 6), (16, 12)])
def test_at_least_one_place_of_several_is_left_and_one_place_alone_is_for_anybody(places: int, for_pictures: int) -> None:
    _, scheduler = serving(max_running=places)
    for first in range(places):
        scheduler.add(Group([Sequence([first, 0])], ready=False))
    assert len(scheduler.admit()) == for_pictures


def test_a_prompt_that_the_pool_cannot_hold_beside_the_others_waits_without_holding_blocks() -> None:
    blocks, scheduler = serving(num_blocks=4)
    first, second = prompt(1, 8), prompt(2, 12)
    for group in (first, second):
        scheduler.add(group)
    assert scheduler.admit() == [first]
    assert not second.sequences[0].block_table
    scheduler.remove(first)
    assert scheduler.admit() == [second]
    assert shares(run(blocks, scheduler)) == [(second, 12)]


def test_what_the_cache_holds_counts_as_room() -> None:
    blocks, scheduler = serving(num_blocks=5)
    first = prompt(1, 12)
    scheduler.add(first)
    run(blocks, scheduler)
    same = prompt(1, 16)
    scheduler.add(same)
    assert scheduler.admit() == [same]
    assert same.sequences[0].num_computed_tokens == 12


def test_who_came_last_gives_way_and_comes_back_before_those_that_wait() -> None:
    blocks, scheduler = serving(num_blocks=4, max_running=2)
    first, second, third = prompt(1, 8), prompt(2, 8), prompt(3, 2)
    for group in (first, second, third):
        scheduler.add(group)
    run(blocks, scheduler)
    step = run(blocks, scheduler)
    assert shares(step) == [(first, 1)]
    assert step.exhausted == ()
    assert scheduler.preemptions == 1
    assert list(scheduler.waiting) == [second, third]
    assert (second.sequences[0].block_table, second.sequences[0].num_computed_tokens) == ([], 0)


def test_everybody_who_gives_way_is_counted() -> None:
    blocks, scheduler = serving(num_blocks=4, max_running=4)
    groups = [prompt(first, 4) for first in (1, 2, 3, 4)]
    for group in groups:
        scheduler.add(group)
    run(blocks, scheduler)
    assert shares(run(blocks, scheduler)) == [(groups[0], 1), (groups[1], 1)]
    assert scheduler.preemptions == 2
    assert list(scheduler.waiting) == groups[2:]


def test_prompts_that_hold_each_other_up_give_way_one_after_the_other_until_one_goes_on() -> None:
    blocks, scheduler = serving(num_blocks=4, chunk=8)
    first, second = (Group([Sequence([start, *range(15)])]) for start in (1, 2))
    scheduler.running += [first, second]  # as after the blocks that both counted on were taken over by nobody
    assert shares(run(blocks, scheduler)) == [(first, 4), (second, 4)]
    assert shares(run(blocks, scheduler)) == [(first, 4), (second, 4)]
    assert shares(run(blocks, scheduler)) == [(first, 8)]
    assert (scheduler.running, list(scheduler.waiting), scheduler.preemptions) == ([first], [second], 1)


def test_of_several_prompts_that_hold_each_other_up_the_one_that_came_last_gives_way() -> None:
    blocks, scheduler = serving(num_blocks=3, chunk=12)
    groups = [Group([Sequence([start, *range(15)])]) for start in (1, 2, 3)]
    scheduler.running += groups
    assert shares(run(blocks, scheduler)) == [(group, 4) for group in groups]
    run(blocks, scheduler)
    assert (scheduler.running, list(scheduler.waiting)) == (groups[:1], groups[1:])


def test_a_prompt_that_the_whole_pool_cannot_hold_is_exhausted() -> None:
    blocks, scheduler = serving(num_blocks=2)
    group = prompt(1, 12)
    scheduler.add(group)
    assert shares(run(blocks, scheduler)) == []
    assert run(blocks, scheduler).exhausted == (group,)


def test_beams_for_which_the_pool_has_no_room_even_alone_are_exhausted() -> None:
    blocks, scheduler = serving(num_blocks=2)
    group = prompt(1, 6)
    scheduler.add(group)
    run(blocks, scheduler)
    former = group.sequences[0]
    group.sequences = [blocks.fork(former) for _ in range(2)]
    blocks.free(former)
    step = run(blocks, scheduler)
    assert (step.chunks, step.exhausted, scheduler.preemptions) == ((), (group,), 0)


def test_who_has_the_pool_alone_and_finds_no_room_is_exhausted() -> None:
    blocks, scheduler = serving(num_blocks=2)
    group = prompt(1, 8)
    scheduler.add(group)
    run(blocks, scheduler)
    step = run(blocks, scheduler)
    assert step == Step((), (), (group,))


def test_guesses_take_no_room_from_anybody() -> None:
    blocks, scheduler = serving(num_blocks=4)
    guesser, other = prompt(1, 7), prompt(2, 7)
    for group in (guesser, other):
        scheduler.add(group)
    run(blocks, scheduler)
    guesser.sequences[0].guess([5, 6])
    step = run(blocks, scheduler)
    assert shares(step) == [(guesser, 1), (other, 1)]
    assert scheduler.preemptions == 0


def test_guesses_are_computed_where_there_is_room() -> None:
    blocks, scheduler = serving()
    guesser = prompt(1, 7)
    scheduler.add(guesser)
    run(blocks, scheduler)
    guesser.sequences[0].guess([5, 6])
    assert shares(run(blocks, scheduler)) == [(guesser, 3)]


def test_who_is_refused_for_want_of_room_again_and_again_counts_no_hits() -> None:
    blocks, scheduler = serving(num_blocks=4)
    first, waits = prompt(1, 8), prompt(1, 14)
    for group in (first, waits):
        scheduler.add(group)
    run(blocks, scheduler)
    for _ in range(3):
        assert scheduler.admit() == []
    assert blocks.hits == 0
    scheduler.remove(first)
    assert scheduler.admit() == [waits]
    assert blocks.hits == 2


def test_a_beam_whose_beginning_another_beam_has_just_computed_decodes_at_once() -> None:
    """After both gave way where each needed a block of its own: there is nothing left for the second to read by itself."""
    blocks, scheduler = serving()
    group = Group([Sequence([*range(8), last]) for last in (8, 9)])
    scheduler.add(group)
    assert shares(run(blocks, scheduler)) == [(group, 8)]
    step = run(blocks, scheduler)
    assert shares(step) == [(group, 1)] * 2
    assert step.exhausted == ()


def test_two_prompts_that_begin_alike_compute_the_beginning_once() -> None:
    blocks, scheduler = serving(chunk=8)
    first, second = prompt(1, 20), prompt(1, 24)
    scheduler.add(first)
    run(blocks, scheduler)
    run(blocks, scheduler)
    scheduler.add(second)
    scheduler.admit()
    assert second.sequences[0].num_computed_tokens == 16
    assert blocks.hits == 4


def test_all_beams_are_computed_together_each_with_a_block_of_its_own() -> None:
    blocks, scheduler = serving()
    group = prompt(1, 6)
    scheduler.add(group)
    run(blocks, scheduler)
    former = group.sequences[0]
    group.sequences = [blocks.fork(former) for _ in range(3)]
    blocks.free(former)
    step = run(blocks, scheduler)
    assert shares(step) == [(group, 1)] * 3
    assert len(step.copies) == 2
    assert len({sequence.block_table[-1] for sequence in group.sequences}) == 3
