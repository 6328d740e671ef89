"""One engine in a process of its own: a line of JSON in says what to do, a line of JSON out says how long it took; null is what it cannot do.

All are asked the same: `chat` is a picture and a question, a follow-up, and the first turn again; `prompts` is users who come together with a long
prompt each; `crowd` is users who each get an answer; `arrival` is somebody who comes with a long prompt while three others read their answers.
"""

import argparse
import itertools
import json
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import openvino_genai
import PIL.Image
from openvino import Tensor

from pipeline import Assistant, EngineConfig, GenerationConfig, Image, Message
from pipeline.engine.request import Event, Failed, Finished, Tokens

Result: TypeAlias = dict[str, float | list[float]] | None
ANSWER_TOKENS = 16
QUESTION, FOLLOW_UP = "What is in the picture? Describe it in detail.", "And what else?"
READERS, QUIET_TOKENS = 3, 24


def picture(seed: int, side: int) -> PIL.Image.Image:
    """Noise that nobody has cached."""
    return PIL.Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8))


def words(seed: int, tokens: int) -> str:
    """Numbers, unlike any other prompt's from their beginning on; about so many tokens, four each."""
    return " ".join(str(number) for number in np.random.default_rng(seed).integers(100, 1000, tokens // 4))


def together(streams: Sequence[Sequence[float]]) -> Result:
    """Tokens a second of all, from the first token of the last to start to the last token of the first to end: while everybody decodes.

    Tokens of one step may be told one after the other; those of the first step are not counted, those of the last one all are.
    """
    begin, end = max(times[0] for times in streams), min(times[-1] for times in streams)
    within_a_step = 0.2 * float(np.median(np.diff(streams[0])))
    return {"tokens_per_s": sum(begin + within_a_step < time <= end + within_a_step for times in streams for time in times) / (end - begin)}


class Reading:
    """When each token of one answer came, in seconds by `time.perf_counter`."""

    def __init__(self, assistant: Assistant, *messages: Message, tokens: int) -> None:
        self.times: list[float] = []
        self.outcome: Finished | Failed | None = None
        self._awaited, self._reached = tokens, threading.Event()
        generation = GenerationConfig.greedy(max_new_tokens=tokens, min_new_tokens=tokens)
        self.begun = time.perf_counter()
        request, *_ = assistant._prepare(messages, generation, None, None, threading.Event())
        self.ticket = assistant._engine.submit(request, self._publish)

    def until(self, tokens: int) -> "Reading":
        """Wait for so many tokens, or the end."""
        self._reached.clear()
        self._awaited = tokens
        if len(self.times) < tokens and self.outcome is None:
            self._reached.wait()
        return self

    @property
    def ttft(self) -> float:
        return self.until(1).times[0] - self.begun

    def end(self) -> Finished:
        self.until(sys.maxsize)
        if not isinstance(self.outcome, Finished):
            raise SystemExit("An answer failed.")
        return self.outcome

    def _publish(self, event: Event) -> None:
        if isinstance(event, Tokens):
            self.times += [time.perf_counter()] * len(event.token_ids)
        if isinstance(event, Finished | Failed):
            self.outcome = event
        # Whoever waits is not woken by every token: it would take a core from the next step, which a reader of `openvino_genai` does not.
        if self.outcome is not None or len(self.times) >= self._awaited:
            self._reached.set()


class Ours:
    """The pipeline, with either engine behind it."""

    def __init__(self, folder: Path, backend: str) -> None:
        self._assistant = Assistant(folder, EngineConfig(device="CPU", backend=backend, max_waiting=64))
        self._for_many = backend == "paged"

    def chat(self, seed: int, side: int) -> Result:
        first = [Message.user(Image(picture(seed, side)), QUESTION)]
        reading = self._read(*first, tokens=ANSWER_TOKENS)
        outcome = reading.end()
        text = self._assistant.processor.tokenizer.decode(list(outcome.token_ids))
        further = self._read(*first, Message.assistant(text), Message.user(FOLLOW_UP), tokens=ANSWER_TOKENS)
        further.end()
        again = self._read(*first, tokens=ANSWER_TOKENS)
        again.end()
        return {"first_s": reading.ttft, "follow_up_s": further.ttft, "retry_s": again.ttft, "vision_s": outcome.vision_s}

    def prompts(self, seed: int, users: int, prompt_tokens: int) -> Result:
        if users > 1 and not self._for_many:
            return None
        readings = [self._read(Message.user(words(seed + user, prompt_tokens)), tokens=1) for user in range(users)]
        for reading in readings:
            reading.end()
        return {"prefill_s": max(reading.times[0] for reading in readings) - readings[0].begun}

    def crowd(self, seed: int, users: int, tokens: int) -> Result:
        if users > 1 and not self._for_many:
            return None
        readings = [self._read(Message.user(words(seed + user, 24)), tokens=tokens) for user in range(users)]
        return together([reading.times for reading in readings if reading.end()])

    def arrival(self, seed: int, prompt_tokens: int) -> Result:
        if not self._for_many:
            return None
        alone = self._read(Message.user(words(seed, prompt_tokens)), tokens=1)
        alone.end()
        readers = [self._read(Message.user(words(seed + 1 + user, 24)), tokens=4096) for user in range(READERS)]
        starts = [len(reader.until(1).times) for reader in readers]
        for reader, start in zip(readers, starts, strict=True):
            reader.until(start + QUIET_TOKENS)
        comes = self._read(Message.user(words(seed + 9, prompt_tokens)), tokens=1)
        comes.end()
        for reader in readers:
            reader.ticket.cancel()
            reader.end()
        quiet_from = max(reader.times[start] for reader, start in zip(readers, starts, strict=True))
        quiet = [gap for reader in readers for gap in gaps(reader.times, quiet_from, comes.begun)]
        during = [gap for reader in readers for gap in gaps(reader.times, comes.begun, comes.times[0])]
        return {"quiet_s": quiet, "during_s": during, "alone_s": alone.ttft, "beside_s": comes.ttft}

    def _read(self, *messages: Message, tokens: int) -> Reading:
        return Reading(self._assistant, *messages, tokens=tokens)


def gaps(times: Sequence[float], begin: float, end: float) -> list[float]:
    """What was waited for each token that came in between."""
    return [later - earlier for earlier, later in itertools.pairwise(times) if begin < later <= end]


class Genai:
    """`VLMPipeline`: one conversation at a time."""

    def __init__(self, folder: Path) -> None:
        self._pipeline = openvino_genai.VLMPipeline(folder, "CPU")

    def chat(self, seed: int, side: int) -> Result:
        images = [Tensor(np.asarray(picture(seed, side))[None])]
        history = _history(QUESTION)
        first, result = self._times(history, ANSWER_TOKENS, images)
        history.append({"role": "assistant", "content": result.texts[0]})
        history.append({"role": "user", "content": FOLLOW_UP})
        further, _ = self._times(history, ANSWER_TOKENS)
        again, _ = self._times(_history(QUESTION), ANSWER_TOKENS, images)
        vision_s = result.perf_metrics.get_vision_encoding_duration().mean / 1000
        return {"first_s": first[0], "follow_up_s": further[0], "retry_s": again[0], "vision_s": vision_s}

    def prompts(self, seed: int, users: int, prompt_tokens: int) -> Result:
        return {"prefill_s": self._times(_history(words(seed, prompt_tokens)), 1)[0][0]} if users == 1 else None

    def crowd(self, seed: int, users: int, tokens: int) -> Result:
        return together([self._times(_history(words(seed, 24)), tokens)[0]]) if users == 1 else None

    def arrival(self, **_: int) -> Result:
        return None

    def _times(self, history: openvino_genai.ChatHistory, tokens: int, images: Sequence[Tensor] = ()) -> tuple[list[float], Any]:
        """Seconds from the call to each token of the answer, and the answer."""
        noting = Noting()
        result = self._pipeline.generate(history, images=list(images), generation_config=greedy(tokens), streamer=noting)
        return noting.times, result


class Noting(openvino_genai.StreamerBase):
    """Seconds until each token; a plain function would be told of text, which holds the latest tokens back."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []
        self._begun = time.perf_counter()

    def write(self, token: int | Sequence[int]) -> openvino_genai.StreamingStatus:
        self.times += [time.perf_counter() - self._begun] * (1 if isinstance(token, int) else len(token))
        return openvino_genai.StreamingStatus.RUNNING

    def end(self) -> None:
        pass


def greedy(tokens: int) -> openvino_genai.GenerationConfig:
    """Exactly so many, the likeliest each time."""
    return openvino_genai.GenerationConfig(max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, ignore_eos=True)


def _history(question: str) -> openvino_genai.ChatHistory:
    return openvino_genai.ChatHistory([{"role": "user", "content": question}])


class GenaiBatching:
    """`ContinuousBatchingPipeline`: many requests at once, one step after the other."""

    def __init__(self, folder: Path) -> None:
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.cache_size, scheduler.max_num_seqs, scheduler.enable_prefix_caching, scheduler.dynamic_split_fuse = 2, 16, True, True
        self._pipeline = openvino_genai.ContinuousBatchingPipeline(folder, scheduler, "CPU")
        self._number = 0

    def chat(self, seed: int, side: int) -> Result:
        image = Tensor(np.asarray(picture(seed, side))[None])
        first, again = ({"times": self._run([(QUESTION, [image])], ANSWER_TOKENS)} for _ in range(2))
        return {"first_s": first["times"][0][0], "retry_s": again["times"][0][0]}

    def prompts(self, seed: int, users: int, prompt_tokens: int) -> Result:
        return {"prefill_s": max(times[0] for times in self._run([(words(seed + user, prompt_tokens), []) for user in range(users)], 1))}

    def crowd(self, seed: int, users: int, tokens: int) -> Result:
        return together(self._run([(words(seed + user, 24), []) for user in range(users)], tokens))

    def arrival(self, seed: int, prompt_tokens: int) -> Result:
        [[alone]] = self._run([(words(seed, prompt_tokens), [])], 1)
        handles = [self._add(words(seed + 1 + user, 24), [], 4096) for user in range(READERS)]
        times: list[list[float]] = [[] for _ in handles]
        while not all(times):
            self._step(handles, times)
        quiet_from = max(own[0] for own in times)
        for _ in range(QUIET_TOKENS):
            self._step(handles, times)
        begun = time.perf_counter()
        handles.append(self._add(words(seed + 9, prompt_tokens), [], 1))
        times.append([])
        while not times[-1]:
            self._step(handles, times)
        for handle in handles:
            handle.cancel()
        while self._pipeline.has_non_finished_requests():
            self._pipeline.step()
        *readers, [came] = times
        quiet = [gap for own in readers for gap in gaps(own, quiet_from, begun)]
        during = [gap for own in readers for gap in gaps(own, begun, came)]
        return {"quiet_s": quiet, "during_s": during, "alone_s": alone, "beside_s": came - begun}

    def _run(self, asked: Sequence[tuple[str, list[Tensor]]], tokens: int) -> list[list[float]]:
        """Seconds from the first request on to each token of each answer."""
        begun = time.perf_counter()
        handles = [self._add(prompt, images, tokens) for prompt, images in asked]
        times: list[list[float]] = [[] for _ in handles]
        while self._pipeline.has_non_finished_requests():
            self._step(handles, times)
        return [[moment - begun for moment in own] for own in times]

    def _add(self, prompt: str, images: list[Tensor], tokens: int) -> Any:
        self._number += 1
        return self._pipeline.add_request(self._number, prompt, images, greedy(tokens))

    def _step(self, handles: Sequence[Any], times: Sequence[list[float]]) -> None:
        """One step, and when each answer's tokens came."""
        self._pipeline.step()
        now = time.perf_counter()
        for own, handle in zip(times, handles, strict=True):
            while handle.can_read():
                own.extend([now] * sum(len(output.generated_ids) for output in handle.read().values()))


CONTENDERS: dict[str, Callable[[Path], Any]] = {
    "paged": lambda folder: Ours(folder, "paged"),
    "stateful": lambda folder: Ours(folder, "stateful"),
    "genai": Genai,
    "genai batching": GenaiBatching,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=CONTENDERS)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    begun = time.perf_counter()
    contender = CONTENDERS[options.name](options.folder)
    print(json.dumps({"load_s": time.perf_counter() - begun}), flush=True)
    for line in sys.stdin:
        name, arguments = json.loads(line)
        print(json.dumps({"peak_rss_mib": peak_rss_mib()} if name == "memory" else getattr(contender, name)(**arguments)), flush=True)


def peak_rss_mib() -> float:
    """Of this process; what `getrusage` gives begins with that of the process it was forked from."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
