"""What an operator's probes read, from before the model is there."""

import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio_client.exceptions import AppError

from pipeline import ArtifactError, Assistant
from pipeline.artifacts import BUNDLED
from tests.serving import Scripted, connect, message, served_model, until, words
from ui.model import Degraded, Model, Ready, Report, Starting


def _health(address: str) -> tuple[int, dict[str, str]]:
    response = httpx.get(f"{address}healthz")
    return response.status_code, response.json()


def test_health_follows_the_model_from_its_start_through_a_failure(tmp_path: Path) -> None:
    loading, assistant = threading.Event(), Scripted(words("fine"))

    def load(report: Report) -> Any:
        report(Starting("downloading", 1_000_000, 4_000_000))
        assert loading.wait(60)
        return assistant

    model = Model(load)
    with served_model(model, tmp_path) as address:
        until(lambda: model.state == Starting("downloading", 1_000_000, 4_000_000))
        assert _health(address) == (503, {"status": "starting", "reason": "Starting: downloading 1.0 of 4.0 MB"})
        loading.set()
        until(lambda: model.state == Ready())
        assert _health(address) == (200, {"status": "ready"})
        assistant.health = "restarting"
        assert _health(address) == (503, {"status": "degraded", "reason": "The model failed and is starting again."})
        assistant.health = "serving"
        assert _health(address) == (200, {"status": "ready"})


def test_a_model_that_cannot_be_had_is_told_with_the_reason(tmp_path: Path) -> None:
    def load(_: Report) -> Any:
        raise ArtifactError("There is none. Correct MODEL_DIR.")

    model = Model(load)
    with served_model(model, tmp_path) as address:
        until(lambda: isinstance(model.state, Degraded))
        assert _health(address) == (503, {"status": "degraded", "reason": "There is none. Correct MODEL_DIR."})


def test_requests_that_are_refused_for_their_settings_or_files_are_counted_too(tmp_path: Path) -> None:
    (broken := tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nhello")
    wrong: list[dict[str, Any]] = [
        {"api_name": "/ask", "question": "hi", "settings": {"mode": "fast"}},
        {"api_name": "/ask", "question": "hi", "images": ["/etc/passwd"]},
        {"api_name": "/ask", "question": "hi", "images": ["data:image/png;base64,aGVsbG8="]},
        {"api_name": "/chat", "message": message("hi", broken)},
    ]
    with Assistant(BUNDLED) as assistant:
        model = Model(lambda _: assistant)
        with served_model(model, tmp_path) as address:
            client = connect(address)
            for arguments in wrong:
                with pytest.raises(AppError):
                    client.predict(**arguments)
            lines = httpx.get(f"{address}metrics").text.splitlines()
    assert f'requests_total{{outcome="refused"}} {len(wrong)}.0' in lines
    assert "requests_under_way 0.0" in lines


def test_requests_of_the_api_are_counted_in_prometheus_text(tmp_path: Path) -> None:
    model = Model(lambda _: Scripted(words("fine")))
    with served_model(model, tmp_path) as address:
        connect(address).predict(message("my secret question"), api_name="/chat")
        response = httpx.get(f"{address}metrics")
    assert response.headers["content-type"].startswith("text/plain")
    lines = response.text.splitlines()
    assert 'requests_total{outcome="answered"} 1.0' in lines
    assert "time_to_first_token_seconds_count 1.0" in lines
    assert "page_waiting 0.0" in lines
    assert "secret" not in response.text
