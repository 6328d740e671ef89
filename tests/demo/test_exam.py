"""Questions of the exam: right conversations, as many as asked for, and controls in which the pictures cannot help."""

import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from demo.episodes import SKILLS, episode
from demo.exam import Question, blanked, chance, drawn, image_file, stored, swapped, video_file
from pipeline.config import MediaLimits
from pipeline.errors import InputError
from pipeline.message import Image, Message, Text, Video
from pipeline.processor import Processor
from pipeline.still import load_image
from pipeline.video import load_video


@pytest.fixture(scope="module")
def questions() -> list[Question]:
    return drawn(90, 3)


def pixels(question: Question) -> list[np.ndarray]:
    found = []
    for item in question.media:
        pictures = load_video(item, MediaLimits()) if isinstance(item, Video) else [load_image(item, MediaLimits())]
        found += [np.asarray(picture.image) for picture in pictures]
    return found


def test_there_are_as_many_as_asked_for_and_about_as_many_of_each_skill(questions: list[Question]) -> None:
    counted = Counter(question.skill for question in questions)
    assert len(questions) == 90
    assert set(counted) == set(SKILLS)
    assert max(counted.values()) - min(counted.values()) <= 3
    assert drawn(20, 3) == drawn(20, 3) != drawn(20, 4)


def test_every_conversation_is_one_the_pipeline_accepts(questions: list[Question], golden: Path) -> None:
    processor = Processor(golden / "tiny_model")
    for question in questions:
        assert processor.plan(question.messages).prompt.image_bound
        assert [message.role for message in question.messages] == ["user", "assistant"] * (len(question.messages) // 2) + ["user"]


def test_a_video_file_shows_the_drawn_frames_a_second_apart() -> None:
    frames = episode(4, "test", "video").turns[0].media[0].frames
    pictures = list(load_video(video_file(frames), MediaLimits()))
    assert [picture.time for picture in pictures] == [float(second) for second in range(len(frames))]
    for picture, frame in zip(pictures, frames, strict=True):
        width, height = picture.image.size
        assert abs(np.asarray(picture.image, float) - np.asarray(frame, float)[:height, :width]).mean() < 6


def test_blanked_questions_show_nothing_at_the_same_sizes(questions: list[Question]) -> None:
    for question, blank in zip(questions, blanked(questions), strict=True):
        assert [frame.shape for frame in pixels(blank)] == [frame.shape for frame in pixels(question)]
        assert all(frame.min() > 120 and frame.max() < 136 for frame in pixels(blank))
        assert [message.content[-1] for message in blank.messages] == [message.content[-1] for message in question.messages]


def test_swapped_questions_show_the_pictures_of_others(questions: list[Question]) -> None:
    shown = {id(item) for question in questions for item in question.media}
    for question, other in zip(questions, swapped(questions, 0), strict=True):
        assert list(map(type, other.media)) == list(map(type, question.media))
        assert {id(item) for item in other.media} <= shown - {id(item) for item in question.media}
        assert [message.content[-1] for message in other.messages] == [message.content[-1] for message in question.messages]


def test_chance_is_the_share_of_the_answer_that_is_most_common_in_the_other_half() -> None:
    def question(skill: str, answer: str) -> Question:
        return Question(skill, "en", (Message.user("?"),), answer)

    exist = [question("exist", answer) for answer in ("Yes.", "No.", "Yes.", "No.", "Yes.", "No.")]
    assert chance(exist) == 0.0  # each half says the contrary of the other
    assert chance([*exist[:2], *exist[:2][::-1], question("colour", "Red."), question("colour", "Red.")]) == pytest.approx(4 / 6)
    assert chance([question("relation", answer) for answer in ("Yes.", "The red star.") * 2]) == 1.0  # two kinds of question
    assert chance([question("refuse", "I only know drawn scenes.")] * 4) == 0.0


def test_questions_of_ones_own_come_from_a_folder(tmp_path: Path) -> None:
    PIL.Image.new("RGB", (20, 10)).save(tmp_path / "a.png")
    entries = [{"images": ["a.png", "a.png"], "question": "Same?", "answer": "Yes.", "skill": "compare"}, {"question": "Who?", "answer": "I."}]
    (tmp_path / "questions.json").write_text(json.dumps(entries))
    first, second = stored(tmp_path)
    picture = Image(tmp_path / "a.png")
    assert first == Question("compare", None, (Message("user", (picture, picture, Text("Same?"))),), "Yes.")
    assert (second.skill, second.media) == ("all", ())
    assert [frame.shape for frame in pixels(blanked([first])[0])] == [(10, 20, 3)] * 2


@pytest.mark.parametrize("text", [None, "[", "[{}]", '[{"question": "?", "answer": "!", "images": "a.png"}]', "[1]"])
def test_a_folder_without_proper_questions_is_refused(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "questions.json").write_text(text)
    with pytest.raises(InputError, match=r"questions\.json"):
        stored(tmp_path)


def test_an_image_file_is_the_image() -> None:
    image = PIL.Image.effect_noise((30, 20), 50).convert("RGB")
    source = image_file(image).source
    assert isinstance(source, bytes)
    assert PIL.Image.open(io.BytesIO(source)).tobytes() == image.tobytes()
