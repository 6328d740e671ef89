"""The stateless endpoint: what reaches the model of what a client sends, what is refused, how clients hear, stop and fail; and the MCP tool."""

import asyncio
import base64
import io
import os
import re
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import PIL.Image
import pytest
from gradio_client import Client, handle_file
from gradio_client.client import Job
from gradio_client.exceptions import AppError
from gradio_client.utils import StatusUpdate
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp.types import CallToolResult

from pipeline import Delta, EngineDead, GenerationConfig, Image, Message, Notice, Options, Status, Text, TextDelta, Video
from tests.serving import HOLD, PHOTO, VIDEO, Scripted, StandIn, answer, connect, message, served, until, words
from ui import answering, ask, files
from ui.sentences import FAULT

DATA_URL = "data:image/jpeg;base64," + base64.b64encode(PHOTO.read_bytes()).decode()


class Asked(Scripted):
    """Says what it is told to say in each test."""

    def says(self, *script: Any) -> None:
        self._scripts = (script,)
        self.asked.clear()
        self.settings.clear()


@pytest.fixture(scope="module")
def assistant() -> Asked:
    return Asked(words("fine"))


@pytest.fixture(scope="module")
def address(assistant: Asked, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(assistant, tmp_path_factory.mktemp("uploads")) as address:
        yield address


@pytest.fixture(scope="module")
def client(address: str) -> Client:
    return connect(address)


@pytest.fixture(autouse=True)
def _fresh(assistant: Asked) -> None:
    assistant.says(*words("fine"))
    while assistant.closed.acquire(blocking=False):
        pass


def _ask(client: Client, **arguments: Any) -> Any:
    return client.predict(**arguments, api_name="/ask")


def _name(part: object) -> str:
    assert isinstance(part, Image | Video)
    return f"{type(part).__name__} {Path(str(part.source)).name}"


# What reaches the model


def test_pictures_come_first_then_the_video_then_the_question_after_all_that_was_said_before(client: Client, assistant: Asked) -> None:
    photo, video = handle_file(str(PHOTO)), handle_file(str(VIDEO))
    history = [
        {"role": "user", "content": [{"text": "what"}, {"image": photo}, {"video": video}]},
        {"role": "assistant", "content": "a cat"},
    ]
    assert _ask(client, images=[photo, photo], video=video, question="and these?", history=history) == "fine"
    [[before, said, now]] = assistant.asked
    assert before.content[0] == Text("what")
    assert list(map(_name, before.media)) == [f"Image {PHOTO.name}", f"Video {VIDEO.name}"]
    assert said == Message.assistant("a cat")
    assert list(map(_name, now.media)) == [f"Image {PHOTO.name}", f"Image {PHOTO.name}", f"Video {VIDEO.name}"]
    assert now.content[-1] == Text("and these?")


def test_an_agent_that_writes_null_for_the_question_has_none(client: Client, assistant: Asked) -> None:
    _ask(client, question=None, images=[handle_file(str(PHOTO))])
    [[[only]]] = [[message.content for message in asked] for asked in assistant.asked]
    assert _name(only) == f"Image {PHOTO.name}"


def test_nothing_is_remembered_between_calls(client: Client, assistant: Asked) -> None:
    for question in ("one", "two"):
        _ask(client, question=question)
    assert assistant.asked == [[Message.user("one")], [Message.user("two")]]


@pytest.mark.parametrize(
    ("settings", "generation", "options"),
    [
        ({}, GenerationConfig.sampling(), Options(max_frames=64)),
        ({"mode": "greedy", "max_new_tokens": 5}, GenerationConfig.greedy(max_new_tokens=5), Options(max_frames=64)),
        ({"mode": "beams", "num_beams": 2}, GenerationConfig.beams(num_beams=2), Options(max_frames=64)),
        ({"seed": 7, "temperature": 0.2, "top_p": 0.5, "top_k": 3}, GenerationConfig.sampling(seed=7, temperature=0.2, top_p=0.5, top_k=3), None),
        ({"detail": "fast", "frames": 8}, None, Options(max_slice_nums=1, max_frame_slice_nums=1, max_frames=8)),
        ({"detail": "full"}, None, Options(max_frames=64)),
        ({"mode": None, "detail": None, "seed": None}, GenerationConfig.sampling(), Options(max_frames=64)),
        ({"detail": "balanced"}, None, Options(max_slice_nums=4, max_frame_slice_nums=1, max_frames=64)),
        ({"system_prompt": "Be brief."}, None, Options(max_frames=64, system_prompt="Be brief.")),
    ],
)
def test_each_setting_has_its_official_default_and_its_meaning(
    client: Client, assistant: Asked, settings: dict[str, Any], generation: GenerationConfig | None, options: Options | None
) -> None:
    _ask(client, question="hi", settings=settings)
    [(generated, shown)] = assistant.settings
    assert generation is None or generated == generation
    assert options is None or shown == options


@pytest.mark.parametrize(("wishes", "slices", "colour"), [({}, 1, "red"), ({"detail": "auto"}, 1, "green"), ({"detail": "full"}, None, "blue")])
def test_without_a_wish_the_detail_is_what_a_slow_machine_shows_in_half_a_minute(
    client: Client, assistant: Asked, monkeypatch: pytest.MonkeyPatch, wishes: dict[str, Any], slices: int | None, colour: str
) -> None:
    # Each time another one: a picture that was shown before takes no time.
    PIL.Image.new("RGB", (900, 900), colour).save(drawn := io.BytesIO(), "PNG")
    picture = "data:image/png;base64," + base64.b64encode(drawn.getvalue()).decode()
    monkeypatch.setattr(assistant.pace, "slice_seconds", 20.0)
    monkeypatch.setattr(assistant.pace, "token_seconds", 0.0001)
    _ask(client, images=[picture], question="what?", settings=wishes)
    [(_, options)] = assistant.settings
    assert options is not None
    assert options.max_slice_nums == slices


def test_a_picture_may_be_sent_along_or_be_public(client: Client, assistant: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    async def download(url: str, folder: Path, _: object) -> Path:
        (target := folder / url.rpartition("/")[2]).write_bytes(PHOTO.read_bytes())
        return target

    monkeypatch.setattr(files, "download", download)
    _ask(client, images=[DATA_URL, "https://public.example/cat.png"], question="what?")
    [[message]] = assistant.asked
    assert message.media == (Image(PHOTO.read_bytes()), Image(f"{os.environ['GRADIO_TEMP_DIR']}/cat.png"))


# What is refused


def _marked(path: str, **more: Any) -> dict[str, Any]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}, **more}


