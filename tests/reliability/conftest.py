"""The demo model in float32, so that equal answers can be demanded; questions about drawn scenes, and their answers one after the other."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.exam import drawn
from pipeline.artifacts import BUNDLED
from pipeline.config import EngineConfig, GenerationConfig
from pipeline.engine.request import Request
from tests.engine.asking import Asker

GREEDY = GenerationConfig.greedy(max_new_tokens=24)


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from conversion.checkpoint import Source
    from conversion.compress import Recipe
    from conversion.job import convert

    folder = tmp_path_factory.mktemp("demo") / "fp32"
    convert(Source.locate(str(BUNDLED.parent / "checkpoint")), folder, Recipe("fp32"))
    return folder


@pytest.fixture(scope="package")
def asker(demo_folder: Path) -> Iterator[Asker]:
    with Asker(demo_folder, EngineConfig(device="CPU", max_waiting=100)) as asker:
        yield asker


@pytest.fixture(scope="package")
def requests(asker: Asker) -> list[Request]:
    """One picture, several, a video, follow-ups: two questions of each skill."""
    return [asker.request(*question.messages, generation=GREEDY) for question in drawn(30, seed=21)]


@pytest.fixture(scope="package")
def alone(demo_folder: Path, requests: list[Request]) -> list[tuple[int, ...]]:
    """What the reference engine answers to each when nobody else asks anything."""
    with Asker(demo_folder, EngineConfig(device="CPU", backend="stateful")) as reference:
        return [reference.submit(request).outcome().token_ids for request in requests]
