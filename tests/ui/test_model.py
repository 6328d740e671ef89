"""A model in the making: what those who ask meanwhile hear, what is told when there is none, and that it comes again."""

import gc
import re
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline import ArtifactError, Assistant, EngineConfig, EngineDead, Message, PipelineError, TextDelta
from pipeline.artifacts import BUNDLED
from tests.hub.server import Server
from tests.serving import Scripted, until, words
from ui.cost import Estimates
from ui.model import Degraded, Model, Ready, Report, Starting, load
from ui.sentences import progress, state_line

HALF = Starting("downloading", 1_000_000, 2_000_000)


class Loads:
    """Plays one outcome for each time that a model is loaded: an assistant, an error, or to wait in the middle until `go_on` is set.

    Before any of them an event holds it up until it is set.
    """

    def __init__(self, *outcomes: Scripted | Exception | Starting | threading.Event) -> None:
        self._outcomes = list(outcomes)
        self.go_on = threading.Event()
        self.count = 0

    def __call__(self, report: Report) -> Any:
        self.count += 1
        while isinstance(outcome := self._outcomes.pop(0), Starting | threading.Event):
            if isinstance(outcome, Starting):
                report(outcome)
            assert (self.go_on if isinstance(outcome, Starting) else outcome).wait(60)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


@contextmanager
def running(loads: Loads, retry_seconds: float = 3600) -> Iterator[Model]:
    with Model(loads, retry_seconds) as model:
        yield model
        loads.go_on.set()


async def _heard(model: Model) -> list[Any]:
    return [delta async for delta in model.stream([Message.user("hi")])]


async def test_who_asks_while_it_starts_hears_how_far_it_is_and_then_the_answer() -> None:
    loads = Loads(HALF, Scripted(words("fine")))
    with running(loads) as model:
        until(lambda: model.state == HALF)
        assert model.assistant is None
        stream = model.stream([Message.user("hi")])
        assert await anext(stream) == HALF
        loads.go_on.set()
        assert TextDelta("fine") in [delta async for delta in stream]
        assert model.state == Ready()


async def test_who_asks_where_there_is_no_model_is_told_why_and_it_is_tried_again() -> None:
    heard = threading.Event()
    loads = Loads(ArtifactError("The model repo is gone."), heard, HALF, Scripted(words("fine")))
    with running(loads, retry_seconds=0) as model:
        until(lambda: model.state == Degraded("The model repo is gone."))
        with pytest.raises(PipelineError, match=r"^The model repo is gone\.$"):
            await _heard(model)
        heard.set()
        until(lambda: model.state == HALF)
        loads.go_on.set()
        assert TextDelta("fine") in await _heard(model)


async def test_a_fault_of_ours_is_told_without_its_message_which_the_log_has(caplog: pytest.LogCaptureFixture) -> None:
    with running(Loads(RuntimeError("secret detail"))) as model:
        until(lambda: isinstance(model.state, Degraded))
        with pytest.raises(PipelineError, match="through a fault of this server"):
            await _heard(model)
        assert "secret" not in state_line(model.state)
    assert "secret detail" in caplog.text


async def test_a_model_whose_engine_died_is_let_go_and_loaded_again() -> None:
    dead = Scripted(words("fine"))
    loads = Loads(dead, HALF, Scripted(words("again")))
    with running(loads) as model:
        until(lambda: model.state == Ready())
        dead.health = "restarting"
        assert model.state == Degraded("The model failed and is starting again.")
        dead.health = "dead"
        until(lambda: model.state == HALF)
        assert dead.let_go
        loads.go_on.set()
        assert TextDelta("again") in await _heard(model)


def test_leaving_lets_the_model_go_and_one_that_comes_too_late_as_well() -> None:
    there, late = Scripted(words()), Scripted(words())
    with running(Loads(there)) as model:
        until(lambda: model.state == Ready())
    assert there.let_go
    loads = Loads(HALF, late)
    with running(loads) as model:
        until(lambda: model.state == HALF)
    until(lambda: late.let_go)
    assert loads.count == 1


