"""The engine over the fp32 IR of the golden model: cache, cancel at every moment, order, failure."""

import queue
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.config import EngineConfig, GenerationConfig, ModelConfig
from pipeline.engine import stateful
from pipeline.engine.model_runner import StatefulRunner, load
from pipeline.engine.request import Event, Failed, Finished, Progress, Request, Ticket, Tokens
from pipeline.engine.stateful import StatefulEngine
from pipeline.errors import EngineDead, Overloaded
from pipeline.message import Image, Message
from pipeline.processor import Options, Processor

GREEDY = GenerationConfig.greedy(max_new_tokens=12)


class Recorder:
    """Collects the events of one request; `on_event` runs in the engine's thread."""

    def __init__(self, on_event=lambda _: None) -> None:
        self.events: list[Event] = []
        self.done = threading.Event()
        self._on_event = on_event

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        self._on_event(event)
        if isinstance(event, Finished | Failed):
            self.done.set()

    def outcome(self) -> Finished:
        assert self.done.wait(60), "the engine never finished the request"
        assert isinstance(self.events[-1], Finished), self.events[-1]
        return self.events[-1]


class Bench:
    """An engine and what it takes to ask it something."""

    def __init__(self, folder: Path, golden: Path, engine: EngineConfig) -> None:
        self.processor, self.golden = Processor(folder), golden
        self.config = self.processor.config
        self.runner, self.vision = load(folder, self.config, engine)
        self.engine = StatefulEngine(self.runner, self.vision, self.config, engine, self.processor.tokenizer.terminators)

    def request(self, *messages: Message, generation: GenerationConfig = GREEDY) -> Request:
        plan = self.processor.plan(messages, Options())
        return Request(plan.prompt, tuple(self.processor.slices(plan)), generation)

    def image(self, name: str) -> Image:
        return Image(self.golden / "images" / f"{name}.png")

    def ask(self, *messages: Message, generation: GenerationConfig = GREEDY) -> Finished:
        recorder = Recorder()
        self.engine.submit(self.request(*messages, generation=generation), recorder)
        return recorder.outcome()

    def forget(self) -> None:
        """Make the next request start from nothing."""
        self.ask(Message.user("\n"))


@pytest.fixture
def bench(fp32_folder: Path, golden: Path) -> Iterator[Bench]:
    bench = Bench(fp32_folder, golden, EngineConfig(device="CPU", prefill_chunk_tokens=16, max_waiting=2))
    yield bench
    bench.engine.close()


def test_a_follow_up_computes_only_what_is_new_and_encodes_nothing_again(bench: Bench) -> None:
    first = Message.user(bench.image("b_900x500"), "What is it?")
    answer = bench.ask(first)
    assert (answer.cached_tokens, answer.encoded_slices) == (0, 3)
    text = bench.processor.tokenizer.decode(list(answer.token_ids))
    follow_up = [first, Message.assistant(text), Message.user("And why?")]
    second = bench.ask(*follow_up)
    prompt_tokens = len(bench.request(first).prompt.input_ids)
    assert second.cached_tokens >= prompt_tokens
    assert second.encoded_slices == 0
    bench.forget()
    assert bench.ask(*follow_up).token_ids == second.token_ids


def test_the_same_words_about_another_picture_share_nothing_from_the_picture_on(bench: Bench) -> None:
    # Two pictures of one size: only their digests tell the prompts apart.
    words = "What is it?"
    one, other = (bench.request(Message.user(bench.image(name), words)) for name in ("frame0", "frame1"))
    assert one.prompt == other.prompt
    answers = [bench.ask(Message.user(bench.image(name), words)) for name in ("frame0", "frame1", "frame0")]
    start = one.prompt.image_bound[0][0]
    assert [answer.cached_tokens for answer in answers] == [0, start, start]
    assert answers[0].token_ids == answers[2].token_ids != answers[1].token_ids


def test_the_same_request_again_computes_its_last_token_only_and_answers_the_same(bench: Bench) -> None:
    message = Message.user(bench.image("a_300x200"), "What is in the image?")
    for generation in (GREEDY, GenerationConfig.beams(max_new_tokens=12)):
        bench.forget()
        first, second = (bench.ask(message, generation=generation) for _ in range(2))
        assert second.cached_tokens == len(bench.request(message).prompt.input_ids) - 1
        assert second.token_ids == first.token_ids


