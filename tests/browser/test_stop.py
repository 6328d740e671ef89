"""From the press of Stop in a real browser, over the page and its server, to an engine that is free again, with the real demo model (R3)."""

import json
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from playwright.sync_api import Browser, expect

from tests.browser.visitor import Visitor
from tests.reliability.test_gone import BAR_S
from tests.serving import Heard, until

PRESSES, BAR_MS = 5, 300


@pytest.fixture(autouse=True)
def endless(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers of more words than a test waits for, and nothing left of what ended before."""
    monkeypatch.setattr(heard, "answer_tokens", 20_000)
    while heard.closed.acquire(blocking=False):
        pass


class Gate:
    """In the place of something that the engine does step after step: counts the steps, and stands still in the second until it is opened."""

    def __init__(self, step: Callable[..., Any]) -> None:
        self._step = step
        self.begun = 0
        self.reached, self.opened = threading.Event(), threading.Event()

    def __call__(self, *given: Any) -> Any:
        self.begun += 1
        if self.begun == 2:
            self.reached.set()
            assert self.opened.wait(120)
        return self._step(*given)


def _free(heard: Heard) -> bool:
    stats = heard.stats()
    return (stats.running, stats.waiting, stats.num_free_blocks) == (0, 0, stats.num_blocks)


def _begin(visitor: Visitor, heard: Heard) -> None:
    """Ask, and wait for some words, also in the page: who goes before it listens is known to be gone only when nobody has for a minute."""
    before = heard.stats().generated_tokens
    answer = visitor.ask("Tell me everything")
    until(lambda: heard.stats().generated_tokens > before + 20)
    expect(answer).not_to_be_empty()


def _moment(happens: Callable[[], object]) -> float:
    """Milliseconds on the clock that the page has, too."""
    happens()
    return 1000 * time.time()


def _press(visitor: Visitor, happens: Callable[[], object]) -> float:
    """Press Stop; milliseconds from the click, as the page has it, until something happens."""
    with ThreadPoolExecutor(1) as pool:
        at = pool.submit(_moment, happens)
        pressed = visitor.press_stop()
        return at.result() - pressed


def test_stop_while_words_come_frees_the_engine_at_once(visitor: Visitor, address: str, heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    heard.slow_down(monkeypatch)
    visitor.open(address, heard)
    took = []
    for _ in range(PRESSES):
        _begin(visitor, heard)
        took.append(_press(visitor, lambda: until(lambda: _free(heard))))
        visitor.settled()
    free_ms = {"least": round(min(took)), "median": round(statistics.median(took)), "presses": PRESSES}
    print(json.dumps({"R3 Stop": {"while": "words come", "free_ms": free_ms}}))
    assert statistics.median(took) < BAR_MS  # a machine that has other things to do delays some


@pytest.mark.parametrize("work", ["slices", "chunks"])
def test_stop_while_a_picture_is_encoded_or_a_prompt_is_read_lets_no_further_step_begin(
    visitor: Visitor, address: str, heard: Heard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, work: str
) -> None:
    engine = heard._assistant._engine
    owner, step = (engine._vision, "encode_batch") if work == "slices" else (engine._runner, "forward")
    gate = Gate(getattr(owner, step))
    monkeypatch.setattr(owner, step, gate)
    noise = np.random.default_rng().integers(0, 256, (1344, 1344, 3), np.uint8)
    PIL.Image.fromarray(noise).save(tmp_path / "new.png")
    visitor.open(address, heard)
    if work == "slices":
        visitor.ask("What is it?", tmp_path / "new.png")
    else:
        visitor.ask("red green blue " * 400)
    try:
        assert gate.reached.wait(60)
        heard_ms = _press(visitor, heard.closed.acquire)
    finally:
        gate.opened.set()
    until(lambda: _free(heard))
    print(json.dumps({"R3 Stop": {"while": f"{work} are computed", "heard_ms": round(heard_ms), "begun_afterwards": gate.begun - 2}}))
    assert gate.begun == 2


def test_closing_the_page_frees_the_engine(visitor: Visitor, browser: Browser, address: str, heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    visitor.open(address, heard)
    _begin(visitor, heard)
    with ThreadPoolExecutor(1) as pool:
        at = pool.submit(_moment, lambda: until(lambda: _free(heard)))
        closed = _moment(visitor.page.close)
        free_ms = max(0, at.result() - closed)
    assert heard.closed.acquire(timeout=60)
    print(json.dumps({"R3": {"gone": "tab closed", "free_ms": round(free_ms), "slots_busy_after": heard.stats().running}}))
    assert free_ms < 1000 * BAR_S
    monkeypatch.setattr(heard, "answer_tokens", 20)
    with browser.new_page() as page:
        other = Visitor(page).open(address, heard)
        expect(other.ask("Anybody there?")).not_to_be_empty()
        other.settled()
