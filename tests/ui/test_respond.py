"""What a request in the chat yields, and what it is said to cost before."""

import errno
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from pipeline import EngineDead, GenerationConfig, Image, ImageError, Message, Notice, Options, Overloaded, Status, TextDelta
from tests.serving import HOLD, MEDIA, PHOTO, Heard, Scripted, answer, words
from ui import answering, respond
from ui.conversation import normalise, shown
from ui.cost import Estimates, Estimator
from ui.sentences import FAULT


@pytest.fixture
def every_update(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "UPDATE_SECONDS", 0.0)


def _respond(assistant: Any) -> Any:
    return respond.responder(assistant, Estimates(assistant))


async def _yielded(assistant: Any, message: Any = "hi", history: Sequence[Any] = (), **settings: Any) -> list[Any]:
    return [item async for item in _respond(assistant)(message, list(history), **settings)]


async def test_progress_comes_first_then_growing_text_and_last_the_whole_answer(every_update: None) -> None:
    script = [
        Status("queued", 0, 1),
        Status("queued", 0, 2),
        Status("vision", 2, 10),
        Status("prefill", 64, 256),
        *words(" a", " b")[:-1],
        answer("a b"),
    ]
    *statuses, first, second, last = await _yielded(Scripted(script))
    titles = ["Waiting: 1 request ahead", "Waiting: 2 requests ahead", "Encoding pictures: 2 of 10 slices done", "Reading the prompt: 25 %"]
    assert [status["metadata"]["title"] for status in statuses] == titles
    assert (first, second, last) == (" a", " a b", "a b")


@pytest.mark.parametrize(
    ("visitor", "sentence"),
    [
        ("en", "Picture 2 has several frames or pages; only the first is shown to the model."),
        ("zh", "图片 2 有多帧或多页；只向模型展示第一帧或第一页。"),
        (None, "Picture 2 has several frames or pages; only the first is shown to the model."),
    ],
)
async def test_what_the_sender_should_know_of_a_file_is_told_beside_the_answer(
    visitor: str | None, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(answering.gr, "Info", lambda notice, **_: told.append(notice))
    shown = await _yielded(Scripted([Notice("Picture 2"), *words("fine")]), visitor=visitor)
    assert told == [sentence]
    assert sentence not in str(shown)


async def test_a_fast_answer_is_not_sent_again_with_every_word() -> None:
    shown = await _yielded(Scripted(words(*["word "] * 5000)))
    assert 2 <= len(shown) < 500
    assert shown[-1] == "word " * 5000


@pytest.mark.parametrize(("visitor", "said"), [(None, "*(The model had nothing to say.)*"), ("zh", ["*（模型没有给出回答。）*"])])
async def test_an_empty_answer_still_says_something_and_the_model_is_not_told_so(visitor: str | None, said: Any) -> None:
    [shown] = await _yielded(Scripted([TextDelta(" "), answer("")]), visitor=visitor)
    assert shown == said
    kept = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": shown if visitor is None else shown[0]}]
    assert normalise("more", kept)[1] == Message.assistant()


@pytest.mark.parametrize("error", [Overloaded("32 requests are waiting."), EngineDead("The model failed.")])
async def test_an_error_of_the_pipeline_is_told_in_its_own_words_below_what_was_answered(error: Exception) -> None:
    shown = []
    with pytest.raises(respond.gr.Error) as raised:
        shown += [item async for item in _respond(Scripted([TextDelta("half"), error]))("hi", []) if not shown.append(item)]
    assert raised.value.message == str(error)
    assert shown[0] == shown[-1][0] == "half"
    assert shown[-1][1]["metadata"]["title"] == str(error)


@pytest.mark.parametrize(
    ("error", "kept"), [(EngineDead("The model failed."), True), (ValueError("a fault"), True), (ImageError("Picture 1 cannot be read."), False)]
)
async def test_the_next_message_is_about_what_failed_but_not_about_what_was_refused(error: Exception, kept: bool) -> None:
    shown: list[Any] = []
    asked = {"role": "user", "content": [{"path": "/u/a.png"}, "What?"]}
    with pytest.raises(respond.gr.Error):
        shown += [item async for item in _respond(Scripted([error]))("What?", []) if not shown.append(item)]
    before = [Message.user(Image("/u/a.png"), "What?")] if kept else []
    assert normalise("Please try again", [asked, shown[-1]]) == [*before, Message.user("Please try again")]


async def test_a_fault_is_told_in_one_general_sentence_and_logged_without_what_people_wrote(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(respond.gr.Error) as raised:
        await _yielded(Scripted([ValueError("cannot encode 'my secret'")]), "my secret")
    assert raised.value.message == FAULT
    assert "ValueError" in caplog.text
    assert "serving.py" in caplog.text
    assert "secret" not in caplog.text


async def test_a_client_of_the_api_gets_the_answer_and_nothing_below_it() -> None:
    assert await _yielded(Scripted([answer("cut", finish_reason="length", ttft_s=1.0)])) == ["cut"]


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("stop", []),
        ("length", ["The answer was cut after 1 token, the length allowed: say “go on”, or allow longer answers in the settings."]),
        ("cancelled", ["The answer ends here: it took longer than one answer may."]),
    ],
)
async def test_a_visitor_reads_below_an_answer_why_it_ends_and_what_it_took(reason: str, said: list[str]) -> None:
    [(text, *below)] = await _yielded(Scripted([answer("cut", finish_reason=reason, ttft_s=1.0)]), visitor="en")
    assert text == "cut"
    assert [turn["metadata"]["title"] for turn in below] == [*said, "first word after 1.0 s"]
    # None of it reaches the model.
    assert normalise("more", [{"role": "user", "content": "hi"}, {"role": "assistant", "content": text}, *below]) == [
        Message.user("hi"),
        Message.assistant("cut"),
        Message.user("more"),
    ]


