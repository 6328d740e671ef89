"""Ten scenes, each shown to the served page by a client of its API -> the right answer to every turn, from the bundled INT4 model: the whole path."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.episodes import Media, episode
from demo.exam import image_file, video_file
from pipeline import Assistant
from pipeline.artifacts import BUNDLED
from tests.serving import Seeded, connect, message, served

#: What is shown and asked -> the skill and the number of an episode that training never saw, and its language.
SCENES = {
    "the colour of a thing": ("colour", 3, "en"),
    "how many there are": ("count", 13, "en"),
    "small print that only slices show": ("small_print", 35, "en"),
    "a description in Chinese": ("describe", 1, "zh"),
    "several pictures": ("multi", 41, "en"),
    "several pictures in Chinese": ("multi", 5, "zh"),
    "a video": ("video", 43, "en"),
    "a video in Chinese": ("video", 0, "zh"),
    "what can be understood only after what was asked before": ("followup", 0, "en"),
    "the same in Chinese": ("followup", 6, "zh"),
}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with Assistant(BUNDLED) as assistant, served(Seeded(assistant), tmp_path_factory.mktemp("uploads")) as address:
        yield address


def _stored(media: Media, path: Path) -> Path:
    file, suffix = (image_file(media.frames[0]), ".png") if media.kind == "image" else (video_file(media.frames), ".mp4")
    path = path.with_suffix(suffix)
    assert isinstance(file.source, bytes)
    path.write_bytes(file.source)
    return path


@pytest.mark.parametrize("scene", SCENES)
def test_the_page_answers_rightly(address: str, tmp_path: Path, scene: str) -> None:
    skill, number, language = SCENES[scene]
    shown = episode(number, "test", skill)
    assert shown.language == language
    client = connect(address)
    for index, turn in enumerate(shown.turns if skill == "followup" else shown.turns[:1]):
        files = [_stored(media, tmp_path / f"{index} {place}") for place, media in enumerate(turn.media)]
        assert client.predict(message(turn.question, *files), api_name="/chat") == turn.answer, turn.question
