"""A step of the model that takes longer than anybody should notice: the event loop, which serves everybody else, goes on beside it."""

import json
import time
from collections.abc import Sequence

import pytest

from pipeline.artifacts import BUNDLED
from pipeline.assistant import Assistant
from pipeline.config import EngineConfig, GenerationConfig
from pipeline.engine.compiled import Logits
from pipeline.engine.model_runner import Rows
from pipeline.message import Message
from tests.lateness import BOUND_SECONDS, lateness


async def test_the_event_loop_is_never_late_beside_a_step_that_takes_longer_than_that(monkeypatch: pytest.MonkeyPatch) -> None:
    with Assistant(BUNDLED, EngineConfig(device="CPU", prefill_chunk_tokens=8192)) as assistant:
        steps: list[float] = []
        forward = assistant._engine._runner.forward

        def timed(batch: Sequence[Rows]) -> Logits:
            began = time.perf_counter()
            logits = forward(batch)
            steps.append(time.perf_counter() - began)
            return logits

        monkeypatch.setattr(assistant._engine._runner, "forward", timed)
        async with lateness() as late:
            answer = await assistant.answer([Message.user("word " * 6000)], GenerationConfig.greedy(max_new_tokens=1))
    line = {"prompt_tokens": answer.prompt_tokens, "longest_step_s": max(steps), "latest_tick_s": max(late.ticks), "other_process_s": late.machine}
    print(json.dumps({"event loop": {name: round(value, 3) for name, value in line.items()}}))
    assert len(steps) == 1, "the whole prompt in one step"
    assert max(steps) > 3 * BOUND_SECONDS, "who stands still for a step would be noticed"
    assert not late.is_noticed, line
