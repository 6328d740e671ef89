"""What the page does for every call, whichever function it is of: its files, who listens to it, and what is said and printed if it goes wrong."""

import asyncio
import datetime
import json
import tempfile
import threading
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import gradio as gr
import httpx
import pytest
from gradio import processing_utils
from gradio_client import Client, handle_file

import app
from pipeline import Delta, InputError, Message, Overloaded, Status
from tests.serving import PHOTO, Scripted, StandIn, answer, connect, served, words
from ui import page, startup
from ui.conversation import STOPPED
from ui.sentences import FAULT

ADDRESS = "https://public.example/cat.jpg"


@pytest.fixture(scope="module")
def assistant() -> Scripted:
    return Scripted(words("fine"))


@pytest.fixture(scope="module")
def address(assistant: Scripted, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(assistant, tmp_path_factory.mktemp("uploads")) as address:
        yield address


@pytest.fixture
def client(address: str, assistant: Scripted) -> Client:
    assistant.asked.clear()
    return connect(address)


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The URLs that are downloaded our way; Gradio's own would fail."""
    urls: list[str] = []

    async def ours(url: str, folder: Path, _: object) -> Path:
        urls.append(url)
        (folder / "it").mkdir(exist_ok=True)
        (folder / "it" / "cat.jpg").write_bytes(PHOTO.read_bytes())
        return folder / "it" / "cat.jpg"

    def none(*_: Any, **__: Any) -> None:
        urls.append("by Gradio")
        raise RuntimeError

    monkeypatch.setattr(page, "download", ours)
    monkeypatch.setattr(processing_utils, "async_ssrf_protected_download", none)
    return urls


def test_a_public_file_is_fetched_our_way_for_each_endpoint(client: Client, assistant: Scripted, downloads: list[str]) -> None:
    client.predict({"text": "What?", "files": [handle_file(ADDRESS)]}, api_name="/chat")
    client.predict(images=[handle_file(ADDRESS)], question="What?", api_name="/ask")
    assert downloads == [ADDRESS] * 2
    for [message] in assistant.asked:
        [picture] = message.media
        assert Path(str(picture.source)).read_bytes() == PHOTO.read_bytes()


def test_no_function_of_the_page_lets_gradio_fetch_what_somebody_names(address: str, downloads: list[str]) -> None:
    files = [{"path": f"{ADDRESS}?1", "meta": {"_type": "gradio.FileData"}}, {"path": f"{ADDRESS}?2"}]
    turn = [{"role": "user", "content": [{"type": "file", "file": file} for file in files]}]
    functions = {one["api_name"]: one["id"] for one in httpx.get(f"{address}config").json()["dependencies"]}
    given = {
        "_left": [turn, "", None],
        "_append_message_to_history": [None, turn],
        "_clear_and_save_textbox": [{"text": "", "files": files}],
        # These two wait in the queue, where a slow download would hold up everybody.
        "_with_shot": [[], {"text": "", "files": files}, "A cat.", None],
        "option_clicked": [turn],
    }
    for name, data in given.items():
        body = {"fn_index": functions[name], "session_hash": name, "data": data}
        httpx.post(f"{address}gradio_api/queue/join", json=body).raise_for_status()
        told = httpx.get(f"{address}gradio_api/queue/data", params={"session_hash": name}, timeout=60).text
        assert "Files cannot be named by URL here." in told, name
        assert downloads == []


@pytest.fixture
def secret() -> Iterator[Path]:
    """A picture in the folder for temporary files, as others on the machine have them; Gradio would copy it for anybody."""
    with tempfile.NamedTemporaryFile(suffix=".png") as file:
        file.write(PHOTO.read_bytes())
        file.flush()
        yield Path(file.name)


def _events(address: str, name: str, event: object, session: str) -> str:
    """Everything that a function of the page says to an event that somebody made up; all else is as it stands on the page."""
    config = httpx.get(f"{address}config").json()
    [function] = [one for one in config["dependencies"] if one["api_name"] == name]
    values = {one["id"]: one["props"].get("value") for one in config["components"]}
    body = {"fn_index": function["id"], "session_hash": session, "data": [values[one] for one in function["inputs"]], "event_data": event}
    httpx.post(f"{address}gradio_api/queue/join", json=body).raise_for_status()
    return httpx.get(f"{address}gradio_api/queue/data", params={"session_hash": session}, timeout=60).text


@pytest.mark.parametrize("name", ["example_clicked", "option_clicked"])
@pytest.mark.parametrize("address_of", ["a file", "an address", "both"])
def test_an_event_that_somebody_made_up_names_no_file(
    address: str, downloads: list[str], assistant: Scripted, secret: Path, name: str, address_of: str
) -> None:
    files = {"a file": [str(secret)], "an address": [{"path": ADDRESS}], "both": [{"path": str(secret)}]}[address_of]
    value = {"text": "Read it", "content": "hi", "files": files, **({"path": ADDRESS} if address_of == "both" else {})}
    session = f"{name} {address_of}"
    told = _events(address, name, {"index": 0, "value": value}, session)
    assert secret.name not in told
    assert "Read it" not in told
    assert ADDRESS not in told
    assistant.asked.clear()
    _events(address, "_submit_fn", None, session)  # answers what the event left in the session
    shown = [str(part.source) for [message] in assistant.asked for part in message.media]
    assert shown == ([file["path"] for file in served_examples(address)[0]["files"]] if name == "example_clicked" else [])
    assert downloads == []


def served_examples(address: str) -> list[Any]:
    """The examples as the page has them."""
    components = httpx.get(f"{address}config").json()["components"]
    [examples] = [one["props"]["examples"] for one in components if one["type"] == "chatbot" and one["props"].get("examples")]
    return list(examples)


@pytest.mark.parametrize("index", [99, "0", None, {"path": "/etc/passwd"}])
def test_an_example_that_there_is_not_is_refused(address: str, index: object) -> None:
    assert "This request cannot be understood." in _events(address, "example_clicked", {"index": index, "value": None}, f"at {index}")


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"detail": "my secret"}, " is not in the list of choices: "),
        ({"shots": [{"role": "user", "content": [{"my secret": 1}]}]}, "This request cannot be understood."),
        (  # within what would be fetched, where a walk that ends there does not come
            {"shots": [{"role": "user", "path": "http://my.secret/", "content": [{"component": "image", "value": 1, "constructor_args": {}}]}]},
            "A message may hold texts and files only.",
        ),
        (
            {"shots": [{"role": "user", "content": [{"component": "video", "value": "my secret", "constructor_args": {}, "props": {}}]}]},
            "A message may hold texts and files only.",
        ),
        (
            {"message": {"text": "hi", "files": [{"path": "/my/secret.png", "meta": {"_type": "gradio.FileData"}}]}},
            "This request cannot be understood.",
        ),
    ],
)
def test_what_is_wrong_with_an_argument_is_told_and_neither_printed_nor_logged(
    address: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, wrong: dict[str, Any], sentence: str
) -> None:
    event = httpx.post(f"{address}gradio_api/call/v2/chat", json={"message": {"text": "hi", "files": []}, **wrong}).json()["event_id"]
    told = httpx.get(f"{address}gradio_api/call/chat/{event}", timeout=60).text
    assert told.startswith("event: error")
    assert sentence in told
    printed = capfd.readouterr()
    assert "secret" not in printed.out + printed.err + caplog.text


