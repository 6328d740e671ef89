"""What a visitor can set, see and undo on the page, in a real browser, in both languages, on narrow screens, by keyboard and to a screen reader.

The variable SCREENSHOTS names a folder that gets pictures of the main states.
"""

import asyncio
import json
import os
import re
import threading
from collections.abc import AsyncGenerator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, aclosing
from pathlib import Path
from typing import Any

import httpx
import PIL.Image
import pillow_heif
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Route, expect

import app
import ui.server
from demo.episodes import episode
from pipeline import Assistant, Delta, GenerationConfig, Image, MediaLimits, Message, Status, Text, TextDelta
from pipeline.artifacts import BUNDLED
from tests.browser.visitor import Visitor
from tests.serving import HOLD, PHOTO, Scripted, StandIn, answer, connect, message, served, until, words
from ui import chat
from ui.examples import FOLDER
from ui.words import PAGE

EXAMPLES = json.loads((FOLDER / "examples.json").read_text(encoding="utf-8"))
MEASURED = re.compile("first word after|后出现第一个词")


class Greedy(StandIn):
    """A real assistant that always gives its likeliest answer, so that a test can know it."""

    def __init__(self, assistant: Assistant) -> None:
        super().__init__()
        self._assistant, self.processor, self.pace = assistant, assistant.processor, assistant.pace
        self.closed = threading.Semaphore(0)

    async def stream(self, messages: Sequence[Message], _: Any = None, options: Any = None, on_plan: Any = None) -> AsyncGenerator[Delta, None]:
        async for delta in self._assistant.stream(messages, GenerationConfig.greedy(max_new_tokens=60), options, on_plan):
            yield delta
        self.closed.release()


@pytest.fixture(scope="module")
def greedy() -> Iterator[Greedy]:
    with Assistant(BUNDLED) as assistant:
        with ThreadPoolExecutor(1) as pool:  # in this thread the browser's loop runs
            pool.submit(asyncio.run, assistant.calibrate()).result()
        yield Greedy(assistant)


