"""The controls: official defaults, what is left open, and one sentence for each value that cannot be."""

import dataclasses
import re
from itertools import pairwise
from typing import Any

import pytest

from pipeline import GenerationConfig, InputError
from ui.settings import settings


def test_without_a_wish_each_mode_has_its_official_defaults() -> None:
    assert settings().generation == GenerationConfig.sampling()
    assert settings(mode="greedy").generation == GenerationConfig.greedy()
    assert settings(mode="beams").generation == GenerationConfig.beams()
    assert settings(mode="beams", repetition_penalty=0, seed=0).generation == GenerationConfig.beams()
    official = settings(mode="beams").generation
    assert (official.num_beams, official.repetition_penalty, official.max_new_tokens) == (3, 1.2, 2048)


def test_a_mode_takes_the_wishes_that_it_has_a_use_for() -> None:
    wishes: dict[str, Any] = {
        "temperature": 1,
        "top_p": 0.5,
        "top_k": 7.0,
        "num_beams": 5,
        "repetition_penalty": None,
        "max_new_tokens": 9,
        "seed": 3,
    }
    assert settings(**wishes).generation == GenerationConfig.sampling(temperature=1.0, top_p=0.5, top_k=7, max_new_tokens=9, seed=3)
    assert settings(mode="greedy", **wishes).generation == GenerationConfig.greedy(max_new_tokens=9)
    assert settings(mode="beams", **wishes).generation == GenerationConfig.beams(num_beams=5, max_new_tokens=9)


@pytest.mark.parametrize(
    ("wish", "sentence"),
    [
        ({"mode": "random"}, "The mode is 'random'; it must be one of sampling, greedy, beams."),
        ({"detail": "best"}, "The detail is 'best'; it must be one of auto, fast, balanced, full."),
        ({"frames": 9}, "The number of frames is 9; it must be one of 0, 8, 16, 32, 64."),
        ({"temperature": 0}, "The temperature is 0; it must be a number from 0.01 to 2.0."),
        ({"temperature": float("nan")}, "The temperature is nan; it must be a number from 0.01 to 2.0."),
        ({"top_k": 1.5}, "Top-k is 1.5; it must be a whole number from 0 to 1,000."),
        ({"top_p": "0.5"}, "Top-p is '0.5'; it must be a number from 0.01 to 1.0."),
        ({"max_new_tokens": 5000}, "The length of the answer is 5000; it must be a whole number from 1 to 4,096."),
        ({"num_beams": True}, "The number of beams is True; it must be a whole number from 1 to 8."),
        ({"mode": "greedy", "temperature": 99}, "The temperature is 99; it must be a number from 0.01 to 2.0."),
        ({"seed": float("inf")}, "The seed is inf; it must be a whole number from 1 to 2,147,483,647."),
    ],
)
def test_a_value_out_of_range_is_one_plain_sentence(wish: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(sentence)}$"):
        settings(**wish)


@pytest.mark.parametrize(
    ("detail", "expected"),
    [("fast", (1, 1)), ("balanced", (4, 1)), ("full", (None, None))],  # the model's own nine, and its own way with frames
)
def test_a_detail_and_a_number_of_frames_that_were_chosen_leave_nothing_open(detail: str, expected: tuple[int | None, int | None]) -> None:
    [options] = settings(detail=detail, frames=16).candidates
    assert (options.max_slice_nums, options.max_frame_slice_nums) == expected
    assert options.max_frames == 16


def test_what_is_left_open_goes_from_the_most_detail_to_the_least() -> None:
    candidates = settings().candidates
    assert (candidates[0].max_slice_nums, candidates[0].max_frame_slice_nums, candidates[0].max_frames) == (None, None, 64)
    assert (candidates[-1].max_slice_nums, candidates[-1].max_frame_slice_nums, candidates[-1].max_frames) == (1, 1, 8)
    for more, less in pairwise(candidates):
        for name in ("max_slice_nums", "max_frame_slice_nums", "max_frames"):
            assert (getattr(more, name) or 9) >= (getattr(less, name) or 9)
        assert more != less
    assert {options.max_frames for options in settings(frames=32).candidates} == {32}
    assert [options.max_frames for options in settings(detail="balanced").candidates] == [64, 32, 16, 8]


def test_every_candidate_has_the_system_prompt_and_a_blank_one_is_none() -> None:
    assert {options.system_prompt for options in settings(system_prompt=" Be brief.\n").candidates} == {"Be brief."}
    assert {options.system_prompt for options in settings(system_prompt="  ").candidates} == {None}
    plain = settings().candidates
    assert [dataclasses.replace(options, system_prompt=None) for options in settings(system_prompt="x").candidates] == list(plain)
