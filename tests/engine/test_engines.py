"""Either engine over the fp32 IR of the golden model: cache, cancel at every moment, order, failure."""

import dataclasses
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import EngineConfig, GenerationConfig
from pipeline.engine.model_runner import BLOCK_SIZE
from pipeline.engine.request import Event, Failed, Progress, Request, Tokens
from pipeline.engine.stateful import StatefulEngine
from pipeline.errors import EngineDead, Overloaded, PromptTooLong
from pipeline.message import Image, Message
from tests.engine.asking import GREEDY, Asker, Hold

ENGINE = EngineConfig(device="CPU", prefill_chunk_tokens=16, mixed_step_tokens=16, max_waiting=2, max_running=1)
BEAMS = GenerationConfig.beams(max_new_tokens=12)


@pytest.fixture(params=["stateful", "paged"])
def asker(fp32_folder: Path, request: pytest.FixtureRequest) -> Iterator[Asker]:
    with Asker(fp32_folder, dataclasses.replace(ENGINE, backend=request.param)) as asker:
        yield asker


@pytest.fixture
def image(golden: Path) -> Callable[[str], Image]:
    return lambda name: Image(golden / "images" / f"{name}.png")


def shared(asker: Asker, tokens: int) -> int:
    """Of so many tokens that two prompts have in common, those that the second takes over: all, or whole blocks."""
    return tokens if isinstance(asker.engine, StatefulEngine) else tokens // BLOCK_SIZE * BLOCK_SIZE


def test_a_follow_up_computes_only_what_is_new_and_encodes_nothing_again(asker: Asker, image: Callable[[str], Image]) -> None:
    first = Message.user(image("b_900x500"), "What is it?")
    answer = asker.ask(first)
    assert (answer.cached_tokens, answer.encoded_slices) == (0, 3)
    text = asker.processor.tokenizer.decode(list(answer.token_ids))
    follow_up = [first, Message.assistant(text), Message.user("And why?")]
    second = asker.ask(*follow_up)
    assert second.cached_tokens >= shared(asker, len(asker.request(first).prompt.input_ids))
    assert second.encoded_slices == 0
    asker.forget()
    assert asker.ask(*follow_up).token_ids == second.token_ids


def test_the_same_words_about_another_picture_share_nothing_from_the_picture_on(asker: Asker, image: Callable[[str], Image]) -> None:
    # Two pictures of one size: only their digests tell the prompts apart.
    words = "What is it?"
    one, other = (asker.request(Message.user("Look. " * 20, image(name), words)) for name in ("frame0", "frame1"))
    assert one.prompt == other.prompt
    answers = [asker.submit(request).outcome() for request in (one, other, one)]
    start, whole = one.prompt.image_bound[0][0], len(one.prompt.input_ids) - 1
    # The stateful engine remembers the last conversation only.
    again = start if isinstance(asker.engine, StatefulEngine) else whole
    assert [answer.cached_tokens for answer in answers] == [0, shared(asker, start), shared(asker, again)]
    assert shared(asker, start) > 0
    assert answers[0].token_ids == answers[2].token_ids != answers[1].token_ids


@pytest.mark.parametrize("generation", [GREEDY, BEAMS], ids=["greedy", "beams"])
def test_the_same_request_again_takes_over_what_it_can_and_answers_the_same(
    asker: Asker, image: Callable[[str], Image], generation: GenerationConfig
) -> None:
    message = Message.user(image("a_300x200"), "What is in the image?")
    first, second = (asker.ask(message, generation=generation) for _ in range(2))
    assert second.cached_tokens == shared(asker, len(asker.request(message).prompt.input_ids) - 1)
    assert second.token_ids == first.token_ids


@pytest.mark.parametrize("backend", ["stateful", "paged"])
def test_a_picture_whose_keys_and_values_are_taken_over_is_not_encoded(fp32_folder: Path, image: Callable[[str], Image], backend: str) -> None:
    """Without a cache of what was encoded, which would hide it if it were looked up."""
    with Asker(fp32_folder, dataclasses.replace(ENGINE, backend=backend, vision_cache_bytes=0)) as asker:
        request = asker.request(Message.user(image("b_900x500"), "word " * BLOCK_SIZE))
        first, second = (asker.submit(request).outcome() for _ in range(2))
    assert (first.encoded_slices, second.encoded_slices) == (len(request.slices), 0)
    assert second.token_ids == first.token_ids