async def test_a_dead_model_is_not_kept_beside_the_next_one() -> None:
    dead = Scripted(words("fine"))
    loads, estimates = Loads(dead, HALF), []
    with running(loads) as model:
        until(lambda: model.state == Ready())
        estimates.append(Estimates(model))
        assert estimates[0].now() is not None
        dead.health = "dead"
        until(lambda: model.state == HALF)
        gone = weakref.ref(dead)
        del dead
        gc.collect()
        assert gone() is None


# What the environment asks for


@pytest.mark.parametrize("fault", [EngineDead("The model failed."), RuntimeError("out of memory")])
def test_a_model_that_can_be_loaded_and_not_asked_is_let_go_and_told(monkeypatch: pytest.MonkeyPatch, fault: Exception) -> None:
    async def calibrate(self: Assistant) -> None:
        loaded.append(self)
        raise fault

    loaded: list[Assistant] = []
    monkeypatch.setattr(Assistant, "calibrate", calibrate)
    with pytest.raises((ArtifactError, RuntimeError)) as caught:
        load({"MODEL_DIR": str(BUNDLED)}, EngineConfig(device="CPU"), lambda _: None)
    assert loaded[0].stats().health == "dead"
    if isinstance(fault, EngineDead):
        assert str(caught.value).startswith("The model can be loaded, but not asked: ")
        assert "Correct MODEL_DIR in the environment of this server" in str(caught.value)


def test_a_repo_is_downloaded_checked_and_loaded_in_that_order(hub: Server) -> None:
    hub.hub.publish("owner/name", BUNDLED, [path.name for path in BUNDLED.iterdir()])
    reports: list[Starting] = []
    load({"MODEL_REPO": "owner/name"}, EngineConfig(device="CPU"), reports.append).close()
    assert [report.stage for report in reports if report.stage != "downloading"] == ["checking", "checking", "loading"]
    downloads = [report for report in reports if report.stage == "downloading"]
    total = sum(path.stat().st_size for path in BUNDLED.iterdir())
    assert {report.total for report in downloads} == {total}
    assert [report.done for report in downloads] == sorted({report.done for report in downloads})
    assert 0 <= downloads[0].done < downloads[-1].done < total


@pytest.mark.parametrize(
    ("environ", "remedy"),
    [
        (
            {"MODEL_DIR": "/nowhere"},
            "The model folder /nowhere does not exist. "
            "Correct MODEL_DIR in the environment of this server, or take it away for the bundled demo model.",
        ),
        (
            {"MODEL_DIR": "/nowhere", "MODEL_VARIANT": "int8", "SPACE_ID": "me/space"},
            "The model folder /nowhere does not exist. "
            "Correct MODEL_DIR and MODEL_VARIANT in the Space's settings, or take them away for the bundled demo model.",
        ),
    ],
)
def test_a_model_that_cannot_be_had_is_told_with_the_variables_to_correct(environ: dict[str, str], remedy: str) -> None:
    with pytest.raises(ArtifactError, match=f"^{re.escape(remedy)}$"):
        load(environ, EngineConfig(), lambda _: None)


def test_a_folder_that_is_not_what_its_manifest_says_is_never_loaded(damaged_model: Path) -> None:
    with pytest.raises(ArtifactError, match=r"openvino_resampler_model\.bin is damaged"):
        load({"MODEL_DIR": str(damaged_model)}, EngineConfig(), lambda _: None)


@pytest.mark.parametrize(
    ("starting", "line"),
    [
        (Starting("downloading", 3_100_000_000, 5_400_000_000), "Starting: downloading 3.1 of 5.4 GB"),
        (Starting("downloading", 300_000, 5_300_000), "Starting: downloading 0.3 of 5.3 MB"),
        (Starting("checking"), "Starting: checking files"),
        (Starting("loading"), "Starting: loading the model"),
    ],
)
def test_how_far_a_start_is_reads_as_one_line(starting: Starting, line: str) -> None:
    assert progress(starting) == state_line(starting) == line
