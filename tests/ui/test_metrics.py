"""What is counted of requests, and what an operator reads about the engine."""

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.exposition import generate_latest

from pipeline import Delta, EngineDead, InputError, Overloaded, PipelineError, Status, TextDelta
from pipeline.engine.request import Stats
from tests.serving import answer
from ui.metrics import OUTCOMES, Metrics

BOOKS = Stats(
    running=2, waiting=3, num_blocks=100, num_free_blocks=40, block_hits=7, block_evictions=5, preemptions=1, encoded_slices=9, generated_tokens=11,
    tokens_per_second=0.5, failures=1, health="serving", kv_cache_bytes=1600, vision_cache_bytes=64,
)  # fmt: skip


def _value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


class Clock:
    """A second passes with every look."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


async def _stream(*steps: Delta | Exception) -> AsyncGenerator[Delta, None]:
    for step in steps:
        if isinstance(step, Exception):
            raise step
        yield step


async def _observed(*steps: Delta | Exception) -> Metrics:
    metrics = Metrics(lambda: None, Clock())
    with contextlib.suppress(PipelineError, RuntimeError):
        assert [delta async for delta in metrics.observe(_stream(*steps))] == list(steps)
    return metrics


@pytest.mark.parametrize(
    ("outcome", "last"),
    [
        ("answered", answer("a")),
        ("cut", answer("a", finish_reason="length")),
        ("stopped", answer("a", finish_reason="cancelled")),
        ("refused", InputError("no")),
        ("overloaded", Overloaded("later")),
        ("failed", EngineDead("dead")),
        ("failed", RuntimeError("ours")),
    ],
)
async def test_a_request_is_counted_by_how_it_ended(outcome: str, last: Any) -> None:
    metrics = await _observed(Status("queued", 0, 1), last)
    assert {name: _value(metrics, "requests_total", outcome=name) for name in OUTCOMES} == {name: name == outcome for name in OUTCOMES}
    assert _value(metrics, "requests_under_way") == 0


async def test_a_stream_that_is_closed_counts_as_stopped_and_closes_the_one_inside() -> None:
    closed = asyncio.Event()

    async def endless() -> AsyncGenerator[Delta, None]:
        try:
            while True:
                yield TextDelta("a")
        finally:
            closed.set()

    metrics = Metrics(lambda: None)
    stream = metrics.observe(endless())
    await anext(stream)
    assert _value(metrics, "requests_under_way") == 1
    await stream.aclose()
    assert closed.is_set()
    assert _value(metrics, "requests_under_way") == 0
    assert _value(metrics, "requests_total", outcome="stopped") == 1


async def test_times_are_those_to_the_first_words_and_to_the_end_and_tokens_add_up() -> None:
    last = answer("ab", prompt_tokens=100, image_tokens=64, cached_tokens=60)
    metrics = await _observed(Status("prefill", 0, 1), TextDelta("a"), TextDelta("b"), last)
    assert _value(metrics, "time_to_first_token_seconds_sum") == 1
    assert _value(metrics, "time_to_first_token_seconds_count") == 1
    assert _value(metrics, "answer_seconds_sum") == 2
    assert [_value(metrics, f"{name}_total") for name in ("prompt_tokens", "image_tokens", "cached_prompt_tokens")] == [100, 64, 60]


def test_the_books_of_the_engine_are_read_when_they_are_asked_for_and_missing_without_one() -> None:
    there: list[Stats] = []
    metrics = Metrics(lambda: there[0] if there else None)
    assert _value(metrics, "ready") == 0
    assert _value(metrics, "kv_blocks") is None
    there.append(BOOKS)
    names = {
        "ready": 1, "engine_running": 2, "engine_waiting": 3, "kv_blocks": 100, "kv_blocks_free": 40, "prefix_cache_hits_total": 7,
        "prefix_cache_evictions_total": 5, "preemptions_total": 1, "encoded_slices_total": 9, "generated_tokens_total": 11,
        "engine_failures_total": 1, "kv_cache_bytes": 1600, "vision_cache_bytes": 64,
    }  # fmt: skip
    assert {name: _value(metrics, name) for name in names} == names


def test_the_memory_of_the_process_is_told() -> None:
    assert b"\nprocess_resident_memory_bytes " in generate_latest(Metrics(lambda: None).registry)


def test_two_servers_in_one_process_count_apart() -> None:
    assert Metrics(lambda: None).registry is not Metrics(lambda: None).registry


def test_the_documented_metrics_are_all_that_there_are_beside_the_process() -> None:
    table = (Path(__file__).parent.parent.parent / "docs" / "operate.md").read_text().split("| metric | meaning |")[1].split("\n\n")[0]
    documented = {name for row in table.splitlines()[2:] for name in re.findall(r"`([a-z_]+)(?:\{outcome\})?`", row.split("|")[1])}
    there = Metrics(lambda: BOOKS).registry.collect()
    names = {f"{family.name}_total" if family.type == "counter" else family.name for family in there}
    assert {name for name in names if not name.startswith("process_")} | {"page_waiting", "process_resident_memory_bytes"} == documented
