"""Conversations over the fp32 IR of the golden model: official answers, streamed; follow-ups, cancel, errors."""

import asyncio
import ctypes
import io
import json
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from pipeline.assistant import Answer, Assistant, Delta, Notice, Status, TextDelta
from pipeline.config import EngineConfig, GenerationConfig, MediaLimits
from pipeline.cutting import Cutting
from pipeline.engine.model_runner import BLOCK_SIZE, ModelRunner
from pipeline.engine.request import Event, Request, Ticket
from pipeline.errors import ArtifactError, EngineDead, ImageError, InputError, Overloaded, PipelineError, PromptTooLong
from pipeline.media import Used
from pipeline.message import Image, Message, Text
from pipeline.pace import Pace
from pipeline.processor import Options, Plan
from tests.lateness import TICK_SECONDS, lateness

TEXTS = json.loads((Path(__file__).parent / "golden" / "tiny_texts.json").read_text())
SINGLES = ["single0", "single1", "single2"]
LONG = GenerationConfig.greedy(max_new_tokens=2000)
ENDLESS = GenerationConfig.greedy(max_new_tokens=8_000, min_new_tokens=8_000)


@pytest.fixture(scope="module")
def assistant(fp32_folder: Path) -> Iterator[Assistant]:
    with Assistant(fp32_folder, EngineConfig(device="CPU")) as assistant:
        yield assistant


def messages_of(golden: Path, case: str) -> list[Message]:
    def part(item: dict[str, str]) -> Image | Text:
        return Text(item["text"]) if "text" in item else Image(golden / "images" / f"{item['image']}.png")

    return [Message(msg["role"], tuple(map(part, msg["content"]))) for msg in TEXTS[case]["msgs"]]


async def collect(deltas: AsyncIterator[Delta]) -> tuple[list[Status], str, Answer]:
    everything = [delta async for delta in deltas]
    assert isinstance(everything[-1], Answer)
    statuses = [delta for delta in everything if isinstance(delta, Status)]
    return statuses, "".join(delta.text for delta in everything if isinstance(delta, TextDelta)), everything[-1]


@pytest.mark.parametrize("case", SINGLES)
async def test_greedy_answers_equal_the_official_ones(assistant: Assistant, golden: Path, case: str) -> None:
    data, messages = np.load(golden / f"tiny_{case}.npz"), messages_of(golden, case)
    _, streamed, answer = await collect(assistant.stream(messages, GenerationConfig.greedy(max_new_tokens=24)))
    assert answer.token_ids == tuple(data["greedy_ids"][0])
    assert answer.text == streamed.strip() == TEXTS[case]["greedy_decode"][0].strip()
    assert answer.finish_reason == "length"
    penalised = await assistant.answer(messages, GenerationConfig.greedy(max_new_tokens=24, repetition_penalty=1.05))
    assert penalised.token_ids == tuple(data["greedy_rp1.05_ids"][0])


