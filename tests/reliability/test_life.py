"""A process that is told to stop, killed, without disk or engine: people are told, and the next start finds nothing half-done (R12, R13)."""

import errno
import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import huggingface_hub
import pytest
from gradio_client.client import Job
from gradio_client.exceptions import AppError

from pipeline import Assistant, EngineConfig
from pipeline.artifacts import BUNDLED
from tests.hub.server import Server
from tests.process import running, stopped
from tests.reliability.visiting import COLOUR, Exact, Visitor, picture, visiting
from tests.serving import Scripted, connect, message, served, served_model, until, words
from ui import doors
from ui.model import GRACE_SECONDS, STOPPING, Degraded, Model, Ready, load

#: The bundled model, four at once, asked in one of the ways of `visiting`.
SERVING = """
import dataclasses
import app
from pipeline import Assistant
from pipeline.artifacts import BUNDLED
from tests.reliability.visiting import {0}
app.load = lambda _, engine, __: {0}(Assistant(BUNDLED, dataclasses.replace(engine, max_running=4)))
app.main()
"""


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """A red circle with 11, and a blue one with 12."""
    made = [tmp_path / "red.png", tmp_path / "blue.png"]
    made[0].write_bytes(picture("red", 11))
    made[1].write_bytes(picture("blue", 12))
    return made


def ended(job: Job) -> str:
    """What a request was told last, whether it was its answer or an error."""
    try:
        return str(job.result())
    except AppError as error:
        return str(error)


def test_a_stopping_process_tells_everybody_and_exits_with_0(tmp_path: Path) -> None:
    """Three answers have most of their words to come, a fourth would never end, two visitors wait in the engine's queue, and one comes afterwards."""
    questions = ("Tell me a story.", "Count the circles.", "Why?")
    with running(tmp_path, SERVING.format("Halting")) as (process, client):
        clients = [connect(client.src) for _ in range(7)]
        speaking = [clients.pop().submit(message(text), api_name="/chat") for text in (*questions, "endless")]
        for job in speaking:
            next(item for item in job if isinstance(item, str))
        waiting = [clients.pop().submit(message("endless"), api_name="/chat") for _ in range(2)]
        for job in waiting:
            next(item for item in job if "Waiting" in str(item))
        under_way, started = sum(not job.done() for job in speaking), time.monotonic()
        process.send_signal(signal.SIGTERM)
        told = [ended(job) for job in waiting]
        told_s, at_once = time.monotonic() - started, not speaking[-1].done()
        late = ended(clients.pop().submit(message("hello?"), api_name="/chat"))
        *answers, cut = map(ended, speaking)
        process.communicate()
        drained_s = time.monotonic() - started
    left = list(tmp_path.glob("uploads-*"))
    started = time.monotonic()
    with running(tmp_path, SERVING.format("Talkative")) as (again, client):
        undisturbed = [client.predict(message(questions[0]), api_name="/chat")]
        ready_s = time.monotonic() - started
        undisturbed += [connect(client.src).predict(message(text), api_name="/chat") for text in questions[1:]]
        assert stopped(again)[0] == 0
    drained = sum(answer == whole for answer, whole in zip(answers, undisturbed, strict=True))
    figures = {"drained": drained, "cut": [cut].count(STOPPING), "waiting": 2, "waiting_told": told.count(STOPPING), "told_s": round(told_s, 2)}
    figures |= {"drain_s": round(drained_s, 2), "grace_s": GRACE_SECONDS, "ready_s": round(ready_s, 1), "half_written_files": len(left)}
    print(json.dumps({"R13 SIGTERM": figures}))
    assert process.returncode == 0
    assert under_way == 4
    assert told == [STOPPING, STOPPING]
    assert at_once  # and not when the others had ended
    assert told_s < 1  # which is all that is left for last words
    assert drained_s < 10  # after which Docker and systemd kill
    assert late == STOPPING
    assert answers == undisturbed
    assert len(set(undisturbed)) == 3  # so the words of another one would be noticed
    assert cut == STOPPING
    assert left == []


