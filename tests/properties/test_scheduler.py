"""The block manager under its scheduler: whatever arrives, ends, forks or gives way, every token is computed from what really came before (R6)."""

import json
from collections import Counter
from random import Random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pipeline.engine.block_manager import BlockManager
from pipeline.engine.scheduler import Scheduler
from pipeline.engine.sequence import Group, Key, Sequence

BLOCK_SIZE = 4
counted: Counter[str] = Counter()


class Serving(RuleBasedStateMachine):
    """An engine whose memory holds, instead of keys and values, all that they would have been computed from."""

    @initialize(num_blocks=st.integers(2, 12), max_running=st.integers(1, 4), chunk=st.integers(1, 12), mixed=st.integers(1, 6))
    def start(self, num_blocks: int, max_running: int, chunk: int, mixed: int) -> None:
        counted["examples"] += 1
        self.blocks = BlockManager(num_blocks, BLOCK_SIZE)
        self.scheduler = Scheduler(self.blocks, max_running, chunk, mixed)
        self.memory: dict[tuple[int, int], tuple[Key, ...]] = {}
        self.groups: list[Group] = []
        self.beams: dict[Group, int] = {}
        self.max_running = max_running

    @rule(
        beginning=st.sampled_from([[0, 0], [0, 0], [0, 0], [1, 2], [2]]),
        words=st.lists(st.sampled_from([1, 2]), min_size=1, max_size=9),
        picture=st.sampled_from([None, b"a", b"b"]),
        beams=st.sampled_from([1, 1, 3]),
    )
    def arrive(self, beginning: list[Key], words: list[Key], picture: bytes | None, beams: int) -> None:
        shown: list[Key] = [(picture, place) for place in range(5)] if picture else []
        keys = [*beginning, *shown, *words]
        if self.blocks.blocks_for(len(keys)) > self.blocks.num_blocks:
            return  # the engine refuses what can never fit
        group = Group([Sequence(keys)], ready=not shown)
        self.groups.append(group)
        self.beams[group] = beams
        self.scheduler.add(group)

    @precondition(lambda self: self.groups)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        self._end(data.draw(st.sampled_from(self.groups)))

    @rule(seed=st.integers(0, 2**16))
    def step(self, seed: int) -> None:
        counted["steps"] += 1
        random = Random(seed)
        self.scheduler.admit()
        for group in self.scheduler.running:
            group.ready = group.ready or random.random() < 0.5
        for group in self.scheduler.running:
            if group.ready and group.decoding and self.beams[group] == 1 and random.random() < 0.3:
                group.sequences[0].guess(random.choices([1, 2], k=random.randint(1, 5)))
        step = self.scheduler.schedule()
        for source, target in step.copies:
            for slot in range(BLOCK_SIZE):
                self.memory[target, slot] = self.memory.get((source, slot), ())
        written = set()
        for chunk in step.chunks:
            sequence = chunk.sequence
            for position in range(sequence.num_computed_tokens, sequence.num_computed_tokens + chunk.num_tokens):
                place = (sequence.block_table[position // BLOCK_SIZE], position % BLOCK_SIZE)
                assert place not in written
                written.add(place)
                self.memory[place] = tuple(sequence.keys[: position + 1])
        for chunk in step.chunks:
            self.blocks.publish(chunk.sequence, chunk.num_tokens - chunk.sequence.num_guesses)
        ready = any(group.ready for group in self.scheduler.running)
        assert step.chunks or step.exhausted or not ready
        for group in dict.fromkeys(chunk.group for chunk in step.chunks):
            if all(sequence.num_uncomputed_tokens == sequence.num_guesses for sequence in group.sequences):
                self._sample(group, random)
        for group in step.exhausted:
            assert self.scheduler.running == [group]
            assert self.blocks.reserve(group.sequences if group.decoding else [group.next_to_prefill], 1) is None
            self._end(group)

    @invariant()
    def the_books_agree(self) -> None:
        if not hasattr(self, "blocks"):
            return
        sequences = [sequence for group in self.groups for sequence in group.sequences]
        self.blocks.check_integrity(sequences)
        assert sorted(map(id, (*self.scheduler.waiting, *self.scheduler.running))) == sorted(map(id, self.groups))
        assert len(self.scheduler.running) <= self.max_running
        assert not any(sequence.block_table for group in self.scheduler.waiting for sequence in group.sequences)
        for sequence in sequences:
            for position in range(sequence.num_computed_tokens):
                place = (sequence.block_table[position // BLOCK_SIZE], position % BLOCK_SIZE)
                assert self.memory[place] == tuple(sequence.keys[: position + 1])

    def teardown(self) -> None:
        if not hasattr(self, "blocks"):
            return
        # Everybody who is still here gets an answer of two more tokens.
        for group in self.groups:
            group.ready = True
        left = dict.fromkeys(self.groups, 2)
        for _ in range(1000):
            if not self.groups:
                break
            self.scheduler.admit()
            step = self.scheduler.schedule()
            for chunk in step.chunks:
                self.blocks.publish(chunk.sequence, chunk.num_tokens)
            for group in dict.fromkeys(chunk.group for chunk in step.chunks):
                if all(sequence.num_uncomputed_tokens == 0 for sequence in group.sequences):
                    left[group] -= 1
                    for sequence in group.sequences:
                        sequence.keys.append(3)
            for group in [group for group in self.groups if group in step.exhausted or left[group] == 0]:
                self._end(group)
        assert not self.groups
        assert self.blocks.num_free_blocks == self.blocks.num_blocks
        counted["hits"] += self.blocks.hits
        counted["evictions"] += self.blocks.evictions
        counted["preemptions"] += self.scheduler.preemptions

    def _sample(self, group: Group, random: Random) -> None:
        if self.beams[group] > 1:
            parents = random.choices(range(len(group.sequences)), k=random.randint(1, self.beams[group]))
            following = [self.blocks.fork(group.sequences[parent]) for parent in parents]
            for sequence in group.sequences:
                self.blocks.free(sequence)
            group.sequences = following
            counted["forks"] += len(parents)
        for sequence in group.sequences:
            for guess in [*sequence.take_back(), None]:
                sequence.keys.append(random.randint(1, 2))
                if sequence.keys[-1] != guess:
                    break
                self.blocks.publish(sequence, 1)
                counted["right guesses"] += 1

    def _end(self, group: Group) -> None:
        self.groups.remove(group)
        self.scheduler.remove(group)


@pytest.mark.timeout(600)
def test_the_books_hold_whatever_happens() -> None:
    counted.clear()
    run = settings(max_examples=1200, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck))
    Serving.TestCase.settings = run
    Serving.TestCase("runTest").runTest()
    print(json.dumps({"R6": {**counted, "integrity_failures": 0}}))
    assert counted["steps"] >= 10_000
    assert min(counted[name] for name in ("hits", "evictions", "preemptions", "forks", "right guesses")) > 100