@pytest.mark.parametrize(
    ("name", "body", "fault", "status", "sentence"),
    [
        ("chat", {"data": [], "fn_index": 3}, None, 400, "This request cannot be understood."),
        ("price", {"data": [{"text": "a"}] * 7}, None, 400, " is not in the list of choices: "),
        ("look", {"data": []}, RuntimeError("my secret"), 500, FAULT),
        ("look", {"data": []}, Overloaded("32 requests are waiting."), 503, "32 requests are waiting."),
        ("look", {"data": []}, InputError("Too much."), 400, "Too much."),
    ],
)
def test_a_direct_call_that_is_refused_has_the_status_of_what_it_is_refused_for(
    address: str, monkeypatch: pytest.MonkeyPatch, name: str, body: dict[str, Any], fault: Exception | None, status: int, sentence: str
) -> None:
    if fault is not None:
        monkeypatch.setattr(startup, "state_line", Mock(side_effect=fault))
    refused = httpx.post(f"{address}gradio_api/run/{name}", json=body, timeout=60)
    assert refused.status_code == status
    assert sentence in refused.json()["error"]


# What is remembered


def _turns(*texts: str) -> list[Any]:
    """A conversation as the page sends it."""
    return [
        {"role": role, "content": [{"type": "text", "text": text}]} for role, text in zip(("user", "assistant") * len(texts), texts, strict=False)
    ]