def test_a_process_killed_while_it_takes_in_and_answers_leaves_nothing_that_the_next_one_keeps(tmp_path: Path, pictures: list[Path]) -> None:
    with running(tmp_path, SERVING.format("Talkative")) as (process, client):
        address = urlsplit(client.src)
        jobs = [one.submit(message("endless", pictures[0]), api_name="/chat") for one in [connect(client.src) for _ in range(4)]]
        for job in jobs:
            next(item for item in job if isinstance(item, str))
        half = socket.create_connection((address.hostname, address.port))
        part = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n' + bytes(200_000)
        head = b"POST /gradio_api/upload HTTP/1.1\r\nHost: x\r\nContent-Length: 999999\r\nContent-Type: multipart/form-data; boundary=x\r\n\r\n"
        half.sendall(head + part)
        until(lambda: bool(list(tmp_path.glob("uploads-*/tmp*"))))
        process.kill()
        process.communicate()
        half.close()
    left = list(tmp_path.glob("uploads-*"))
    started = time.monotonic()
    with running(tmp_path) as (process, client):
        told = client.predict(message(COLOUR, pictures[1]), api_name="/chat")
        ready_s = time.monotonic() - started
        there = list(tmp_path.glob("uploads-*"))
        assert stopped(process)[0] == 0
    figures = {"left_by_the_killed": len(left), "after_the_next_start": len(set(left) & set(there)), "ready_s": round(ready_s, 1)}
    print(json.dumps({"R13 SIGKILL while answering": figures}))
    assert len(left) == 1
    assert not set(left) & set(there)
    assert isinstance(told, str)


