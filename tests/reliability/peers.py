"""One model folder, served in each of three ways -> visitors who each have a conversation: `say` takes words, maybe a picture, and gives the answer.

The pixels of a picture, what is remembered of a conversation, and how an answer is stopped are those of each way; all choose the likeliest token and
compute in float32, so that answers can be compared word for word.
"""

import asyncio
import contextlib
import io
import time
from pathlib import Path
from typing import Protocol

import numpy as np
import openvino_genai
import PIL.Image
from openvino import Tensor

from pipeline import Assistant, EngineConfig, GenerationConfig, Image, Message, TextDelta

ANSWER_TOKENS, LONG_TOKENS = 24, 96
EXACT = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}


class Visitor(Protocol):
    """Somebody with a conversation of their own, as they believe."""

    freed_s: float  # from the wish to stop to the moment in which nothing is computed for it any more

    def say(self, question: str, picture: bytes | None = None, stop_after: int | None = None) -> str:
        """The answer; with `stop_after` a long one that is stopped after so many pieces, and then the conversation is as it was before."""


class Ours:
    """The pipeline of this repository."""

    def __init__(self, folder: Path, cache: bool = True) -> None:
        self.assistant, self._cache = Assistant(folder, EngineConfig(device="CPU", vision_cache_bytes=2**28 if cache else 0)), cache

    def visitor(self) -> Visitor:
        return _OurVisitor(self.assistant, self._cache)


class _OurVisitor:
    def __init__(self, assistant: Assistant, cache: bool) -> None:
        self._assistant, self._cache, self.freed_s = assistant, cache, 0.0
        self._messages: list[Message] = []

    def say(self, question: str, picture: bytes | None = None, stop_after: int | None = None) -> str:
        if not self._cache:
            self._assistant._engine._start_afresh()  # type: ignore[union-attr]
        pictures = () if picture is None else (Image(picture),)
        asked = [*self._messages, Message.user(*pictures, question)]
        answer, ended = asyncio.run(self._stream(asked, stop_after))
        while self._assistant.stats().running:
            time.sleep(0)
        self.freed_s = time.perf_counter() - ended
        if stop_after is None:
            self._messages = [*asked, Message.assistant(answer)]
        return answer

    async def _stream(self, messages: list[Message], stop_after: int | None) -> tuple[str, float]:
        """The answer, and when its end was wished for or came."""
        tokens = ANSWER_TOKENS if stop_after is None else LONG_TOKENS
        generation = GenerationConfig.greedy(max_new_tokens=tokens, min_new_tokens=0 if stop_after is None else tokens)
        pieces: list[str] = []
        async with contextlib.aclosing(self._assistant.stream(messages, generation)) as stream:
            async for delta in stream:
                if isinstance(delta, TextDelta):
                    pieces.append(delta.text)
                    if len(pieces) == stop_after:
                        break
            ended = time.perf_counter()
        return "".join(pieces).strip(), ended


class Genai:
    """`openvino_genai.VLMPipeline` with its scheduler, and a `ChatHistory` for each visitor."""

    def __init__(self, folder: Path, cache: bool = True) -> None:
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.cache_size, scheduler.enable_prefix_caching = 1, cache
        self._pipeline = openvino_genai.VLMPipeline(folder, "CPU", scheduler_config=scheduler, **EXACT)

    def visitor(self) -> Visitor:
        return _GenaiVisitor(self._pipeline)


class _GenaiVisitor:
    def __init__(self, pipeline: openvino_genai.VLMPipeline) -> None:
        self._pipeline, self._history, self.freed_s = pipeline, openvino_genai.ChatHistory(), 0.0

    def say(self, question: str, picture: bytes | None = None, stop_after: int | None = None) -> str:
        self._history.append({"role": "user", "content": question})
        answer, self.freed_s = _generated(self._pipeline, self._history, picture, stop_after)
        if stop_after is None:
            self._history.append({"role": "assistant", "content": answer})
        else:
            self._history.pop()
        return answer.strip()


class Notebook:
    """As in OpenVINO's notebook for this model: one `VLMPipeline`, which is told to start a chat whenever somebody's history is empty."""

    def __init__(self, folder: Path) -> None:
        self._pipeline = openvino_genai.VLMPipeline(folder, "CPU", **EXACT)

    def visitor(self) -> Visitor:
        return _NotebookVisitor(self._pipeline)


class _NotebookVisitor:
    def __init__(self, pipeline: openvino_genai.VLMPipeline) -> None:
        self._pipeline, self._is_new, self.freed_s = pipeline, True, 0.0

    def say(self, question: str, picture: bytes | None = None, stop_after: int | None = None) -> str:
        if self._is_new:
            self._pipeline.start_chat()
        answer, self.freed_s = _generated(self._pipeline, question, picture, stop_after)
        self._is_new = False
        return answer.strip()


def _generated(
    pipeline: openvino_genai.VLMPipeline, prompt: "openvino_genai.ChatHistory | str", picture: bytes | None, stop_after: int | None
) -> tuple[str, float]:
    """An answer, and the seconds from the wish to stop it to its end."""
    pieces, stopped = 0, 0.0

    def watch(_: str) -> openvino_genai.StreamingStatus:
        nonlocal pieces, stopped
        pieces += 1
        if pieces != stop_after:
            return openvino_genai.StreamingStatus.RUNNING
        stopped = time.perf_counter()
        return openvino_genai.StreamingStatus.CANCEL

    config = openvino_genai.GenerationConfig(do_sample=False, max_new_tokens=ANSWER_TOKENS)
    if stop_after is not None:
        config.max_new_tokens = config.min_new_tokens = LONG_TOKENS
    images = [] if picture is None else [_pixels(picture)]
    result = pipeline.generate(prompt, images=images, generation_config=config, streamer=watch)
    return result.texts[0], time.perf_counter() - stopped if stopped else 0.0


def _pixels(file: bytes) -> Tensor:
    with PIL.Image.open(io.BytesIO(file)) as image:
        return Tensor(np.array(image.convert("RGB"))[None])
