"""People who go away: what they held is free within a step, and nobody else notices (R1, R2)."""

import dataclasses
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pipeline.config import GenerationConfig
from pipeline.engine.request import Event, Finished, Progress, Request, Tokens
from pipeline.vision import BATCH
from tests.engine.asking import Asker, Hold, Recorder, Watch

ENDLESS = GenerationConfig.greedy(max_new_tokens=200, min_new_tokens=200)


@pytest.fixture(autouse=True)
def nothing_is_lost(asker: Asker) -> Iterator[None]:
    """Afterwards every block is free and the books agree."""
    yield
    asker.engine._blocks.check_integrity([])
    stats = asker.engine.stats()
    assert (stats.running, stats.waiting, stats.num_free_blocks) == (0, 0, stats.num_blocks)


def after_tokens(count: int) -> Watch:
    """True at so many tokens of the answer, of which a search may tell several at once."""
    told = 0

    def reached(event: Event) -> bool:
        nonlocal told
        before, told = told, told + (len(event.token_ids) if isinstance(event, Tokens) else 0)
        return before < count <= told

    return reached


def at(stage: str) -> Watch:
    return lambda event: isinstance(event, Progress) and event.stage == stage


def test_ten_of_a_hundred_leave_while_decoding_and_the_ninety_are_answered_as_if_alone(
    asker: Asker, requests: list[Request], alone: list[tuple[int, ...]]
) -> None:
    random = np.random.default_rng(0)
    leaving = set(random.choice(100, 10, replace=False).tolist())
    recorders: dict[int, Recorder] = {}
    left: dict[int, tuple[float, int]] = {}
    free_at: dict[int, int] = {}
    all_are_here = threading.Event()

    def leave(index: int) -> None:
        """Whatever the engine is at."""
        assert all_are_here.wait(60)
        recorders[index].ticket.cancel()
        left[index] = time.perf_counter(), asker.engine._steps

    def leaving_at(index: int, count: int) -> Watch:
        reached = after_tokens(count)

        def watch(event: Event) -> None:
            if reached(event):
                threads.submit(leave, index)
            if isinstance(event, Finished):
                free_at[index] = asker.engine._steps

        return watch

    with ThreadPoolExecutor(10) as threads:
        for index in range(100):
            request = requests[index % len(requests)]
            if index in leaving:
                request = dataclasses.replace(request, generation=ENDLESS)
                recorders[index] = asker.submit(request, leaving_at(index, int(random.integers(1, 40))))
            else:
                recorders[index] = asker.submit(request)
        all_are_here.set()
        outcomes = {index: recorder.outcome() for index, recorder in recorders.items()}
    exact = sum(outcomes[index].token_ids == alone[index % len(alone)] for index in outcomes if index not in leaving)
    late, free_ms = [], []
    for index, (moment, _) in left.items():
        recorder = recorders[index]
        late.append(sum(isinstance(event, Tokens) and at > moment for event, at in zip(recorder.events, recorder.times, strict=True)))
        free_ms.append(1000 * (recorder.times[-1] - moment))
    p50, p99 = np.percentile(free_ms, [50, 99]).round(1)
    steps = max(free_at[index] - step for index, (_, step) in left.items())
    figures = {"cancel_to_free_ms": {"p50": p50, "p99": p99}, "steps_until_free": steps, "tokens_after_cancel": max(late)}
    print(json.dumps({"R1": {**figures, "others_exact": exact}}))
    assert left.keys() == leaving
    assert all(outcomes[index].reason == "cancelled" for index in leaving)
    assert max(late) <= 1
    assert steps <= 1  # the one that was under way
    assert exact == 90


MOMENTS: dict[str, Callable[[], Watch]] = {
    "in vision": lambda: at("vision"),
    "at the last slices": lambda: lambda event: isinstance(event, Progress) and event.stage == "vision" and event.total - event.done <= BATCH,
    "in prefill": lambda: at("prefill"),
    "at the first token": lambda: after_tokens(1),
    "while decoding": lambda: after_tokens(7),
    "in the last step": lambda: after_tokens(24),
}


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("moment", MOMENTS)
def test_whoever_leaves_frees_everything_and_the_next_answer_is_as_if_they_had_never_asked(
    asker: Asker, requests: list[Request], alone: list[tuple[int, ...]], moment: str, beams: int
) -> None:
    asker.forget()
    asker.vision._cache._embeds.clear()
    several = next(request for request in requests if len(request.slices) > 2)
    mode = {"num_beams": beams, "max_new_tokens": 24, "min_new_tokens": 24, "do_sample": False}
    recorder = asker.submit(dataclasses.replace(several, generation=GenerationConfig(**mode)), MOMENTS[moment]())
    outcome = recorder.outcome()
    assert recorder.cancelled_after is not None
    # Whoever leaves in the last step has the whole answer by then; a search may tell all of it there.
    whole = {True} if moment == "in the last step" else {False, beams > 1 and moment in ("at the first token", "while decoding")}
    assert (outcome.reason == "length") in whole
    assert outcome.reason in ("length", "cancelled")
    if moment == "at the last slices":
        assert outcome.encoded_slices == len(several.slices)
    left_at = recorder.cancelled_after - 1
    free_ms = round(1000 * (recorder.times[-1] - recorder.times[left_at]), 1)
    assert recorder.events[left_at + 1 :] == [outcome], "no further slices, no further chunk, no further tokens"
    recorder.ticket.cancel()
    index = requests.index(several)
    assert asker.submit(several).outcome().token_ids == alone[index]
    figures = {"events_after_cancel": len(recorder.events) - recorder.cancelled_after, "free_ms": free_ms}
    print(json.dumps({"R2": {"moment": moment, "beams": beams, **figures}}))


def test_leaving_the_queue_before_anything_began_costs_nothing(asker: Asker, requests: list[Request]) -> None:
    hold, leave = Hold(Tokens), after_tokens(3)
    blocker = asker.submit(dataclasses.replace(requests[0], generation=ENDLESS), lambda event: hold(event) or leave(event))
    assert hold.reached.wait(60)
    waiting = [asker.submit(request) for request in requests[:10]]
    for recorder in (*waiting, *waiting):
        recorder.ticket.cancel()
    before = asker.vision.encoded
    hold.released.set()
    ends = Counter(recorder.outcome().reason for recorder in waiting)
    print(json.dumps({"R2": {"moment": "in the queue", **ends, "encoded": asker.vision.encoded - before}}))
    assert {(recorder.outcome().reason, recorder.outcome().token_ids) for recorder in waiting} == {("cancelled", ())}
    assert asker.vision.encoded == before
    assert blocker.outcome().reason == "cancelled"
