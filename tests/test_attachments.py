"""All files of a conversation together: how many and how much, before any is decoded, and what is said about them."""

import itertools
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import PIL.Image
import pytest

from pipeline import attachments
from pipeline.attachments import InProcess, excess, in_part, load_all
from pipeline.config import MediaLimits, SliceConfig
from pipeline.cutting import CutPicture, Cutting
from pipeline.errors import ImageError, VideoError
from pipeline.media import Picture, Used
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
