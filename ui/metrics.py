"""Streams of deltas, and an engine's books -> counts and times for Prometheus. They tell how much, how long and how it ended, and never what."""

import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pipeline import Answer, InputError, Overloaded, TextDelta
from pipeline.engine.request import Stats

T = TypeVar("T")

OUTCOMES = ("answered", "cut", "stopped", "refused", "overloaded", "failed")
SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000)


class Metrics:
    """The counts of one server. `stats` gives the books of the engine, where there is one now."""

    def __init__(self, stats: Callable[[], Stats | None], clock: Callable[[], float] = time.perf_counter) -> None:
        self.registry = CollectorRegistry()
        self._clock = clock
        self._requests = Counter("requests", "Requests, by how they ended.", ["outcome"], registry=self.registry)
        for outcome in OUTCOMES:
            self._requests.labels(outcome)
        self._under_way = Gauge("requests_under_way", "Requests that wait for the model or are being answered.", registry=self.registry)
        self._first = Histogram("time_to_first_token_seconds", "From a request to its first words.", buckets=SECONDS, registry=self.registry)
        self._whole = Histogram("answer_seconds", "From a request to the end of its answer.", buckets=SECONDS, registry=self.registry)
        self._prompt = Counter("prompt_tokens", "Tokens of the prompts that were answered.", registry=self.registry)
        self._image = Counter("image_tokens", "Those of them that stand for pictures.", registry=self.registry)
        self._cached = Counter("cached_prompt_tokens", "Those of them that were not computed again.", registry=self.registry)
        self.registry.register(_Books(stats))
        ProcessCollector(registry=self.registry)

    async def observe(self, stream: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        """The stream as it is, and counted. Closing it closes that one."""
        started, spoken, outcome = self._clock(), False, "stopped"
        self._under_way.inc()
        try:
            async with aclosing(stream):
                async for delta in stream:
                    match delta:
                        case TextDelta() if not spoken:
                            spoken = True
                            self._first.observe(self._clock() - started)
                        case Answer():
                            outcome = {"stop": "answered", "length": "cut", "cancelled": "stopped"}[delta.finish_reason]
                            self._whole.observe(self._clock() - started)
                            self._prompt.inc(delta.prompt_tokens)
                            self._image.inc(delta.image_tokens)
                            self._cached.inc(delta.cached_tokens)
                    yield delta
        except Exception as error:
            outcome = "refused" if isinstance(error, InputError) else "overloaded" if isinstance(error, Overloaded) else "failed"
            raise
        finally:
            self._under_way.dec()
            self._requests.labels(outcome).inc()


class _Books(Collector):
    """The engine's, read when they are asked for; none while there is no engine."""

    def __init__(self, stats: Callable[[], Stats | None]) -> None:
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        stats = self._stats()
        yield GaugeMetricFamily("ready", "1 when the model answers.", float(stats is not None and stats.health == "serving"))
        if stats is None:
            return
        yield GaugeMetricFamily("engine_running", "Requests that are computed together.", stats.running)
        yield GaugeMetricFamily("engine_waiting", "Requests in the engine's queue.", stats.waiting)
        yield GaugeMetricFamily("kv_blocks", "Blocks of keys and values that there is memory for.", stats.num_blocks)
        yield GaugeMetricFamily("kv_blocks_free", "Those of them that no request holds.", stats.num_free_blocks)
        yield GaugeMetricFamily("kv_cache_bytes", "Memory of all the blocks, once each has been used.", stats.kv_cache_bytes)
        yield CounterMetricFamily("prefix_cache_hits", "Blocks that were found computed.", stats.block_hits)
        yield CounterMetricFamily("prefix_cache_evictions", "Computed blocks that made room for others.", stats.block_evictions)
        yield CounterMetricFamily("preemptions", "Requests that had to give up their blocks and begin again.", stats.preemptions)
        yield CounterMetricFamily("encoded_slices", "Slices of pictures that were encoded.", stats.encoded_slices)
        yield GaugeMetricFamily("vision_cache_bytes", "Memory of the encoded slices that are kept.", stats.vision_cache_bytes)
        yield CounterMetricFamily("generated_tokens", "Tokens of answers.", stats.generated_tokens)
        yield CounterMetricFamily("engine_failures", "Times that the engine failed.", stats.failures)
