"""What tests of several rooms share: the golden data, the golden tiny model converted once a session, a Hub, and a page over the bundled model."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import huggingface_hub
import hypothesis
import pytest

import pipeline.hub
from pipeline import Assistant, decoder_process
from pipeline.artifacts import BUNDLED
from pipeline.config import ModelConfig, SliceConfig, TextConfig, VisionConfig
from pipeline.message import Image, Message, Placeholder, build_prompt
from pipeline.tokenizer import Tokenizer
from tests.hub.repos import Account
from tests.hub.server import Server, running

if TYPE_CHECKING:  # importing it imports Gradio, which takes seconds
    from tests.serving import Heard

# For `make mutants`, where it counts whether an example fails, not which is the smallest that does.
hypothesis.settings.register_profile("unshrunk", phases=[hypothesis.Phase.generate])

# Where coverage is measured: processes that decode have an environment of their own, without what tells other processes to be measured.
if measured := os.environ.get("COVERAGE_PROCESS_CONFIG"):
    started = f"import os; os.environ['COVERAGE_PROCESS_CONFIG'] = {measured!r}; import coverage; coverage.process_startup()"
    decoder_process.PROGRAM = started + decoder_process.PROGRAM


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """With RELIABILITY_LINES=FILE the lines of JSON that passing tests and their fixtures print are added to that file."""
    if report.passed and (file := os.environ.get("RELIABILITY_LINES")):
        said = "".join(text for title, text in report.sections if title == f"Captured stdout {report.when}")  # sections of earlier phases are kept
        with Path(file).open("a", encoding="utf-8") as lines:
            for line in said.splitlines():
                if line.startswith('{"'):
                    lines.write(json.dumps({"test": report.nodeid, "line": json.loads(line)}) + "\n")


@pytest.fixture(scope="session")
def golden() -> Path:
    return Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def converted(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Convert the golden tiny model to a weight format."""

    def convert_to(weight_format: str) -> Path:
        # Imported here: most tests need neither torch nor NNCF, and importing them takes seconds.
        from conversion.checkpoint import Source
        from conversion.compress import Recipe
        from conversion.job import convert

        folder = tmp_path_factory.mktemp("converted") / weight_format
        convert(Source.locate(str(golden / "tiny_model")), folder, Recipe(weight_format, group_size=32))
        return folder

    return convert_to


@pytest.fixture(scope="session")
def fp32_folder(converted: Callable[[str], Path]) -> Path:
    return converted("fp32")


@pytest.fixture(scope="session")
def int4_folder(converted: Callable[[str], Path]) -> Path:
    return converted("int4")


@pytest.fixture(scope="session")
def tokenizer(golden: Path) -> Tokenizer:
    """The real vocabulary of 151,666 tokens."""
    return Tokenizer(golden / "tokenizer")


@pytest.fixture(scope="session")
def build_text(tokenizer: Tokenizer) -> Callable[[list[Placeholder]], str]:
    """What stands in the prompt for one picture."""
    config = ModelConfig(TextConfig(), VisionConfig(), SliceConfig())
    empty = build_prompt([Message("user", ())], [], tokenizer, config).text
    head, tail = empty.split("user\n")[0] + "user\n", empty.split("user\n")[1]

    def text(placeholders: list[Placeholder]) -> str:
        message = Message("user", (Image(b""),))
        return build_prompt([message], [placeholders], tokenizer, config).text.removeprefix(head).removesuffix(tail)

    return text


@pytest.fixture(scope="module")
def heard() -> Iterator["Heard"]:
    """The bundled model, which gives as many tokens whatever it is asked."""
    from tests.serving import Heard

    with Assistant(BUNDLED) as assistant:
        yield Heard(assistant)


@pytest.fixture(scope="module")
def address(heard: "Heard", tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of the page over it."""
    import app
    from tests.serving import served

    with served(heard, tmp_path_factory.mktemp("uploads"), app.DEMO_NOTICE) as address:
        yield address


@pytest.fixture
def damaged_model(tmp_path: Path) -> Path:
    """The bundled model with other bytes in one file than its manifest says."""
    folder = Path(shutil.copytree(BUNDLED, tmp_path / "model"))
    with (folder / "openvino_resampler_model.bin").open("r+b") as weights:
        weights.write(b"else")
    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """An empty Hub which the client in this process takes for the real one, with an empty cache and no token; a wait takes no time."""
    (tmp_path / "hub").mkdir()
    constants = huggingface_hub.constants
    with running(tmp_path / "hub") as server:
        server.hub.tokens = {"hf_write": Account("owner"), "hf_read": Account("owner", "read"), "hf_other": Account("other")}
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.address + "/{repo_id}/resolve/{revision}/{filename}")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        # In their eyes alone: whoever else waits in this process by sleeping would spin.
        sleepless = SimpleNamespace(**{**vars(time), "sleep": server.waits.append})
        for room in (pipeline.hub, huggingface_hub.file_download, huggingface_hub.utils._http):
            monkeypatch.setattr(room, "time", sleepless)
        yield server
        huggingface_hub.close_session()