@pytest.fixture
def from_hub(hub: Server, tmp_path: Path) -> dict[str, str]:
    """What makes a process pull the bundled model from a Hub."""
    hub.hub.publish("owner/name", BUNDLED, [path.name for path in BUNDLED.iterdir()])
    return {"MODEL_REPO": "owner/name", "HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}


def test_a_process_killed_in_a_download_starts_again_and_answers(hub: Server, from_hub: dict[str, str], tmp_path: Path) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def hold(number: int, when: str) -> None:
        if when == "come" and re.search(r"^GET .*/openvino_language_model\.bin$", str(hub.log[number - 1])):
            asked.set()
            assert go_on.wait(120)

    hub.watch = hold
    with running(tmp_path, **from_hub) as (process, client):
        next(item for item in client.submit(message("Hi"), api_name="/chat") if "downloading" in str(item))
        assert asked.wait(120)
        process.kill()
        process.communicate()
    there, begun = ([path for path in (tmp_path / "hf").rglob(name) if path.is_file()] for name in ("*.bin", "*.incomplete"))
    go_on.set()
    started = time.monotonic()
    with running(tmp_path, **from_hub) as (process, client):
        told = client.predict(message("Who are you?"), api_name="/chat")
        ready_s = time.monotonic() - started
        assert stopped(process)[0] == 0
    half = list((tmp_path / "hf").rglob("*.incomplete"))
    figures = {"files_before": len(there), "begun_before": len(begun), "half_written_files": len(half), "ready_s": round(ready_s, 1)}
    print(json.dumps({"R13 SIGKILL in a download": figures}))
    assert isinstance(told, str)
    assert begun  # what the killed one left half
    assert half == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_an_engine_whose_thread_dies_is_made_again_and_the_page_says_so(tmp_path: Path) -> None:
    """Twice over: the model fails and cannot be started again, and then the thread itself ends where nobody thought of."""
    made: list[Assistant] = []

    def another(report: object) -> Exact:
        made.append(load({}, EngineConfig(), lambda _: None))
        return Exact(made[-1])

    model, told, seen, wrong = Model(another), [], set(), 0
    with served_model(model, tmp_path) as address:
        async with visiting(address) as http:
            for death in ("_start_afresh", "_fail"):
                until(lambda: model.state == Ready())
                engine = made[-1]._engine

                def dies(*_: object) -> None:
                    raise RuntimeError("device lost")

                setattr(engine, death, dies)
                engine._step = dies
                visitor = Visitor(http, death)
                told.append(await visitor.ask(COLOUR, await visitor.upload("a.png", picture("red", 11))))
                until(lambda: model.state != Ready())
                seen.add((await http.get("healthz")).status_code)
                until(lambda: model.state == Ready())
                another_one = Visitor(http, f"after {death}")  # to the first one the picture that got no answer would still be shown
                wrong += await another_one.ask(COLOUR, await another_one.upload("b.png", picture("blue", 12))) != "Blue."
            seen.add((await http.get("healthz")).status_code)
    print(json.dumps({"R12 the thread dies": {"deaths": 2, "requests_told": len(told), "wrong_afterwards": wrong, "health": sorted(seen)}}))
    assert all("The model stopped working" in one or "The model failed" in one for one in told), told
    assert (len(made), wrong, seen) == (3, 0, {200, 503})


def test_a_full_disk_is_one_sentence_to_whoever_uploads_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with served(Scripted(words("fine")), tmp_path) as address, httpx.Client(base_url=address) as http:
        answers = []
        with monkeypatch.context() as almost:
            almost.setattr(doors, "MIN_FREE_BYTES", 2**62)
            answers.append(http.post("gradio_api/upload", files={"files": ("a.png", b"x" * 1000)}))
        with monkeypatch.context() as quite:
            quite.setattr("gradio.route_utils.GradioUploadFile.write", full)
            answers.append(http.post("gradio_api/upload", files={"files": ("a.png", b"x" * 1000)}))
        monkeypatch.setattr(doors, "MAX_BODY_SECONDS", -1.0)  # so what broke off is old enough to go
        http.post("gradio_api/upload", files={"files": ("a.png", b"x" * 1000)})
        left = list(tmp_path.glob("tmp*"))
    print(json.dumps({"disk full at an upload": {"status": [answer.status_code for answer in answers], "files_left": len(left)}}))
    assert [(answer.status_code, answer.text) for answer in answers] == [(507, "This server's disk is full: please try again later.")] * 2
    assert left == []


def test_a_full_disk_in_a_download_is_one_sentence_on_the_page(hub: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    hub.hub.publish("owner/name", BUNDLED, [path.name for path in BUNDLED.iterdir()])
    monkeypatch.setattr(huggingface_hub.file_download, "http_get", full)
    with Model(lambda report: load({"MODEL_REPO": "owner/name"}, EngineConfig(), report)) as model:
        until(lambda: isinstance(model.state, Degraded))
        reason = model.state.reason
    print(json.dumps({"disk full in a download": reason}))
    assert "No space left on device" in reason
    assert reason.count(". ") == 1  # and which variable to correct


@pytest.fixture
def exact() -> Iterator[Exact]:
    with Assistant(BUNDLED) as assistant:
        yield Exact(assistant)


async def test_empty_files_and_clocks_that_jump_change_no_answer(exact: Exact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, jump = time.time, 0.0
    monkeypatch.setattr(time, "time", lambda: real() + jump)
    told = []
    with served(exact, tmp_path) as address:
        async with visiting(address) as http:
            for seconds in (0.0, 86_400.0, -86_400.0, 0.0):
                jump = seconds
                visitor = Visitor(http, str(len(told)))
                told.append(await visitor.ask(COLOUR, await visitor.upload("red.png", picture("red", 11))))
            empty = await visitor.ask(COLOUR, await visitor.upload("empty.png", b""))
            last = await visitor.ask(COLOUR)
    print(json.dumps({"clock jumps": {"answers": len(told), "wrong": sum(one != "Red." for one in told)}, "an empty file": empty}))
    assert set(told) == {"Red."}
    assert "empty: it has 0 bytes" in empty
    assert last == "Red."
