"""More than there is room for: fair shares, polite refusals, an exhausted pool, a model that fails (R8, R9, R11, R12)."""

import dataclasses
import json
import threading
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import EngineConfig, GenerationConfig
from pipeline.engine.request import Event, Failed, Finished, Progress, Request, Tokens
from pipeline.errors import EngineDead, Overloaded
from pipeline.message import Message
from tests.engine.asking import Asker, Hold, Watch

ENDLESS = GenerationConfig.greedy(max_new_tokens=200, min_new_tokens=200)
ENGINE = EngineConfig(device="CPU", max_waiting=16, max_running=9)


def test_a_long_prompt_takes_its_share_of_a_step_and_nobody_waits_for_the_whole_of_it(demo_folder: Path) -> None:
    """Eight chats decode when a prompt of thousands of tokens arrives; then a short one arrives while the long one is read."""
    order: list[tuple[object, Event]] = []
    begun, all_speak = threading.Event(), threading.Event()

    def watch(name: object) -> Watch:
        def note(event: Event) -> None:
            order.append((name, event))
            if name == "long" and isinstance(event, Progress) and event.done > 0:
                begun.set()
            if not all_speak.is_set() and len({speaker for speaker, said in order if isinstance(said, Tokens)}) == 8:
                all_speak.set()

        return note

    with Asker(demo_folder, dataclasses.replace(ENGINE, max_running=10), blocks=2048) as asker:
        long_request = asker.request(Message.user("word " * 5900), generation=GenerationConfig.greedy(max_new_tokens=2, min_new_tokens=2))
        chats = [asker.submit(asker.request(Message.user(f"Count to {index}."), generation=ENDLESS), watch(index)) for index in range(8)]
        assert all_speak.wait(60)
        long = asker.submit(long_request, watch("long"))
        assert begun.wait(60)
        short = asker.submit(asker.request(Message.user("Hi"), generation=ENDLESS), watch("short"))
        assert {recorder.outcome().reason for recorder in (long, short, *chats)} == {"length"}
    reads = [place for place, (name, event) in enumerate(order) if name == "long" and isinstance(event, Progress)]
    steps = [order[start:end] for start, end in pairwise(reads)]
    decoding = {name for name, event in order[: reads[0]] if isinstance(event, Tokens)}
    assert decoding
    spoken = [{name for name, event in step if isinstance(event, Tokens)} for step in steps]
    finished = {name for name, event in order[: reads[-1]] if isinstance(event, Finished)}
    missed = sum(not decoding - finished <= speakers for speakers in spoken)
    share = max(later.done - earlier.done for (_, earlier), (_, later) in pairwise([order[place] for place in reads]))
    short_waits = next(index for index, speakers in enumerate(spoken) if "short" in speakers)
    read_at = [at for event, at in zip(long.events, long.times, strict=True) if isinstance(event, Progress) and event.done > 0]
    told = [[at for event, at in zip(chat.events, chat.times, strict=True) if isinstance(event, Tokens)] for chat in chats]
    gaps = [(later, later - earlier) for times in told for earlier, later in pairwise(times)]
    during, others = ([gap for at, gap in gaps if (read_at[0] < at <= read_at[-1]) is beside] for beside in (True, False))
    ratio = float(np.percentile(during, 99) / np.percentile(others, 99))
    figures = {"steps": len(steps), "missed_tokens": missed, "prefill_tokens_a_step": share, "short_begins_after_steps": short_waits}
    print(json.dumps({"R8": {"prompt_tokens": len(long_request.prompt.input_ids), **figures, "itl_p99_ratio": round(ratio, 2)}}))
    assert missed == 0
    assert share == ENGINE.mixed_step_tokens - 8, "the prompt gets what eight chats leave of a step"
    assert short_waits <= 4


