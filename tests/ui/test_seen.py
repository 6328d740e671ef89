"""What the model saw: cuts where it was cut, times of frames, and figures that follow from the answer's."""

import numpy as np
import PIL.Image
import pytest

from pipeline import Image, Message, Options, Processor, Video
from pipeline.artifacts import BUNDLED
from pipeline.processor import PlannedPicture
from tests.serving import VIDEO, answer
from ui import seen
from ui.seen import WIDTH, clock, measured, sheet


@pytest.fixture(scope="module")
def processor() -> Processor:
    return Processor(BUNDLED)


def image(colour: str, size: tuple[int, int] = (600, 400)) -> Image:
    return Image(PIL.Image.new("RGB", size, colour))


def test_a_picture_is_shown_with_a_line_for_each_cut(processor: Processor) -> None:
    plan = processor.plan([Message.user(image("green"), "?")])
    assert plan.pictures[0].layout.grid == (4, 2)
    pixels = np.asarray(sheet(plan))
    (cuts, _) = np.nonzero((pixels == seen._CUT[1]).all(-1).T)
    columns = sorted({int(x) for x in cuts if np.sum(cuts == x) > 50})
    assert len(columns) == 3
    ((rows, _)) = np.nonzero((pixels == seen._CUT[1]).all(-1))
    assert len([y for y in set(rows.tolist()) if np.sum(rows == y) > 50]) == 1
    assert pixels.shape[1] == WIDTH


def test_a_picture_that_is_not_cut_has_no_line(processor: Processor) -> None:
    drawn = sheet(processor.plan([Message.user(image("green"), "?")], Options(max_slice_nums=1)))
    assert not (np.asarray(drawn) == seen._CUT[1]).all(-1).any()


def test_pictures_and_frames_stand_in_the_order_in_which_the_model_counts_them(processor: Processor, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    caption = seen._caption

    def noted(item: PlannedPicture, number: int) -> str:
        said.append(caption(item, number))
        return said[-1]

    monkeypatch.setattr(seen, "_caption", noted)
    messages = [Message.user(image("red", (100, 100)), Video(str(VIDEO)), "?"), Message.assistant("!"), Message.user(image("blue"), "?")]
    drawn = sheet(processor.plan(messages, Options(max_frames=4)))
    assert said == ["1", "0:03", "0:11", "0:19", "0:27", "2: 4 x 2"]
    assert drawn is not None
    assert drawn.height < 3 * WIDTH


@pytest.mark.parametrize("count", [1, 5, 17, 50])
def test_a_sheet_of_many_pictures_stays_small(processor: Processor, count: int) -> None:
    drawn = sheet(processor.plan([Message.user(*[image("red", (300, 300))] * count, "?")], Options(max_slice_nums=1)))
    assert drawn is not None
    assert drawn.width == WIDTH
    assert drawn.height <= 1.4 * WIDTH


def test_words_alone_show_nothing(processor: Processor) -> None:
    assert sheet(processor.plan([Message.user("Hello")])) is None


def test_the_figures_are_those_of_the_answer() -> None:
    given = answer(
        "one two three four", token_ids=(1,) * 9, encoded_slices=14, vision_s=38.0, ttft_s=52.0, decode_tps=4.0, prompt_tokens=100, cached_tokens=96
    )
    assert measured(given) == seen.Measured(14, 38.0, 52.0, 2.0, 0.96)
    assert measured(answer("红色的圆", token_ids=(1,) * 3, decode_tps=1.0)).words_a_second == 2.0
    assert measured(answer("yes", token_ids=(1,), decode_tps=None)).words_a_second is None


@pytest.mark.parametrize(("seconds", "shown"), [(0, "0:00"), (3.0, "0:03"), (61.5, "1:01.5"), (599.96, "10:00")])
def test_times_are_written_as_a_player_writes_them(seconds: float, shown: str) -> None:
    assert clock(seconds) == shown
