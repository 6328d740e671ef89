"""All files of a conversation together: how many and how much, before any is decoded, and what is said about them."""

import itertools
from pathlib import Path
from threading import Event
from typing import Any
from unittest.mock import Mock

import gradio
import PIL.Image
import pytest

from pipeline import attachments
from pipeline.attachments import InProcess, excess, in_part, load_all
from pipeline.config import MediaLimits, SliceConfig
from pipeline.cutting import CutPicture, Cutting
from pipeline.errors import ImageError, InputError, VideoError
from pipeline.media import Head, Picture, Used
from pipeline.message import Image, Message, Video
from pipeline.processor import named

LIMITS, CUTTING = MediaLimits(), Cutting(SliceConfig(), 1, None, 2048)
DOT = Image(PIL.Image.new("RGB", (4, 3)))


def dot(size: tuple[int, int] = (4, 3), **known: Any) -> CutPicture:
    return CUTTING.picture(Picture(PIL.Image.new("RGB", size), **known))


def refusal(*messages: Message, limits: MediaLimits = LIMITS) -> str | None:
    return excess(messages, named(messages), limits)


def test_two_hundred_pictures_are_refused_in_one_sentence_before_any_is_decoded() -> None:
    assert refusal(Message.user(*[DOT] * 200)) == "A message has 200 pictures and videos; the limit is 50."
    turns = [turn for _ in range(4) for turn in (Message.user(*[DOT] * 30), Message.assistant("Well."))]
    assert refusal(*turns, Message.user("?")) == "The conversation has 120 pictures and videos; the limit is 100. Please start a new one."


def test_bytes_are_counted_before_any_file_is_decoded(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(60))
    message = Message.user(Image(tmp_path / "a"), Video(bytes(40)), DOT)
    assert refusal(message, limits=MediaLimits(max_conversation_bytes=99)) == (
        "The conversation's files have 100 bytes; the limit is 99. Please start a new one or send smaller files."
    )
    with pytest.raises(ImageError, match=r"^Picture 2 is missing"):
        refusal(Message.user(DOT, Image(tmp_path / "b")))
    with pytest.raises(VideoError, match=r"^Video 1 is missing"):
        refusal(Message.user(Video(tmp_path / "b")))


def test_what_is_at_its_limits_is_let_in() -> None:
    message = Message.user(DOT, Image(bytes(3)), Video(bytes(4)))
    limits = {"max_message_files": 3, "max_conversation_files": 3, "max_conversation_bytes": 7}
    assert refusal(message, limits=MediaLimits(**limits)) is None
    for name, most in limits.items():
        assert f"the limit is {most - 1}" in (refusal(message, limits=MediaLimits(**{**limits, name: most - 1})) or "")


def test_in_its_own_process_a_reader_gives_pictures_and_frames_the_time_they_took_and_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attachments, "clock", itertools.count(100.0, 10.0).__next__)
    film = Video(Path(gradio.__file__).parent / "media_assets" / "videos" / "b.mp4")
    reader = InProcess()
    pictures, seconds = reader.load(DOT, CUTTING, LIMITS, "Picture 1", Used())
    assert ([picture.size for picture in pictures], seconds) == ([(4, 3)], 10.0)
    frames, seconds = reader.load(film, CUTTING, LIMITS, "Video 1", Used())
    assert ([frame.time for frame in frames], {frame.size for frame in frames}, seconds) == ([0, 1, 2, 3, 4], {(480, 270)}, 10.0)
    assert reader.head(DOT, LIMITS, "Picture 1", Used()) == Head((4, 3))
    assert reader.head(film, LIMITS, "Video 1", Used()) == Head((480, 270), pytest.approx(4.967, abs=1e-3))
    few = MediaLimits(max_conversation_pixels=5000, max_image_pixels=11, max_video_pixels=1000)
    thin = Cutting(SliceConfig(), 1, None, 20)
    for name, refused in {
        "With video 9 ": lambda name: reader.load(film, CUTTING, MediaLimits(max_conversation_pixels=5000), name, Used(1000)),
        "Video 9 has 480 x 270 ": lambda name: reader.load(film, CUTTING, few, name, Used()),
        "Video 9 is ": lambda name: reader.head(Video(b""), few, name, Used()),
        "Video 9 has ": lambda name: reader.head(film, few, name, Used()),
        "Picture 9 has ": lambda name: reader.load(DOT, CUTTING, few, name, Used()),
        "Picture 9 is ": lambda name: reader.head(Image(b""), few, name, Used()),
        "Picture 9 ": lambda name: reader.load(DOT, thin, LIMITS, name, Used()),
        "Video 9 ": lambda name: reader.load(film, thin, LIMITS, name, Used()),
    }.items():
        with pytest.raises(InputError, match=f"^{name}"):
            refused("Picture 9" if "icture" in name else "Video 9")