def test_two_who_show_the_same_picture_at_once_have_it_encoded_once(fp32_folder: Path, image: Callable[[str], Image]) -> None:
    """The second comes while it is being encoded, when no keys and values of it are there to be taken over."""
    with Asker(fp32_folder, dataclasses.replace(ENGINE, backend="paged", max_running=3)) as asker:
        request, hold = asker.request(Message.user(image("b_900x500"), "What is it?")), Hold(Progress, stage="vision")
        first = asker.submit(request, hold)
        assert hold.reached.wait(60)
        second = asker.submit(request)
        hold.released.set()
        assert first.outcome().token_ids == second.outcome().token_ids
        assert second.outcome().cached_tokens == 0
        assert asker.vision.encoded == len(request.slices)


def moments(kind: type, stage: str | None = None) -> Callable[[Event], bool]:
    return lambda event: isinstance(event, kind) and (stage is None or event.stage == stage)


@pytest.mark.parametrize("generation", [GREEDY, BEAMS], ids=["greedy", "beams"])
@pytest.mark.parametrize(
    "moment", [moments(Progress, "vision"), moments(Progress, "prefill"), moments(Tokens)], ids=["in vision", "in prefill", "while decoding"]
)
def test_a_cancelled_request_ends_and_the_next_one_is_answered_as_if_it_had_never_been(
    asker: Asker, image: Callable[[str], Image], moment: Callable[[Event], bool], generation: GenerationConfig
) -> None:
    message = Message.user(image("b_900x500"), "What is it?")
    expected = asker.ask(message, generation=generation).token_ids
    asker.forget()
    other = Message.user(image("d_200x1000"), "Hi")
    recorder = asker.submit(asker.request(other, generation=generation), moment)
    outcome = recorder.outcome()
    assert outcome.reason == "cancelled"
    assert len(outcome.token_ids) < 12
    recorder.ticket.cancel()
    answer = asker.ask(message, generation=generation)
    assert answer.token_ids == expected


def test_cancelling_before_the_start_in_the_queue_and_twice_does_no_work(asker: Asker, image: Callable[[str], Image]) -> None:
    hold = Hold(Progress, stage="prefill")
    blocker = asker.submit(asker.request(Message.user("first")), hold)
    assert hold.reached.wait(60)
    waiting = asker.submit(asker.request(Message.user(image("a_300x200"), "second")))
    assert waiting.events == [Progress("queued", 0, 1)]
    waiting.ticket.cancel()
    waiting.ticket.cancel()
    hold.released.set()
    outcome = waiting.outcome()
    assert (outcome.reason, outcome.token_ids, outcome.encoded_slices) == ("cancelled", (), 0)
    assert blocker.outcome().reason == "length"


def test_a_full_queue_refuses_with_its_length_and_cancelled_places_are_free_again(asker: Asker) -> None:
    hold = Hold(Progress)
    asker.submit(asker.request(Message.user("first")), hold)
    assert hold.reached.wait(60)
    request = asker.request(Message.user("more"))
    recorders = [asker.submit(request) for _ in range(2)]
    with pytest.raises(Overloaded, match=r"The queue is full \(2 waiting, the limit is 2\)"):
        asker.submit(request)
    recorders[0].ticket.cancel()
    recorders.append(asker.submit(request))
    hold.released.set()
    assert [recorder.outcome().reason for recorder in recorders] == ["cancelled", "length", "length"]
    assert recorders[1].outcome().token_ids == recorders[2].outcome().token_ids


