"""The golden tiny model in float32: paged gives the tokens that stateful gives, and the cache the numbers that computing gives (R4)."""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray

from demo.exam import video_file
from pipeline.config import EngineConfig, GenerationConfig
from pipeline.engine.model_runner import Rows
from pipeline.engine.request import Request
from pipeline.message import Image, Message
from tests.engine.asking import Asker

GREEDY = GenerationConfig.greedy(max_new_tokens=24, min_new_tokens=24)
FIRST = GenerationConfig.greedy(max_new_tokens=1)
NOTICED = 1e-4  # R4's bar on logits


@pytest.fixture(scope="module")
def paged(fp32_folder: Path) -> Iterator[Asker]:
    with Asker(fp32_folder, EngineConfig(device="CPU", max_waiting=100)) as asker:
        yield asker


@pytest.fixture(scope="module")
def requests(paged: Asker, golden: Path) -> dict[str, Request]:
    """A conversation of each kind."""
    cut, small, tall = (Image(golden / "images" / f"{name}.png") for name in ("b_900x500", "a_300x200", "d_200x1000"))
    frames = [PIL.Image.open(golden / "images" / f"frame{index}.png") for index in range(4)]
    turns = [Message.user(small, "What is it?"), Message.assistant("A circle."), Message.user(tall, "And this?"), Message.assistant("A square.")]
    conversations = {
        "words": [Message.user("Who are you?")],
        "one picture": [Message.user(cut, "What is in the image?")],
        "several pictures": [Message.user(cut, "Compare it with", small, tall, "in a sentence.")],
        "several turns": [*turns, Message.user("Which is larger?")],
        "a video": [Message.user(video_file(frames), "What happens?")],
    }
    return {kind: paged.request(*messages, generation=GREEDY) for kind, messages in conversations.items()}


def prefix(request: Request, tokens: int) -> Request:
    """The beginning of a prompt, without the picture in which it ends."""
    bounds = tuple(bound for bound in request.prompt.image_bound if bound[1] <= tokens)
    prompt = dataclasses.replace(request.prompt, input_ids=request.prompt.input_ids[:tokens], image_bound=bounds)
    return Request(prompt, request.slices[: len(bounds)], FIRST)


def test_paged_gives_the_tokens_that_stateful_gives_alone_together_and_from_the_cache(
    paged: Asker, fp32_folder: Path, requests: dict[str, Request]
) -> None:
    with Asker(fp32_folder, EngineConfig(device="CPU", backend="stateful")) as reference:
        expected = [reference.submit(request).outcome().token_ids for request in requests.values()]
    assert len(set(expected)) == len(requests), "one's answer would pass for another's"
    together = [recorder.outcome().token_ids for recorder in [paged.submit(request) for request in requests.values()]]
    cached = [paged.submit(request).outcome() for request in requests.values()]
    alone = []
    for request in requests.values():
        paged.forget()
        alone.append(paged.submit(request).outcome().token_ids)
    wrong = sum(ids != right for found in (together, [one.token_ids for one in cached], alone) for ids, right in zip(found, expected, strict=True))
    print(json.dumps({"paged and stateful": {"kinds": list(requests), "answers": 3 * len(requests), "wrong": wrong}}))
    assert all(answer.cached_tokens > 0 for answer in cached)
    assert wrong == 0


def test_the_numbers_are_the_same_at_every_token_where_the_cache_ends(
    paged: Asker, requests: dict[str, Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, seen = paged.runner.forward, list[NDArray[np.float32]]()

    def watched(batch: Sequence[Rows]) -> NDArray[np.float32]:
        logits = forward(batch)
        seen.extend(logits.copy())
        return logits

    monkeypatch.setattr(paged.runner, "forward", watched)
    request = dataclasses.replace(requests["several turns"], generation=GenerationConfig.greedy(max_new_tokens=4, min_new_tokens=4))
    paged.forget()
    expected, computed = paged.submit(request).outcome().token_ids, np.array(seen)
    assert computed.shape == (4, paged.config.text.vocab_size)
    splits = range(1, len(request.prompt.input_ids))
    hits, wrong, largest = 0, 0, 0.0
    for split in splits:
        paged.forget()
        paged.submit(prefix(request, split)).outcome()
        seen.clear()
        outcome = paged.submit(request).outcome()
        hits += outcome.cached_tokens > 0
        wrong += outcome.token_ids != expected
        largest = max(largest, float(np.abs(np.array(seen) - computed).max()))
    line = {"splits": len(splits), "hits": hits, "mismatched_answers": wrong, "max_logit_diff": largest}
    print(json.dumps({"R4 logits": line}))
    assert wrong == 0
    assert hits > len(splits) / 2, "of the others the beginning ends within the first block or within a picture, which it then does not have"
    assert largest < NOTICED