@pytest.fixture(scope="module")
def address(greedy: Greedy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(greedy, tmp_path_factory.mktemp("uploads")) as address:
        yield address


def _page(browser: Browser, stack: ExitStack, **options: Any) -> Page:
    page = browser.new_page(**{"viewport": {"width": 1280, "height": 900}, **options})
    stack.callback(page.close)
    page.set_default_timeout(60_000)
    return page


def shoot(page: Page, name: str) -> None:
    if folder := os.environ.get("SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=Path(folder) / f"{name}.png", animations="disabled")


def _take(visitor: Visitor, example: int) -> None:
    """Click an example and wait for the line below its answer."""
    visitor.page.locator(".example").nth(example).click()
    expect(visitor.answers.filter(has_text=MEASURED)).to_have_count(1)
    visitor.settled()


# With the demo model


@pytest.mark.parametrize("example", range(len(EXAMPLES)), ids=[entry["files"][0] for entry in EXAMPLES])
def test_an_example_is_asked_with_a_click_and_answered_rightly(visitor: Visitor, address: str, greedy: Greedy, example: int) -> None:
    visitor.open(address, greedy)
    _take(visitor, example)
    expect(visitor.answers.first).to_have_text(EXAMPLES[example]["answer"])
    shoot(visitor.page, f"example-{example}")


def _drawn(seed: int, path: Path) -> tuple[Path, str, str]:
    """A picture that no other test shows, with print that takes slices; a question about it, and the answer."""
    turn = episode(seed, "test", "small_print").turns[0]
    turn.media[0].frames[0].save(path)
    return path, turn.question, turn.answer


def test_own_pictures_are_priced_before_they_are_sent_answered_rightly_and_shown_as_the_model_saw_them(
    visitor: Visitor, address: str, greedy: Greedy, tmp_path: Path
) -> None:
    picture, question, right = _drawn(7000001, tmp_path / "mine.png")
    visitor.open(address, greedy)
    visitor.attach(picture)
    visitor.box.fill(question)
    expect(visitor.price).to_have_text(re.compile(r"^\s*1 picture, \d+ slices: \d+ tokens, first words in about \d"))
    shoot(visitor.page, "price")
    visitor.box.press("Enter")
    expect(visitor.answers.first).to_have_text(right)
    line = visitor.answers.filter(has_text=MEASURED)
    expect(line).to_contain_text("what the model saw")
    expect(line.locator("img")).to_have_count(0)
    visitor.settled()
    expect(visitor.page.locator(".bot-row + .message-buttons").get_by_role("button", name="Copy message")).to_be_visible()
    expect(visitor.price).to_have_text("")
    line.get_by_role("button", name="what the model saw").click()
    visitor.page.wait_for_function("[...document.querySelectorAll('.thought-group img')].some((picture) => picture.naturalWidth === 640)")
    visitor.box.fill("And now?")
    expect(visitor.price).to_have_text(re.compile(r"^\s*\d{1,2} tokens, first words in about \d"))


def test_less_detail_costs_less_and_is_what_the_model_is_shown(visitor: Visitor, address: str, greedy: Greedy, tmp_path: Path) -> None:
    picture, question, _ = _drawn(7000008, tmp_path / "mine.png")
    visitor.open(address, greedy)
    visitor.unfold("Settings", "System prompt")
    visitor.page.get_by_label("Full: up to 9 slices").check()
    visitor.attach(picture)
    visitor.box.fill(question)
    expect(visitor.price).to_contain_text(re.compile(r"1 picture, \d slices:"))
    visitor.page.get_by_label("Fast: overview only").check()
    expect(visitor.price).to_contain_text("1 slice:")
    shoot(visitor.page, "settings")
    visitor.box.press("Enter")
    expect(visitor.answers.filter(has_text=MEASURED)).to_contain_text("1 slice in")
    visitor.settled()


# With a script


def test_what_is_set_reaches_the_model(visitor: Visitor, tmp_path: Path) -> None:
    assistant = Scripted(words("fine"))
    with served(assistant, tmp_path) as address:
        visitor.open(address, assistant)
        page = visitor.page
        visitor.unfold("Settings", "System prompt")
        page.get_by_label("Fast: overview only").check()
        page.get_by_label("16", exact=True).check()
        page.get_by_label("System prompt").fill("Be brief.")
        page.get_by_label("Beams", exact=True).check()
        beams = page.get_by_label("number input for Beams")
        expect(beams).to_be_visible()
        expect(page.get_by_label("number input for Temperature")).to_have_count(0)
        beams.fill("2")
        beams.press("Tab")
        expect(visitor.ask("Hello")).to_have_text("fine")
        visitor.settled()
    [(generation, options)] = assistant.settings
    assert generation == GenerationConfig.beams(num_beams=2)
    assert options is not None
    assert (options.system_prompt, options.max_slice_nums, options.max_frames) == ("Be brief.", 1, 16)


def test_worked_examples_are_shown_to_the_model_before_the_conversation(visitor: Visitor, tmp_path: Path) -> None:
    assistant = Scripted(words("fine"))
    with served(assistant, tmp_path) as address:
        visitor.open(address, assistant)
        page = visitor.page
        visitor.unfold("Worked examples", "Answer of the example")
        with page.expect_file_chooser() as chooser:
            page.get_by_role("button", name="Upload a file").last.click()
        chooser.value.set_files([PHOTO])
        expect(page.get_by_role("button", name="Remove file")).to_have_count(1)
        page.get_by_role("textbox", name="Question of the example").fill("Which animal?")
        page.get_by_label("Answer of the example").fill("Cheetah.")
        page.get_by_role("button", name="Add this example").click()
        expect(page.get_by_text("Cheetah.", exact=True)).to_be_visible()
        shoot(page, "few-shot")
        visitor.box.fill("And this?")
        visitor.box.press("Enter")
        expect(visitor.answers.filter(has_text="fine")).to_have_count(1)
        visitor.settled()
    [shot, answered, asked] = assistant.asked[0]
    assert isinstance(shot.content[0], Image)
    assert (shot.content[1:], answered, asked) == (Message.user("Which animal?").content, Message.assistant("Cheetah."), Message.user("And this?"))


def test_an_edited_message_keeps_its_pictures_and_is_answered_anew(visitor: Visitor, tmp_path: Path) -> None:
    assistant = Scripted(words("one"), words("two"), words("three"))
    with served(assistant, tmp_path) as address:
        visitor.open(address, assistant)
        expect(visitor.ask("Which animal?", PHOTO)).to_have_text("one")
        visitor.settled()
        expect(visitor.ask("And why?")).to_have_text("two")
        visitor.settled()
        visitor.edit(0, "Which colour?")
        expect(visitor.answers).to_have_text(["three"])
        visitor.settled()
        visitor.page.wait_for_function("[...document.querySelectorAll('[data-testid=user] img')].some((picture) => picture.naturalWidth > 0)")
    [question] = assistant.asked[2]
    assert question.content == (assistant.asked[0][0].content[0], Message.user("Which colour?").content[0])


def test_who_edits_a_message_that_is_forgotten_here_is_told_so_and_goes_on(visitor: Visitor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ui.server, "MAX_SESSIONS", 1)
    assistant = Scripted(words("one"), words("to another"), words("two"))
    with served(assistant, tmp_path) as address:
        page = visitor.open(address, assistant).page
        expect(visitor.ask("Which animal?")).to_have_text("one")
        visitor.settled()
        connect(address).predict(message("Hello"), api_name="/chat")
        visitor.edit(0, "Which colour?")
        expect(page.get_by_text("That message is no longer known here: please send it anew.", exact=True)).to_be_visible()
        visitor.ask("And why?")
        expect(visitor.answers).to_have_text(["one", "two"])
    assert assistant.asked[2] == [Message.user("Which animal?"), Message.assistant("one"), Message.user("And why?")]


def test_no_message_is_edited_while_another_waits_for_its_answer(visitor: Visitor, tmp_path: Path) -> None:
    assistant = Scripted(words("one"), words("two"))
    with served(assistant, tmp_path) as address:
        page = visitor.open(address, assistant).page
        expect(visitor.ask("Which animal?", PHOTO)).to_have_text("one")
        visitor.settled()
        edit = page.get_by_role("button", name="Edit")
        with visitor.held("**/queue/join*"):
            visitor.ask("And why?")
            expect(edit).to_have_count(2)
            for button in edit.all():
                expect(button).to_be_disabled()
        expect(visitor.answers.last).to_have_text("two")
        visitor.settled()
        edit.first.click()
        submit = page.get_by_role("log").first.get_by_role("button", name="Submit")
        with visitor.held("**/queue/join*"):
            visitor.ask("And this?")
            expect(submit).to_be_disabled()
        visitor.settled()
        expect(submit).to_be_enabled()


def test_retry_that_is_pressed_twice_on_a_slow_line_asks_the_last_question_once(visitor: Visitor, tmp_path: Path) -> None:
    assistant = Scripted(words("one"), words("two"), words("three"))
    with served(assistant, tmp_path) as address:
        page = visitor.open(address, assistant).page
        for question, said in (("Which animal?", "one"), ("And why?", "two")):
            expect(visitor.ask(question)).to_have_text(said)
            visitor.settled()
        retry, undo = (page.get_by_role("button", name=name, exact=True) for name in ("Retry", "Undo"))
        held, over = list[Route](), threading.Event()
        page.route("**/run/predict*", lambda route: route.continue_() if over.is_set() else held.append(route))
        retry.click()
        for button in (retry, undo):
            expect(button).to_be_disabled()
        until(lambda: page.evaluate("true") and bool(held))
        held.pop().continue_()
        until(lambda: page.evaluate("true") and bool(held))  # of the next step: the server knows by now what is asked again
        retry.evaluate("button => button.click()")
        over.set()
        for route in held:
            route.continue_()
        expect(visitor.answers).to_have_text(["one", "three"])
        visitor.settled()
        expect(retry).to_be_enabled()
        expect(visitor.questions).to_have_text(["Which animal?", "And why?"])
    first = [Message.user("Which animal?"), Message.assistant("one"), Message.user("And why?")]
    assert assistant.asked[1:] == [first, first]


def test_of_two_messages_that_stand_together_the_one_that_was_answered_is_asked_anew(
    visitor: Visitor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The line that nothing came of the first one, for which the server has to be there, does not come between them.
    monkeypatch.setattr(chat, "_left", lambda conversation, *_: (conversation, conversation))
    assistant = Scripted(words("one"), words("two"))
    with served(assistant, tmp_path) as address:
        page = visitor.open(address, assistant).page
        with visitor.failing("**/queue/join*"):
            visitor.ask("Which animal?")
            expect(page.get_by_test_id("toast-body")).to_be_visible()
        expect(visitor.ask("Which colour?")).to_have_text("one")
        visitor.settled()
        page.get_by_role("button", name="Edit").click()
        for text, written in zip(("Which shape?", "Which number?"), page.locator(".edit-textarea").all(), strict=True):
            written.fill(text)
        page.get_by_role("log").first.get_by_role("button", name="Submit").click()
        expect(visitor.answers.last).to_have_text("two")
        visitor.settled()
    assert assistant.asked[1][-1] == Message.user("Which number?")


@pytest.mark.parametrize("way", ["submit", "retry", "edit", "example"])
@pytest.mark.parametrize("moment", ["encoding", "text"])
def test_every_way_of_asking_can_be_stopped_and_says_so(visitor: Visitor, tmp_path: Path, way: str, moment: str) -> None:
    endless = [Status("vision", 3, 10), HOLD] if moment == "encoding" else [TextDelta("Once upon"), HOLD]
    assistant = Scripted(words("fine"), endless, words("again")) if way in ("retry", "edit") else Scripted(endless, words("again"))
    with served(assistant, tmp_path) as address:
        visitor.open(address, assistant)
        page = visitor.page
        if way in ("retry", "edit"):
            expect(visitor.ask("Hello", PHOTO)).to_have_text("fine")
            visitor.settled()
        match way:
            case "submit":
                visitor.ask("Hello", PHOTO)
            case "retry":
                page.get_by_role("button", name="Retry").click()
            case "edit":
                visitor.edit(0, "Hello!")
            case "example":
                page.locator(".example").first.click()
        expect(visitor.answers).to_have_text(["Encoding pictures: 3 of 10 slices done" if moment == "encoding" else "Once upon"])
        if way == "submit":
            shoot(page, f"while-{moment}")
        visitor.stop.click()
        visitor.settled()
        expect(visitor.answers).to_have_text([*(["Once upon"] if moment == "text" else []), "You stopped this answer here."])
        expect(visitor.ask("And now?")).to_have_text("again")
        visitor.settled()
    said = [message for message in assistant.asked[-1] if message.role == "assistant"]
    assert said == ([Message.assistant("Once upon")] if moment == "text" else [])


class Endless(Scripted):
    """Never comes to an end, unless it is asked what comes now."""

    async def stream(self, messages: Sequence[Message], *given: Any) -> AsyncGenerator[Delta, None]:
        self._scripts = (words("again") if messages[-1] == Message.user("And now?") else [TextDelta("Once upon"), HOLD],)
        async with aclosing(super().stream(messages, *given)) as stream:
            async for delta in stream:
                yield delta


@pytest.mark.parametrize("way", ["submit", "example"])
def test_stop_while_the_question_is_still_on_its_way_to_the_server_is_not_lost(visitor: Visitor, tmp_path: Path, way: str) -> None:
    assistant = Endless()
    with served(assistant, tmp_path) as address:
        visitor.open(address, assistant)
        with visitor.held("**/queue/join*"):
            with visitor.page.expect_request("**/queue/join*"):
                if way == "submit":
                    visitor.ask("Hello", PHOTO)
                else:
                    visitor.page.locator(".example").first.click()
            visitor.stop.click()
        expect(visitor.answers.last).to_have_text("You stopped this answer here.")
        expect(visitor.stop).to_have_count(0)
        expect(visitor.ask("And now?")).to_have_text("again")
        assert all(assistant.closed.acquire(timeout=60) for _ in assistant.asked)


def test_stop_before_the_question_is_sent_keeps_it_from_being_asked(visitor: Visitor, tmp_path: Path) -> None:
    assistant = Scripted(words("fine"), words("again"))
    with served(assistant, tmp_path) as address:
        visitor.open(address, assistant)
        expect(visitor.ask("Hello", PHOTO)).to_have_text("fine")
        visitor.settled()
        with visitor.held("**/run/predict*"):
            visitor.page.get_by_role("button", name="Retry").click()
            visitor.stop.click()
        expect(visitor.answers).to_have_text(["You stopped this answer here."])
        expect(visitor.stop).to_have_count(0)
        expect(visitor.page.get_by_text("Error", exact=True)).to_be_hidden()
        expect(visitor.ask("And now?")).to_have_text("again")
    assert [message.role for message in assistant.asked[1]] == ["user", "user"]


def test_while_an_example_is_answered_nothing_else_can_be_asked(visitor: Visitor, tmp_path: Path) -> None:
    assistant = Scripted([TextDelta("Once upon"), HOLD], words("again"))
    with served(assistant, tmp_path) as address:
        visitor.open(address, assistant)
        visitor.box.fill("Something else")
        with visitor.held("**/queue/join*"):
            visitor.page.locator(".example").first.click()
            expect(visitor.box).to_be_disabled()
        expect(visitor.answers).to_have_text(["Once upon"])
        expect(visitor.box).to_be_disabled()
        visitor.stop.click()
        visitor.settled()
        visitor.box.press("Enter")
        expect(visitor.answers).to_have_text(["Once upon", "You stopped this answer here.", "again"])
        visitor.settled()
    assert [message.role for message in assistant.asked[1]] == ["user", "assistant", "user"]


def test_an_answer_that_was_cut_says_so(visitor: Visitor, tmp_path: Path) -> None:
    assistant = Scripted([TextDelta("one two"), answer("one two", finish_reason="length", token_ids=(1, 2))])
    with served(assistant, tmp_path) as address:
        visitor.open(address, assistant)
        visitor.ask("Count")
        expect(visitor.answers.last).to_contain_text("The answer was cut after 2 tokens, the length allowed")
        visitor.settled()


def test_markdown_tables_and_formulas_are_shown_as_such(visitor: Visitor, tmp_path: Path) -> None:
    assistant = Scripted(words("**bold**, \\(x^2\\), \\[y^2\\] and $$z^2$$\n\n| a | b |\n|---|---|\n| 1 | 2 |"))
    with served(assistant, tmp_path) as address:
        visitor.open(address, assistant)
        shown = visitor.ask("Show me")
        expect(shown.locator("strong")).to_have_text("bold")
        expect(shown.locator(".katex")).to_have_count(3)
        expect(shown.locator("td")).to_have_text(["1", "2"])
        visitor.settled()


def test_undo_gives_the_message_back_and_forgets_it(visitor: Visitor, tmp_path: Path) -> None:
    assistant = Scripted(words("one"), words("two"))
    with served(assistant, tmp_path) as address:
        visitor.open(address, assistant)
        expect(visitor.ask("First", PHOTO)).to_have_text("one")
        visitor.settled()
        visitor.page.get_by_role("button", name="Undo").click()
        expect(visitor.answers).to_have_count(0)
        expect(visitor.box).to_have_value("First")
        expect(visitor.page.get_by_role("button", name="Remove file")).to_have_count(1)
        visitor.box.press("Enter")
        expect(visitor.answers).to_have_text(["two"])
    assert assistant.asked[1] == assistant.asked[0]


def test_a_page_that_is_loaded_again_begins_anew(visitor: Visitor, tmp_path: Path) -> None:
    assistant = Scripted(words("fine"))
    with served(assistant, tmp_path) as address:
        visitor.open(address, assistant)
        expect(visitor.ask("Hello")).to_have_text("fine")
        visitor.settled()
        visitor.open(address, assistant)
        expect(visitor.answers).to_have_count(0)
        expect(visitor.ask("Hello again")).to_have_text("fine")
        visitor.settled()
    assert assistant.asked[1] == [Message.user("Hello again")]


@pytest.mark.parametrize(
    ("locale", "sentence", "retry"),
    [
        ("en-US", "The queue is full (1 waiting, the limit is 1): please try again in a while.", "Retry"),
        ("zh-CN", "队列已满（1 个请求在等待，上限为 1）：请稍后再试。", "重试"),
    ],
)
def test_where_the_queue_is_full_a_sentence_says_so_and_the_message_can_be_sent_again(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locale: str, sentence: str, retry: str
) -> None:
    monkeypatch.setattr(app, "MAX_WAITING_FOR_THE_QUEUE", 1)
    monkeypatch.setattr(chat, "CONCURRENCY", 1)
    assistant = Scripted([HOLD], words("for the one who waits"), words("fine"))
    with served(assistant, tmp_path) as address, ExitStack() as stack:
        first, waiting = (connect(address) for _ in range(2))
        answered = first.submit(message("Hello"), api_name="/chat")
        until(lambda: len(assistant.asked) == 1)
        waits = waiting.submit(message("Hello"), api_name="/chat")
        until(lambda: httpx.get(f"{address}gradio_api/queue/status").json()["queue_size"] == 1)
        page = _page(browser, stack, locale=locale)
        visitor = Visitor(page).open(address, assistant)
        refused = visitor.ask("Which animal?", PHOTO)
        expect(page.get_by_test_id("toast-body")).to_contain_text(sentence)
        expect(refused).to_contain_text(retry)
        expect(visitor.box).to_be_enabled()
        answered.cancel()
        assert waits.result() == "for the one who waits"
        page.get_by_role("button", name=retry, exact=True).click()
        expect(visitor.answers).to_have_text(["fine"])
    [asked] = assistant.asked[-1]
    assert ([type(part) for part in asked.media], asked.content[-1]) == ([Image], Text("Which animal?"))


def test_two_visitors_at_once_see_only_their_own(browser: Browser, tmp_path: Path) -> None:
    class Echo(StandIn):
        """Answers with everything it was told, once two are asking at the same time."""

        def __init__(self) -> None:
            super().__init__()
            self.closed, self.asked = threading.Semaphore(0), threading.Barrier(2)

        async def stream(self, messages: Sequence[Message], *_: object) -> AsyncGenerator[Delta, None]:
            told = "|".join(part.text for message in messages for part in message.content)
            yield TextDelta("wait")
            await asyncio.to_thread(self.asked.wait, 30)
            yield answer(told)
            self.closed.release()

    assistant = Echo()
    with served(assistant, tmp_path) as address, ExitStack() as stack:
        one, other = (Visitor(_page(browser, stack)).open(address, assistant) for _ in range(2))
        for asked, told in ((("one", "other"), ("one", "other")), (("again", "again"), ("one|one|again", "other|other|again"))):
            answers = [visitor.ask(question) for visitor, question in zip((one, other), asked, strict=True)]
            for shown, text in zip(answers, told, strict=True):
                expect(shown).to_have_text(text)
            one.settled()
            other.settled()


def test_a_wrong_or_oversize_file_is_refused_with_a_sentence_and_another_may_follow(
    visitor: Visitor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ui.server, "MediaLimits", lambda: MediaLimits(max_file_bytes=1_000_000))
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "huge.png").write_bytes(bytes(1_000_001))
    assistant = Scripted(words("fine"))
    with served(assistant, tmp_path / "uploads") as address:
        visitor.open(address, assistant)
        for name, sentence in (("notes.txt", "Invalid file type: notes.txt"), ("huge.png", "exceed the maximum allowed size")):
            with visitor.page.expect_file_chooser() as chooser:
                visitor.page.get_by_role("button", name="Upload a file").click()
            chooser.value.set_files([tmp_path / name])
            expect(visitor.page.get_by_text(sentence)).to_be_visible()
            visitor.page.get_by_test_id("toast-close").click()
        expect(visitor.ask("What is it?", PHOTO)).to_have_text("fine")
        visitor.settled()
    assert len(assistant.asked[0][0].media) == 1


# Languages, screens and hands


def test_the_page_is_in_chinese_where_the_browser_is(browser: Browser, tmp_path: Path) -> None:
    assistant = Scripted([Status("vision", 3, 10), HOLD])
    with served(assistant, tmp_path) as address, ExitStack() as stack:
        page = _page(browser, stack, locale="zh-CN")
        visitor = Visitor(page).open(address, assistant)
        expect(page.get_by_text("您上传的文件会在两小时内删除")).to_be_visible()
        visitor.unfold("设置", PAGE["system_prompt"][1])
        for key in ("detail", "fast", "system_prompt", "beams", "max_new_tokens"):
            expect(page.get_by_text(PAGE[key][1], exact=True).first).to_be_visible()
        visitor.box.fill("你好")
        expect(visitor.price).to_contain_text("个词元")
        visitor.box.press("Enter")
        expect(visitor.answers).to_have_text("正在编码图片：10 个切片已完成 3 个")
        shoot(page, "chinese")
        page.get_by_role("button", name=re.compile("停止|Stop")).click()
        visitor.settled()
        expect(visitor.answers).to_have_text("您在此处停止了回答。")


def test_a_worked_example_that_is_incomplete_is_told_so_in_the_visitor_s_language(browser: Browser, tmp_path: Path) -> None:
    assistant = Scripted(words("fine"))
    with served(assistant, tmp_path) as address, ExitStack() as stack:
        page = _page(browser, stack, locale="zh-CN")
        Visitor(page).open(address, assistant).unfold(PAGE["shots"][1], PAGE["shot_answer"][1])
        page.get_by_role("button", name=PAGE["shot_add"][1]).click()
        expect(page.get_by_test_id("toast-body")).to_contain_text("一个示范需要一个问题或一张图片，以及一个回答。")


def test_a_narrow_screen_shows_everything_and_nothing_sticks_out(browser: Browser, address: str, greedy: Greedy) -> None:
    with ExitStack() as stack:
        page = _page(browser, stack, viewport={"width": 380, "height": 800}, has_touch=True, is_mobile=True)
        visitor = Visitor(page).open(address, greedy)
        _take(visitor, 2)
        shoot(page, "narrow")
        visitor.unfold("Settings", "System prompt")
        visitor.unfold("Worked examples", "Answer of the example")
        expect(page.get_by_role("button", name="Add this example")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 380


def test_the_keyboard_is_enough(visitor: Visitor, tmp_path: Path) -> None:
    assistant = Scripted(words("fine"))
    with served(assistant, tmp_path) as address:
        visitor.open(address, assistant)
        page = visitor.page
        expect(visitor.box).to_be_focused()
        page.keyboard.type("Hello")
        page.keyboard.press("Enter")
        expect(visitor.answers).to_have_text("fine")
        visitor.settled()
        visitor.box.focus()
        for _ in range(3):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.innerText").startswith("Settings"):
                break
        page.keyboard.press("Enter")
        expect(page.get_by_label("System prompt")).to_be_visible()
        # One stop for each question, and the arrows go through its choices.
        detail, frames = (page.get_by_role("group", name=name) for name in ("Detail of pictures", "Frames of a video"))
        page.keyboard.press("Tab")
        expect(detail.get_by_label("Auto")).to_be_focused()
        for choice in ("Fast: overview only", "Balanced: up to 4 slices"):
            page.keyboard.press("ArrowDown")
            expect(detail.get_by_label(choice)).to_be_focused()
            expect(detail.get_by_role("radio", checked=True)).to_have_accessible_name(choice)
        page.keyboard.press("Tab")
        expect(frames.get_by_label("Auto")).to_be_focused()
        visitor.box.focus()
        page.keyboard.type("Hello again")
        page.keyboard.press("Enter")
        visitor.settled()
    first, second = [options for _, options in assistant.settings]
    assert (first.max_slice_nums, second.max_slice_nums) == (None, 4)


def test_a_picture_that_the_browser_cannot_show_stands_as_its_name_and_reaches_the_model(visitor: Visitor, tmp_path: Path) -> None:
    photo = tmp_path / "from my phone.heic"
    pillow_heif.from_pillow(PIL.Image.open(PHOTO)).save(photo)
    assistant = Scripted(words("fine"))
    with served(assistant, tmp_path / "uploads") as address:
        visitor.open(address, assistant)
        visitor.attach(photo)
        shoot(visitor.page, "heic-before")
        name = re.compile(r"from.?my.?phone\.heic")
        expect(visitor.page.locator(".unseen")).to_have_text(name)
        visitor.box.fill("What is it?")
        visitor.box.press("Enter")
        expect(visitor.answers.filter(has_text="fine")).to_have_count(1)
        visitor.settled()
        shoot(visitor.page, "heic")
        expect(visitor.questions.locator(".unseen")).to_have_text(name)
        expect(visitor.questions.locator(".unseen")).to_be_visible()
        broken = "[...document.images].filter((image) => image.checkVisibility() && image.complete && !image.naturalWidth).length"
        assert visitor.page.evaluate(broken) == 0
    assert len(assistant.asked[0][0].media) == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_in_any_state(browser: Browser, address: str, greedy: Greedy, scheme: Any) -> None:
    with ExitStack() as stack:
        page = _page(browser, stack, color_scheme=scheme)
        visitor = Visitor(page).open(address, greedy)
        assert _found(page) == []
        _take(visitor, 1)
        page.get_by_role("button", name="what the model saw").click()
        expect(page.locator(".thought-group img")).to_have_count(1)
        assert _found(page) == []
        shoot(page, scheme)
        visitor.unfold("Settings", "System prompt")
        visitor.unfold("Worked examples", "Answer of the example")
        expect(page.get_by_role("button", name="Add this example")).to_be_visible()
        assert _found(page) == []


def _found(page: Page) -> list[tuple[str, str]]:
    """Serious findings and where they are."""
    violations = Axe().run(page).response["violations"]
    return [(found["id"], node["html"]) for found in violations if found["impact"] in ("serious", "critical") for node in found["nodes"]]
