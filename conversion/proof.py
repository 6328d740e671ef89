"""A part as IR, and the same part of the checkpoint on torch in float32 -> figures of how near they are on the same inputs.

A part is tried on what the parts before it give as IR, for a few drawn pictures and fixed words. Neither side takes more memory than the largest part
but the language model, which goes through both a few layers at a time.
"""

import contextlib
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
import openvino as ov
import PIL.Image
import torch
from torch import nn

from conversion.calibration import Inputs, inputs_of
from conversion.checkpoint import Checkpoint
from conversion.fidelity import Array, Figures, compare, compare_logits
from conversion.model import MiniCPMV
from conversion.stages import cut, run, spans
from pipeline.artifacts import LANGUAGE_MODEL, RESAMPLER, TEXT_EMBEDDINGS, VISION_EMBEDDINGS
from pipeline.message import Image, Message
from pipeline.preprocess import Slice
from pipeline.processor import Options, Plan, Processor
from pipeline.vision import sincos_table

#: Square, wide and tall, in pixels; none is cut, so that each is one input.
SIZES = ((448, 448), (900, 225), (260, 390))
QUESTION = "What do these three pictures have in common? Answer in one short sentence, then count from one to ten."
WORDS = "请用一句话解释为什么天空是蓝色的。 def mean(values): return sum(values) / len(values)"

#: The weights are what is tried: activations are rounded no further.
EXACTLY = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0", "KV_CACHE_PRECISION": "f32"}

#: Weights of the language model that are tried at once: a layer of the real one, all layers of a small one.
SPAN_WEIGHTS = 300_000_000


