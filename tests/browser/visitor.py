"""A page in Chromium -> somebody who visits it: what can be done on it and what it shows."""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Semaphore
from typing import Protocol

from playwright.sync_api import Locator, Page, Route, expect

from tests.serving import until

expect.set_options(timeout=60_000)  # on a machine that has other things to do


class Closing(Protocol):
    """An assistant whose `closed` is released once for each request that has ended, in whatever way."""

    closed: Semaphore


class Visitor:
    """One visitor's page."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.box = page.get_by_role("textbox", name=re.compile("Ask something|请提问"))
        self.stop = page.get_by_role("button", name="Stop", exact=True)
        self.answers = page.get_by_test_id("bot")
        self.questions = page.get_by_test_id("user")
        self.price = page.locator("#price")
        self.requested: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.requested.append(request.url))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda message: self.complaints.append(message.text) if message.type == "error" else None)

    def open(self, address: str, assistant: Closing) -> "Visitor":
        self._closed = assistant.closed
        self.page.goto(address)
        expect(self.box).to_be_enabled()
        return self

    def ask(self, question: str, *files: Path) -> Locator:
        """Send a message; where its answer will be."""
        expect(self.box).to_be_enabled()
        count = self.answers.count()
        if files:
            self.attach(*files)
        # Its placeholder, by which it is found, goes with the first message and comes back when it is the visitor's again.
        self.box.fill(question)
        self.box.press("Enter")
        return self.answers.nth(count)

    def attach(self, *files: Path) -> None:
        """Upload files for the next message."""
        with self.page.expect_file_chooser() as chooser:
            self.page.get_by_role("button", name="Upload a file").first.click()
        chooser.value.set_files(files)
        expect(self.page.get_by_role("button", name="Remove file")).to_have_count(len(files))

    def press_stop(self) -> float:
        """While an answer grows; when, in milliseconds of the clock.

        The page presses it: a mouse that waits for a growing answer to stand still, as a test's does, comes late.
        """
        return float(self.stop.evaluate("button => { const now = Date.now(); button.click(); return now; }"))

    def edit(self, message: int, text: str) -> None:
        """Send another text in place of one of the messages."""
        self.page.get_by_role("button", name="Edit").nth(message).click()
        self.page.locator(".edit-textarea").fill(text)
        self.page.get_by_role("log").first.get_by_role("button", name="Submit").click()

    def unfold(self, name: str, inside: str) -> None:
        """Open an accordion; a click that comes before the page listens is lost."""
        accordion = self.page.locator("button.label-wrap").filter(has_text=name)  # Gradio's footer has a button of the same name
        for _ in range(3):
            accordion.first.click()
            with suppress(AssertionError):
                expect(self.page.get_by_label(inside).first).to_be_visible(timeout=10_000)
                return
        raise AssertionError(f"{name} does not open")

    @contextmanager
    def held(self, address: str) -> Iterator[None]:
        """What the page sends to such an address, and it does, reaches the server only afterwards."""
        held, over = list[Route](), Event()
        self.page.route(address, lambda route: route.continue_() if over.is_set() else held.append(route))
        yield
        until(lambda: self.page.evaluate("true") and bool(held))  # what happens in the browser is heard of while it is asked something
        over.set()
        for route in held:
            route.continue_()
        self.page.unroute(address)

    @contextmanager
    def failing(self, address: str) -> Iterator[None]:
        """What the page sends to such an address meanwhile is not taken by the server, which is busy."""
        self.page.route(address, lambda route: route.fulfill(status=503, json={"detail": "busy"}))
        yield
        self.page.unroute(address)

    def settled(self) -> None:
        """The request has ended, in whatever way, and the message box is the visitor's again."""
        assert self._closed.acquire(timeout=60)
        expect(self.stop).to_have_count(0)
        expect(self.box).to_be_enabled()
