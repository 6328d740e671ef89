"""Every snippet of docs/api.md, run as it stands against the served demo model -> what the page says it prints, right answers about drawn scenes."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from demo.episodes import episode
from pipeline import Assistant
from pipeline.artifacts import BUNDLED
from tests.serving import Seeded, served

ROOT = Path(__file__).parent.parent
DOCS, FILES = ROOT / "docs" / "api.md", ROOT / "docs" / "api"
ADDRESS = "http://127.0.0.1:7860"
MODULES = Path(sys.prefix) / "node_modules"  # where `make test` puts what the page tells people to install with npm
SNIPPETS = re.findall(r"^```(python|js|sh)\n(.*?)^```\n(?:\n```text\n(.*?)^```$)?", DOCS.read_text(), re.M | re.S)
EPISODES = {"scene.png": episode(110, "test", "count"), "first.png": episode(43, "test", "multi"), "clip.mp4": episode(43, "test", "video")}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with Assistant(BUNDLED) as assistant, served(Seeded(assistant), tmp_path_factory.mktemp("uploads")) as address:
        yield address.rstrip("/")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(FILES, tmp_path, dirs_exist_ok=True)
    (tmp_path / "node_modules").symlink_to(MODULES)
    return tmp_path


@pytest.mark.parametrize("number", range(len(SNIPPETS)), ids=lambda number: f"{number + 1}-{SNIPPETS[number][0]}")
def test_a_snippet_prints_what_the_page_says(address: str, folder: Path, number: int) -> None:
    language, code, printed = SNIPPETS[number]
    name, command = {"python": ("it.py", [sys.executable, "-W", "error"]), "js": ("it.mjs", ["node"]), "sh": ("it.sh", ["bash", "-eu"])}[language]
    (folder / name).write_text(code.replace(ADDRESS, address))
    ran = subprocess.run([*command, name], check=False, cwd=folder, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout.strip()) == (0, printed.strip()), ran.stderr


def test_the_snippet_of_the_readme_prints_a_growing_answer(address: str, folder: Path) -> None:
    [code] = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S)
    (folder / "scene.png").rename(folder / "photo.jpg")
    (folder / "it.py").write_text(code.replace(ADDRESS, address).replace("What is this?", "Count the things."))
    ran = subprocess.run([sys.executable, "-W", "error", "it.py"], check=True, cwd=folder, capture_output=True, text=True)
    assert ran.stdout.splitlines()[-1] == "Six."


def test_the_page_has_a_snippet_of_each_kind_for_each_endpoint_and_says_what_each_prints() -> None:
    kinds = {(language, endpoint) for language, code, _ in SNIPPETS for endpoint in ("ask", "chat") if re.search(rf"[/\"]{endpoint}\b", code)}
    assert kinds == {(language, endpoint) for language in ("python", "js", "sh") for endpoint in ("ask", "chat")}
    assert all(printed for _, _, printed in SNIPPETS)
    assert len(SNIPPETS) == len(re.findall(r"^```(?!text|json|$)", DOCS.read_text(), re.M))


def test_the_answers_on_the_page_are_the_right_ones_about_the_pictures_beside_it() -> None:
    answers = {turn.question: turn.answer for shown in EPISODES.values() for turn in shown.turns}
    asked = [(question, printed) for _, code, printed in SNIPPETS for question in answers if f'"{question}"' in code and "cancel" not in code]
    assert len(asked) >= 10
    for question, printed in asked:
        assert answers[question] in printed, question
    scene, album = (EPISODES[name].turns[0].media for name in ("scene.png", "first.png"))
    for name, media in zip(("scene.png", "first.png", "second.png"), (*scene, *album), strict=True):
        assert np.array_equal(np.asarray(PIL.Image.open(FILES / name).convert("RGB")), np.asarray(media.frames[0].convert("RGB"))), name


def test_the_settings_on_the_page_are_those_of_the_endpoint() -> None:
    from ui.ask import Wishes

    table = DOCS.read_text().split("| setting | default |")[1].split("\n\n")[0]
    named = {name for row in table.splitlines()[2:] for name in re.findall(r"`([a-z_]+)`", row.split("|")[1])}
    assert named == set(Wishes.__annotations__)