def _called(address: str, name: str, session: str, *data: Any, **headers: str) -> str:
    """What a function of the page answers that does not wait in the queue."""
    [function] = [one["id"] for one in httpx.get(f"{address}config").json()["dependencies"] if one["api_name"] == name]
    body = {"fn_index": function, "session_hash": session, "data": list(data)}
    return httpx.post(f"{address}gradio_api/run/predict", json=body, headers=headers).raise_for_status().text


def test_a_message_is_about_what_the_page_shows_also_where_that_is_forgotten_here(address: str, assistant: Scripted) -> None:
    shown = _turns("Hello", "one", "And now?", "two")
    _called(address, "_clear_and_save_textbox", "forgotten", {"text": "And then?", "files": []})
    [[*kept, sent]] = json.loads(_called(address, "_append_message_to_history", "forgotten", None, shown))["data"][:1]
    assert [turn["content"][0]["text"] for turn in (*kept, sent)] == ["Hello", "one", "And now?", "two", "And then?"]
    _events(address, "_submit_fn", None, "forgotten")
    said = [Message.user("Hello"), Message.assistant("one"), Message.user("And now?")]
    assert assistant.asked[-1] == [*said, Message.assistant("two"), Message.user("And then?")]
    for _ in range(2):  # as when it is pressed twice
        _called(address, "_pop_last_user_message", "forgotten too", shown)
    _events(address, "_submit_fn", None, "forgotten too")
    assert assistant.asked[-1] == said


def test_the_page_s_language_is_that_of_each_call_and_clients_of_the_api_have_none(address: str) -> None:
    chinese = {"accept-language": "zh-CN,zh;q=0.9"}
    for caller, said in (("app", "您在此处停止了回答。"), ("api", "You stopped this answer here.")):
        assert said in _called(address, "_left", f"by {caller}", _turns("Hello", "one"), STOPPED, None, **chinese, **{"x-gradio-user": caller})


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> list[gr.Blocks]:
    """The pages that are served from now on, which hold what they remember."""
    build, held = app.build, list[gr.Blocks]()

    def holding(*given: Any) -> Any:
        held.append(built := build(*given))
        return built

    monkeypatch.setattr(app, "build", holding)
    return held


def test_who_goes_on_calling_is_remembered_for_an_hour_from_the_last_call(tmp_path: Path, sessions: list[Any]) -> None:
    with served(assistant := Scripted(words("one"), words("two")), tmp_path) as address:
        client = connect(address)
        client.predict({"text": "Hello", "files": []}, api_name="/chat")
        holder = sessions[0].app.state_holder
        session = holder.session_data[client.session_hash]
        session.is_closed = True

        def later(minutes: int) -> None:
            gone = datetime.timedelta(minutes=minutes)
            session._state_ttl = {key: (seconds, since - gone) for key, (seconds, since) in session._state_ttl.items()}
            holder.delete_all_expired_state()

        later(59)
        _called(address, "look", client.session_hash)
        later(59)
        client.predict({"text": "And now?", "files": []}, api_name="/chat")
        assert assistant.asked[1] == [Message.user("Hello"), Message.assistant("one"), Message.user("And now?")]
        later(61)
        client.predict({"text": "And now?", "files": []}, api_name="/chat")
        assert assistant.asked[2] == [Message.user("And now?")]


class Slow(StandIn):
    """Is at it for as many steps as it is told."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self._steps = steps
        self.closed = threading.Event()

    async def stream(self, *_: object) -> AsyncGenerator[Delta, None]:
        try:
            for step in range(self._steps):
                await asyncio.sleep(0.01)
                yield Status("vision", step, self._steps)
            yield answer("fine")
        finally:
            self.closed.set()


@pytest.mark.parametrize("endpoint", ["chat", "ask"])
def test_an_answer_that_nobody_listens_to_is_given_up_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setattr(page, "PATIENCE_SECONDS", 0.0)
    question = {"chat": {"message": {"text": "hi", "files": []}}, "ask": {"question": "hi"}}[endpoint]
    with served(slow := Slow(1_000_000), tmp_path) as address:
        event = httpx.post(f"{address}gradio_api/call/v2/{endpoint}", json=question).json()["event_id"]
        assert slow.closed.wait(60)
        told = httpx.get(f"{address}gradio_api/call/{endpoint}/{event}", timeout=60).text
    assert "event: error" in told
    assert "This answer was given up: for 0 s nobody listened to it." in told


def test_an_answer_that_takes_longer_than_that_comes_to_its_end_where_somebody_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "PATIENCE_SECONDS", 1.0)
    with served(Slow(300), tmp_path) as address:
        assert connect(address).predict(question="hi", api_name="/ask") == "fine"
