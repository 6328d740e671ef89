"""The page in a real browser: what a visitor sees, and what the visitor's browser sends to whom."""

import asyncio
import http.server
import json
import re
import threading
from collections.abc import AsyncGenerator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from pipeline import Assistant, Delta, EngineDead, Image, Message, Status, Text, TextDelta
from pipeline.artifacts import BUNDLED
from tests.browser.visitor import Visitor
from tests.serving import HOLD, PHOTO, VIDEO, Heard, Scripted, served, words
from ui import answering, doors


def test_a_photo_and_a_video_are_shown_and_get_a_streamed_answer(
    visitor: Visitor, address: str, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "UPDATE_SECONDS", 0.0)
    visitor.open(address, heard)
    expect(visitor.page.get_by_text("it knows only drawn scenes")).to_be_visible()
    # Every length that the newest answer has on its way.
    visitor.page.evaluate("""() => {
        window.lengths = [];
        const note = () => {
            const answers = document.querySelectorAll("[data-testid=bot]");
            const length = answers.length ? answers[answers.length - 1].innerText.length : 0;
            if (length !== window.lengths.at(-1)) window.lengths.push(length);
        };
        new MutationObserver(note).observe(document.body, {subtree: true, childList: true, characterData: true});
    }""")
    visitor.ask("What is shown?", PHOTO, VIDEO)
    visitor.page.wait_for_function("window.lengths.length > 5")
    visitor.settled()
    assert len(heard.answers[-1].token_ids) == heard.answer_tokens
    visitor.page.wait_for_function("[...document.querySelectorAll('[data-testid=user] img')].some((picture) => picture.naturalWidth > 0)")
    visitor.page.wait_for_function("document.querySelector('[data-testid=user] video').readyState > 0")


def test_a_second_turn_about_the_same_picture_encodes_nothing_again(visitor: Visitor, address: str, heard: Heard) -> None:
    visitor.open(address, heard)
    visitor.ask("What is it?", PHOTO)
    visitor.settled()
    first = heard.answers[-1]
    visitor.ask("And what else?")
    visitor.settled()
    second = heard.answers[-1]
    assert (second.encoded_slices, second.image_tokens) == (0, first.image_tokens)
    assert second.cached_tokens > first.image_tokens > 0


