"""The pace of answers: what is learned from each, and what tells nothing."""

import pytest

from pipeline.artifacts import BUNDLED
from pipeline.assistant import Assistant
from pipeline.config import GenerationConfig
from pipeline.message import Message
from pipeline.pace import Pace


def test_the_pace_follows_what_answers_take() -> None:
    pace = Pace()
    assert pace.seconds(1, 1) is None
    pace.learn(10, 20.0, 1000, 100.0)
    assert pace.seconds(10, 100) == pytest.approx(30)
    for _ in range(20):
        pace.learn(10, 40.0, 1000, 200.0)
    assert pace.seconds(10, 100) == pytest.approx(60, rel=0.05)


def test_what_tells_nothing_is_left_out() -> None:
    pace = Pace()
    pace.learn(0, 0.0, 100, 10.0)
    assert pace.seconds(0, 100) == pytest.approx(10)
    assert pace.seconds(1, 100) is None
    for tokens, reading_s in ((5, 99.0), (1000, None)):
        pace.learn(0, 0.0, tokens, reading_s)
    assert pace.seconds(0, 100) == pytest.approx(10)


def test_a_turn_comes_when_as_many_answers_have_ended_as_are_ahead_of_it_and_nobody_guesses_before_one_has() -> None:
    pace = Pace()
    assert pace.until_turn(3, 1) is None
    for seconds in (10.0, 12.0, 500.0):
        pace.answered(seconds)
    assert pace.until_turn(3, 1) == pytest.approx(36)
    assert pace.until_turn(8, 8) == pytest.approx(12 / 8)
    assert pace.until_turn(10, 8) == pytest.approx(3 * 12 / 8)
    assert pace.until_turn(2, 8) == pytest.approx(12 / 8)  # where memory is short, not as many are computed together as may be


async def test_one_small_answer_at_the_start_gives_the_pace_and_every_answer_moves_it() -> None:
    with Assistant(BUNDLED) as assistant:
        await assistant.calibrate()
        assert assistant.stats().generated_tokens == 1
        assert assistant.pace.until_turn(1, 1) is None  # a single token is no answer
        first = assistant.pace.slice_seconds, assistant.pace.token_seconds
        assert all(value is not None and value > 0 for value in first)
        await assistant.answer([Message.user("word " * 100)], GenerationConfig.greedy(max_new_tokens=1))
        assert assistant.pace.slice_seconds == first[0]
        assert assistant.pace.token_seconds != first[1]