def test_who_leaves_is_known_to_the_reader_of_each_file() -> None:
    reader, left = Mock(spec=InProcess), Event()
    reader.load.return_value = [dot()], 0.0
    load_all(named([Message.user(DOT, DOT)]), CUTTING, LIMITS, reader, left)
    assert [call.args[-1] for call in reader.load.call_args_list] == [left, left]


def test_pixels_are_counted_over_all_pictures_of_a_conversation() -> None:
    messages = [Message.user(DOT, DOT), Message.assistant("Two."), Message.user(DOT)]
    assert len(load_all(named(messages), CUTTING, MediaLimits(max_conversation_pixels=36), InProcess())) == 3
    with pytest.raises(ImageError, match=r"^With picture 3 the conversation has 36 pixels in all its pictures and frames; the limit is 35\.$"):
        load_all(named(messages), CUTTING, MediaLimits(max_conversation_pixels=35), InProcess())


def test_slices_are_counted_over_all_pictures_of_a_conversation() -> None:
    """However small a picture is, its overview is not."""
    wide = Image(PIL.Image.new("RGB", (900, 500)))
    files, cutting = named([Message.user(DOT, wide), Message.assistant("Well."), Message.user(DOT)]), Cutting(SliceConfig(), 9, None, 2048)
    slices = sum(len(picture.slices) for pictures in load_all(files, cutting, LIMITS, InProcess()) for picture in pictures)
    assert slices == 1 + 3 + 1
    assert len(load_all(files, cutting, MediaLimits(max_conversation_slices=slices), InProcess())) == 3
    sentence = r"^With picture 3 the conversation has 5 slices of pictures and frames; the limit is 4: send fewer, or start a new conversation\.$"
    with pytest.raises(ImageError, match=sentence):
        load_all(files, cutting, MediaLimits(max_conversation_slices=slices - 1), InProcess())


def test_each_file_is_told_what_those_before_it_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes ten seconds, of which it waits for three."""
    monkeypatch.setattr(attachments, "clock", itertools.count(0.0, 10.0).__next__)
    reader = Mock(spec=InProcess)
    reader.load.side_effect = lambda item, *_: ([dot((5, 2))] * (2 if isinstance(item, Video) else 1), 7.0)
    messages = [Message.user(DOT, Video(b"v"), DOT), Message.user(Video(b"v"))]
    load_all(named(messages), CUTTING, LIMITS, reader)
    told = [(name, used) for _, _, _, name, used, _ in (call.args for call in reader.load.call_args_list)]
    assert told == [("Picture 1", Used()), ("Video 1", Used(10, 7.0, 3.0)), ("Picture 2", Used(30, 14.0, 6.0)), ("Video 2", Used(40, 21.0, 9.0))]


def test_only_the_sender_of_the_last_message_is_told_of_frames_that_are_not_shown() -> None:
    one, several = [dot()], [dot(others=True)]
    messages = [Message.user(DOT), Message.assistant("A dot."), Message.user(DOT, DOT)]
    files = named(messages)
    assert in_part(messages, files, [several, one, several]) == ("Picture 3",)
    assert in_part([*messages, Message.assistant("Dots."), Message.user("Why?")], files, [several, one, several]) == ()
