"""What is remembered of sessions: a conversation while its visitor is there, and nothing of what came with a call."""

import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio.blocks import BlocksConfig
from gradio.state_holder import SessionState

import app
from tests.reliability.visiting import request
from tests.serving import Scripted, served, until, words
from ui import uploads


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Those that are built meanwhile."""
    pages: list[Any] = []
    build = app.build
    monkeypatch.setattr(app, "build", lambda *given: pages.append(build(*given)) or pages[-1])
    return pages


def _holds(value: object, mark: str) -> bool:
    """Anywhere in it."""
    match value:
        case str():
            return mark in value
        case dict():
            return any(_holds(inside, mark) for item in value.items() for inside in item)
        case list() | tuple() | set():
            return any(_holds(inside, mark) for inside in value)
        case BlocksConfig() | SessionState():
            return _holds(vars(value), mark)
    return False


def _sent_to_ask(mark: str) -> list[dict[str, Any]]:
    turns = [{"role": "user", "content": mark}, {"role": "assistant", "content": [{"text": mark}]}] * 500
    return [
        {"question": mark, "history": turns},
        {"question": mark, "history": [*turns, {"role": "nobody"}]},
        {"question": "hi", "history": [{mark: {}}] * 10_000},
        {"question": "hi", "settings": {mark: 1}},
        {"question": "hi", "images": ["data:image/png;base64," + mark * 1000]},
    ]


def test_of_what_came_with_a_call_nothing_is_kept(tmp_path: Path, pages: list[Any]) -> None:
    mark = uuid.uuid4().hex
    with served(Scripted(words("fine")), tmp_path) as address, httpx.Client(base_url=address, timeout=60) as http:
        ends = []
        for body in _sent_to_ask(mark):
            event = http.post("gradio_api/call/v2/ask", json=body).json()["event_id"]
            ends.append(http.get(f"gradio_api/call/ask/{event}").text.rpartition("event: ")[2].split()[0])
        assert ends == ["complete", *["error"] * 4]
        assert len(pages[0].state_holder.session_data) == len(ends), "else it looks at nothing"
        until(lambda: not pages[0]._queue._asyncio_tasks)
        for what, kept in {**vars(pages[0].state_holder), **vars(pages[0]._queue), **vars(pages[0].app)}.items():
            assert not _holds(kept, mark), what


def test_a_conversation_is_forgotten_when_its_visitor_has_gone_for_as_long_whether_or_not_they_ever_had_the_page_open(
    tmp_path: Path, pages: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_IS_E2E_TEST", "1")  # for Gradio an hour is a second then
    monkeypatch.setattr(uploads, "LOOK_SECONDS", 0.02)
    with served(Scripted(words("fine")), tmp_path) as address, httpx.Client(base_url=address, timeout=60) as http:

        def session(name: str) -> Any:
            return pages[0].state_holder.session_data[name]

        def conversation(name: str) -> list[Any]:
            return [value for value in session(name).state_data.values() if value]

        with http.stream("GET", "gradio_api/heartbeat/there") as heart:
            beats = heart.iter_lines()
            assert next(beats) == "data: ALIVE"
            for name in ("there", "never"):
                event = http.post("gradio_api/call/chat", json=request(address, "hi", session=name)).json()["event_id"]
                assert "fine" in http.get(f"gradio_api/call/chat/{event}").text
                assert len(conversation(name)) == 1
            until(lambda: not conversation("never"))
            assert len(conversation("there")) == 1, "though it is older"
        beats.close()
        until(lambda: not conversation("there"))
        assert session("there").is_closed
        with http.stream("GET", "gradio_api/heartbeat/there") as heart:
            beats = heart.iter_lines()
            assert next(beats) == "data: ALIVE"
            until(lambda: not session("there").is_closed)
