"""A source, an output folder and a recipe -> a complete model folder with a manifest, or no folder at all; says on its logger what it is at."""

import contextlib
import functools
import importlib.metadata
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import openvino as ov
import PIL.Image
import torch
from torch import nn

from conversion import export
from conversion.calibration import Inputs, encoder_inputs
from conversion.checkpoint import Checkpoint, Source
from conversion.compress import Recipe, compress, quantise
from conversion.folder import check_output, check_space, finished_or_nothing
from conversion.model import MiniCPMV, check_architecture
from conversion.tokenizer import check_tokenizer, write_small_files
from pipeline.artifacts import LANGUAGE_MODEL, RESAMPLER, TEXT_EMBEDDINGS, VISION_EMBEDDINGS, File, Manifest
from pipeline.config import ModelConfig
from pipeline.errors import InputError

logger = logging.getLogger("conversion")

#: Whose versions decide what comes out.
LIBRARIES = ("nncf", "openvino", "openvino-tokenizers", "torch", "transformers")

#: Tokenizer, configs and graphs without their weights, for the disk check.
SMALL_FILES_BYTES = 64_000_000


@dataclass(frozen=True)
class Part:
    """One of the four models: the modules to load, by their prefix in the checkpoint, and how they become a graph."""

    label: str
    file: str
    modules: dict[str, nn.Module]
    export: Callable[[], ov.Model]


def convert(
    source: Source, output: Path, recipe: Recipe, pictures: Sequence[PIL.Image.Image] = (), proceed: Callable[[], None] = lambda: None
) -> None:
    """Convert a checkpoint. Whatever can be refused is refused before a weight is read or a file written.

    Args:
        pictures: RGB, to calibrate on; what "int8-ptq" for the image encoder needs.
        proceed: called before each step; what it raises ends the run, and nothing is left of it.

    Raises:
        InputError: the options do not fit the model, the output folder holds something else, or the disk is too small.
        ArtifactError: the checkpoint is incomplete, or not one of MiniCPM-V 2.6.
    """
    check_output(output)
    config = ModelConfig.from_folder(source.folder)
    check_architecture(config, source.folder)
    recipe.check(config.text)
    if recipe.vision_format == "int8-ptq" and not pictures:
        raise InputError("Activations of 8 bits take pictures to calibrate on, and there are none.")
    check_tokenizer(source.folder, config)
    step = functools.partial(_step, proceed)
    with step("checkpoint"):
        source.fetch_weights()
        model = MiniCPMV.skeleton(config)
        checkpoint = Checkpoint.open(source.folder)
        checkpoint.check(model.stored_shapes(), model.may_ignore)
    check_space(output, _bytes_needed(checkpoint, recipe))
    with finished_or_nothing(output) as folder:
        for part in _parts(model):
            with step(part.label):
                _write(part, checkpoint, recipe, folder / part.file, encoder_inputs(pictures, config) if part.file == VISION_EMBEDDINGS else [])
        with step("tokenizer and configs"):
            write_small_files(source.folder, folder)
        with step("manifest"):
            _manifest(source, recipe, folder).write(folder)
    logger.info("%s is complete.", output)


def _parts(model: MiniCPMV) -> tuple[Part, ...]:
    llm = model.llm
    embed_tokens = "llm.model.embed_tokens."
    lm_head = embed_tokens if model.config.text.tie_word_embeddings else "llm.lm_head."
    decoder = {"llm.model.layers.": llm.model.layers, "llm.model.norm.": llm.model.norm, lm_head: llm.lm_head}
    return (
        Part("image encoder", VISION_EMBEDDINGS, {"vpm.": model.vpm}, lambda: export.vision_embeddings(model.vpm)),
        Part("resampler", RESAMPLER, {"resampler.": model.resampler}, lambda: export.resampler(model.resampler)),
        Part("token embedding", TEXT_EMBEDDINGS, {embed_tokens: llm.model.embed_tokens}, lambda: export.text_embeddings(llm.model.embed_tokens)),
        Part("language model", LANGUAGE_MODEL, decoder, lambda: export.language_model(llm)),
    )


def _write(part: Part, checkpoint: Checkpoint, recipe: Recipe, path: Path, calibration: Sequence[Inputs]) -> None:
    """Load, export, compress and save one part, then let go of its weights: the next part may need the memory."""
    is_language_model, quantised = part.file == LANGUAGE_MODEL, part.file == VISION_EMBEDDINGS and recipe.vision_format == "int8-ptq"
    for prefix, module in part.modules.items():
        checkpoint.load(module, prefix, torch.float32 if quantised else recipe.load_dtype)
    model = quantise(part.export(), calibration) if quantised else compress(part.export(), recipe, is_language_model)
    # The language model's matrices are float16 already where they should be; its norms and rotary frequencies would lose too much.
    ov.save_model(model, path, compress_to_fp16=recipe.weight_format == "fp16" and not is_language_model)
    for module in part.modules.values():
        module.to("meta")


def _bytes_needed(checkpoint: Checkpoint, recipe: Recipe) -> int:
    """What the folder will take, a few percent over."""
    embedding = checkpoint.numel("llm.model.embed_tokens.")
    language_model = checkpoint.numel("llm.model.layers.") + embedding  # lm_head is as large as the embedding
    others = checkpoint.numel("vpm.") + checkpoint.numel("resampler.") + embedding
    weights = language_model * recipe.bytes_per_weight(True) + others * recipe.bytes_per_weight(False)
    return int(1.03 * weights) + SMALL_FILES_BYTES


def _manifest(source: Source, recipe: Recipe, folder: Path) -> Manifest:
    return Manifest(
        source=source.name,
        revision=source.revision,
        recipe=recipe.described(),
        versions={name: importlib.metadata.version(name) for name in LIBRARIES},
        files={path.name: File.of(path) for path in sorted(folder.iterdir())},
    )


@contextlib.contextmanager
def _step(proceed: Callable[[], None], label: str) -> Iterator[None]:
    proceed()
    logger.info("%s ...", label)
    begin = time.monotonic()
    yield
    logger.info("%s: %.1f s", label, time.monotonic() - begin)
