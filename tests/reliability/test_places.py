"""Every place that there is with the engine, taken at once: the page goes on, and the engine has room for all of them."""

from pathlib import Path
from typing import Any

import httpx
import pytest

import app
from pipeline import EngineConfig
from tests.reliability.visiting import request
from tests.serving import HOLD, Scripted, served, until, words
from ui.answering import CONCURRENCY, PLACES


def test_whoever_takes_every_place_holds_up_no_step_of_the_page(tmp_path: Path) -> None:
    endless = Scripted([*words("on")[:-1], HOLD])
    with served(endless, tmp_path) as address, httpx.Client(base_url=address, timeout=60) as http:
        functions = {one["api_name"]: one["id"] for one in http.get("config").json()["dependencies"]}
        *settings, _ = request(address, "")["data"][1:]

        def join(name: str, session: str, *data: Any) -> None:
            body = {"fn_index": functions[name], "session_hash": session, "data": list(data)}
            http.post("gradio_api/queue/join", json=body).raise_for_status()

        def told(session: str) -> str:
            return http.get("gradio_api/queue/data", params={"session_hash": session}).text

        for number in range(CONCURRENCY):
            http.post("gradio_api/call/chat", json=request(address, "hi")).raise_for_status()
            http.post("gradio_api/call/v2/ask", json={"question": "hi"}).raise_for_status()
            for name in ("_submit_fn", "respond"):  # by the message box, and by an edited message
                session = f"{name}{number}"
                join("_clear_and_save_textbox", session, {"text": "hi", "files": []})
                assert "process_completed" in told(session)
                join(name, session, None, None, *settings, [], None)
        until(lambda: len(endless.asked) == PLACES)
        join("_with_shot", "another", [], {"text": "a question", "files": []}, "an answer", None)
        assert '"success":true' in told("another")


def test_the_engine_refuses_nobody_who_has_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    class Made(Exception):
        pass

    def make(**values: Any) -> EngineConfig:
        raise Made(EngineConfig(**values))

    monkeypatch.setattr(app, "EngineConfig", make)
    with pytest.raises(Made) as made:
        app._serve({})
    [engine] = made.value.args
    assert engine.max_waiting >= PLACES
