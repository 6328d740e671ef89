"""Many with pictures at once: whose is encoded next, who need not wait for that, and what of the time is called reading."""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from pipeline import Assistant
from pipeline.config import EngineConfig, GenerationConfig
from pipeline.engine.request import Event, Progress, Tokens
from pipeline.engine.sampler import BeamSearch
from pipeline.message import Image, Message
from pipeline.preprocess import Slice
from tests.engine.asking import Asker, Hold, Recorder

ENGINE = EngineConfig(device="CPU", max_waiting=100, max_running=4)
ONE = GenerationConfig.greedy(max_new_tokens=1)


def small(shade: int) -> Image:
    """A picture of a single slice."""
    return Image(PIL.Image.fromarray(np.full((200, 300, 3), shade, np.uint8)))


def test_a_large_picture_is_encoded_however_many_come_with_small_ones(fp32_folder: Path, golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody new comes whenever a picture has been encoded."""
    with Asker(fp32_folder, ENGINE) as asker:
        large = asker.request(Message.user(Image(golden / "images" / "b_900x500.png"), "What is it?"), generation=ONE)
        crowd = iter([asker.request(Message.user(small(shade), "And this?"), generation=ONE) for shade in range(30)])
        its = {piece.digest for piece in large.slices}
        came: list[Recorder] = []
        order: list[bool] = []
        encode = asker.vision.encode_batch

        def watched(batch: Sequence[Slice]) -> object:
            order.extend(piece.digest in its for piece in batch)
            came.extend(asker.submit(request) for request in itertools.islice(crowd, 2))
            return encode(batch)

        asker.ask(Message.user(small(255), "Hi"), generation=ONE)  # an engine that is not at its very first step
        monkeypatch.setattr(asker.vision, "encode_batch", watched)
        assert asker.submit(large).outcome().encoded_slices == sum(order) == 3
        assert len(order) < 12, "it came to its end while others went on coming"
        for recorder in came:
            recorder.outcome()


def test_a_further_question_about_a_picture_does_not_wait_for_those_of_others(fp32_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Asker(fp32_folder, ENGINE) as asker:
        question = Message.user(small(90), "What is it?")
        asker.ask(question, generation=ONE)
        further = asker.request(question, Message.assistant("A circle."), Message.user("Which colour?"), generation=ONE)
        noise = np.random.default_rng(0).integers(0, 256, (3, 1300, 1300, 3), np.uint8)
        others = [asker.request(Message.user(Image(PIL.Image.fromarray(pixels)), "And?"), generation=ONE) for pixels in noise]
        encoded, encode = [], asker.vision.encode_batch

        def watched(batch: Sequence[Slice]) -> object:
            encoded.extend(batch)
            return encode(batch)

        monkeypatch.setattr(asker.vision, "encode_batch", watched)
        when: list[int] = []

        def note(event: Event) -> None:
            if isinstance(event, Tokens):
                when.append(len(encoded))

        hold = Hold(Progress)
        recorders = [asker.submit(others[0], hold)]
        assert hold.reached.wait(60)
        recorders += [asker.submit(request) for request in others[1:]]
        answer = asker.submit(further, note)
        hold.released.set()
        assert answer.outcome().encoded_slices == 0
        assert sum(recorder.outcome().encoded_slices for recorder in recorders) == len(encoded) == 30
    assert when[0] < 10, "nobody else's ten slices were through"


@pytest.mark.parametrize("generation", [GenerationConfig.greedy, GenerationConfig.beams])
async def test_writing_is_not_taken_for_reading(
    fp32_folder: Path, generation: Callable[..., GenerationConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that ticks once whenever it is looked at. Several beams may agree on their first word when they have written the last."""
    ticks = itertools.count()
    monkeypatch.setattr(BeamSearch, "agreed", lambda _: ())
    with Assistant(fp32_folder, ENGINE, clock=lambda: float(next(ticks))) as assistant:
        answer = await assistant.answer([Message.user("word " * 100)], generation(max_new_tokens=48, min_new_tokens=48))
    assert len(answer.token_ids) == 48
    assert answer.decode_tps
    assert answer.decode_tps < 47 / 2
    read = answer.prompt_tokens - answer.cached_tokens
    assert assistant.pace.token_seconds
    assert assistant.pace.token_seconds * read < 12, "ticks, of which writing takes more"
