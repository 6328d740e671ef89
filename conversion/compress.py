"""An exported ov.Model and a recipe -> the same model in 4, 8, 16 or 32 bits; also what a recipe asks of the sizes, before any work."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import nncf
import openvino as ov
import torch

from conversion.calibration import Inputs
from pipeline.artifacts import LANGUAGE_MODEL, VISION_EMBEDDINGS
from pipeline.config import TextConfig
from pipeline.errors import InputError

WEIGHT_FORMATS = ("int4", "int8", "fp16", "fp32")
VISION_FORMATS = ("int8", "int8-ptq", "fp16")

#: What one weight takes in a format; int4 depends on the recipe.
BYTES = {"fp32": 4.0, "fp16": 2.0, "int8": 1.0, "int8-ptq": 1.0}


@dataclass(frozen=True)
class Recipe:
    """How weights are stored. The three fields after the first concern int4 and the language model alone; all else is int8 then.

    Args:
        weight_format: one of `WEIGHT_FORMATS`.
        group_size: how many weights of a row share a scale.
        ratio: share of the language model's weights in 4 bits, from above 0 to 1; the most sensitive of the rest are kept in 8.
        symmetric: scales alone, or with a zero point.
        vision_format: of the image encoder, one of `VISION_FORMATS`, or None for that of the rest. "int8-ptq" computes with activations of 8 bits
            too, which is faster and takes pictures to calibrate on.
        ptq_fallback: an image encoder in "int8-ptq" that comes out too far from the checkpoint is made in "int8" instead of ending the conversion.
    """

    weight_format: str = "int4"
    group_size: int = 64
    ratio: float = 1.0
    symmetric: bool = True
    vision_format: str | None = None
    ptq_fallback: bool = False

    def __post_init__(self) -> None:
        if self.weight_format not in WEIGHT_FORMATS:
            raise InputError(f"The weight format {self.weight_format!r} is unknown; there are {', '.join(WEIGHT_FORMATS)}.")
        if self.vision_format not in (None, *VISION_FORMATS):
            raise InputError(f"The vision format {self.vision_format!r} is unknown; there are {', '.join(VISION_FORMATS)}.")
        if self.group_size < 1:
            raise InputError(f"The group size is {self.group_size}; it must be at least 1.")
        if not 0.0 < self.ratio <= 1.0:
            raise InputError(f"The ratio is {self.ratio}; it must be above 0 and at most 1.")

    def format_of(self, file: str) -> str:
        """The format of one of the four models, by the name of its file."""
        if file == LANGUAGE_MODEL:
            return self.weight_format
        if file == VISION_EMBEDDINGS and self.vision_format is not None:
            return self.vision_format
        return "int8" if self.weight_format == "int4" else self.weight_format

    def bytes_per_weight(self, file: str) -> float:
        """Roughly, for the disk check; int4 with its float16 scales, zero points and the share that stays int8."""
        weight_format = self.format_of(file)
        return 1.0 - self.ratio / 2 + 2.5 / self.group_size if weight_format == "int4" else BYTES[weight_format]

    def check(self, config: TextConfig) -> None:
        """Compare the group size with the input width of every layer of the language model.

        Raises:
            InputError: it does not divide one of them; names a size that does.
        """
        if self.weight_format != "int4":
            return
        widths = {
            "hidden_size": config.hidden_size,
            "intermediate_size": config.intermediate_size,
            "attention width": config.num_attention_heads * config.head_dim,
        }
        for name, width in widths.items():
            if width % self.group_size:
                fitting = next(size for size in _powers_below(self.group_size) if all(other % size == 0 for other in widths.values()))
                raise InputError(f"The group size {self.group_size} does not divide the model's {name} of {width}; {fitting} would do.")

    def described(self) -> dict[str, Any]:
        """The fields that had an effect, for the manifest."""
        shaping = {"group_size": self.group_size, "ratio": self.ratio, "symmetric": self.symmetric} if self.weight_format == "int4" else {}
        return {"weight_format": self.weight_format, **shaping, "vision_format": self.format_of(VISION_EMBEDDINGS)}


def load_dtype(weight_format: str) -> torch.dtype | None:
    """The type weights are loaded in; None keeps the checkpoint's own for the compressor to read."""
    return {"fp32": torch.float32, "fp16": torch.float16, "int8-ptq": torch.float32}.get(weight_format)


def quantise(encoder: ov.Model, calibration: Sequence[Inputs]) -> ov.Model:
    """Weights and activations of the image encoder in 8 bits, their ranges taken from what calibration pictures give."""
    return nncf.quantize(encoder, nncf.Dataset(list(calibration)), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(calibration))


def compress(model: ov.Model, recipe: Recipe, file: str) -> ov.Model:
    """Compress the weights of one part; of the language model all layers, lm_head included."""
    weight_format = recipe.format_of(file)
    if weight_format == "int4":
        mode = nncf.CompressWeightsMode.INT4_SYM if recipe.symmetric else nncf.CompressWeightsMode.INT4_ASYM
        return nncf.compress_weights(model, mode=mode, group_size=recipe.group_size, ratio=recipe.ratio, all_layers=True)
    if weight_format == "int8":
        return nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_ASYM)
    if file == LANGUAGE_MODEL:
        # The CPU plug-in would keep keys and values in 8 bits, and lose what the weights were kept for. Where it computes in bfloat16 by default,
        # paged attention over float32 keys needs INFERENCE_PRECISION_HINT=f32 beside it, which no model can ask for itself.
        model.set_rt_info({"fp32": "f32", "fp16": "f16"}[weight_format], ["runtime_options", "KV_CACHE_PRECISION"])
    return model


def _powers_below(limit: int) -> list[int]:
    """Powers of two up to the limit, largest first."""
    return [2**exponent for exponent in reversed(range(limit.bit_length()))]
