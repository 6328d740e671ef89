"""What a message will cost: counted exactly from the heads of files, timed by what answers have taken, less what is known already."""

import asyncio
import itertools
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import PIL.Image
import pytest

import ui.cost
from pipeline import Image, ImageError, InputError, Message, Options, Processor, Video
from pipeline.artifacts import BUNDLED
from pipeline.media import Head, Used
from pipeline.pace import Pace
from tests.serving import VIDEO, StandIn
from ui.cost import TARGET_SECONDS, Cost, Estimates, Estimator
from ui.settings import settings

PLENTY = 1 << 30


@pytest.fixture(scope="module")
def processor() -> Processor:
    return Processor(BUNDLED)


@pytest.fixture
def pace() -> Pace:
    return Pace()


@pytest.fixture
def estimator(processor: Processor, pace: Pace) -> Estimator:
    return Estimator(processor, pace, 8192, PLENTY)


@pytest.fixture
def picture(tmp_path: Path) -> Callable[[str], Image]:
    def draw(name: str) -> Image:
        PIL.Image.new("RGB", (500, 500), name).save(tmp_path / f"{name}.png")
        return Image(str(tmp_path / f"{name}.png"))

    return draw


def cost(estimator: Estimator, messages: list[Message], options: Options | None = None) -> Cost:
    return estimator.chosen(messages, [options or Options()])[1]


def test_pictures_slices_frames_and_tokens_are_those_that_the_model_will_be_given(
    estimator: Estimator, processor: Processor, picture: Callable[[str], Image]
) -> None:
    messages = [Message.user(picture("red"), picture("blue"), Video(str(VIDEO)), "What is shown?")]
    options = Options(max_frames=12, max_frame_slice_nums=1)
    plan = processor.plan(messages, options)
    assert cost(estimator, messages, options) == Cost(2, 2 * 10, (12,), 12, len(plan.prompt.input_ids), len(plan.prompt.input_ids), None)
    assert len(plan.prompt.image_bound) == 32


def test_words_alone_are_counted_once_however_many_ways_there_are_to_show_pictures(
    estimator: Estimator, processor: Processor, monkeypatch: pytest.MonkeyPatch
) -> None:
    outlined = []
    outline = processor.outline
    monkeypatch.setattr(processor, "outline", lambda *given: outlined.append(given) or outline(*given))
    options, _ = estimator.chosen([Message.user("word " * 9000)], settings().candidates)
    assert options == settings().candidates[0]
    assert len(outlined) == 1


def test_the_time_until_the_first_words_is_that_of_the_slices_and_of_reading(
    estimator: Estimator, pace: Pace, picture: Callable[[str], Image]
) -> None:
    pace.slice_seconds, pace.token_seconds = 4.0, 0.05
    expected = cost(estimator, [Message.user(picture("red"), "Hm?")])
    assert expected.seconds == pytest.approx(10 * 4.0 + expected.tokens * 0.05)


def test_a_picture_that_was_shown_costs_no_slices_again_and_an_answered_conversation_no_tokens(
    estimator: Estimator, picture: Callable[[str], Image]
) -> None:
    first = [Message.user(picture("red"), "What is it?")]
    estimator.remember(first, Options())
    follow_up = [*first, Message.assistant("It is red."), Message.user("And what else?")]
    assert cost(estimator, follow_up).slices == 0
    assert 0 < cost(estimator, follow_up).tokens < 64
    # Shown otherwise, it is another picture; after other words its tokens are read again, but it is not encoded again.
    assert cost(estimator, follow_up, Options(max_slice_nums=1)).slices == 1
    other = cost(estimator, [Message.user(picture("red"), "How large is it?")])
    assert (other.slices, other.pictures) == (0, 1)
    assert other.tokens > 640
    assert cost(estimator, [Message.user(picture("blue"), "What is it?")]).slices == 10


def test_a_picture_that_was_sent_along_is_known_again_by_its_content(estimator: Estimator, picture: Callable[[str], Image]) -> None:
    sent = Image(Path(str(picture("red").source)).read_bytes())
    estimator.remember([Message.user(sent, "What is it?")], Options())
    assert cost(estimator, [Message.user(Image(bytes(sent.source)), "How large is it?")]).slices == 0


def test_what_the_cache_cannot_hold_is_not_counted_on(processor: Processor, picture: Callable[[str], Image]) -> None:
    slice_bytes = processor.config.query_num * processor.config.text.hidden_size * 4
    estimator = Estimator(processor, Pace(), 8192, 15 * slice_bytes)
    for name in ("red", "blue"):
        estimator.remember([Message.user(picture(name))], Options())
    assert cost(estimator, [Message.user(picture("red"))]).slices == 10
    assert cost(estimator, [Message.user(picture("blue"))]).slices == 0


