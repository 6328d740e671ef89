"""The page while the model is not there yet, in a real browser."""

import re
import threading
from pathlib import Path

from playwright.sync_api import Page, expect

from pipeline import ArtifactError
from tests.serving import Scripted, served_model, words
from ui.model import Model, Report, Starting
from ui.startup import WAITS


def test_the_page_says_how_far_the_start_is_keeps_what_is_sent_and_becomes_the_chat_by_itself(page: Page, tmp_path: Path) -> None:
    loading, ready = threading.Event(), threading.Event()

    def load(report: Report) -> Scripted:
        report(Starting("downloading", 3_100_000_000, 5_400_000_000))
        assert loading.wait(60)
        report(Starting("loading"))
        assert ready.wait(60)
        return Scripted(words("fine"))

    with served_model(Model(load), tmp_path) as address:
        page.goto(address)
        line = page.get_by_role("status").filter(has_text="Starting")
        expect(line).to_have_text(f"Starting: downloading 3.1 of 5.4 GB {WAITS['en']}", use_inner_text=True)
        expect(line.get_by_role("progressbar")).to_have_attribute("value", "3100000000")
        box, answer = page.get_by_role("textbox"), page.get_by_test_id("bot")
        box.fill("Hello")
        box.press("Enter")
        expect(answer).to_have_text("Starting: downloading 3.1 of 5.4 GB")
        loading.set()
        expect(line).to_contain_text("Starting: loading the model")
        expect(answer).to_have_text("Starting: loading the model")
        ready.set()
        expect(answer).to_have_text("fine")
        expect(line).to_be_hidden()
        expect(box).to_be_enabled()


def test_a_model_that_cannot_be_had_is_told_above_the_chat_and_in_it_until_it_is_there(page: Page, tmp_path: Path) -> None:
    mended = threading.Event()

    def load(_: Report) -> Scripted:
        if not mended.is_set():
            raise ArtifactError("The model repo <owner/name> does not exist. Correct MODEL_REPO.")
        return Scripted(words("fine"))

    with served_model(Model(load, retry_seconds=0.2), tmp_path) as address:
        page.goto(address)
        line = page.get_by_role("status").filter(has_text="The model repo <owner/name> does not exist. Correct MODEL_REPO.")
        expect(line).to_be_visible()
        box, answer = page.get_by_role("textbox"), page.get_by_test_id("bot")
        box.fill("Hello")
        box.press("Enter")
        expect(answer).to_have_text(re.compile("Correct MODEL_REPO"))
        expect(box).to_be_enabled()
        mended.set()
        expect(line).to_be_hidden()
        box.fill("And now?")
        box.press("Enter")
        expect(answer.last).to_have_text("fine")
