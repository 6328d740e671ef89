"""The lines people read while they wait and afterwards, in both languages."""

import pytest

from pipeline import Status
from ui.cost import Cost
from ui.seen import Measured
from ui.sentences import cost, cut, duration, full, measured, progress


def test_the_price_says_what_is_shown_how_much_is_read_and_how_long_it_takes() -> None:
    given = Cost(2, 14, (12,), 12, 1420, 1500, 40.2)
    assert cost(given, "en") == "2 pictures, 14 slices, 1 video of 12 frames: 1,420 tokens, first words in about 40 s"
    assert cost(given, "zh") == "2 张图片，14 个切片，12 帧的视频：1,420 个词元，约 40 秒后出现第一个词"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (Cost(0, 0, (), 0, 20, 900, 1.23), "20 tokens, first words in about 1.2 s"),
        (Cost(1, 1, (), 0, 90, 90, None), "1 picture, 1 slice: 90 tokens"),
        (Cost(1, 0, (), 0, 700, 700, 8.0), "1 picture: 700 tokens, first words in about 8.0 s"),
        (Cost(0, 0, (2, 1), 9, 700, 700, 600), "1 video of 2 frames, 1 video of 1 frame, 9 slices: 700 tokens, first words in about 10 min"),
    ],
)
def test_the_price_leaves_out_what_there_is_none_of(given: Cost, said: str) -> None:
    assert cost(given, "en") == said


def test_the_measured_line_says_what_an_answer_took() -> None:
    figures = Measured(14, 38.0, 52.4, 2.31, 0.96)
    assert measured(figures, "en") == "14 slices in 38 s, first word after 52 s, 2.3 words a second, 96 % of the prompt from cache"
    assert measured(figures, "zh") == "编码 14 个切片用时 38 秒，52 秒后出现第一个词，每秒 2.3 个词，96 % 的提示来自缓存"
    assert measured(Measured(0, 0.0, 0.52, None, 0.0), "en") == "first word after 0.5 s"
    assert measured(Measured(0, 0.0, None, None, 0.0), "zh") == ""


@pytest.mark.parametrize("language", ["en", "zh"])
def test_progress_is_told_in_both_languages_with_the_same_figures(language: str) -> None:
    said = [progress(status, language) for status in (Status("queued", 0, 3), Status("vision", 3, 10), Status("prefill", 1, 4))]
    assert "3" in said[0]
    assert "3" in said[1]
    assert "10" in said[1]
    assert "25 %" in said[2]
    assert all(line.isascii() == (language == "en") for line in said)


@pytest.mark.parametrize(
    ("seconds", "english", "chinese"),
    [
        (None, "Waiting: 2 requests ahead", "排队中：前面还有 2 个请求"),
        (41.3, "Waiting: 2 requests ahead, about 41 s", "排队中：前面还有 2 个请求，约 41 秒"),
        (150.0, "Waiting: 2 requests ahead, about 2 min", "排队中：前面还有 2 个请求，约 2 分钟"),
    ],
)
def test_who_waits_reads_how_long_where_it_is_known(seconds: float | None, english: str, chinese: str) -> None:
    waiting = Status("queued", 0, 2, seconds)
    assert (progress(waiting, "en"), progress(waiting, "zh")) == (english, chinese)


def test_a_cut_answer_names_the_length_and_what_to_do() -> None:
    assert cut(1, "en") == "The answer was cut after 1 token, the length allowed: say “go on”, or allow longer answers in the settings."
    assert "2,048" in cut(2048, "zh")


def test_a_full_queue_is_told_in_both_languages_with_the_limit_and_the_value() -> None:
    assert full(33, 32, "en") == "The queue is full (33 waiting, the limit is 32): please try again in a while."
    assert full(33, 32, "zh") == "队列已满（33 个请求在等待，上限为 32）：请稍后再试。"


@pytest.mark.parametrize(("seconds", "said"), [(0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (99.4, "99 s"), (99.6, "2 min"), (3600, "60 min")])
def test_times_are_rounded_as_much_as_they_are_worth(seconds: float, said: str) -> None:
    assert duration(seconds) == said
