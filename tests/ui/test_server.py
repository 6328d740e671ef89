"""How the page is served: what it lets out, and what it keeps."""

from pathlib import Path

import httpx

from tests.serving import Scripted, served, words


def test_nothing_is_recorded_monitored_or_told_to_others(tmp_path: Path) -> None:
    with served(Scripted(words("fine")), tmp_path) as address:
        config = httpx.get(f"{address}config").json()
        monitored = httpx.get(f"{address}monitoring/summary").status_code
        endpoints = httpx.get(f"{address}gradio_api/info").json()["named_endpoints"]
    assert config["analytics_enabled"] is False
    assert config["run_history"] is False
    assert config["max_file_size"] == 200_000_000
    assert monitored == 403
    assert list(endpoints) == ["/chat", "/ask"]
