"""The chat up to the browser: what a request yields, and what clients of `/chat` receive."""

import asyncio
import json
import os
import re
import struct
import zlib
from collections.abc import AsyncGenerator, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from pipeline import Assistant, Delta, EngineDead, GenerationConfig, Image, Message, Options, Overloaded, Status, TextDelta, Video
from pipeline.artifacts import BUNDLED
from tests.serving import HOLD, MEDIA, PHOTO, VIDEO, Heard, Scripted, StandIn, answer, connect, in_a_loop, message, served, words
from ui import chat
from ui.conversation import NO_WORDS, PROGRESS, STOPPED, aside, normalise
from ui.cost import Estimates
from ui.sentences import FAULT

ROOT = Path(__file__).parent.parent.parent

# What a request yields


@pytest.fixture
def every_update(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "UPDATE_SECONDS", 0.0)


def _respond(assistant: Any) -> Any:
    return chat.responder(assistant, Estimates(assistant))


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


async def test_a_fast_answer_is_not_sent_again_with_every_word() -> None:
    shown = await _yielded(Scripted(words(*["word "] * 5000)))
    assert 2 <= len(shown) < 500
    assert shown[-1] == "word " * 5000


async def test_an_empty_answer_still_says_something() -> None:
    assert await _yielded(Scripted([TextDelta(" "), answer("")])) == [NO_WORDS]


@pytest.mark.parametrize("error", [Overloaded("32 requests are waiting."), EngineDead("The model failed.")])
async def test_an_error_of_the_pipeline_is_told_in_its_own_words_below_what_was_answered(error: Exception) -> None:
    shown = []
    with pytest.raises(chat.gr.Error) as raised:
        shown += [item async for item in _respond(Scripted([TextDelta("half"), error]))("hi", []) if not shown.append(item)]
    assert raised.value.message == str(error)
    assert shown[0] == shown[-1][0] == "half"
    assert shown[-1][1]["metadata"]["title"] == str(error)


