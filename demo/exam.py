"""A seed, or a folder of pictures with a JSON file -> questions with the one right answer; and the controls, in which no picture can help."""

import dataclasses
import io
import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import PIL.Image

from demo.episodes import SKILLS, Media, episode
from demo.language import Code
from pipeline.errors import InputError
from pipeline.message import Image, Message, Part, Text, Video

QUESTIONS_FILE = "questions.json"
GREY = (128, 128, 128)
MOST_OF_ONE = 3  # questions about one scene


@dataclass(frozen=True)
class Question:
    """A conversation that ends with a question; the turns before it are right."""

    skill: str
    language: Code | None
    messages: tuple[Message, ...]
    answer: str

    @property
    def media(self) -> tuple[Image | Video, ...]:
        return tuple(item for message in self.messages for item in message.media)

    def showing(self, media: Sequence[Image | Video]) -> "Question":
        """The same words about other pictures."""
        left = iter(media)
        messages = [
            dataclasses.replace(message, content=tuple(part if isinstance(part, Text) else next(left) for part in message.content))
            for message in self.messages
        ]
        return dataclasses.replace(self, messages=tuple(messages))


def drawn(count: int, seed: int) -> list[Question]:
    """Questions on scenes that training never saw: other seeds, and in half of them pairs, words and numbers held out. As many of each skill."""
    asked: dict[str, list[Question]] = {skill: [] for skill in SKILLS}
    numbers = itertools.count(seed * 1_000_000)
    while (missing := count - sum(map(len, asked.values()))) > 0:
        skill = min(asked, key=lambda name: len(asked[name]))
        for question in _questions(next(numbers), skill)[:missing]:
            asked[question.skill].append(question)
    return [question for questions in asked.values() for question in questions]


def _questions(seed: int, skill: str) -> list[Question]:
    shown = episode(seed, "test", skill)
    found, before = [], []
    for turn in shown.turns:
        user = Message("user", (*map(_file, turn.media), Text(turn.question)))
        found.append(Question(turn.skill, shown.language, (*before, user), turn.answer))
        before += [user, Message.assistant(turn.answer)]
    return [question for question in found if question.skill == skill][:MOST_OF_ONE]


def stored(folder: Path) -> list[Question]:
    """Questions of one's own: `questions.json` is a list of {"question", "answer", and "images" (file names) or "video", and maybe "skill"}.

    Raises:
        InputError: the file is missing, or an entry is not as it should be.
    """
    try:
        entries = json.loads((folder / QUESTIONS_FILE).read_text(encoding="utf-8"))
        return [
            Question(
                str(entry.get("skill", "all")),
                None,
                (Message("user", (*_named(folder, entry), Text(str(entry["question"])))),),
                str(entry["answer"]),
            )
            for entry in entries
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as cause:
        raise InputError(f"{folder / QUESTIONS_FILE} is missing or not as it should be: {cause}") from cause


def _named(folder: Path, entry: dict[str, object]) -> Iterator[Part]:
    images = entry.get("images", [])
    if not isinstance(images, list):
        raise TypeError('"images" is not a list')
    yield from (Image(folder / str(name)) for name in images)
    if entry.get("video"):
        yield Video(folder / str(entry["video"]))


def blanked(questions: Iterable[Question]) -> list[Question]:
    """The same questions about grey pictures of the same sizes."""
    known: dict[int, Image | Video] = {}
    return [question.showing([known.setdefault(id(item), _blank(item)) for item in question.media]) for question in questions]


def swapped(questions: Sequence[Question], seed: int) -> list[Question]:
    """The same questions about pictures and videos of other questions; without those for which there are none."""
    random = np.random.default_rng(seed)
    shown = {id(item): item for question in questions for item in question.media}
    found = []
    for question in questions:
        own = {id(item) for item in question.media}
        others = {kind: [item for key, item in shown.items() if key not in own and isinstance(item, kind)] for kind in (Image, Video)}
        if all(others[type(item)] for item in question.media):
            found.append(question.showing([others[type(item)][int(random.integers(len(others[type(item)])))] for item in question.media]))
    return found


def chance(questions: Sequence[Question]) -> float:
    """Share of right answers of somebody who sees nothing, and always says what is most often right to that kind of question in the other half of
    them. That there is no drawn scene at all, and so nothing to be said, only a picture tells.
    """
    kinds: dict[tuple[str, Code | None, bool], list[str]] = defaultdict(list)
    for question in questions:
        yes_or_no = question.answer in ("Yes.", "No.", "是的。", "不是。", "有。", "没有。")
        if question.skill != "refuse":
            kinds[question.skill, question.language, yes_or_no].append(question.answer)
    halves = [half for answers in kinds.values() for half in ((answers[::2], answers[1::2]), (answers[1::2], answers[::2])) if half[0]]
    return sum(answers.count(Counter(others).most_common(1)[0][0]) for others, answers in halves) / len(questions)


def image_file(image: PIL.Image.Image) -> Image:
    file = io.BytesIO()
    image.save(file, "PNG")
    return Image(file.getvalue())


def video_file(frames: Sequence[PIL.Image.Image]) -> Video:
    """One frame a second in H.264, as a phone or a web page would have it."""
    width, height = (side // 2 * 2 for side in frames[0].size)  # the codec wants even sides
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=1, options={"crf": "16"})
        stream.width, stream.height, stream.pix_fmt, stream.time_base = width, height, "yuv420p", Fraction(1, 1)
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_image(frame.crop((0, 0, width, height)))))
        container.mux(stream.encode())
    return Video(file.getvalue())


def _file(media: Media) -> Image | Video:
    return image_file(media.frames[0]) if media.kind == "image" else video_file(media.frames)


def _blank(item: Image | Video) -> Image | Video:
    if isinstance(item, Image):
        source = io.BytesIO(item.source) if isinstance(item.source, bytes) else item.source
        if not isinstance(source, PIL.Image.Image):
            with PIL.Image.open(source) as opened:
                return image_file(PIL.Image.new("RGB", opened.size, GREY))
        return image_file(PIL.Image.new("RGB", source.size, GREY))
    with av.open(io.BytesIO(item.source) if isinstance(item.source, bytes) else str(item.source)) as container:
        frames = [frame.to_image() for frame in container.decode(video=0)]
    return video_file([PIL.Image.new("RGB", frame.size, GREY) for frame in frames])