async def test_no_picture_is_hashed_in_the_event_loop(assistant: Assistant, golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many it takes tens of milliseconds, in which nobody else's words would come."""
    submit, hashed = assistant._engine.submit, []

    def submitted(request: Request, publish: Callable[[Event], None]) -> Ticket:
        hashed.extend("digest" in vars(piece) for piece in request.slices)
        return submit(request, publish)

    monkeypatch.setattr(assistant._engine, "submit", submitted)
    await assistant.answer(messages_of(golden, SINGLES[0]), GenerationConfig.greedy(max_new_tokens=1))
    assert hashed
    assert all(hashed)


@pytest.mark.parametrize("row", range(3))
@pytest.mark.parametrize("source", ["single", "batch"])
async def test_beam_answers_equal_the_official_ones_alone_and_in_a_batch(assistant: Assistant, golden: Path, source: str, row: int) -> None:
    case = f"single{row}"
    data = np.load(golden / (f"tiny_{case}.npz" if source == "single" else "tiny_batch.npz"))
    at = 0 if source == "single" else row
    _, streamed, answer = await collect(assistant.stream(messages_of(golden, case), GenerationConfig.beams(max_new_tokens=24)))
    assert answer.token_ids == tuple(data["beam3_rp1.2_ids"][at])
    assert answer.text == streamed.strip() == (TEXTS[case]["chat_beam_text"] if source == "single" else TEXTS["batch"]["chat_beam_text"][row])
    greedy = await assistant.answer(messages_of(golden, case), GenerationConfig.greedy(max_new_tokens=24))
    assert greedy.token_ids == tuple(data["greedy_ids"][at])


async def test_whoever_asks_may_look_at_what_the_model_will_see(assistant: Assistant, golden: Path) -> None:
    plans: list[Plan] = []
    messages = messages_of(golden, "single0")
    _, _, answer = await collect(assistant.stream(messages, GenerationConfig.greedy(max_new_tokens=1), on_plan=plans.append))
    [plan] = plans
    assert [piece.digest for piece in plan.slices] == [piece.digest for piece in assistant.processor.plan(messages).slices]
    assert len(plan.prompt.input_ids) == answer.prompt_tokens


async def test_words_alone_are_answered_officially_too(assistant: Assistant, golden: Path) -> None:
    data, messages = np.load(golden / "tiny_text_only.npz"), [Message.user("Who are you?")]
    plan = assistant.processor.plan(messages)
    assert plan.prompt.text == TEXTS["text_only"]["prompt"]
    assert list(plan.prompt.input_ids) == data["input_ids"][0].tolist()
    for generation, name in ((GenerationConfig.greedy, "greedy_ids"), (GenerationConfig.beams, "beam3_rp1.2_ids")):
        assert (await assistant.answer(messages, generation(max_new_tokens=24))).token_ids == tuple(data[name][0])


@pytest.mark.parametrize("case", SINGLES)
async def test_prompts_and_bounds_of_the_tiny_model_equal_the_official_ones(assistant: Assistant, golden: Path, case: str) -> None:
    data, prompt = np.load(golden / f"tiny_{case}.npz"), assistant.processor.plan(messages_of(golden, case)).prompt
    assert prompt.text == TEXTS[case]["prompt"]
    assert list(prompt.input_ids) == data["input_ids"][0].tolist()
    assert [list(bound) for bound in prompt.image_bound] == data["image_bound_cat"].tolist()


async def test_an_answer_keeps_its_exclamation_marks(assistant: Assistant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Difference 2: the official code drops every id 0 from answers that are not streamed."""
    from pipeline.engine import engine

    script = iter([0, 390, 0, *assistant.processor.tokenizer.terminators])
    monkeypatch.setattr(engine, "next_tokens", lambda *_: [next(script)])
    answer = await assistant.answer([Message.user("Hi")], GenerationConfig.greedy(max_new_tokens=9))
    assert answer.token_ids == (0, 390, 0)
    assert answer.text.count("!") == 2
    assert answer.finish_reason == "stop"


@pytest.mark.parametrize(
    "generation", [GenerationConfig.greedy(max_new_tokens=24), GenerationConfig.beams(max_new_tokens=24), GenerationConfig(seed=1, max_new_tokens=24)]
)
async def test_every_mode_streams(assistant: Assistant, golden: Path, generation: GenerationConfig) -> None:
    """Difference 4: the official code streams only while sampling."""
    deltas = [delta async for delta in assistant.stream(messages_of(golden, "single1"), generation)]
    assert sum(isinstance(delta, TextDelta) for delta in deltas) > 1


async def test_a_follow_up_about_the_same_picture_encodes_nothing_and_computes_only_what_is_new(assistant: Assistant, golden: Path) -> None:
    question = messages_of(golden, "single1")
    generation = GenerationConfig(seed=3, max_new_tokens=16)
    first = await assistant.answer(question, generation)
    _, _, second = await collect(assistant.stream([*question, Message.assistant(first.text), Message.user("Why?")], generation))
    assert second.encoded_slices == 0
    assert second.cached_tokens > first.prompt_tokens - BLOCK_SIZE
    assert second.prompt_tokens > second.cached_tokens


async def test_progress_is_told_before_the_first_words(assistant: Assistant, golden: Path) -> None:
    assistant._engine._vision._cache._embeds.clear()
    assistant._engine._start_afresh()
    deltas = [delta async for delta in assistant.stream(messages_of(golden, "single1"), GenerationConfig.greedy(max_new_tokens=4))]
    first_words = next(index for index, delta in enumerate(deltas) if isinstance(delta, TextDelta))
    statuses = deltas[:first_words]
    assert statuses[0] == Status("vision", 0, 3)
    assert [status.stage for status in statuses].count("prefill") >= 2
    assert all(isinstance(status, Status) and 0 <= status.done < status.total for status in statuses)


async def test_a_stop_string_ends_the_answer_before_it(assistant: Assistant, golden: Path) -> None:
    messages = messages_of(golden, "single0")
    whole = TEXTS["single0"]["greedy_decode"][0]
    stop = whole[10:14]
    answer = await assistant.answer(messages, GenerationConfig.greedy(max_new_tokens=24, stop=(stop,)))
    assert (answer.text, answer.finish_reason) == (whole[: whole.index(stop)].strip(), "stop")


async def test_closing_the_stream_frees_the_model_for_the_next_request(assistant: Assistant, golden: Path) -> None:
    async with aclosing(assistant.stream([Message.user("Tell me everything.")], LONG)) as stream:
        async for delta in stream:
            if isinstance(delta, TextDelta):
                break
    data = np.load(golden / "tiny_single0.npz")
    answer = await assistant.answer(messages_of(golden, "single0"), GenerationConfig.greedy(max_new_tokens=24))
    assert answer.token_ids == tuple(data["greedy_ids"][0])


async def test_a_task_that_is_cancelled_cancels_its_request(assistant: Assistant) -> None:
    started = asyncio.Event()

    async def listen() -> None:
        async for delta in assistant.stream([Message.user("Tell me everything.")], LONG):
            if isinstance(delta, TextDelta):
                started.set()

    task = asyncio.create_task(listen())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await assistant.answer([Message.user("Hi")], GenerationConfig.greedy(max_new_tokens=2))).finish_reason == "length"


async def test_an_answer_that_takes_too_long_is_cancelled_and_the_reading_of_the_files_counts(
    assistant: Assistant, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = 0.0

    def read(_: Plan) -> None:
        nonlocal taken
        taken = EngineConfig().max_seconds

    monkeypatch.setattr(assistant, "_clock", lambda: time.perf_counter() + taken)
    monkeypatch.setattr(assistant, "pace", Pace())  # that of the others learns nothing of it
    _, _, answer = await collect(assistant.stream([Message.user("Tell me everything.")], ENDLESS, on_plan=read))
    stats = assistant.stats()
    assert answer.finish_reason == "cancelled"
    assert (stats.running, stats.num_free_blocks) == (0, stats.num_blocks)


async def test_who_waits_too_long_is_cancelled_too(fp32_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model stands still until the time of both is over."""
    with Assistant(fp32_folder, EngineConfig(device="CPU", max_running=1, max_seconds=0.3)) as busy:
        tickets: list[Ticket] = []
        submit, runner, both = busy._engine.submit, busy._engine._runner, threading.Event()
        forward = runner.forward

        def submitted(request: Request, publish: Callable[[Event], None]) -> Ticket:
            tickets.append(submit(request, publish))
            if len(tickets) == 2:
                both.set()
            return tickets[-1]

        def forwarded(batch: Any) -> Any:
            assert both.wait(60)
            assert all(ticket.cancelled.wait(60) for ticket in tickets)
            return forward(batch)

        monkeypatch.setattr(busy._engine, "submit", submitted)
        monkeypatch.setattr(runner, "forward", forwarded)
        answers = await asyncio.gather(*(busy.answer([Message.user("Tell me everything.")], ENDLESS) for _ in range(2)))
        stats = busy.stats()
    assert [answer.finish_reason for answer in answers] == ["cancelled", "cancelled"]
    assert sum(len(answer.token_ids) for answer in answers) <= 1  # of the step that was under way
    assert (stats.running, stats.waiting, stats.num_free_blocks) == (0, 0, stats.num_blocks)


async def test_many_callers_at_once_each_get_their_own_answer(assistant: Assistant, golden: Path) -> None:
    cases = SINGLES * 3
    answers = await asyncio.gather(*(assistant.answer(messages_of(golden, case), GenerationConfig.greedy(max_new_tokens=24)) for case in cases))
    assert [answer.text for answer in answers] == [TEXTS[case]["greedy_decode"][0].strip() for case in cases]


async def test_the_event_loop_goes_on_while_the_model_works(assistant: Assistant, golden: Path) -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counter = asyncio.create_task(count())
    await assistant.answer(messages_of(golden, "single2"), GenerationConfig.greedy(max_new_tokens=24))
    counter.cancel()
    assert turns > 100


async def test_the_event_loop_is_never_late_while_prompts_are_read(assistant: Assistant) -> None:
    generation = GenerationConfig.greedy(max_new_tokens=2)
    async with lateness() as late:
        await asyncio.gather(*(assistant.answer([Message.user(f"{index} word " * 700)], generation) for index in range(4)))
    assert len(late.ticks) > 5
    assert not late.is_noticed, (max(late.ticks), late.machine)


@pytest.mark.parametrize(
    "interpreter", [ctypes.CDLL, ctypes.PyDLL], ids=["the loop's own thread stands still", "another thread keeps the interpreter"]
)
async def test_a_loop_that_is_held_up_is_noticed_on_a_busy_machine_too(interpreter: type[ctypes.CDLL]) -> None:
    stand_still = interpreter(None).usleep
    async with lateness() as late:
        await asyncio.sleep(TICK_SECONDS)
        if interpreter is ctypes.PyDLL:
            await asyncio.to_thread(stand_still, 2_000_000)
        else:
            stand_still(2_000_000)
        await asyncio.sleep(TICK_SECONDS)
    assert late.is_noticed, (max(late.ticks), late.machine)


@pytest.mark.parametrize(
    ("messages", "error"),
    [([], InputError), ([Message.user(Image(b"")), Message.user("a")], ImageError), ([Message.user("word " * 9000)], PromptTooLong)],
)
async def test_what_cannot_be_answered_is_refused_before_the_model_works(assistant: Assistant, messages: list[Message], error: type) -> None:
    before = assistant.stats()
    with pytest.raises(error):
        await assistant.answer(messages)
    assert assistant.stats() == before


async def test_a_long_conversation_loses_its_oldest_turns_where_that_was_asked_for(fp32_folder: Path) -> None:
    turns = [Message.user("one " * 40), Message.assistant("two"), Message.user("three")]
    with Assistant(fp32_folder, EngineConfig(device="CPU", max_prompt_tokens=60)) as small:
        with pytest.raises(PromptTooLong, match="the limit is 60"):
            await small.answer(turns)
        answer = await small.answer(turns, GenerationConfig.greedy(max_new_tokens=2), Options(drop_oldest=True))
    assert answer.dropped_turns == 2
    assert answer.prompt_tokens <= 60


async def test_nothing_people_write_or_show_is_logged(
    fp32_folder: Path, golden: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("device lost")

    caplog.set_level(logging.DEBUG)
    secret, generation = "my secret wish", GenerationConfig.greedy(max_new_tokens=2)
    with Assistant(fp32_folder, EngineConfig(device="CPU")) as assistant:
        await assistant.answer([Message.user(secret, Image(golden / "images" / "a_300x200.png"))], generation)
        monkeypatch.setattr(ModelRunner, "forward", fail)
        with pytest.raises(EngineDead, match="could not be started again"):
            await assistant.answer([Message.user(secret)], generation)
    logged = caplog.text
    assert "answered: finish_reason=length" in logged
    assert "device lost" in logged
    assert "secret" not in logged
    assert "a_300x200" not in logged


async def test_a_crowd_is_told_how_long_the_queue_is(fp32_folder: Path) -> None:
    with Assistant(fp32_folder, EngineConfig(device="CPU", max_waiting=1, max_running=1)) as busy:
        streams = [busy.stream([Message.user("Tell me everything.")], LONG) for _ in range(2)]
        first = [await anext(stream) for stream in streams]
        assert first[1] == Status("queued", 0, 1)
        with pytest.raises(Overloaded, match=r"The queue is full \(1 waiting, the limit is 1\)"):
            await busy.answer([Message.user("Hi")])
        for stream in streams:
            await stream.aclose()


async def test_who_waits_is_told_how_long_once_an_answer_was_measured(fp32_folder: Path) -> None:
    with Assistant(fp32_folder, EngineConfig(device="CPU", max_running=1)) as busy:
        await busy.answer([Message.user("Hi")], GenerationConfig.greedy(min_new_tokens=2, max_new_tokens=2))
        streams = [busy.stream([Message.user("Tell me everything.")], LONG) for _ in range(3)]
        *_, second, third = [await anext(stream) for stream in streams]
        assert isinstance(second, Status)
        assert isinstance(third, Status)
        assert second.seconds is not None
        assert third.seconds == pytest.approx(2 * second.seconds)
        assert second.seconds > 0
        for stream in streams:
            await stream.aclose()


@pytest.mark.parametrize("picture", [False, True])
async def test_after_it_was_closed_it_says_so(fp32_folder: Path, golden: Path, picture: bool) -> None:
    assistant = Assistant(fp32_folder, EngineConfig(device="CPU"))
    assistant.close()
    with pytest.raises(EngineDead, match="was shut down"):
        await assistant.answer(messages_of(golden, "single0") if picture else [Message.user("Hi")])


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"is not a complete model folder; it lacks openvino_language_model\.xml"):
        Assistant(tmp_path)


async def test_who_leaves_while_their_files_are_read_holds_up_nobody(assistant: Assistant, golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, ended = threading.Event(), threading.Event()

    def load(item: Image, cutting: Cutting, limits: MediaLimits, name: str, used: Used, cancelled: threading.Event) -> None:
        reading.set()
        assert cancelled.wait(60)
        ended.set()
        raise PipelineError("It is not wanted any more.")

    with monkeypatch.context() as patch:
        patch.setattr(assistant._decoder, "load", load)
        task = asyncio.create_task(collect(assistant.stream(messages_of(golden, "single0"))))
        assert await asyncio.to_thread(reading.wait, 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(ended.wait, 60)
    assert (await assistant.answer(messages_of(golden, "single0"), GenerationConfig.greedy(max_new_tokens=2))).text


async def test_who_sends_an_animation_is_told_first_what_of_it_is_shown(assistant: Assistant) -> None:
    frames = [PIL.Image.new("RGB", (20, 20), colour) for colour in ("blue", "red")]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    deltas = [delta async for delta in assistant.stream([Message.user(Image(buffer.getvalue()), "?")], GenerationConfig.greedy(max_new_tokens=2))]
    assert deltas[0] == Notice("Picture 1")
    assert deltas[0].text == "Picture 1 has several frames or pages; only the first is shown to the model."
    assert isinstance(deltas[-1], Answer)


def test_an_assistant_that_is_closed_leaves_no_process(fp32_folder: Path) -> None:
    with Assistant(fp32_folder, EngineConfig(device="CPU")) as assistant:
        assert assistant._decoder
        process = assistant._decoder._idle[0]
        assert process.is_alive()
    assert not process.is_alive()