async def test_a_fault_is_told_in_one_general_sentence_and_logged_without_what_people_wrote(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(chat.gr.Error) as raised:
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
    *_, (text, _, seen) = await _yielded(heard, {"text": "What is it?", "files": [picture]}, visitor="en", detail="fast")
    assert re.fullmatch(r"1 slice in .+, first word after .+ words a second.*", seen["metadata"]["title"])
    path = Path(seen["content"]["path"])
    assert tmp_path in path.parents
    with PIL.Image.open(path) as opened:
        assert opened.width == 640
    kept = [{"role": "user", "content": [{"path": picture}, "What is it?"]}, {"role": "assistant", "content": text}, seen]
    assert [len(turn.media) for turn in normalise("And?", kept)] == [1, 0, 0]
    # A client of the API leaves no such file.
    assert isinstance((await _yielded(heard, {"text": "What is it?", "files": [picture]}))[-1], str)
    assert {name for _, _, names in os.walk(tmp_path) for name in names} == {"image.webp"}


async def test_the_controls_reach_the_model() -> None:
    assistant = Scripted(words("ok"))
    shots = [{"role": "user", "content": [{"path": str(PHOTO)}, "What?"]}, {"role": "assistant", "content": "A cat."}]
    await _yielded(assistant, "And you?", detail="balanced", frames=16, system_prompt="Be brief.", mode="beams", num_beams=2, shots=shots)
    assert assistant.asked == [[Message.user(Image(str(PHOTO)), "What?"), Message.assistant("A cat."), Message.user("And you?")]]
    options = Options("Be brief.", max_slice_nums=4, max_frame_slice_nums=1, max_frames=16)
    assert assistant.settings == [(GenerationConfig.beams(num_beams=2), options)]


async def test_a_control_out_of_range_is_refused_in_one_sentence_before_the_model_is_asked() -> None:
    assistant = Scripted(words("ok"))
    with pytest.raises(chat.gr.Error) as raised:
        await _yielded(assistant, temperature=99)
    assert raised.value.message == "The temperature is 99; it must be a number from 0.01 to 2.0."
    assert assistant.asked == []


async def test_progress_is_told_in_the_visitor_s_language() -> None:
    first, *_ = await _yielded(Scripted([Status("prefill", 1, 4), *words("好")]), visitor="zh")
    assert first["metadata"]["title"] == "正在读取提示：25 %"


def test_the_price_of_a_message_is_told_before_it_is_sent(heard: Heard) -> None:
    price = chat.pricer(Estimates(heard))
    asked = {"text": "What is it?", "files": [str(PHOTO)]}
    assert price({"text": " ", "files": []}, [], "auto", 0, "", [], "en") == ""
    assert price(None, [], "auto", 0, "", [], None) == ""
    assert re.fullmatch(r"1 picture, \d+ slices: \d+ tokens.*", price(asked, [], "full", 0, "", [], "en"))
    assert re.fullmatch(r"1 picture, 1 slice: \d+ tokens.*", price(asked, [], "fast", 0, "", [], "en"))
    assert price({"text": "", "files": ["/nowhere/<b>.png"]}, [], "fast", 0, "", [], "en") == (
        "Picture 1 is missing: there is no such file, or it was deleted meanwhile."
    )


def test_an_edited_message_keeps_its_pictures() -> None:
    def file(name: str) -> dict[str, Any]:
        return {"type": "file", "file": {"path": name}, "alt_text": None}

    history = [
        {"role": "user", "content": [file("a.png"), {"type": "text", "text": "what?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "a cat"}]},
        {"role": "user", "content": [{"type": "text", "text": "never answered"}]},
        {"role": "user", "content": [file("b.png"), file("c.mp4"), {"type": "text", "text": "and these?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "dogs"}]},
    ]
    page = in_a_loop(lambda: chat.Chat(Scripted(words("ok"))))
    for turn, kept, files in ((0, 0, (Image("a.png"),)), (1, 3, (Image("b.png"), Video("c.mp4")))):
        before, state, asked = page._replaced(history, json.dumps({"turn": turn, "text": "and those?"}))
        assert before == state == history[:kept]
        assert normalise(asked, before)[-1] == Message.user(*files, "and those?")
    for edited in ("", "[]", '{"turn": 2, "text": "x"}', '{"turn": "no"}'):
        with pytest.raises(chat.gr.Error, match="That message is no longer known here"):
            page._replaced(history, edited)


def test_an_answer_that_was_stopped_says_so_where_its_progress_or_its_words_stand() -> None:
    asked, words = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "once"}
    stopped = aside("You stopped this answer here.", STOPPED)
    assert chat._stopped([asked, aside("Reading", PROGRESS)], "en") == [asked, stopped]
    assert chat._stopped([asked, words], None) == [asked, words, stopped]
    assert normalise("go on", [asked, words, stopped]) == [Message.user("hi"), Message.assistant("once"), Message.user("go on")]


async def test_closing_the_handler_cancels_the_request() -> None:
    assistant = Scripted([TextDelta("a"), HOLD])
    stream = _respond(assistant)("hi", [])
    assert await anext(stream) == "a"
    await stream.aclose()
    assert assistant.closed.acquire(blocking=False)


# What clients of the API receive


@pytest.fixture(scope="module")
def heard() -> Iterator[Heard]:
    with Assistant(BUNDLED) as assistant:
        yield Heard(assistant)


@pytest.fixture(scope="module")
def address(heard: Heard, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(heard, tmp_path_factory.mktemp("uploads")) as address:
        yield address


@pytest.fixture
def client(address: str) -> Client:
    return connect(address)


def _ask(client: Client, question: str, *files: Path) -> Any:
    return client.predict(message(question, *files), api_name="/chat")


def test_a_photo_and_a_video_get_a_streamed_answer(every_update: None, client: Client, heard: Heard) -> None:
    *partials, last = client.submit(message("What is shown?", PHOTO, VIDEO), api_name="/chat")
    titles = [partial["metadata"]["title"] for partial in partials if isinstance(partial, dict)]
    texts = [partial for partial in partials if isinstance(partial, str)]
    assert any(title.startswith("Encoding pictures: 0 of") for title in titles)
    assert any(title.startswith("Reading the prompt") for title in titles)
    assert len(texts) >= 3
    assert all(later.startswith(earlier) for earlier, later in pairwise(texts))
    assert last == heard.answers[-1].text
    assert heard.answers[-1].image_tokens > 0


def test_a_second_turn_about_the_same_picture_encodes_nothing_again(client: Client, heard: Heard) -> None:
    _ask(client, "What is it?", MEDIA / "images" / "tower.jpg")
    first = heard.answers[-1]
    assert isinstance(_ask(client, "And what else?"), str)
    second = heard.answers[-1]
    assert first.encoded_slices > 0
    assert second.encoded_slices == 0
    assert second.image_tokens == first.image_tokens  # it was shown again, though
    assert second.cached_tokens > first.image_tokens


def test_files_that_cannot_be_used_are_named_in_one_sentence_and_the_conversation_goes_on(client: Client, tmp_path: Path) -> None:
    broken, foreign, huge = (tmp_path / name for name in ("broken.jpg", "foreign.png", "huge.png"))
    broken.write_bytes(PHOTO.read_bytes()[:3000])
    foreign.write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    huge.write_bytes(_png_header(11_000, 10_000))
    for path, sentence in (
        (broken, "Picture 1 cannot be read: the file is damaged or cut short."),
        (foreign, "Picture 1 is not a picture in a known format"),
        (huge, "Picture 1 has 11000 x 10000 pixels; the limit is"),
    ):
        with pytest.raises(AppError, match=f"^{re.escape(sentence)}"):
            _ask(client, "What is this?", path)
    assert _ask(client, "And without a picture?")


def test_a_file_of_another_kind_is_refused(client: Client, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(AppError, match="Invalid file type"):
        _ask(client, "What is this?", tmp_path / "notes.txt")


def test_a_picture_that_was_deleted_meanwhile_comes_back_by_uploading_it_again_and_goes_with_the_server(tmp_path: Path) -> None:
    assistant = Scripted(words("ok"))
    with served(assistant, tmp_path) as address:
        client = connect(address)
        _ask(client, "What is this?", PHOTO)
        [picture] = assistant.asked[0][0].media
        uploaded = Path(str(picture.source))
        uploaded.unlink()
        _ask(client, "And again?", PHOTO)
        assert assistant.asked[1][0].media == assistant.asked[1][-1].media == (picture,)
        assert uploaded.is_file()
    assert not uploaded.exists()


def test_cancelling_in_the_middle_of_an_answer_frees_the_model(client: Client, heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heard, "answer_tokens", 20_000)
    job = client.submit(message("Tell me everything", PHOTO), api_name="/chat")
    next(partial for partial in job if isinstance(partial, str))
    ended = len(heard.answers)
    assert job.cancel()
    monkeypatch.setattr(heard, "answer_tokens", 5)
    assert _ask(client, "Now be brief") == heard.answers[-1].text
    assert len(heard.answers) == ended + 1  # the cancelled one was never finished


def test_two_clients_at_once_each_see_their_own_conversation_only(tmp_path: Path) -> None:
    class Echo(StandIn):
        """Answers with everything it was told, once two are asking at the same time."""

        def __init__(self) -> None:
            super().__init__()
            self.together = asyncio.Barrier(2)

        async def stream(self, messages: list[Message], *_: Any) -> AsyncGenerator[Delta, None]:
            await self.together.wait()
            told = "|".join(part.text for message in messages for part in message.content)
            yield TextDelta(told)
            await self.together.wait()
            yield answer(told)

    with served(Echo(), tmp_path) as address:
        one, other = connect(address), connect(address)
        jobs = [client.submit(message(name), api_name="/chat") for client, name in ((one, "one"), (other, "other"))]
        assert [job.result() for job in jobs] == ["one", "other"]
        jobs = [client.submit(message("again"), api_name="/chat") for client in (one, other)]
        assert [job.result() for job in jobs] == ["one|one|again", "other|other|again"]


def _png_header(width: int, height: int) -> bytes:
    """A picture that claims to be of this size and holds nothing."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in (header, b"IDAT", b"IEND")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
