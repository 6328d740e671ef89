"""A tool over MCP: what agents send along reaches the model, and no path of theirs is looked at."""

import asyncio
import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio.mcp
import httpx
import pytest
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp.types import CallToolResult

from pipeline import Image, Message
from tests.serving import PHOTO, Scripted, served, words
from ui import files
from ui.tools import NO_PATHS

DATA_URL = "data:image/jpeg;base64," + base64.b64encode(PHOTO.read_bytes()).decode()


@pytest.fixture
def assistant() -> Scripted:
    return Scripted(words("fine"))


@pytest.fixture
def uploads(tmp_path: Path) -> Path:
    (folder := tmp_path / "uploads").mkdir()
    return folder


@pytest.fixture
def address(assistant: Scripted, uploads: Path) -> Iterator[str]:
    with served(assistant, uploads) as address:
        yield f"{address}gradio_api/mcp/"


def _called(address: str, *calls: dict[str, Any]) -> list[CallToolResult]:
    async def call() -> list[CallToolResult]:
        async with streamable_http_client(address) as (read, write, _), ClientSession(read, write) as session:
            await session.initialize()
            return [await session.call_tool("ask", {"question": "what?", **arguments}) for arguments in calls]

    return asyncio.run(call())


def _there(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def _turn(content: Any, **more: Any) -> dict[str, Any]:
    return {"history": [{"role": "user", "content": content, **more}]}


def test_a_path_anywhere_is_refused_alike_whatever_is_there_and_nothing_is_copied(
    address: str, assistant: Scripted, uploads: Path, tmp_path: Path
) -> None:
    (private := tmp_path / "private.txt").write_text("secret")
    before = _there(uploads)
    calls = []
    for path in (str(private), str(tmp_path), str(tmp_path / "nowhere"), "", None):
        for file in ({"path": path, "meta": {"_type": "gradio.FileData"}}, {"path": path}):
            calls += [
                {"images": [file]},
                {"video": file},
                {"settings": {"more": file}},
                _turn([{"image": file}]),
                _turn([{"text": "t", "more": file}]),
                _turn("t", more=file),
                _turn("t", more=[{"url": "x", "deep": [[file]]}]),
            ]
    results = _called(address, *calls)
    assert [(result.isError, [content.text for content in result.content]) for result in results] == [(True, [NO_PATHS])] * len(calls)
    assert _there(uploads) == before
    assert assistant.asked == []


def test_what_is_public_or_sent_along_is_shown_and_words_about_paths_are_words(
    address: str, assistant: Scripted, uploads: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def download(url: str, folder: Path, _: object) -> Path:
        (target := folder / url.rpartition("/")[2]).write_bytes(PHOTO.read_bytes())
        return target

    monkeypatch.setattr(files, "download", download)
    written = json.dumps([{"path": str(PHOTO), "meta": {"_type": "gradio.FileData"}}])
    history = [{"role": "user", "content": [{"image": DATA_URL}, {"text": written}]}, {"role": "assistant", "content": written}]
    [result] = _called(address, {"images": [DATA_URL, "https://public.example/cat.png"], "history": history, "question": written})
    assert (result.isError, [content.text for content in result.content]) == (False, ["fine"])
    sent_along = Image(PHOTO.read_bytes())
    now = Message.user(sent_along, Image(str(uploads / "cat.png")), written)
    assert assistant.asked == [[Message.user(sent_along, written), Message.assistant(written), now]]


def test_what_is_sent_along_is_not_written_to_the_disk(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradio wrote it wherever it has a file's place in its schema, and who asks for no tool has no schema."""
    monkeypatch.setattr(gradio.mcp, "DEFAULT_TEMP_DIR", str(tmp_path / "written"))
    with httpx.Client(headers={"Accept": "application/json, text/event-stream"}, params={"tools": "none"}, timeout=60) as http:
        for method, asked in (("tools/list", {}), ("tools/call", {"name": "ask", "arguments": {"video": {"oneOf": [None, DATA_URL]}}})):
            told = http.post(address, json={"jsonrpc": "2.0", "id": 1, "method": method, "params": asked}).raise_for_status().text
    assert "not in the selected tools" in told
    assert not (tmp_path / "written").exists()
