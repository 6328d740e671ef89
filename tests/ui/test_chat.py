"""The chat up to the browser: what its messages become, and what clients of `/chat` receive."""

import asyncio
import hashlib
import inspect
import json
import re
import struct
import zlib
from collections.abc import AsyncGenerator
from itertools import pairwise
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from pipeline import Delta, Image, Message, TextDelta, Video
from tests.serving import MEDIA, PHOTO, VIDEO, Heard, Scripted, StandIn, answer, connect, in_a_loop, message, served, words
from ui import answering, chat
from ui.conversation import FAILED, PROGRESS, STOPPED, aside, normalise
from ui.cost import Estimates


def test_gradio_s_private_methods_are_those_that_ours_were_written_for() -> None:
    """Look at what has changed in them, and whether there is a public way now, before the digest is written anew."""
    extended = (gr.ChatInterface._render_footer, gr.ChatInterface._setup_events, gr.ChatInterface._setup_stop_events)
    called = (gr.ChatInterface._append_message_to_history, gr.ChatInterface._api_wrapper, gr.ChatInterface._stream_fn)
    source = "".join(inspect.getsource(method) for method in (*extended, *called))
    assert hashlib.sha256(source.encode()).hexdigest() == "5bb92a40af18c67334d0ecacac4438809bf43f611a5d87cf57ece25830047b7d"


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
    page = in_a_loop(lambda: chat.Chat(model := Scripted(words("ok")), Estimates(model)))
    for turn, kept, files in ((0, 0, (Image("a.png"),)), (1, 3, (Image("b.png"), Video("c.mp4")))):
        before, state, asked = page._replaced(history, json.dumps({"turn": turn, "text": "and those?"}))
        assert before == state == history[:kept]
        assert normalise(asked, before)[-1] == Message.user(*files, "and those?")
    for edited in ("", "[]", '{"turn": 2, "text": "x"}', '{"turn": "no"}'):
        with pytest.raises(chat.gr.Error, match="That message is no longer known here"):
            page._replaced(history, edited)


def test_an_answer_that_was_stopped_or_broke_off_says_so_where_its_progress_or_its_words_stand() -> None:
    asked, words = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "once"}
    stopped = aside("You stopped this answer here.", STOPPED)
    for conversation in ([asked, aside("Reading", PROGRESS)], [asked, stopped]):
        assert chat._left(conversation, STOPPED, "en") == ([asked, stopped], [asked, stopped])
    assert chat._left([asked, words], STOPPED, None)[1] == [asked, words, stopped]
    broken = aside("连接在此处中断：点击“重试”可重新提问。", STOPPED)
    for conversation in ([asked], [asked, aside("Reading", PROGRESS)], [asked, broken]):
        assert chat._left(conversation, chat.BROKEN, "zh") == ([asked, broken], [asked, broken])
    assert normalise("go on", [asked, words, stopped]) == [Message.user("hi"), Message.assistant("once"), Message.user("go on")]


def test_a_message_that_was_not_taken_can_be_sent_again_and_stays_in_the_conversation() -> None:
    asked = {"role": "user", "content": [{"path": "/u/a.png"}, "hi"]}
    for visitor, said in (("en", "This message was not taken: “Retry” sends it again."), ("zh", "这条消息未被接收：点击“重试”可重新发送。")):
        shown, kept = chat._left([asked], chat.UNTAKEN, visitor)
        assert shown == kept == [asked, aside(said, FAILED)]
        assert chat._left(kept, chat.UNTAKEN, visitor)[1] == kept
        assert normalise("and now?", kept) == [Message.user(Image("/u/a.png"), "hi"), Message.user("and now?")]
    # The end of the answer before it may be told of late.
    assert chat._left([asked], "", "en")[1] == [asked]


# What clients of the API receive


@pytest.fixture
def every_update(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "UPDATE_SECONDS", 0.0)


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
