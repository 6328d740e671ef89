"""What is taken over from the cache equals what is computed, and never comes from another picture (R4, R5, R7, R19)."""

import dataclasses
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from demo.episodes import episode
from demo.exam import image_file
from pipeline.config import EngineConfig, GenerationConfig
from pipeline.engine.request import Progress, Request
from pipeline.message import Image, Message
from tests.engine.asking import Asker, Hold

GREEDY = GenerationConfig.greedy(max_new_tokens=24)
ROOT = Path(__file__).parent.parent.parent


def test_an_answer_is_the_same_wherever_the_cache_ends(asker: Asker, requests: list[Request], alone: list[tuple[int, ...]]) -> None:
    """Every prefix of a conversation is asked first, and leaves its blocks for the whole of it."""
    index = max(range(len(requests)), key=lambda index: len(requests[index].prompt.input_ids))
    request, wrong, hits = requests[index], 0, 0
    short = GenerationConfig.greedy(max_new_tokens=1)
    for split in range(1, len(request.prompt.input_ids), 5):
        asker.forget()
        bounds = tuple(bound for bound in request.prompt.image_bound if bound[1] <= split)
        prompt = dataclasses.replace(request.prompt, input_ids=request.prompt.input_ids[:split], image_bound=bounds)
        asker.submit(Request(prompt, request.slices[: len(bounds)], short)).outcome()
        outcome = asker.submit(request).outcome()
        wrong += outcome.token_ids != alone[index]
        hits += outcome.cached_tokens > 0
    print(json.dumps({"R4": {"splits": split // 5 + 1, "mismatched_answers": wrong, "hits": hits}}))
    assert wrong == 0
    assert hits > 0


def test_answers_are_the_same_in_a_pool_so_small_that_blocks_are_always_evicted(
    demo_folder: Path, requests: list[Request], alone: list[tuple[int, ...]]
) -> None:
    most = max(-(-(len(request.prompt.input_ids) + 24) // 32) for request in requests)
    figures = []
    right = [*alone, *(ids for ids in alone for _ in range(2))]
    for blocks in range(most, most + 3):
        with Asker(demo_folder, EngineConfig(device="CPU", max_waiting=100), blocks=blocks) as small:
            recorders = [small.submit(request) for request in requests]
            answers = [recorder.outcome().token_ids for recorder in recorders]
            answers += [small.submit(request).outcome().token_ids for request in requests for _ in range(2)]
            stats = small.engine.stats()
            small.engine._blocks.check_integrity([])
        wrong = sum(answer != expected for answer, expected in zip(answers, right, strict=True))
        figures.append({"blocks": blocks, "hits": stats.block_hits, "evictions": stats.block_evictions, "mismatched_answers": wrong})
        assert wrong == 0
        assert min(stats.block_hits, stats.block_evictions) > 0
    print(json.dumps({"R4 under eviction": figures}))


def test_another_picture_under_the_same_words_is_never_taken_for_the_first(asker: Asker) -> None:
    """Pictures of one size and one question: ten people, A-B-A, and a pixel that changed."""
    scenes = [np.asarray(episode(seed, "train", "colour", most=3).turns[0].media[0].frames[0]) for seed in range(10)]
    pictures = [Image(PIL.Image.fromarray(scene).convert("RGB").resize((240, 160))) for scene in scenes]
    alike = [asker.request(Message.user(picture, "Describe the picture."), generation=GREEDY) for picture in pictures]
    assert len({request.prompt for request in alike}) == 1
    asker.forget()
    expected = []
    for request in alike:
        expected.append(asker.submit(request).outcome().token_ids)
        asker.forget()
    assert len(set(expected)) > 7, "a wrong picture would be seen in the answer"
    start = alike[0].prompt.image_bound[0][0]
    in_turn = [asker.submit(alike[index]).outcome() for index in (0, 1, 0, 2, 1, 0)]
    assert [outcome.token_ids for outcome in in_turn] == [expected[index] for index in (0, 1, 0, 2, 1, 0)]
    assert [outcome.cached_tokens <= start for outcome in in_turn] == [True, True, False, True, False, False]
    together = [asker.submit(request) for request in alike * 3]
    wrong = sum(recorder.outcome().token_ids != ids for recorder, ids in zip(together, expected * 3, strict=True))
    piece = alike[0].slices[0]
    pixels = piece.pixels.copy()
    pixels[0, 0, 0] ^= 1
    other = dataclasses.replace(alike[0], slices=(dataclasses.replace(piece, pixels=pixels), *alike[0].slices[1:]))
    changed = asker.submit(other).outcome()
    print(json.dumps({"R5": {"pictures": len(alike), "wrong_answers": wrong, "cached_tokens_of_a_changed_pixel": changed.cached_tokens}}))
    assert wrong == 0
    assert changed.cached_tokens <= start


def test_colours_are_those_of_ones_own_picture_whoever_else_asks(asker: Asker) -> None:
    asked = []
    for seed in range(40):
        shown = episode(seed, "train", "colour", most=1)
        if shown.language == "en":
            asked.append((shown.turns[0].answer, asker.request(Message.user(image_file(shown.turns[0].media[0].frames[0]), shown.turns[0].question))))
    recorders = [asker.submit(request) for _, request in asked]
    said = [asker.processor.tokenizer.decode(list(recorder.outcome().token_ids)).strip() for recorder in recorders]
    wrong = sum(text != answer for text, (answer, _) in zip(said, asked, strict=True))
    print(json.dumps({"R5": {"wrong_colour_answers": wrong, "of": len(asked)}}))
    assert wrong == 0


def test_who_gives_way_to_others_goes_on_as_if_nothing_had_happened(demo_folder: Path, asker: Asker, requests: list[Request]) -> None:
    """Sampled, with a penalty, pictures among them: prompts that fit beside each other, and answers that do not."""
    pictured = [request for request in requests if request.slices][:4]
    modes = [GenerationConfig(seed=seed, temperature=2.0, top_p=1.0, min_new_tokens=80, max_new_tokens=80) for seed in range(len(pictured))]
    asked = [dataclasses.replace(request, generation=mode) for request, mode in zip(pictured, modes, strict=True)]
    expected = [asker.submit(request).outcome().token_ids for request in asked]
    room = sum(-(-len(request.prompt.input_ids) // 32) for request in asked) + 2
    with Asker(demo_folder, EngineConfig(device="CPU", max_waiting=100), blocks=room) as small:
        hold = Hold(Progress)
        recorders = [small.submit(request, hold) for request in asked]
        hold.released.set()
        answers = [recorder.outcome().token_ids for recorder in recorders]
        preemptions = small.engine.stats().preemptions
    wrong = sum(answer != right for answer, right in zip(answers, expected, strict=True))
    print(json.dumps({"R7": {"preemptions": preemptions, "wrong_answers": wrong}}))
    assert preemptions > 0
    assert wrong == 0


@pytest.mark.parametrize("max_running", [1, 3, 8])
def test_order_and_company_change_no_answer(demo_folder: Path, requests: list[Request], alone: list[tuple[int, ...]], max_running: int) -> None:
    random, outputs = np.random.default_rng(max_running), list[tuple[int, ...]]()
    with Asker(demo_folder, EngineConfig(device="CPU", max_waiting=100, max_running=max_running)) as asker:
        for _ in range(2):
            order = random.permutation(len(requests)).tolist()
            recorders = {index: asker.submit(requests[index]) for index in order}
            outputs += [recorders[index].outcome().token_ids for index in range(len(requests))]
    wrong = sum(output != right for output, right in zip(outputs, alone * 2, strict=True))
    print(json.dumps({"R7": {"max_running": max_running, "answers": len(outputs), "wrong_answers": wrong}}))
    assert wrong == 0


def test_a_new_process_gives_the_same_answers(demo_folder: Path) -> None:
    """Sampled, with seeds, from a cold cache."""
    script = """
import hashlib, sys
from pathlib import Path
from demo.exam import drawn
from pipeline import EngineConfig, GenerationConfig
from tests.engine.asking import Asker
with Asker(Path(sys.argv[1]), EngineConfig(device="CPU", max_waiting=100)) as asker:
    modes = [GenerationConfig(seed=seed, max_new_tokens=16, temperature=2.0, top_p=1.0) for seed in range(100)]
    asked = [asker.request(*one.messages, generation=mode) for one, mode in zip(drawn(100, 41), modes, strict=True)]
    recorders = [asker.submit(request) for request in asked]
    answers = [recorder.outcome().token_ids for recorder in recorders]
    print(len(answers), hashlib.sha256(repr(answers).encode()).hexdigest())
"""
    runs = [
        subprocess.run([sys.executable, "-c", script, str(demo_folder)], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
        for _ in range(2)
    ]
    (answers, digest), other = runs
    print(json.dumps({"R19": {"answers": int(answers), "sha256": [digest, other[1]]}}))
    assert int(answers) == 100
    assert len(digest) == 2 * hashlib.sha256().digest_size
    assert runs[0] == runs[1]


def test_guessing_ahead_changes_no_answer_and_saves_steps(demo_folder: Path, requests: list[Request], alone: list[tuple[int, ...]]) -> None:
    repeating = GenerationConfig.greedy(max_new_tokens=120, min_new_tokens=120)
    endless = dataclasses.replace(requests[0], generation=repeating)
    said, steps = {}, {}
    for guesses in (0, 4):
        with Asker(demo_folder, EngineConfig(device="CPU", max_waiting=100, prompt_lookup_tokens=guesses)) as asker:
            recorders = [asker.submit(request) for request in requests]
            assert [recorder.outcome().token_ids for recorder in recorders] == alone
            before = asker.engine._steps
            said[guesses] = asker.submit(endless).outcome().token_ids
            steps[guesses] = asker.engine._steps - before
    print(json.dumps({"prompt lookup": {"steps": steps, "tokens": len(said[0])}}))
    assert said[0] == said[4]
    assert steps[4] < steps[0]