def test_a_cut_inside_a_picture_goes_on_with_the_rest_of_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    message = Message.user(bench.image("a_300x200"), "What is in the image?")
    whole = bench.ask(message).token_ids
    start, end = bench.request(message).prompt.image_bound[0]
    common = stateful._common_prefix
    for cached in (start + 1, end - 1, end):
        monkeypatch.setattr(stateful, "_common_prefix", lambda one, other, cached=cached: min(common(one, other), cached))
        again = bench.ask(message)
        assert (again.cached_tokens, again.token_ids) == (cached, whole)


def moments(kind: type, stage: str | None = None):
    return lambda event: isinstance(event, kind) and (stage is None or event.stage == stage)


@pytest.mark.parametrize("generation", [GREEDY, GenerationConfig.beams(max_new_tokens=12)], ids=["greedy", "beams"])
@pytest.mark.parametrize(
    "moment", [moments(Progress, "vision"), moments(Progress, "prefill"), moments(Tokens)], ids=["in vision", "in prefill", "while decoding"]
)
def test_a_cancelled_request_ends_and_the_next_one_is_answered_as_if_it_had_never_been(bench: Bench, moment, generation: GenerationConfig) -> None:
    message = Message.user(bench.image("b_900x500"), "What is it?")
    expected = bench.ask(message, generation=generation).token_ids
    bench.forget()
    other = Message.user(bench.image("d_200x1000"), "Hi")
    tickets: queue.Queue[Ticket] = queue.Queue()
    recorder = Recorder(lambda event: moment(event) and tickets.get(timeout=60).cancel())
    for _ in range(2):
        tickets.put(ticket := bench.engine.submit(bench.request(other, generation=generation), recorder))
    outcome = recorder.outcome()
    assert outcome.reason == "cancelled"
    assert len(outcome.token_ids) < 12
    ticket.cancel()
    answer = bench.ask(message, generation=generation)
    assert answer.token_ids == expected


def test_cancelling_before_the_start_in_the_queue_and_twice_does_no_work(bench: Bench) -> None:
    release = threading.Event()
    blocker = Recorder(lambda event: isinstance(event, Progress) and event.stage == "prefill" and release.wait(60))
    bench.engine.submit(bench.request(Message.user("first")), blocker)
    waiting = Recorder()
    ticket = bench.engine.submit(bench.request(Message.user(bench.image("a_300x200"), "second")), waiting)
    assert waiting.events == [Progress("queued", 0, 1)]
    ticket.cancel()
    ticket.cancel()
    release.set()
    outcome = waiting.outcome()
    assert (outcome.reason, outcome.token_ids, outcome.encoded_slices) == ("cancelled", (), 0)
    assert blocker.outcome().reason == "length"


def test_a_full_queue_refuses_with_its_length_and_cancelled_places_are_free_again(bench: Bench) -> None:
    release = threading.Event()
    blocker = Recorder(lambda event: isinstance(event, Progress) and release.wait(60))
    bench.engine.submit(bench.request(Message.user("first")), blocker)
    request = bench.request(Message.user("more"))
    recorders = [Recorder(), Recorder(), Recorder()]
    tickets = [bench.engine.submit(request, recorder) for recorder in recorders[:2]]
    with pytest.raises(Overloaded, match=r"The queue is full \(2 waiting, the limit is 2\)"):
        bench.engine.submit(request, Recorder())
    tickets[0].cancel()
    bench.engine.submit(request, recorders[2])
    release.set()
    assert [recorder.outcome().reason for recorder in recorders] == ["cancelled", "length", "length"]
    assert recorders[1].outcome().token_ids == recorders[2].outcome().token_ids