def test_who_comes_when_the_queue_is_full_is_told_its_length_and_nobody_hangs(demo_folder: Path, requests: list[Request]) -> None:
    with Asker(demo_folder, dataclasses.replace(ENGINE, max_running=4)) as asker:
        hold = Hold(Tokens)
        recorders = [asker.submit(requests[0], hold)]
        assert hold.reached.wait(60)
        refusals = []
        for index in range(1, 50):
            try:
                recorders.append(asker.submit(requests[index % len(requests)]))
            except Overloaded as refusal:
                refusals.append(str(refusal))
        hold.released.set()
        served = [recorder.outcome() for recorder in recorders]
    print(json.dumps({"R9": {"served": len(served), "refused_politely": len(refusals)}}))
    assert (len(served), len(refusals)) == (20, 30)
    assert all(outcome.reason in ("stop", "length") for outcome in served)
    assert set(refusals) == {"The queue is full (16 waiting, the limit is 16): please try again in a while."}


def test_endless_answers_in_ten_blocks_end_and_leave_nothing_behind_twice(demo_folder: Path) -> None:
    endless = GenerationConfig.greedy(max_new_tokens=32_768, min_new_tokens=32_768)
    with Asker(demo_folder, ENGINE, blocks=10) as asker:
        for _ in range(2):
            recorders = [asker.submit(asker.request(Message.user(f"Tell me {index}."), generation=endless)) for index in range(6)]
            outcomes = [recorder.outcome() for recorder in recorders]
            stats = asker.engine.stats()
            for recorder in recorders:  # who gave way says nothing of it: what was said stays where it stands
                begun = next(index for index, event in enumerate(recorder.events) if isinstance(event, Tokens))
                assert not any(isinstance(event, Progress) for event in recorder.events[begun:])
            asker.engine._blocks.check_integrity([])
            assert {outcome.reason for outcome in outcomes} == {"length"}
            assert [recorder.token_ids for recorder in recorders] == [outcome.token_ids for outcome in outcomes]
            assert stats.num_free_blocks == 10
    lengths = [len(outcome.token_ids) for outcome in outcomes]
    reasons = sorted({outcome.reason for outcome in outcomes})
    print(
        json.dumps(
            {"R11": {"finish_reasons": reasons, "free_blocks_after": stats.num_free_blocks, "preemptions": stats.preemptions, "tokens": lengths}}
        )
    )
    assert max(lengths) > 10 * 32 - 64


def test_a_model_that_fails_tells_everybody_and_answers_the_next_rightly(
    demo_folder: Path, requests: list[Request], alone: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of twelve, four of whom are computed while the others wait."""
    with Asker(demo_folder, dataclasses.replace(ENGINE, max_running=4)) as asker:
        forward, calls, unfinished, waiting, failed_at = asker.runner.forward, [], set(), 0, 0.0

        def evil(batch: object) -> object:
            nonlocal waiting, failed_at
            calls.append(1)
            if len(calls) == 10:
                unfinished.update(index for index, recorder in enumerate(recorders) if not recorder.done.is_set())
                waiting, failed_at = asker.engine.stats().waiting, time.perf_counter()
                raise RuntimeError("device lost")
            return forward(batch)

        monkeypatch.setattr(asker.runner, "forward", evil)
        hold = Hold(Progress, stage="prefill")
        recorders = [asker.submit(request, hold) for request in requests[:12]]
        hold.released.set()
        last = [recorder.last() for recorder in recorders]
        health = asker.engine.stats().health
        failed = {index: event for index, event in enumerate(last) if isinstance(event, Failed)}
        assert failed.keys() == unfinished
        assert waiting > 0
        assert all(isinstance(event.error, EngineDead) and "device lost" in str(event.error.__cause__) for event in failed.values())
        others = [index for index in range(len(last)) if index not in failed]
        assert [recorders[index].outcome().token_ids for index in others] == [alone[index] for index in others]
        recovery_s = max(recorders[index].times[-1] for index in failed) - failed_at
        answers = [asker.submit(request).outcome().token_ids for request in requests[:6]]
        asker.engine._blocks.check_integrity([])
    figures = {"requests_told": len(failed), "of_them_waiting": waiting, "recovery_s": round(recovery_s, 2), "health": health}
    print(json.dumps({"R12": {**figures, "right_afterwards": sum(a == b for a, b in zip(answers, alone, strict=False))}}))
    assert health == "serving"
    assert answers == alone[:6]