def _begin_an_endless_answer(visitor: Visitor, heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask the real model and wait for some words, of more than a page can show before a test gives up."""
    heard.slow_down(monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(heard, "answer_tokens", 20_000)
        visitor.ask("Tell me everything", PHOTO)
        visitor.page.wait_for_function(
            "document.querySelector('[data-testid=bot]')?.innerText.length > 20 && !document.querySelector('.thought-group')"
        )


def test_stop_in_the_middle_of_an_answer_keeps_what_was_said_and_frees_the_model(
    visitor: Visitor, address: str, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    visitor.open(address, heard)
    ended = len(heard.answers)
    _begin_an_endless_answer(visitor, heard, monkeypatch)
    visitor.press_stop()
    visitor.settled()
    expect(visitor.answers).to_have_count(2)
    expect(visitor.answers.first).not_to_be_empty()
    expect(visitor.answers.last).to_have_text("You stopped this answer here.")
    answer = visitor.ask("Now be brief")
    visitor.settled()
    expect(answer).not_to_be_empty()
    assert len(heard.answers) == ended + 1  # the stopped one was never finished


def test_words_typed_as_soon_as_an_answer_has_ended_stay_in_the_box(visitor: Visitor, address: str, heard: Heard) -> None:
    page, held, typed = visitor.open(address, heard).page, [], threading.Event()
    visitor.ask("What is it?")
    expect(visitor.stop).to_be_visible()
    page.route("**/run/predict*", lambda route: route.continue_() if typed.is_set() else held.append(route))
    visitor.settled()
    visitor.box.fill("And what else?")
    typed.set()
    last = page.evaluate("gradio_config.dependencies.find(one => one.api_name === '_save_conversation').id")  # that Gradio does after an answer
    with page.expect_response(lambda response: f'"fn_index":{last},' in (response.request.post_data or "")):
        for route in held:
            route.continue_()
    expect(page.get_by_role("textbox").first).to_have_value("And what else?")


def test_a_broken_file_is_named_in_one_sentence_and_the_conversation_goes_on(visitor: Visitor, address: str, heard: Heard, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(PHOTO.read_bytes()[:3000])
    visitor.open(address, heard)
    refused = visitor.ask("What is this?", tmp_path / "broken.jpg")
    expect(refused).to_have_text("Picture 1 cannot be read: the file is damaged or cut short.")
    visitor.settled()
    expect(visitor.page.get_by_text("Error", exact=True)).to_be_hidden()  # Gradio's own, which would cover the conversation
    answered = len(heard.answers)
    answer = visitor.ask("And this?", PHOTO)
    visitor.settled()
    expect(answer).not_to_be_empty()
    visitor.page.get_by_role("button", name="Retry").click()
    visitor.settled()
    assert len(heard.answers) == answered + 2
    expect(refused).to_be_visible()


def test_a_picture_that_was_deleted_meanwhile_is_missed_in_one_sentence_and_can_be_uploaded_again(visitor: Visitor, tmp_path: Path) -> None:
    with Assistant(BUNDLED) as assistant, served(heard := Heard(assistant), tmp_path) as address:
        visitor.open(address, heard)
        visitor.ask("What is it?", PHOTO)
        visitor.settled()
        [uploaded] = tmp_path.glob(f"*/{PHOTO.name}")
        uploaded.unlink()
        expect(visitor.ask("And what else?")).to_have_text(re.compile(r"^\s*Picture 1 .* there.*\.\s*$"))  # and the model is not asked
        visitor.ask("Here it is", PHOTO)
        visitor.settled()
        first, again = heard.answers
    assert again.image_tokens == 2 * first.image_tokens


def test_progress_stands_where_the_answer_will_be(visitor: Visitor, tmp_path: Path) -> None:
    assistant = Scripted([Status("queued", 0, 2), Status("prefill", 1, 4), HOLD], words("fine"))
    with served(assistant, tmp_path) as address:
        visitor.open(address, assistant)
        expect(visitor.ask("Hello")).to_have_text("Reading the prompt: 25 %")
        visitor.stop.click()
        visitor.settled()
        expect(visitor.ask("Hello?")).to_have_text("fine")


def test_a_model_that_fails_in_the_middle_leaves_what_it_said_and_a_sentence(visitor: Visitor, tmp_path: Path) -> None:
    assistant = Scripted([TextDelta("Once upon"), EngineDead("The model failed; please try again.")], words("a time"))
    with served(assistant, tmp_path) as address:
        visitor.open(address, assistant)
        visitor.ask("Tell me a story")
        expect(visitor.answers).to_have_text(["Once upon", "The model failed; please try again."])
        visitor.settled()
        visitor.ask("Go on")
        expect(visitor.answers.nth(2)).to_have_text("a time")
    assert assistant.asked[1] == [Message.user("Tell me a story"), Message.assistant("Once upon"), Message.user("Go on")]


def test_what_people_type_reaches_the_model_as_it_stands_and_again_in_the_next_turn(visitor: Visitor, tmp_path: Path) -> None:
    assistant = Scripted(words("so <box>1 2 3 4</box> it is"), words("fine"))
    typed = "how do I write <image> in *HTML*?  </im_end>"
    with served(assistant, tmp_path) as address:
        visitor.open(address, assistant)
        expect(visitor.ask(typed, PHOTO)).to_have_text("so <box>1 2 3 4</box> it is")
        expect(visitor.questions.last).to_contain_text("</im_end>")
        visitor.settled()
        expect(visitor.ask("and then?")).to_have_text("fine")
    [question] = assistant.asked[0]
    assert isinstance(question.content[0], Image)
    assert question.content[1] == Text(typed)
    assert assistant.asked[1] == [question, Message.assistant("so <box>1 2 3 4</box> it is"), Message.user("and then?")]


def test_a_cleared_conversation_is_forgotten(visitor: Visitor, tmp_path: Path) -> None:
    assistant = Scripted(words("fine"))
    with served(assistant, tmp_path) as address:
        visitor.open(address, assistant)
        expect(visitor.ask("Hello")).to_have_text("fine")
        visitor.settled()
        visitor.page.get_by_role("button", name="Clear").first.click()
        expect(visitor.answers).to_have_count(0)
        expect(visitor.ask("Hello again")).to_have_text("fine")
    assert assistant.asked[1] == [Message.user("Hello again")]


def test_a_conversation_cleared_in_the_middle_of_an_answer_stays_so_and_frees_the_model(visitor: Visitor, tmp_path: Path) -> None:
    assistant = Scripted([*words("not for others")[:-1], HOLD], words("fine"))
    with served(assistant, tmp_path) as address:
        visitor.open(address, assistant)
        expect(visitor.ask("Something private")).to_have_text("not for others")
        visitor.page.get_by_role("button", name="Clear").first.click()
        visitor.settled()
        expect(visitor.questions).to_have_count(0)
        expect(visitor.answers).to_have_count(0)
        expect(visitor.ask("Hello")).to_have_text("fine")
        expect(visitor.questions).to_have_count(1)
    assert assistant.asked[1] == [Message.user("Hello")]


def test_a_conversation_that_is_too_long_to_be_sent_can_be_cleared_and_begun_anew(
    visitor: Visitor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assistant = Scripted(words("word " * 10_000), words("fine"))
    with served(assistant, tmp_path) as address:
        visitor.open(address, assistant)
        visitor.ask("Tell me everything")
        visitor.settled()
        monkeypatch.setattr(doors, "MAX_BODY_BYTES", 50_000)
        visitor.ask("And now?")
        refused = visitor.page.get_by_text(re.compile(r"^The request has \d\d,\d{3} bytes; the limit is 50,000\.$"))
        expect(refused).to_be_visible()
        expect(visitor.stop).to_have_count(0)
        expect(visitor.box).to_be_enabled()
        clear = visitor.page.get_by_role("button", name="Clear").first  # the error's, then the conversation's
        clear.click()
        expect(refused).to_be_hidden()
        clear.click()
        expect(visitor.answers).to_have_count(0)
        expect(visitor.ask("Hello")).to_have_text("fine")
    assert assistant.asked[1] == [Message.user("Hello")]


def test_a_moment_without_network_loses_nothing_of_what_is_said_typed_and_attached(visitor: Visitor, tmp_path: Path) -> None:
    assistant = Scripted(words("one"), words("two"))
    with served(assistant, tmp_path) as address:
        page = visitor.open(address, assistant).page
        page.evaluate("window.marked = true")
        expect(visitor.ask("Hello")).to_have_text("one")
        visitor.settled()
        visitor.attach(PHOTO)
        expect(visitor.price).to_contain_text("1 picture")
        with page.expect_event("requestfailed"):
            page.context.set_offline(True)
            visitor.box.fill("And this?")
        expect(visitor.price).to_have_text("")
        with page.expect_event("requestfailed"):
            visitor.box.press("Enter")
        page.context.set_offline(False)
        expect(visitor.answers).to_have_text(["one", "two"])
        visitor.settled()
        assert page.evaluate("window.marked")
        expect(page.get_by_test_id("toast-body")).to_have_count(0)
    asked = assistant.asked[1]
    assert asked[:2] == [Message.user("Hello"), Message.assistant("one")]
    assert ([type(part) for part in asked[2].media], asked[2].content[-1]) == ([Image], Text("And this?"))


def test_a_question_that_finds_no_network_is_told_so_and_stays_where_it_is(visitor: Visitor, tmp_path: Path) -> None:
    assistant = Scripted(words("one"), words("two"))
    with served(assistant, tmp_path) as address:
        page = visitor.open(address, assistant).page
        page.evaluate("window.marked = true")
        page.route("**/queue/join*", lambda route: route.abort())
        visitor.ask("Hello")
        expect(page.get_by_test_id("toast-body")).to_contain_text("The server cannot be reached at the moment.")
        expect(visitor.answers.first).to_contain_text("This message was not taken")
        expect(visitor.box).to_be_enabled()
        page.unroute("**/queue/join*")
        page.get_by_role("button", name="Retry", exact=True).click()
        expect(visitor.answers).to_have_text(["one"])
        assert page.evaluate("window.marked")
    assert assistant.asked == [[Message.user("Hello")]]


class Talking(Scripted):
    """Says the same word until somebody cancels, and plays a script when it is asked again."""

    async def stream(self, messages: Sequence[Message], *given: Any) -> AsyncGenerator[Delta, None]:
        if self.asked:
            async for delta in super().stream(messages, *given):
                yield delta
            return
        self.asked.append(messages)
        try:
            while True:
                yield TextDelta("word ")
                await asyncio.sleep(0.01)
        finally:
            self.closed.release()


#: Before the page's own scripts: the connection that answers come by can be cut.
BREAKABLE = """{
    const { fetch } = window;
    window.fetch = (asked, options) => {
        if (!String(asked.url).includes("queue/data")) return fetch(asked, options);
        const cut = new AbortController();
        window.cut = () => cut.abort();
        return fetch(asked, { signal: AbortSignal.any([asked.signal, cut.signal]) });
    };
}"""


def test_an_answer_that_breaks_off_says_so_and_can_be_asked_for_again(visitor: Visitor, tmp_path: Path) -> None:
    with served(assistant := Talking(words("fine")), tmp_path) as address:
        visitor.page.add_init_script(BREAKABLE)
        page = visitor.open(address, assistant).page
        page.evaluate("window.marked = true")
        expect(visitor.ask("Hello")).to_contain_text("word word")
        page.evaluate("cut()")
        visitor.settled()
        expect(visitor.answers).to_have_count(2)
        expect(visitor.answers.first).to_contain_text("word word")
        expect(visitor.answers.last).to_have_text("The connection broke off here: “Retry” asks again.")
        page.get_by_role("button", name="Retry", exact=True).click()
        expect(visitor.answers).to_have_text(["fine"])
        assert page.evaluate("window.marked")
    assert assistant.asked == [[Message.user("Hello")]] * 2


def test_words_that_come_after_clear_do_not_bring_the_conversation_back(visitor: Visitor, tmp_path: Path) -> None:
    with served(assistant := Talking(words("fine")), tmp_path) as address:
        visitor.open(address, assistant)
        visitor.ask("Something private")
        expect(visitor.answers).to_contain_text("word word")
        with visitor.held("**/cancel"):
            visitor.page.get_by_role("button", name="Clear").first.click()
            expect(visitor.answers).to_contain_text("word word")
        visitor.settled()
        expect(visitor.questions).to_have_count(0)
        expect(visitor.ask("Hello")).to_have_text("fine")
        expect(visitor.questions).to_have_count(1)
    assert assistant.asked[1] == [Message.user("Hello")]


def test_words_that_come_after_stop_are_kept_and_it_still_says_so(visitor: Visitor, tmp_path: Path) -> None:
    with served(assistant := Talking(words("fine")), tmp_path) as address:
        visitor.open(address, assistant)
        visitor.ask("Tell me everything")
        said = visitor.answers.first
        expect(said).to_contain_text("word word")
        with visitor.held("**/cancel"):
            visitor.press_stop()
            before = len(said.inner_text())
            visitor.page.wait_for_function("length => document.querySelector('[data-testid=bot]').innerText.length > length", arg=before)
        visitor.settled()
        expect(visitor.answers).to_have_count(2)
        expect(visitor.answers.last).to_have_text("You stopped this answer here.")
        assert len(said.inner_text()) > before
        expect(visitor.ask("And now?")).to_have_text("fine")
    assert [message.role for message in assistant.asked[1]] == ["user", "assistant", "user"]


def test_an_answer_runs_no_script_and_fetches_nothing_from_elsewhere(visitor: Visitor, tmp_path: Path, elsewhere: tuple[str, list[str]]) -> None:
    url, fetched = elsewhere
    hostile = (
        f"![a]({url}a.png) <img src='{url}b.png'> <img src='nothing' onerror='document.title = 1'> <script>document.title = 2</script> "
        f"<svg onload='document.title = 3'></svg> <video src='{url}c.mp4' autoplay></video> <iframe src='{url}d.html'></iframe> "
        f"<div style='background: url({url}e.png)'>the</div> [link](javascript:document.title=4) <style>@import '{url}f.css'</style> end"
    )
    assistant = Scripted(words(hostile))
    with served(assistant, tmp_path) as address:
        visitor.open(address, assistant)
        title = visitor.page.title()
        answer = visitor.ask("Hello")
        expect(answer).to_contain_text("end")
        visitor.page.wait_for_function("[...document.querySelectorAll('[data-testid=bot] img')].every((picture) => picture.complete)")
        visitor.settled()
        scripts, then = answer.locator("script, iframe, [onerror], [onload], a[href^=javascript]"), visitor.page.title()
        print(json.dumps({"R16 shown": {"scripts_shown": scripts.count(), "scripts_run": int(then != title), "fetched": len(fetched)}}))
        expect(scripts).to_have_count(0)
        assert then == title
    assert fetched == []


@pytest.fixture
def elsewhere() -> Iterator[tuple[str, list[str]]]:
    """A server that is not ours, and the paths that were fetched from it."""
    fetched: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            fetched.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/", fetched
        server.shutdown()


def test_a_visit_reaches_no_other_host_and_raises_no_complaint(visitor: Visitor, address: str, heard: Heard) -> None:
    visitor.open(address, heard)
    visitor.ask("What is it?", PHOTO, VIDEO)
    visitor.settled()
    assert [url for url in visitor.requested if not url.startswith((address, "data:", f"blob:{address}"))] == []
    assert visitor.complaints == []
