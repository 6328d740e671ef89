"""A source, an output folder and a recipe -> a complete model folder, proven and with a manifest, or none; says on its logger what it is at."""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import itemgetter
from pathlib import Path

import PIL.Image

from conversion.calibration import encoder_inputs
from conversion.card import write_card
from conversion.checkpoint import Checkpoint, Source, check_index
from conversion.compress import Recipe, load_dtype
from conversion.fidelity import FIDELITY, Figures, Limits
from conversion.folder import check_output, check_space
from conversion.identity import identity, versions
from conversion.model import MiniCPMV, check_architecture
from conversion.parts import Part, parts
from conversion.progress import Progress
from conversion.proof import Proof
from conversion.tokenizer import check_tokenizer, write_small_files
from conversion.workspace import Workspace, workspace
from pipeline.artifacts import CARD, File, Manifest
from pipeline.config import ModelConfig
from pipeline.engine.model_runner import memory_bytes_here
from pipeline.errors import ArtifactError, InputError

logger = logging.getLogger("conversion")

#: Tokenizer, configs and graphs without their weights, for the disk check.
SMALL_FILES_BYTES = 64_000_000

#: How much of a part's time goes into making it; the rest tries it.
MAKING = 0.75


def convert(
    source: Source,
    output: Path,
    recipe: Recipe,
    pictures: Sequence[PIL.Image.Image] = (),
    proceed: Callable[[], None] = lambda: None,
    limits: Limits | None = None,
) -> None:
    """Convert a checkpoint. Whatever can be refused is refused before a weight is fetched or read or a file written.

    Args:
        pictures: RGB, to calibrate on; what "int8-ptq" for the image encoder needs.
        proceed: called before each step; what it raises ends the run. Parts that are done by then are kept beside `output` for the next such call.
        limits: how far from the checkpoint a part may be; None is what its format should reach.

    Raises:
        InputError: the options do not fit the model, the output folder holds something else, or the disk or the memory is too small.
        ArtifactError: the checkpoint is incomplete, or not one of MiniCPM-V 2.6; or a part came out too far from it.
    """
    check_output(output)
    config = ModelConfig.from_folder(source.folder)
    check_architecture(config, source.folder)
    recipe.check(config.text)
    if recipe.vision_format == "int8-ptq" and not pictures:
        raise InputError("Activations of 8 bits take pictures to calibrate on, and there are none.")
    check_tokenizer(source.folder, config)
    model = MiniCPMV.skeleton(config)
    check_index(source.folder, model.stored_shapes(), model.may_ignore)
    _check_memory(model, recipe)
    check_space(output, _bytes_needed(model, recipe), source.folder, source.bytes_to_fetch)
    proceed()
    source.fetch_weights()
    checkpoint = Checkpoint.open(source.folder)
    checkpoint.check(model.stored_shapes(), model.may_ignore)
    conversion = _Conversion(source, checkpoint, model, recipe, pictures, limits or Limits())
    with workspace(output, identity(source, recipe, conversion.limits, pictures)) as work:
        conversion.fill(work, proceed)
    logger.info("%s is complete.", output)


@dataclass(frozen=True)
class _Conversion:
    source: Source
    checkpoint: Checkpoint
    model: MiniCPMV
    recipe: Recipe
    pictures: Sequence[PIL.Image.Image]
    limits: Limits

    def fill(self, work: Workspace, proceed: Callable[[], None]) -> None:
        """Do in order what is not done yet; after each part, compare it with the checkpoint."""
        if work.steps:
            logger.info("Done by an earlier run, and whole: %s.", ", ".join(work.steps))
        figures: dict[str, Figures] = {}
        with Progress(sum(part.numel for part in parts(self.model) if part.label not in work.steps), proceed) as progress:
            proof = Proof(self.source.folder, self.checkpoint, self.model, lambda share: progress.within(MAKING + (1 - MAKING) * share))
            for part in parts(self.model):
                figures[part.label] = work.once(part.label, partial(self._make, part, progress, proof))
                if shortfall := self.limits.shortfall(part.label, figures[part.label]):
                    raise ArtifactError(shortfall)
            with progress.step("tokenizer and configs"):
                work.once("tokenizer and configs", partial(write_small_files, self.source.folder))
            with progress.step("card and manifest"):
                self._finish(work, figures)

    def _make(self, part: Part, progress: Progress, proof: Proof, folder: Path) -> Figures:
        """Write one part and try it."""
        with progress.step(part.label, part.numel):
            figures = self._try(part, self.recipe, proof, folder)
            shortfall = self.limits.shortfall(part.label, figures)
            if shortfall and self.recipe.ptq_fallback and figures["format"] == "int8-ptq":
                logger.warning("%s It is made in int8 instead.", shortfall)
                for path in folder.glob(f"{Path(part.file).stem}.*"):
                    path.unlink()
                figures = self._try(part, replace(self.recipe, vision_format="int8"), proof, folder)
        return figures

    def _try(self, part: Part, recipe: Recipe, proof: Proof, folder: Path) -> Figures:
        weight_format = recipe.format_of(part.file)
        calibration = encoder_inputs(self.pictures, self.model.config) if weight_format == "int8-ptq" else []
        part.write(self.checkpoint, recipe, folder, calibration)
        return {"format": weight_format, **proof.of(part.file, folder)}

    def _finish(self, work: Workspace, figures: dict[str, Figures]) -> None:
        recipe = self.recipe.described() | {"vision_format": figures["image encoder"]["format"]}
        report = {"limits": {label: self.limits.of(each["format"]) for label, each in figures.items()}, "parts": figures}
        (work.folder / FIDELITY).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        write_card(work.folder, self.source, recipe, versions(), figures)
        files = work.files | {name: File.of(work.folder / name) for name in (FIDELITY, CARD)}
        Manifest(self.source.name, self.source.revision, recipe, versions(), dict(sorted(files.items()))).write(work.folder)


def _check_memory(model: MiniCPMV, recipe: Recipe) -> None:
    """Weights that are loaded in another type than the checkpoint's are all in memory at once, a part at a time; others stay in their files.

    Raises:
        InputError: the largest part takes more than there is.
    """
    loaded = [(part, load_dtype(recipe.format_of(part.file))) for part in parts(model)]
    held, part = max(((part.numel * dtype.itemsize if dtype else 0, part) for part, dtype in loaded), key=itemgetter(0))
    if held > (memory := memory_bytes_here()):
        raise InputError(
            f"The {part.label} in {recipe.format_of(part.file)} takes {held / 1e9:.1f} GB of memory, and this machine has {memory / 1e9:.1f} GB: "
            "int8 and int4 take less."
        )


def _bytes_needed(model: MiniCPMV, recipe: Recipe) -> int:
    """What the folder will take, a few percent over."""
    return int(1.03 * sum(part.numel * recipe.bytes_per_weight(part.file) for part in parts(model))) + SMALL_FILES_BYTES
