"""MiniCPMV -> the four models of a folder, one after the other: loaded from the checkpoint, exported, compressed, saved as IR and let go of."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import openvino as ov
from torch import nn

from conversion import export
from conversion.calibration import Inputs
from conversion.checkpoint import Checkpoint
from conversion.compress import Recipe, compress, load_dtype, quantise
from conversion.model import MiniCPMV
from pipeline.artifacts import LANGUAGE_MODEL, RESAMPLER, TEXT_EMBEDDINGS, VISION_EMBEDDINGS

#: A name of OpenVINO's own making in a file of IR: the type and a number.
COUNTED = re.compile(r'(names?="[A-Z][A-Za-z0-9]*_)(\d+)(?=["._,/])')


@dataclass(frozen=True)
class Part:
    """One of the four models: the modules to load, by their prefix in the checkpoint, and how they become a graph."""

    label: str
    file: str
    modules: dict[str, nn.Module]
    export: Callable[[], ov.Model]

    @property
    def numel(self) -> int:
        """How many weights it has."""
        return sum(parameter.numel() for module in self.modules.values() for parameter in module.parameters())

    def write(self, checkpoint: Checkpoint, recipe: Recipe, folder: Path, calibration: Sequence[Inputs]) -> None:
        """Make the file and its `.bin`; afterwards the modules are empty again, since the next part may need the memory.

        Args:
            calibration: what the image encoder is shown, if its activations are to have 8 bits too.
        """
        weight_format = recipe.format_of(self.file)
        for prefix, module in self.modules.items():
            checkpoint.load(module, prefix, load_dtype(weight_format))
        model = quantise(self.export(), calibration) if weight_format == "int8-ptq" else compress(self.export(), recipe, self.file)
        # The language model's matrices are float16 already where they should be; its norms and rotary frequencies would lose too much.
        save(model, folder / self.file, compress_to_fp16=weight_format == "fp16" and self.file != LANGUAGE_MODEL)
        for module in self.modules.values():
            module.to("meta")


def parts(model: MiniCPMV) -> tuple[Part, ...]:
    """In an order in which each can be tried on what those before it give."""
    llm = model.llm
    embed_tokens = {"llm.model.embed_tokens.": llm.model.embed_tokens}
    decoder = {"llm.model.layers.": llm.model.layers, "llm.model.norm.": llm.model.norm, model.lm_head_prefix: llm.lm_head}
    return (
        Part("image encoder", VISION_EMBEDDINGS, {"vpm.": model.vpm}, lambda: export.vision_embeddings(model.vpm)),
        Part("resampler", RESAMPLER, {"resampler.": model.resampler}, lambda: export.resampler(model.resampler)),
        Part("token embedding", TEXT_EMBEDDINGS, embed_tokens, lambda: export.text_embeddings(llm.model.embed_tokens)),
        Part("language model", LANGUAGE_MODEL, decoder, lambda: export.language_model(llm)),
    )


def save(model: ov.Model, path: Path, compress_to_fp16: bool = False) -> None:
    """Write IR whose bytes depend on the model alone.

    What has no name of its own is called by its type and a count of all that the process has made so far; here it gets a count within the file.
    """
    model.set_friendly_name(path.stem)
    ov.save_model(model, path, compress_to_fp16=compress_to_fp16)
    numbers: dict[str, int] = {}
    renamed = COUNTED.sub(lambda found: f"{found[1]}{numbers.setdefault(found[0], len(numbers))}", path.read_text(encoding="utf-8"))
    path.write_text(renamed, encoding="utf-8")
