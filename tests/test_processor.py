"""A conversation's plan: numbers, slices and frames by the official conventions, and what happens to a conversation that does not fit."""

from pathlib import Path

import av
import gradio
import numpy as np
import PIL.Image
import pytest

from pipeline.config import MediaLimits
from pipeline.errors import ImageError, InputError, PromptTooLong, VideoError
from pipeline.message import Image, Message, Video
from pipeline.processor import Options, Processor, named

VIDEOS = Path(gradio.__file__).parent / "media_assets" / "videos"
WIDE = Image(PIL.Image.new("RGB", (900, 500), "green"))
SMALL = Image(PIL.Image.new("RGB", (300, 200), "blue"))


@pytest.fixture(scope="module")
def processor(golden: Path) -> Processor:
    return Processor(golden / "tiny_model")


def film(tmp_path: Path, seconds: int, size: tuple[int, int] = (640, 480)) -> Video:
    path = tmp_path / f"{seconds}.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=1)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for _ in range(seconds):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((size[1], size[0], 3), np.uint8), "rgb24")))
        container.mux(stream.encode())
    return Video(path)


def test_pictures_are_numbered_over_the_turns_and_cut_as_the_model_says(processor: Processor) -> None:
    plan = processor.plan([Message.user(WIDE, "a"), Message.assistant("b"), Message.user(SMALL, WIDE, "c")])
    assert [(item.image_id, item.layout.grid) for item in plan.pictures] == [(0, (2, 1)), (1, None), (2, (2, 1))]
    assert plan.prompt.text.count("<image_id>") == 3
    assert len(plan.slices) == len(plan.prompt.image_bound) == 7


@pytest.mark.parametrize(("seconds", "slices"), [(16, 3), (17, 1)])
def test_frames_have_no_number_and_are_cut_in_two_only_while_they_are_few(processor: Processor, tmp_path: Path, seconds: int, slices: int) -> None:
    plan = processor.plan([Message.user(film(tmp_path, seconds), "What happens?")])
    assert [item.time for item in plan.pictures] == list(range(seconds))
    assert {item.image_id for item in plan.pictures} == {None}
    assert {len(item.layout.tgt_sizes) for item in plan.pictures} == {slices}


def test_frames_of_the_whole_conversation_count(processor: Processor, tmp_path: Path) -> None:
    plan = processor.plan([Message.user(film(tmp_path, 9), "a"), Message.assistant("b"), Message.user(film(tmp_path, 8), "c")])
    assert {len(item.layout.tgt_sizes) for item in plan.pictures} == {1}


def test_a_picture_beside_a_video_keeps_its_number_and_its_slices(processor: Processor, tmp_path: Path) -> None:
    plan = processor.plan([Message.user(SMALL, film(tmp_path, 2, (64, 48)), WIDE, "Which?")])
    assert [(item.image_id, item.layout.grid) for item in plan.pictures] == [(0, None), (None, None), (None, None), (1, (2, 1))]


def test_a_request_s_own_options_count_for_all_its_pictures(processor: Processor, tmp_path: Path) -> None:
    messages = [Message.user(WIDE, film(tmp_path, 2, (900, 500)), "Hm?")]
    plan = processor.plan(messages, Options(max_slice_nums=1, use_image_id=True))
    assert [(item.image_id, item.layout.grid) for item in plan.pictures] == [(0, None), (1, None), (2, None)]
    assert {item.image_id for item in processor.plan(messages, Options(use_image_id=False)).pictures} == {None}


def test_few_shot_examples_are_turns_and_a_system_prompt_comes_first(processor: Processor) -> None:
    shots = [Message.user(SMALL, "What?"), Message.assistant("Blue."), Message.user(WIDE, "What?")]
    text = processor.plan(shots, Options(system_prompt="Be <brief>.")).prompt.text
    assert text.startswith("<|im_start|>system\nBe <brief>.<|im_end|>\n<|im_start|>user\n<image_id>0</image_id><image>")
    assert text.endswith("</slice>\nWhat?<|im_end|>\n<|im_start|>assistant\n")


def test_a_prompt_that_does_not_fit_is_refused_with_the_count_and_the_limit(processor: Processor) -> None:
    """Difference 1: the official code would cut it on the right, the assistant's header first."""
    messages = [Message.user(WIDE, "What is this?")]
    tokens = len(processor.plan(messages).prompt.input_ids)
    assert processor.plan(messages, max_prompt_tokens=tokens).prompt.input_ids
    with pytest.raises(PromptTooLong, match=rf"takes {tokens:,} tokens and the limit is {tokens - 1:,}") as caught:
        processor.plan(messages, max_prompt_tokens=tokens - 1)
    assert (caught.value.tokens, caught.value.limit) == (tokens, tokens - 1)


def test_frames_that_are_few_once_older_ones_were_dropped_are_cut_in_two(processor: Processor, tmp_path: Path) -> None:
    older = Message.user(film(tmp_path, 9), *[WIDE] * 9, "a")
    last = Message.user(film(tmp_path, 10), "c")
    alone = processor.plan([last])
    assert {len(item.layout.tgt_sizes) for item in alone.pictures} == {3}
    plan = processor.plan([older, Message.assistant("b"), last], Options(drop_oldest=True), max_prompt_tokens=len(alone.prompt.input_ids))
    assert (plan.dropped_turns, plan.prompt) == (2, alone.prompt)
    assert [piece.digest for piece in plan.slices] == [piece.digest for piece in alone.slices]