class Proof:
    """Tries the parts of one checkpoint as they are made, in the order in which they follow each other.

    Args:
        source: the checkpoint's folder, for its tokenizer and configs.
        model: without weights; each module is filled while it is tried.
        progress: told the share that is tried, at the beginning and between layers of the language model; what it raises ends the run.
    """

    def __init__(self, source: Path, checkpoint: Checkpoint, model: MiniCPMV, progress: Callable[[float], None]) -> None:
        self._processor = Processor(source)
        self._checkpoint = checkpoint
        self._model = model
        self._progress = progress
        self._core = ov.Core()
        self._known: dict[str, list[Array]] = {}  # what parts have given as IR

    @torch.inference_mode()
    def of(self, file: str, folder: Path) -> Figures:
        """Figures of one part, by the name of its file; the parts before it are in the folder too."""
        self._progress(0.0)
        self._known.pop(file, None)
        if file == LANGUAGE_MODEL:
            return self._of_language_model(folder)
        prefix, module, dtype = {
            VISION_EMBEDDINGS: ("vpm.", self._model.vpm, torch.float32),
            RESAMPLER: ("resampler.", self._model.resampler, torch.float32),
            TEXT_EMBEDDINGS: ("llm.model.embed_tokens.", self._model.llm.model.embed_tokens, None),  # few of its rows are read
        }[file]
        with self._filled(prefix, module, dtype):
            expected = [module(**_tensors(each)).float().numpy() for each in self._inputs(file, folder)]
        pictures = {"patches": [list(piece.tgt_size) for piece in self._pieces]} if file == VISION_EMBEDDINGS else {}
        return {**pictures, **compare(expected, self._outputs(file, folder))}

    def _of_language_model(self, folder: Path) -> Figures:
        layers = list(self._model.llm.model.layers)
        sizes = [_numel(stage) for stage in (*layers, self._model.llm.lm_head)]
        embeds = self._embeds(folder)
        expected, found = [torch.from_numpy(each) for each in embeds], embeds
        for stages in spans(sizes, SPAN_WEIGHTS):
            self._progress(stages.start / len(sizes))
            for stage in stages:
                expected = self._torch_stage(stage, expected)
            model = self._core.read_model(folder / LANGUAGE_MODEL)
            cut(model, stages, len(layers))
            compiled = self._core.compile_model(model, "CPU", EXACTLY)
            found = [run(compiled, hidden, inputs) for hidden, inputs in zip(found, embeds, strict=True)]
        return {"layers": len(layers), **compare_logits([each.numpy() for each in expected], found)}

    def _torch_stage(self, stage: int, hidden: list[torch.Tensor]) -> list[torch.Tensor]:
        decoder, lm_head = self._model.llm.model, self._model.llm.lm_head
        if stage == len(decoder.layers):
            with self._filled("llm.model.norm.", decoder.norm), self._filled(self._model.lm_head_prefix, lm_head):
                return [lm_head(decoder.norm(each)) for each in hidden]
        layer = decoder.layers[stage]
        with self._filled(f"llm.model.layers.{stage}.", layer):
            return [layer(each, attention_mask=_causal(each), position_embeddings=decoder.rotary_emb(each, _places(each))) for each in hidden]

    @cached_property
    def _plans(self) -> list[Plan]:
        pictures = [Image(_picture(size)) for size in SIZES]
        return [self._processor.plan([Message.user(*items)], Options(max_slice_nums=1)) for items in ((*pictures, QUESTION), (WORDS,))]

    @cached_property
    def _pieces(self) -> list[Slice]:
        return [piece for plan in self._plans for piece in plan.slices]

    def _inputs(self, file: str, folder: Path) -> list[Inputs]:
        """Of the image encoder and the resampler one for each picture, of the token embedding one for each prompt."""
        if file == VISION_EMBEDDINGS:
            return [inputs_of(piece, self._processor.config) for piece in self._pieces]
        if file == TEXT_EMBEDDINGS:
            return [{"input": np.array([plan.prompt.input_ids], np.int64)} for plan in self._plans]
        tables = [sincos_table(piece.tgt_size, self._processor.config.text.hidden_size)[:, None] for piece in self._pieces]
        return [
            {"image_feature": features, "pos_embed": table, "key_padding_mask": np.zeros(features.shape[:2], np.float32)}
            for features, table in zip(self._outputs(VISION_EMBEDDINGS, folder), tables, strict=True)
        ]

    def _outputs(self, file: str, folder: Path) -> list[Array]:
        """What a part gives as IR for each of its inputs."""
        if file not in self._known:
            inputs = self._inputs(file, folder)
            compiled = self._core.compile_model(folder / file, "CPU", EXACTLY)
            self._known[file] = [compiled(each)[0].copy() for each in inputs]
        return self._known[file]

    def _embeds(self, folder: Path) -> list[Array]:
        """Of each prompt, (1, tokens, hidden), its pictures in their places."""
        pictures = iter(self._outputs(RESAMPLER, folder))
        found = [embeds.copy() for embeds in self._outputs(TEXT_EMBEDDINGS, folder)]
        for plan, embeds in zip(self._plans, found, strict=True):
            for start, end in plan.prompt.image_bound:
                embeds[0, start:end] = next(pictures)[0]
        return found

    @contextlib.contextmanager
    def _filled(self, prefix: str, module: nn.Module, dtype: torch.dtype | None = torch.float32) -> Iterator[None]:
        """A module with its weights, for a while; None keeps the checkpoint's type, and them in its file."""
        try:
            self._checkpoint.load(module.eval(), prefix, dtype)
            yield
        finally:
            module.to("meta")


def _picture(size: tuple[int, int]) -> PIL.Image.Image:
    """Random colours, coarse and fine, as large and small things would be."""
    random = np.random.default_rng(size)
    layers = [PIL.Image.fromarray(random.integers(0, 256, (side, side, 3), dtype=np.uint8)) for side in (5, 50)]
    return PIL.Image.blend(*(layer.resize(size, PIL.Image.Resampling.BICUBIC) for layer in layers), alpha=0.3)


def _causal(hidden: torch.Tensor) -> torch.Tensor:
    tokens = hidden.shape[1]
    return torch.full((1, 1, tokens, tokens), torch.finfo(torch.float32).min).triu(1)


def _places(hidden: torch.Tensor) -> torch.Tensor:
    return torch.arange(hidden.shape[1])[None]


def _tensors(inputs: Inputs) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.array(value)) for name, value in inputs.items()}


def _numel(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