def test_auto_takes_the_most_detail_whose_first_words_come_in_time(estimator: Estimator, pace: Pace, picture: Callable[[str], Image]) -> None:
    messages, candidates = [Message.user(picture("red"), "Hm?")], settings().candidates
    assert estimator.chosen(messages, candidates)[0] == candidates[0]  # nothing is known yet
    for seconds_a_slice, slices in ((TARGET_SECONDS / 11, 10), (TARGET_SECONDS / 9, 5), (TARGET_SECONDS / 4, 1), (2 * TARGET_SECONDS, 1)):
        pace.slice_seconds, pace.token_seconds = seconds_a_slice, 0.0001
        assert estimator.chosen(messages, candidates)[1].slices == slices
    # What was shown in full stays so: only new pictures would take time.
    estimator.remember(messages, candidates[0])
    follow_up = [*messages, Message.assistant("x"), Message.user("And?")]
    assert estimator.chosen(follow_up, candidates)[0] == candidates[0]


def test_auto_gives_up_frames_of_a_video_that_would_take_too_long(estimator: Estimator, pace: Pace) -> None:
    pace.slice_seconds, pace.token_seconds = 1.0, 0.0001
    [found] = {estimator.chosen([Message.user(Video(str(VIDEO)), "Hm?")], settings().candidates)[1].videos}
    assert found == (16,)
    assert estimator.chosen([Message.user(Video(str(VIDEO)), "Hm?")], settings(frames=64).candidates)[1].videos == (31,)


def test_auto_takes_less_detail_where_the_most_does_not_fit_the_context(processor: Processor, picture: Callable[[str], Image]) -> None:
    messages = [Message.user(*[picture("red")] * 4, "Hm?")]
    found = {
        limit: Estimator(processor, Pace(), limit, PLENTY).chosen(messages, settings().candidates)[1].prompt_tokens for limit in (8192, 1500, 400)
    }
    assert 400 > found[400] > 250
    assert 1500 > found[1500] > 1200
    assert found[8192] > 2500


def test_a_file_that_cannot_be_used_is_refused(estimator: Estimator, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"^Picture 1 is missing"):
        cost(estimator, [Message.user(Image(str(tmp_path / "gone.png")))])


def test_heads_of_all_files_together_are_read_in_the_time_of_a_conversation(
    estimator: Estimator, processor: Processor, picture: Callable[[str], Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look at the clock is ten seconds after the one before."""
    told: list[Used] = []
    monkeypatch.setattr(ui.cost, "clock", itertools.count(0.0, 10.0).__next__)
    monkeypatch.setattr(processor, "head", lambda *given: told.append(given[2]) or Head((500, 500)))
    cost(estimator, [Message.user(picture("red"), picture("green"), picture("blue"), "?")])
    assert told == [Used(seconds=10.0), Used(seconds=20.0), Used(seconds=30.0)]


async def test_words_and_answers_do_not_wait_for_what_is_only_typed_at(picture: Callable[[str], Image]) -> None:
    estimates, release = Estimates(StandIn()), threading.Event()
    about, words = [Message.user(picture("red"), "?")], [Message.user("?")]
    typed = [asyncio.ensure_future(estimates.run(about, lambda: release.wait(60), preview=True)) for _ in range(50)]
    assert await estimates.run(about, lambda: "answer") == "answer"
    held = [asyncio.ensure_future(estimates.run(about, lambda: release.wait(60))) for _ in range(50)]
    assert await estimates.run(words, lambda: "words") == "words"
    release.set()
    assert all(await asyncio.gather(*typed, *held))


def test_each_assistant_of_a_model_has_an_estimator_of_its_own() -> None:
    model = StandIn()
    estimates = Estimates(model)
    assert estimates.now() is estimates.now() is not None
    holder = SimpleNamespace(assistant=None)
    estimates = Estimates(holder)
    assert estimates.now() is None
    holder.assistant = StandIn()
    first = estimates.now()
    holder.assistant = StandIn()
    assert estimates.now() is not first


def test_too_much_of_a_conversation_is_refused_before_any_of_it_is_opened(estimator: Estimator) -> None:
    with pytest.raises(InputError, match=r"^A message has 51 pictures and videos; the limit is 50\.$"):
        cost(estimator, [Message.user(*[Image("nowhere.png")] * 51, "?")])
    with pytest.raises(InputError, match=r"^The conversation has 819,201 characters"):
        cost(estimator, [Message.user("a" * 819_201)])