def test_the_oldest_turns_are_dropped_whole_where_that_was_asked_for(processor: Processor) -> None:
    turns = [Message.user(WIDE, "one"), Message.assistant("1"), Message.user(SMALL, "two"), Message.assistant("2"), Message.user(SMALL, "three")]
    fitting = len(processor.plan(turns[2:]).prompt.input_ids)
    plan = processor.plan(turns, Options(drop_oldest=True), max_prompt_tokens=fitting)
    assert (plan.dropped_turns, plan.prompt) == (2, processor.plan(turns[2:]).prompt)
    assert [item.layout.size for item in plan.pictures] == [(300, 200), (300, 200)]
    with pytest.raises(PromptTooLong):
        processor.plan(turns, max_prompt_tokens=fitting)
    last = len(processor.plan(turns[4:]).prompt.input_ids)
    with pytest.raises(PromptTooLong, match=f"takes {last:,} tokens"):
        processor.plan(turns, Options(drop_oldest=True), max_prompt_tokens=last - 1)


def test_an_unusable_file_is_named_by_its_number_among_its_kind(processor: Processor, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"^Picture 2 is empty"):
        processor.plan([Message.user(SMALL, film(tmp_path, 1), Image(b""), "?")])
    with pytest.raises(VideoError, match=r"^Video 1 cannot be read"):
        processor.plan([Message.user(SMALL, Video(b"no"), "?")])


def test_limits_reach_the_files(golden: Path) -> None:
    with pytest.raises(ImageError, match="the limit is 10"):
        Processor(golden / "tiny_model", MediaLimits(max_file_bytes=10)).plan([Message.user(Image(b"x" * 11), "?")])


@pytest.mark.parametrize("name", ["max_slice_nums", "max_frame_slice_nums", "max_frames"])
def test_fewer_than_one_slice_or_frame_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"{name} is 0; it must be at least 1"):
        Options(**{name: 0})


def test_a_request_may_see_fewer_frames_and_cut_them_otherwise_than_pictures(processor: Processor, tmp_path: Path) -> None:
    messages = [Message.user(WIDE, film(tmp_path, 9, (900, 500)), "Hm?")]
    plan = processor.plan(messages, Options(max_frames=3, max_frame_slice_nums=1))
    assert [item.time for item in plan.pictures] == [None, 1, 4, 7]
    assert [item.layout.grid for item in plan.pictures] == [(2, 1), None, None, None]
    assert len(processor.plan(messages, Options(max_frames=1000)).pictures) == 1 + 9


@pytest.mark.parametrize(
    "options", [Options(), Options(max_slice_nums=1), Options("Be brief.", max_frames=3, max_frame_slice_nums=2, use_image_id=True)]
)
def test_an_outline_is_the_plan_without_its_pixels(processor: Processor, tmp_path: Path, options: Options) -> None:
    image = tmp_path / "wide.png"
    PIL.Image.new("RGB", (900, 500)).save(image)
    messages = [Message.user(Image(image), film(tmp_path, 5), "a"), Message.assistant("b"), Message.user(SMALL, "c")]
    plan = processor.plan(messages, options)
    outline = processor.outline(messages, [processor.head(item, name) for item, name in named(messages)], options)
    assert outline.prompt == plan.prompt
    assert [layout for layouts in outline.layouts for layout in layouts] == [item.layout for item in plan.pictures]


def test_the_head_of_a_file_that_is_none_is_refused(processor: Processor) -> None:
    with pytest.raises(ImageError, match=r"^Picture 3 is not a picture in a known format"):
        processor.head(Image(b"a picture, they say"), "Picture 3")
    with pytest.raises(VideoError, match=r"^Video 1 cannot be read"):
        processor.head(Video(b"no video"), "Video 1")


def test_a_picture_so_thin_that_it_would_hold_the_encoder_for_minutes_is_refused(processor: Processor) -> None:
    long = Image(PIL.Image.new("RGB", (1, 4000)))
    assert processor.plan([Message.user(long, "?")]).pictures
    longer = Image(PIL.Image.new("RGB", (1, 20_000)))
    with pytest.raises(ImageError, match=r"^Picture 1 has 1 x 20000 pixels, too long and thin: it takes 4,525 patches, and the limit is 2,048\.$"):
        processor.plan([Message.user(longer, "?")])


def test_a_text_of_megabytes_is_refused_before_it_is_tokenised(processor: Processor) -> None:
    with pytest.raises(InputError, match=r"^The conversation has 1,000,001 characters; the limit is 819,200\.$"):
        processor.plan([Message.user("a" * 1_000_001)], max_prompt_tokens=8192)


def test_too_many_files_are_refused_before_one_is_opened_or_leave_with_the_oldest_turns(golden: Path) -> None:
    limited = Processor(golden / "tiny_model", MediaLimits(max_conversation_files=2))
    gone = Image(golden / "deleted long ago")
    turns = [turn for item in (Image(b"no picture"), SMALL, SMALL) for turn in (Message.user(item, "a"), Message.assistant("b"))][:-1]
    for refuse in (limited.plan, limited.check):
        with pytest.raises(InputError, match=r"^The conversation has 3 pictures and videos; the limit is 2\. Please start a new one\.$"):
            refuse(turns)
    plan = limited.plan(turns, Options(drop_oldest=True))
    assert (plan.dropped_turns, len(plan.pictures)) == (2, 2)
    with pytest.raises(ImageError, match=r"^Picture 3 is missing"):
        limited.plan([*turns[:-1], Message.user(gone, "?")], Options(drop_oldest=True))
    with pytest.raises(InputError, match="has 3 pictures"):
        limited.plan([Message.user(SMALL, SMALL, SMALL)], Options(drop_oldest=True))
