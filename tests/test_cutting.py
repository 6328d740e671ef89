"""Pictures and frames are cut when they come, as finely as they may have to be shown once all are known."""

import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import SliceConfig
from pipeline.cutting import MANY_FRAMES, Cutting
from pipeline.errors import ImageError, VideoError
from pipeline.media import Picture
from pipeline.preprocess import Slice, cut, plan

CONFIG = SliceConfig()
CUTTING = Cutting(CONFIG, 9, None, 2048)
WIDE = PIL.Image.linear_gradient("L").resize((900, 500)).convert("RGB")


def film(frames: int) -> list[Picture]:
    return [Picture(WIDE, time=float(second)) for second in range(frames)]


def digests(slices: tuple[Slice, ...]) -> list[bytes]:
    return [piece.digest for piece in slices]


def alone(max_slice_nums: int) -> list[bytes]:
    return digests(tuple(cut(WIDE, plan(WIDE.size, CONFIG, max_slice_nums), CONFIG)))


def test_a_picture_is_cut_as_the_model_says_and_keeps_what_is_known_of_it() -> None:
    shown = CUTTING.picture(Picture(WIDE, others=True))
    assert digests(shown.slices) == alone(9)
    assert (shown.size, shown.time, shown.others) == ((900, 500), None, True)


def test_frames_are_cut_in_two_until_there_are_many() -> None:
    shown = list(CUTTING.frames(film(MANY_FRAMES + 2)))
    assert [digests(frame.slices) for frame in shown] == [alone(2)] * MANY_FRAMES + [alone(1)] * 2
    assert [frame.time for frame in shown] == list(range(MANY_FRAMES + 2))


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_the_overview_of_a_frame_is_the_same_whether_or_not_it_is_cut_in_two(width: int, height: int) -> None:
    """So what was cut in two can still be shown whole."""
    whole, halves = (plan((width, height), CONFIG, most) for most in (1, 2))
    assert whole.overview_size == halves.overview_size
    assert whole.tgt_sizes == halves.tgt_sizes[:1]


def test_what_was_asked_for_holds_for_any_number_of_frames() -> None:
    asked = Cutting(CONFIG, 4, 3, 2048)
    assert {tuple(digests(frame.slices)) for frame in asked.frames(film(MANY_FRAMES + 1))} == {tuple(alone(3))}
    assert digests(asked.picture(Picture(WIDE)).slices) == alone(4)


def test_what_is_too_thin_is_refused_by_the_name_of_its_file() -> None:
    thin = PIL.Image.new("RGB", (1, 20_000))
    sentence = r"^Picture 2 has 1 x 20000 pixels, too long and thin: it takes 4,525 patches, and the limit is 2,048\.$"
    with pytest.raises(ImageError, match=sentence):
        CUTTING.picture(Picture(thin), "Picture 2")
    with pytest.raises(
        VideoError, match=r"^Video 1 has 1 x 20000 pixels a frame, too long and thin: it takes 4,525 patches, and the limit is 2,048\.$"
    ):
        next(CUTTING.frames([Picture(thin, time=0.0)], "Video 1"))