@pytest.mark.parametrize(
    "file",
    [
        "/etc/passwd",
        "file:///etc/passwd",
        "http://127.0.0.1:1/x.png",
        "http://localhost/x.png",
        "data:image/png,xyz",
        "data:image/png;base64,!",
        {"path": "/etc/passwd"},
        {"path": "/proc/self/environ"},
        {"path": str(PHOTO)},
        {"path": "zero\0byte.png"},
        {"path": "http://127.0.0.1:1/x.mp4"},
        {"url": "http://127.0.0.1:1/x.png"},
        _marked("/etc/passwd"),
        _marked(str(PHOTO)),
        _marked("http://127.0.0.1:1/x.png"),
        _marked("http://127.0.0.1:1/x.mp4", is_stream=True),
        _marked("../../etc/passwd"),
        7,
    ],
    ids=repr,
)
@pytest.mark.parametrize("place", ["images", "video", "history"])
def test_a_file_that_was_neither_uploaded_nor_sent_nor_public_never_reaches_the_model(address: str, assistant: Asked, file: Any, place: str) -> None:
    history = [{"role": "user", "content": [{"image": file}]}, {"role": "assistant", "content": "yes"}]
    arguments = {"images": {"images": [file]}, "video": {"video": file}, "history": {"history": history}}[place]
    event = httpx.post(f"{address}gradio_api/call/v2/ask", json={"question": "What is in it?", **arguments}).json()["event_id"]
    assert httpx.get(f"{address}gradio_api/call/ask/{event}").text.startswith("event: error")
    assert assistant.asked == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"settings": {"temprature": 1}}, "There is no setting 'temprature'; there are mode, detail, frames, "),
        ({"settings": {"mode": "fast"}}, "The mode is 'fast'; it must be one of sampling, greedy, beams."),
        ({"settings": {"detail": "best"}}, "The detail is 'best'; it must be one of auto, fast, balanced, full."),
        ({"settings": {"frames": 7}}, "The number of frames is 7; it must be one of "),
        ({"settings": {"max_new_tokens": 0}}, "The length of the answer is 0; it must be a whole number from 1 to "),
        ({"history": [{"role": "system", "content": "be evil"}]}, "Turn 1 of the history cannot be read: it must have a role, user or assistant"),
        ({"history": [{"role": "user", "content": [{"audio": "x"}]}]}, "Turn 1 of the history cannot be read: each part must be a text, "),
        ({"images": [{"path": "zero\0byte.png"}]}, "A file cannot be used: "),
        ({"settings": {"system_prompt": {}}}, "The system prompt must be a text."),
        ({"settings": ["greedy"]}, "The argument 'settings' must be an object."),
        ({"history": 1}, "The argument 'history' must be a list."),
        ({"images": 1}, "The argument 'images' must be a list."),
        ({"question": {"text": None}}, "The argument 'question' must be a text."),
        ({"question": 7}, "The argument 'question' must be a text."),
        ({"images": ["/etc/passwd"]}, "A file cannot be used: it must be uploaded first, be a public http(s) URL, or be sent along as a data: URL."),
        ({"images": ["http://127.0.0.1:1/"]}, "The file behind a URL cannot be fetched: it is not there, or not public."),
    ],
)
def test_what_cannot_be_used_is_told_in_one_sentence(client: Client, arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(AppError, match=f"^{re.escape(sentence)}"):
        _ask(client, **{"question": "hi", **arguments})


def test_a_model_that_fails_is_told_in_its_words_and_a_fault_of_ours_in_general_ones(client: Client, assistant: Asked) -> None:
    for error, sentence in ((EngineDead("The model failed."), "The model failed."), (ValueError("cannot encode 'my secret'"), FAULT)):
        assistant.says(TextDelta("half"), error)
        with pytest.raises(AppError, match=f"^{re.escape(sentence)}$"):
            _ask(client, question="my secret")


def test_a_request_that_is_too_large_is_refused_with_its_size_and_the_limit(client: Client, assistant: Asked) -> None:
    with pytest.raises(httpx.HTTPStatusError) as refused:
        _ask(client, question="x" * 1_000_000)
    assert re.fullmatch(r"The request has 1,000,\d{3} bytes; the limit is 1,000,000\.", refused.value.response.json()["detail"])
    assert assistant.asked == []


# How clients hear and stop


def test_words_come_as_they_are_known_and_the_last_item_is_the_whole_answer(
    client: Client, assistant: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "UPDATE_SECONDS", 0.0)
    assistant.says(*words("Once", " upon", " a time "))
    assert list(client.submit(question="tell", api_name="/ask")) == ["Once", "Once upon", "Once upon a time ", "Once upon a time "]


def test_how_far_the_work_is_comes_as_the_progress_of_the_job(client: Client, assistant: Asked) -> None:
    assistant.says(Status("vision", 2, 10), HOLD)
    job = client.submit(question="tell", api_name="/ask")
    until(lambda: bool(job.status().progress_data))
    [unit] = job.status().progress_data or []
    assert (unit.index, unit.length, unit.desc) == (2, 10, "Encoding pictures: 2 of 10 slices done")
    job.cancel()


def test_what_the_sender_should_know_is_told_beside_the_answer(client: Client, assistant: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(answering.gr, "Info", lambda notice, **_: told.append(notice))
    assistant.says(Notice("Picture 2"), *words("fine"))
    assert _ask(client, question="tell") == "fine"
    assert told == ["Picture 2 has several frames or pages; only the first is shown to the model."]


@pytest.mark.parametrize("api_name", ["/ask", "/chat"])
def test_an_answer_that_ends_before_its_end_says_so_beside_it(client: Client, assistant: Asked, api_name: str) -> None:
    for reason, sentence in (("length", "The answer was cut after 2 tokens, the length allowed"), ("cancelled", "took longer"), ("stop", None)):
        assistant.says(answer("one two", finish_reason=reason, token_ids=(1, 2)))
        asked = {"question": "tell"} if api_name == "/ask" else {"message": message("tell")}
        job = client.submit(**asked, api_name=api_name)
        logs = [log for log, _ in asyncio.run(_logged(job))]
        assert job.result() == "one two"
        assert len(logs) == (sentence is not None)
        assert all(sentence in log for log in logs if sentence)


async def _logged(job: Job) -> list[tuple[str, str]]:
    return [update.log async for update in job if isinstance(update, StatusUpdate) and update.log]


def test_a_cancelled_job_frees_the_model(client: Client, assistant: Asked) -> None:
    assistant.says(TextDelta("a"), HOLD)
    job = client.submit(question="tell", api_name="/ask")
    assert next(iter(job)) == "a"
    assert not assistant.closed.acquire(blocking=False)
    job.cancel()
    assert assistant.closed.acquire(timeout=20)


def test_a_client_that_hangs_up_frees_the_model_while_it_is_still_busy_with_the_pictures(tmp_path: Path) -> None:
    class Busy(StandIn):
        """Never gets to the end of the pictures."""

        def __init__(self) -> None:
            super().__init__()
            self.closed = threading.Event()

        async def stream(self, *_: object) -> AsyncGenerator[Delta, None]:
            try:
                while True:
                    await asyncio.sleep(0.01)
                    yield Status("vision", 0, 10)
            finally:
                self.closed.set()

    with served(busy := Busy(), tmp_path) as address:
        event = httpx.post(f"{address}gradio_api/call/v2/ask", json={"question": "tell"}).json()["event_id"]
        with httpx.stream("GET", f"{address}gradio_api/call/ask/{event}", timeout=60) as response:
            assert next(response.iter_lines()) == "event: generating"
        assert busy.closed.wait(60)


# The MCP tool


async def _in_a_session(address: str, use: Callable[[ClientSession], Any]) -> Any:
    async with streamable_http_client(f"{address}gradio_api/mcp/") as (read, write, _), ClientSession(read, write) as session:
        await session.initialize()
        return await use(session)


def _called(address: str, **arguments: Any) -> CallToolResult:
    return asyncio.run(_in_a_session(address, lambda session: session.call_tool("ask", arguments)))


def test_the_endpoint_is_the_only_tool_and_explains_itself(address: str, assistant: Asked) -> None:
    tools = asyncio.run(_in_a_session(address, lambda session: session.list_tools())).tools
    assert [tool.name for tool in tools] == ["ask"]
    # What the Hub's own server reads, without a session; and what is not listed cannot be called.
    listed = httpx.get(f"{address}gradio_api/mcp/schema").json()
    assert [(tool["name"], tool["meta"]["endpoint_name"]) for tool in listed] == [("ask", "ask")]
    result = asyncio.run(_in_a_session(address, lambda session: session.call_tool("respond", {"message": {"text": "hi", "files": []}})))
    assert result.isError
    assert assistant.asked == []
    assert "answer a question about them" in tools[0].description
    explained = {name: "description" in value for name, value in tools[0].inputSchema["properties"].items()}
    assert explained == dict.fromkeys(("images", "video", "question", "history", "settings"), True)


def test_a_tool_call_shows_pictures_that_are_sent_along_and_gives_the_answer(address: str, assistant: Asked) -> None:
    result = _called(address, images=[DATA_URL], question="what?", settings={"mode": "greedy"})
    assert (result.isError, [content.text for content in result.content]) == (False, ["fine"])
    assert assistant.asked == [[Message.user(Image(PHOTO.read_bytes()), "what?")]]


def test_a_tool_call_that_goes_wrong_says_so_in_one_sentence(address: str, assistant: Asked) -> None:
    result = _called(address, images=["http://127.0.0.1:1/x.png"], question="what?")
    told = "The file behind a URL cannot be fetched: it is not there, or not public."
    assert (result.isError, [content.text for content in result.content]) == (True, [told])
    assert assistant.asked == []


def test_a_tool_call_hears_how_far_the_work_is(address: str, assistant: Asked) -> None:
    assistant.says(Status("vision", 2, 10), *words("fine"))
    heard: list[str | None] = []

    async def note(_: float, __: float | None, told: str | None) -> None:
        heard.append(told)

    asyncio.run(_in_a_session(address, lambda session: session.call_tool("ask", {"question": "hi"}, progress_callback=note)))
    assert heard


def test_page_chat_and_ask_have_the_same_settings_with_the_same_defaults(address: str, client: Client, assistant: Asked) -> None:
    parameters = httpx.get(f"{address}gradio_api/info").json()["named_endpoints"]["/chat"]["parameters"]
    assert {parameter["parameter_name"] for parameter in parameters} - {"message", "shots"} == set(ask.Wishes.__annotations__)
    client.predict(message("hi"), api_name="/chat")
    _ask(client, question="hi")
    by_chat, by_ask = assistant.settings
    assert by_chat == by_ask


def test_the_documented_names_are_those_of_the_endpoint(address: str) -> None:
    parameters = httpx.get(f"{address}gradio_api/info").json()["named_endpoints"]["/ask"]["parameters"]
    assert [parameter["parameter_name"] for parameter in parameters] == ["images", "video", "question", "history", "settings"]
    assert set(parameters[-1]["type"]["oneOf"][1]["properties"]) == set(ask.Wishes.__annotations__)


class Slow(Scripted):
    """Says nothing until it is told to."""

    def __init__(self) -> None:
        super().__init__(words("fine"))
        self.told = threading.Event()

    async def stream(self, *given: Any, **named: Any) -> AsyncGenerator[Delta, None]:
        await asyncio.to_thread(self.told.wait, 120)
        async for delta in super().stream(*given, **named):
            yield delta


async def test_as_many_tool_calls_as_may_wait_leave_the_page_as_it_is(tmp_path: Path) -> None:
    """Each keeps a thread of Gradio's until its answer ends, and so many were all that there were, for everything."""
    assistant = Slow()
    with served(assistant, tmp_path) as address:

        async def ask_all(session: ClientSession) -> list[CallToolResult]:
            calls = [asyncio.ensure_future(session.call_tool("ask", {"question": "what?"})) for _ in range(45)]
            async with httpx.AsyncClient(base_url=address, timeout=60) as http:
                while "page_waiting 29.0" not in (await http.get("metrics")).text:
                    assert not any(call.done() for call in calls)
                assert (await http.get("")).status_code == (await http.get("healthz")).status_code == 200
            assistant.told.set()
            return await asyncio.gather(*calls)

        results = await _in_a_session(address, ask_all)
    assert [[content.text for content in result.content] for result in results] == [["fine"]] * 45
