"""What is the stateful engine's own: the state of the last request, cut to what the next one shares with it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.config import EngineConfig, GenerationConfig
from pipeline.engine import stateful
from pipeline.message import Image, Message
from tests.engine.asking import Asker


@pytest.fixture
def asker(fp32_folder: Path) -> Iterator[Asker]:
    with Asker(fp32_folder, EngineConfig(backend="stateful", device="CPU", prefill_chunk_tokens=16)) as asker:
        yield asker


@pytest.fixture
def question(golden: Path) -> Message:
    return Message.user(Image(golden / "images" / "a_300x200.png"), "What is in the image?")


def test_a_cut_inside_a_picture_goes_on_with_the_rest_of_it(asker: Asker, question: Message, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = asker.ask(question).token_ids
    start, end = asker.request(question).prompt.image_bound[0]
    common = stateful._common_prefix
    for cached in (start + 1, end - 1, end):
        monkeypatch.setattr(stateful, "_common_prefix", lambda one, other, cached=cached: min(common(one, other), cached))
        again = asker.ask(question)
        assert (again.cached_tokens, again.token_ids) == (cached, whole)


def test_after_beams_a_follow_up_reuses_what_they_computed(asker: Asker, question: Message) -> None:
    answer = asker.ask(question, generation=GenerationConfig.beams(max_new_tokens=12))
    prompt_tokens = len(asker.request(question).prompt.input_ids)
    assert len(asker.engine._held) == asker.runner.length == prompt_tokens + 11
    assert isinstance(asker.engine._held[prompt_tokens], int)
    assert answer.reason == "length"