async def test_what_the_model_saw_is_kept_where_uploads_are_and_is_no_part_of_the_conversation(
    heard: Heard, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    picture = str(MEDIA / "images" / "lion.jpg")  # which no other test shows: nothing of it is known yet
    *_, (text, _, measured, seen) = await _yielded(heard, {"text": "What is it?", "files": [picture]}, visitor="en", detail="fast")
    assert re.fullmatch(r"1 slice in .+, first word after .+ words a second.*", measured["metadata"]["title"])
    path = Path(seen["content"]["path"])
    assert tmp_path in path.parents
    with PIL.Image.open(path) as opened:
        assert opened.width == 640
    kept = [{"role": "user", "content": [{"path": picture}, "What is it?"]}, {"role": "assistant", "content": text}, measured, seen]
    assert [len(turn.media) for turn in normalise("And?", kept)] == [1, 0, 0]
    # A client of the API leaves no such file.
    assert isinstance((await _yielded(heard, {"text": "What is it?", "files": [picture]}))[-1], str)
    assert {name for _, _, names in os.walk(tmp_path) for name in names} == {"image.webp"}


async def test_on_a_full_disk_an_answer_goes_without_what_the_model_saw(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(respond, "save_pil_to_cache", full)
    *_, (text, _, measured) = await _yielded(heard, {"text": "What is it?", "files": [str(PHOTO)]}, visitor="en", detail="fast")
    assert text == shown(heard.answers[-1].text)
    assert re.fullmatch(r".*first word after .+ words a second.*", measured["metadata"]["title"])


async def test_a_file_that_went_while_its_answer_came_spoils_nothing(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> None:
        raise ImageError("Picture 1 is missing: there is no such file, or it was deleted meanwhile.")

    monkeypatch.setattr(Estimator, "remember", gone)
    assert isinstance((await _yielded(heard, {"text": "What is it?", "files": [str(PHOTO)]}))[-1], str)


async def test_the_controls_reach_the_model() -> None:
    assistant = Scripted(words("ok"))
    shots = [{"role": "user", "content": [{"path": str(PHOTO)}, "What?"]}, {"role": "assistant", "content": "A cat."}]
    await _yielded(assistant, "And you?", detail="balanced", frames=16, system_prompt="Be brief.", mode="beams", num_beams=2, shots=shots)
    assert assistant.asked == [[Message.user(Image(str(PHOTO)), "What?"), Message.assistant("A cat."), Message.user("And you?")]]
    options = Options("Be brief.", max_slice_nums=4, max_frame_slice_nums=1, max_frames=16)
    assert assistant.settings == [(GenerationConfig.beams(num_beams=2), options)]


async def test_a_control_out_of_range_is_refused_in_one_sentence_before_the_model_is_asked() -> None:
    assistant = Scripted(words("ok"))
    with pytest.raises(respond.gr.Error) as raised:
        await _yielded(assistant, temperature=99)
    assert raised.value.message == "The temperature is 99; it must be a number from 0.01 to 2.0."
    assert assistant.asked == []


async def test_progress_is_told_in_the_visitor_s_language() -> None:
    first, *_ = await _yielded(Scripted([Status("prefill", 1, 4), *words("好")]), visitor="zh")
    assert first["metadata"]["title"] == "正在读取提示：25 %"


async def test_the_price_of_a_message_is_told_before_it_is_sent(heard: Heard) -> None:
    price = respond.pricer(Estimates(heard))
    asked = {"text": "What is it?", "files": [str(PHOTO)]}
    assert await price({"text": " ", "files": []}, [], "auto", 0, "", [], "en") == ""
    assert await price(None, [], "auto", 0, "", [], None) == ""
    assert re.fullmatch(r"1 picture, \d+ slices: \d+ tokens.*", await price(asked, [], "full", 0, "", [], "en"))
    assert re.fullmatch(r"1 picture, 1 slice: \d+ tokens.*", await price(asked, [], "fast", 0, "", [], "en"))
    assert await price({"text": "", "files": ["/nowhere/<b>.png"]}, [], "fast", 0, "", [], "en") == (
        "Picture 1 is missing: there is no such file, or it was deleted meanwhile."
    )


async def test_closing_the_handler_cancels_the_request() -> None:
    assistant = Scripted([TextDelta("a"), HOLD])
    stream = _respond(assistant)("hi", [])
    assert await anext(stream) == "a"
    await stream.aclose()
    assert assistant.closed.acquire(blocking=False)
