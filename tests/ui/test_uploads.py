"""The folder for uploads: what is too old goes, and with it what is known of it."""

import os
import time
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from tests.reliability.visiting import request
from tests.serving import Scripted, served, until, words
from ui import uploads
from ui.uploads import drop_old


def test_what_was_deleted_is_not_remembered_either(tmp_path: Path) -> None:
    old, shown, new = (tmp_path / name / "a.png" for name in ("old", "shown", "new"))
    for path in (old, shown, new):
        path.parent.mkdir()
        path.write_bytes(b"x")
    known = {str(path) for path in (old, shown)}, {str(old), str(new)}
    page = SimpleNamespace(blocks={1: SimpleNamespace(keep_in_cache={str(shown)}), 2: object()}, temp_file_sets=known)
    now = time.time()
    drop_old(page, tmp_path, now - 60)
    assert old.exists()
    drop_old(page, tmp_path, now + 60)
    assert [path.exists() for path in (old, shown, new)] == [False, True, False]
    assert known == ({str(shown)}, set())


def test_an_empty_folder_goes_and_one_that_was_just_made_waits_for_its_file(tmp_path: Path) -> None:
    empty, full, made = (tmp_path / name for name in ("empty", "full", "made"))
    for folder in (empty, full, made):
        folder.mkdir()
    (full / "a.png").write_bytes(b"x")
    now = time.time()
    for folder in (empty, full):
        os.utime(folder, (now - 120, now - 120))
    drop_old(SimpleNamespace(blocks={}, temp_file_sets=()), tmp_path, now - 60)
    assert set(tmp_path.iterdir()) == {full, made}


def test_what_broke_off_goes_though_nobody_uploads_anything_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken_off, arriving = tmp_path / "tmp1", tmp_path / "tmp2"
    for path in (broken_off, arriving):
        path.write_bytes(b"x")
    os.utime(broken_off, (0, 0))
    monkeypatch.setattr(uploads, "LOOK_SECONDS", 0.02)
    with served(Scripted(words("fine")), tmp_path):
        until(lambda: not broken_off.exists())
    assert arriving.exists()


def test_sessions_that_wait_for_nothing_are_forgotten_and_those_that_wait_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[list[set[str]]] = []
    forget = uploads.forget_idle

    def look(waiting: dict[str, set[str]]) -> None:
        forget(waiting)
        looks.append([set(events) for events in waiting.values()])

    monkeypatch.setattr(uploads, "forget_idle", look)
    monkeypatch.setattr(uploads, "LOOK_SECONDS", 0.02)
    with served(Scripted(words("fine")), tmp_path) as address, httpx.Client(base_url=address, timeout=60) as http:

        def asked() -> str:
            return str(http.post("gradio_api/call/chat", json=request(address, "Hi")).json()["event_id"])

        assert "fine" in http.get(f"gradio_api/call/chat/{asked()}").text
        not_heard_yet = asked()
        until(lambda: looks and looks[-1] == [{not_heard_yet}])
        assert "fine" in http.get(f"gradio_api/call/chat/{not_heard_yet}").text
        until(lambda: looks[-1] == [])
