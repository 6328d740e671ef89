"""How the page is served: what it lets out, and what it keeps."""

import logging
from pathlib import Path

import httpx
import pytest

from tests.serving import Scripted, served, words
from ui.server import unquoted


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


def test_the_log_says_where_the_mcp_library_complains_and_not_what_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    headers = {"Accept": "application/json, text/event-stream"}
    caplog.handler.addFilter(unquoted)
    logging.getLogger("app").warning("ours")
    with served(Scripted(words("fine")), tmp_path) as address:
        for method, asked in (("tools/call", {"name": "my secret", "arguments": {}}), ("tools/call", {"name": {"my": "secret"}}), ("my secret", {})):
            body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": asked}
            httpx.post(f"{address}gradio_api/mcp/", json=body, headers=headers)
    caplog.handler.removeFilter(unquoted)
    assert [record.message for record in caplog.records if record.name == "app"] == ["ours"]
    said = [record.message for record in caplog.records if record.name == "root" or record.name.startswith("mcp.")]
    assert said
    assert all(", line " in message for message in said)
    assert "secret" not in caplog.text