def test_a_failure_of_the_model_is_told_and_does_not_spoil_the_next_answer(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    message = Message.user(bench.image("a_300x200"), "What is in the image?")
    expected = bench.ask(message).token_ids
    forward, calls = StatefulRunner.forward, []

    def evil(self: StatefulRunner, *arguments) -> object:
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("out of memory")
        return forward(self, *arguments)

    monkeypatch.setattr(StatefulRunner, "forward", evil)
    recorder = Recorder()
    bench.engine.submit(bench.request(Message.user("something else entirely")), recorder)
    assert recorder.done.wait(60)
    (failed,) = [event for event in recorder.events if isinstance(event, Failed)]
    assert isinstance(failed.error, EngineDead)
    assert "out of memory" in str(failed.error.__cause__)
    answer = bench.ask(message)
    assert (answer.cached_tokens, answer.token_ids) == (0, expected)


def test_an_engine_that_cannot_start_afresh_tells_everybody_and_takes_no_more(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("device lost")

    release = threading.Event()
    blocker, waiting = Recorder(lambda event: isinstance(event, Progress) and release.wait(60)), Recorder()
    monkeypatch.setattr(StatefulRunner, "forward", fail)
    monkeypatch.setattr(StatefulRunner, "truncate", fail)
    bench.engine.submit(bench.request(Message.user("first")), blocker)
    bench.engine.submit(bench.request(Message.user("second")), waiting)
    release.set()
    for recorder in (blocker, waiting):
        assert recorder.done.wait(60)
        assert isinstance(recorder.events[-1], Failed)
    with pytest.raises(EngineDead):
        bench.engine.submit(bench.request(Message.user("third")), Recorder())


def test_after_beams_a_follow_up_reuses_what_they_computed(bench: Bench) -> None:
    question = Message.user(bench.image("a_300x200"), "What is in the image?")
    answer = bench.ask(question, generation=GenerationConfig.beams(max_new_tokens=12))
    prompt_tokens = len(bench.request(question).prompt.input_ids)
    first = bench.engine._held[prompt_tokens]
    assert len(bench.engine._held) == bench.runner.length == prompt_tokens + 11
    assert isinstance(first, int)
    assert answer.reason == "length"


def test_the_answer_stops_where_the_context_ends(bench: Bench) -> None:
    bench.engine._context_tokens = 60
    request = bench.request(Message.user("Who are you?"), generation=GenerationConfig.greedy(max_new_tokens=2000))
    recorder = Recorder()
    bench.engine.submit(request, recorder)
    outcome = recorder.outcome()
    assert outcome.reason == "length"
    assert len(request.prompt.input_ids) + len(outcome.token_ids) == 60


def test_a_terminator_ends_the_answer_and_is_no_part_of_it(bench: Bench) -> None:
    message = Message.user(bench.image("a_300x200"), "What is in the image?")
    whole = bench.ask(message).token_ids
    bench.engine._terminators = (whole[5],)
    ended = bench.ask(message)
    assert (ended.reason, ended.token_ids) == ("stop", whole[: whole.index(whole[5])])


def test_a_beam_that_ends_is_shown_without_its_terminator(bench: Bench) -> None:
    message = Message.user(bench.image("a_300x200"), "What is in the image?")
    bench.engine._terminators = tuple(range(0, bench.config.text.vocab_size, 2))
    recorder = Recorder()
    bench.engine.submit(bench.request(message, generation=GenerationConfig.beams(max_new_tokens=12)), recorder)
    outcome = recorder.outcome()
    assert outcome.reason == "stop"
    assert not set(outcome.token_ids) & set(bench.engine._terminators)
    assert sum((event.token_ids for event in recorder.events if isinstance(event, Tokens)), ()) == outcome.token_ids


def test_closing_cancels_what_runs_and_refuses_what_comes(bench: Bench) -> None:
    started = threading.Event()
    recorder = Recorder(lambda event: isinstance(event, Tokens) and started.set())
    bench.engine.submit(bench.request(Message.user("Hi"), generation=GenerationConfig.greedy(max_new_tokens=2000)), recorder)
    assert started.wait(60)
    bench.engine.close()
    assert recorder.outcome().reason in ("cancelled", "stop")
    with pytest.raises(EngineDead):
        bench.engine.submit(bench.request(Message.user("Hi")), Recorder())


def test_model_config_is_the_folder_s_own(bench: Bench, fp32_folder: Path) -> None:
    assert bench.config == ModelConfig.from_folder(fp32_folder)
