"""A checkpoint -> what the model itself, in float32 on torch, says first and in all: the measure of every converted format."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from conversion.checkpoint import Checkpoint
from conversion.model import MiniCPMV
from demo.exam import Question
from pipeline.config import EngineConfig, ModelConfig
from pipeline.engine.compiled import Compiler, Embedder
from pipeline.engine.stateful_runner import StatefulRunner
from pipeline.preprocess import Slice, vision_position_ids
from pipeline.processor import Processor
from pipeline.vision import sincos_table

Logits: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True)
class Agreement:
    """Shares from 0 to 1 of the questions, and the mean Kullback-Leibler divergence of the first token's distribution in nats."""

    first_token: float
    exact_answer: float
    kl: float


class Reference:
    """The checkpoint's torch modules in float32."""

    def __init__(self, folder: Path) -> None:
        self.model = load_modules(folder)
        self.processor = Processor(folder)

    @torch.inference_mode()
    def answer(self, question: Question, max_new_tokens: int) -> tuple[Logits, str]:
        """Logits (vocabulary,) of the first token, and the greedy answer."""
        plan = self.processor.plan(question.messages)
        llm = self.model.llm
        ids = torch.tensor([plan.prompt.input_ids])
        embeds = llm.model.embed_tokens(ids)
        for (start, end), piece in zip(plan.prompt.image_bound, plan.slices, strict=True):
            embeds[0, start:end] = self._image_embeds(piece)
        terminators, token_ids = self.processor.tokenizer.terminators, []
        first, past = None, None
        while len(token_ids) < max_new_tokens:
            output = llm(inputs_embeds=embeds, past_key_values=past, use_cache=True, logits_to_keep=1)
            logits, past = output.logits[0, -1], output.past_key_values
            first = logits.numpy() if first is None else first
            if (token := int(logits.argmax())) in terminators:
                break
            token_ids.append(token)
            embeds = llm.model.embed_tokens(torch.tensor([[token]]))
        if first is None:
            raise ValueError("max_new_tokens must be at least 1")
        return first, self.processor.tokenizer.decode(token_ids).strip()

    def _image_embeds(self, piece: Slice) -> torch.Tensor:
        config, patches = self.processor.config, piece.tgt_size[0] * piece.tgt_size[1]
        positions = torch.from_numpy(vision_position_ids(piece.tgt_size, config.vision).copy())
        features = self.model.vpm(torch.from_numpy(piece.pixel_values())[None], torch.ones(1, 1, patches), positions[None])
        table = torch.from_numpy(sincos_table(piece.tgt_size, config.text.hidden_size))
        return self.model.resampler(features, table[:, None], torch.zeros(1, patches))[0]


def load_modules(folder: Path) -> MiniCPMV:
    """The whole model in memory.

    Raises:
        ArtifactError: the checkpoint is incomplete, or not one of this architecture.
    """
    model = MiniCPMV.skeleton(ModelConfig.from_folder(folder))
    checkpoint = Checkpoint.open(folder)
    checkpoint.check(model.stored_shapes(), model.may_ignore)
    parts = {"vpm.": model.vpm, "resampler.": model.resampler, "llm.model.": model.llm.model, model.lm_head_prefix: model.llm.lm_head}
    for prefix, module in parts.items():
        checkpoint.load(module, prefix, torch.float32)
    return model.eval().requires_grad_(False)


def first_logits(folder: Path, questions: Sequence[Question]) -> list[Logits]:
    """Of a converted folder, as the pipeline computes them: logits (vocabulary,) of the first token of each answer."""
    processor = Processor(folder)
    compiler = Compiler(folder, EngineConfig())
    runner, embedder, vision = StatefulRunner(compiler), Embedder(compiler), compiler.vision(processor.config, cache_bytes=0)
    found = []
    for question in questions:
        plan = processor.plan(question.messages)
        embeds = embedder.embed(plan.prompt.input_ids)
        for (start, end), rows in zip(plan.prompt.image_bound, vision.encode(plan.slices) or (), strict=True):
            embeds[start:end] = rows
        runner.truncate(0)
        found.append(runner.forward(embeds[None])[0].copy())
    return found


def agreement(reference: Sequence[tuple[Logits, str]], logits: Sequence[Logits], answers: Sequence[str]) -> Agreement:
    """How near a format's first logits and whole answers are to the reference's."""
    expected = _log_softmax(np.stack([first for first, _ in reference]))
    found = _log_softmax(np.stack(logits))
    return Agreement(
        first_token=float((expected.argmax(1) == found.argmax(1)).mean()),
        exact_answer=float(np.mean([text == answer for (_, text), answer in zip(reference, answers, strict=True)])),
        kl=float((np.exp(expected) * (expected - found)).sum(1).mean()),
    )


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(1, keepdims=True)))