def test_pictures_for_which_there_is_no_memory_beside_those_of_others_are_refused_and_words_are_not(
    asker: Asker, image: Callable[[str], Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    def limit(size: int) -> None:
        monkeypatch.setattr(asker.engine, "_engine", dataclasses.replace(ENGINE, max_picture_bytes=size))

    request = asker.request(Message.user(image("b_900x500"), "first"))
    size = 3 * 14**2 * sum(rows * columns for piece in request.slices for rows, columns in [piece.tgt_size])
    limit(size - 1)
    hold = Hold(Progress)
    first = asker.submit(request, hold)  # nobody is before it
    assert hold.reached.wait(60)
    limit(2 * size - 1)
    sentence = (
        rf"^The pictures of all who wait would take {2 * size:,} bytes of memory \(the limit is {2 * size - 1:,}\): please try again in a while\.$"
    )
    with pytest.raises(Overloaded, match=sentence):
        asker.submit(request)
    words = asker.submit(asker.request(Message.user("more")))
    limit(2 * size)
    second = asker.submit(request)
    hold.released.set()
    assert [recorder.outcome().reason for recorder in (first, words, second)] == ["length"] * 3
    assert second.outcome().token_ids == first.outcome().token_ids


def test_who_waits_hears_of_each_place_that_they_move_up(asker: Asker) -> None:
    hold = Hold(Tokens)
    first = asker.submit(asker.request(Message.user("Hi")), hold)
    assert hold.reached.wait(60)
    second, third = (asker.submit(asker.request(Message.user(words))) for words in ("And I?", "And I too?"))
    hold.released.set()
    assert {recorder.outcome().reason for recorder in (first, second, third)} <= {"stop", "length"}
    places = [[event.total for event in recorder.events if isinstance(event, Progress) and event.stage == "queued"] for recorder in (second, third)]
    assert places == [[1], [2, 1]]


def test_a_failure_of_the_model_is_told_and_does_not_spoil_the_next_answer(
    asker: Asker, image: Callable[[str], Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    message = Message.user(image("a_300x200"), "What is in the image?")
    expected = asker.ask(message).token_ids
    forward, calls = asker.runner.forward, []

    def evil(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("out of memory")
        return forward(*arguments)

    monkeypatch.setattr(asker.runner, "forward", evil)
    failed = asker.submit(asker.request(Message.user("something else entirely"))).last()
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, EngineDead)
    assert "out of memory" in str(failed.error.__cause__)
    answer = asker.ask(message)
    assert (answer.cached_tokens, answer.token_ids) == (0, expected)
    assert (asker.engine.stats().failures, asker.engine.stats().health) == (1, "serving")


@pytest.mark.parametrize("asker", ["paged"], indirect=True)  # the other one needs no time for it
def test_an_engine_says_while_it_is_starting_again(asker: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []

    def fail(*_: object) -> None:
        monkeypatch.undo()
        warm_up = asker.runner.warm_up
        monkeypatch.setattr(asker.runner, "warm_up", lambda *shapes: (heard.append(asker.engine.stats().health), warm_up(*shapes)))
        raise RuntimeError("out of memory")

    monkeypatch.setattr(asker.runner, "forward", fail)
    assert isinstance(asker.submit(asker.request(Message.user("first"))).last(), Failed)
    assert (heard, asker.engine.stats().health) == (["restarting"], "serving")


def test_an_engine_that_cannot_start_afresh_tells_everybody_and_takes_no_more(asker: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = []

    def fail(*_: object) -> None:
        lost.append(1)
        raise RuntimeError("device lost")

    hold = Hold(Progress)
    monkeypatch.setattr(asker.runner, "forward", fail)
    if isinstance(asker.engine, StatefulEngine):
        truncate = asker.runner.truncate
        monkeypatch.setattr(asker.runner, "truncate", lambda length: fail() if lost else truncate(length))
    recorders = [asker.submit(asker.request(Message.user("first")), hold)]
    assert hold.reached.wait(60)
    recorders.append(asker.submit(asker.request(Message.user("second"))))
    hold.released.set()
    assert all(isinstance(recorder.last(), Failed) for recorder in recorders)
    with pytest.raises(EngineDead, match="could not be started again"):
        asker.submit(asker.request(Message.user("third")))
    assert asker.engine.stats().health == "dead"


def test_a_prompt_that_the_pool_can_never_hold_is_refused_and_one_that_it_just_holds_is_answered(fp32_folder: Path) -> None:
    with Asker(fp32_folder, dataclasses.replace(ENGINE, backend="paged"), blocks=2) as asker:
        request = asker.request(Message.user("word " * 2 * BLOCK_SIZE), generation=GenerationConfig.greedy(max_new_tokens=2, min_new_tokens=2))

        def of(tokens: int) -> Request:
            return dataclasses.replace(request, prompt=dataclasses.replace(request.prompt, input_ids=request.prompt.input_ids[:tokens]))

        with pytest.raises(PromptTooLong, match="takes 64 tokens and the limit is 63"):
            asker.submit(of(2 * BLOCK_SIZE))
        assert len(asker.submit(of(2 * BLOCK_SIZE - 1)).outcome().token_ids) == 2


def test_tokens_a_second_are_those_of_the_last_steps(fp32_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, seconds = 0.0, 1.0
    # The prompt is read in one step, which gives a token like any other.
    with Asker(fp32_folder, dataclasses.replace(ENGINE, backend="paged", prefill_chunk_tokens=64)) as asker:
        forward = asker.runner.forward

        def timed(batch: Any) -> Any:
            nonlocal now
            now += seconds
            return forward(batch)

        monkeypatch.setattr(asker.engine, "_clock", lambda: now)
        monkeypatch.setattr(asker.runner, "forward", timed)
        assert asker.engine.stats().tokens_per_second == 0
        for seconds, tokens in ((1.0, 8), (0.25, 40)):
            asker.ask(Message.user("Hi"), generation=GenerationConfig.greedy(max_new_tokens=tokens, min_new_tokens=tokens))
            assert asker.engine.stats().tokens_per_second == 1 / seconds


@pytest.mark.parametrize("backend", ["stateful", "paged"])
def test_the_answer_stops_where_the_context_ends(fp32_folder: Path, backend: str) -> None:
    with Asker(fp32_folder, dataclasses.replace(ENGINE, backend=backend), context_tokens=60) as asker:
        request = asker.request(Message.user("Who are you?"), generation=GenerationConfig.greedy(max_new_tokens=2000))
        outcome = asker.submit(request).outcome()
    assert outcome.reason == "length"
    assert len(request.prompt.input_ids) + len(outcome.token_ids) == 60


def test_a_terminator_ends_the_answer_and_is_no_part_of_it(asker: Asker, image: Callable[[str], Image]) -> None:
    message = Message.user(image("a_300x200"), "What is in the image?")
    whole = asker.ask(message).token_ids
    asker.engine._terminators = (whole[5],)
    ended = asker.ask(message)
    assert (ended.reason, ended.token_ids) == ("stop", whole[: whole.index(whole[5])])


def test_a_beam_that_ends_is_shown_without_its_terminator(asker: Asker, image: Callable[[str], Image]) -> None:
    asker.engine._terminators = tuple(range(0, asker.config.text.vocab_size, 2))
    recorder = asker.submit(asker.request(Message.user(image("a_300x200"), "What is in the image?"), generation=BEAMS))
    outcome = recorder.outcome()
    assert outcome.reason == "stop"
    assert not set(outcome.token_ids) & set(asker.engine._terminators)
    assert recorder.token_ids == outcome.token_ids


def test_a_search_that_finds_no_more_room_answers_with_its_best_beam(fp32_folder: Path) -> None:
    message, paged = Message.user("Hi"), dataclasses.replace(ENGINE, backend="paged")
    with Asker(fp32_folder, paged, blocks=5) as asker:
        recorder = asker.submit(asker.request(message, generation=GenerationConfig.beams(max_new_tokens=400, min_new_tokens=400)))
        cut = recorder.outcome()
    assert cut.reason == "length"
    assert 0 < len(cut.token_ids) < 400
    assert recorder.token_ids == cut.token_ids
    count = len(cut.token_ids)
    with Asker(fp32_folder, paged) as asker:
        assert asker.ask(message, generation=GenerationConfig.beams(max_new_tokens=count, min_new_tokens=count)).token_ids == cut.token_ids


@pytest.mark.parametrize("others", ["decode", "are read"])
def test_others_are_given_as_long_as_each_of_somebodys_pictures_took(
    fp32_folder: Path, image: Callable[[str], Image], monkeypatch: pytest.MonkeyPatch, others: str
) -> None:
    now, done = [0.0], []

    def taking(seconds: float, kind: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*given: Any) -> Any:
            now[0] += seconds
            done.append(kind)
            return function(*given)

        return timed

    with Asker(fp32_folder, dataclasses.replace(ENGINE, backend="paged", max_running=2)) as asker:
        monkeypatch.setattr(asker.engine, "_clock", lambda: now[0])
        monkeypatch.setattr(asker.vision, "encode_batch", taking(1.0, "picture", asker.vision.encode_batch))
        monkeypatch.setattr(asker.runner, "forward", taking(0.25, "step", asker.runner.forward))
        hold = Hold(Tokens if others == "decode" else Progress)
        answer = GenerationConfig.greedy(max_new_tokens=40, min_new_tokens=40)
        reader = asker.submit(asker.request(Message.user("Go on." if others == "decode" else "word " * 400), generation=answer), hold)
        assert hold.reached.wait(60)
        shower = asker.submit(asker.request(Message.user(image("b_900x500"), "What is it?")))
        hold.released.set()
        assert (len(reader.outcome().token_ids), shower.outcome().encoded_slices) == (40, 3)
    first, second, third = (index for index, kind in enumerate(done) if kind == "picture")
    assert done[first + 1 : second] == done[second + 1 : third] == ["step"] * 4


def test_pictures_that_cannot_be_encoded_are_a_matter_of_their_sender_alone(
    fp32_folder: Path, image: Callable[[str], Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: object) -> None:
        raise RuntimeError("no memory for it")

    with Asker(fp32_folder, dataclasses.replace(ENGINE, backend="paged", max_running=2)) as asker:
        hold = Hold(Tokens)
        reader = asker.submit(asker.request(Message.user("Go on."), generation=GenerationConfig.greedy(max_new_tokens=40, min_new_tokens=40)), hold)
        assert hold.reached.wait(60)
        with monkeypatch.context() as broken:
            broken.setattr(asker.vision, "encode_batch", fails)
            shower = asker.submit(asker.request(Message.user(image("b_900x500"), "What is it?")))
            hold.released.set()
            last = shower.last()
        assert isinstance(last, Failed)
        assert isinstance(last.error, EngineDead)
        assert str(last.error.__cause__) == "no memory for it"
        assert (reader.outcome().reason, len(reader.outcome().token_ids)) == ("length", 40)
        stats = asker.engine.stats()
        assert (stats.failures, stats.running, stats.num_free_blocks) == (1, 0, stats.num_blocks)


def test_closing_with_patience_begins_no_further_pictures(fp32_folder: Path, image: Callable[[str], Image], monkeypatch: pytest.MonkeyPatch) -> None:
    with Asker(fp32_folder, dataclasses.replace(ENGINE, backend="paged")) as asker:
        begun, go_on, encode = threading.Event(), threading.Event(), asker.vision.encode_batch

        def slow(batch: Any) -> Any:
            begun.set()
            assert go_on.wait(60)
            return encode(batch)

        monkeypatch.setattr(asker.vision, "encode_batch", slow)
        shower = asker.submit(asker.request(Message.user(image("b_900x500"), "What is it?")))
        assert begun.wait(60)
        closing = threading.Thread(target=asker.engine.close, args=(120.0,))
        closing.start()
        while asker.engine.stats().health != "dead":
            threading.Event().wait(0.01)
        go_on.set()
        closing.join()
        assert shower.outcome().reason == "cancelled"
        assert asker.vision.encoded < len(shower.ticket.request.slices)


def test_closing_cancels_what_runs_and_refuses_what_comes(asker: Asker) -> None:
    hold = Hold(Tokens)
    recorder = asker.submit(asker.request(Message.user("Hi"), generation=GenerationConfig.greedy(max_new_tokens=2000)), hold)
    assert hold.reached.wait(60)
    hold.released.set()
    asker.engine.close()
    assert recorder.outcome().reason in ("cancelled", "stop")
    with pytest.raises(EngineDead, match="was shut down"):
        asker.submit(asker.request(Message.user("Hi")))


@pytest.mark.parametrize(("grace_seconds", "ending"), [(120.0, "length"), (0.0, "cancelled")])
def test_closing_with_patience_lets_what_is_under_way_end_and_what_waits_go(asker: Asker, grace_seconds: float, ending: str) -> None:
    hold = Hold(Tokens)
    long = GenerationConfig.greedy(max_new_tokens=100, min_new_tokens=100)
    running = asker.submit(asker.request(Message.user("Tell me."), generation=long), hold)
    assert hold.reached.wait(60)
    waiting = asker.submit(asker.request(Message.user("Tell me too.")))
    closing = threading.Thread(target=asker.engine.close, args=(grace_seconds,))
    closing.start()
    while asker.engine.stats().health != "dead":
        threading.Event().wait(0.01)
    hold.released.set()
    closing.join()
    assert running.outcome().reason == ending
    assert waiting.outcome().reason == "cancelled"
    with pytest.raises(EngineDead):
        asker.submit(running.ticket.request)
