"""Pictures (RGB) -> what the image encoder is given for each overview and slice of them, a batch of one each."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from pipeline.config import ModelConfig
from pipeline.preprocess import Slice, cut, plan, vision_position_ids

Inputs: TypeAlias = dict[str, NDArray[Any]]


def encoder_inputs(pictures: Sequence[PIL.Image.Image], config: ModelConfig) -> list[Inputs]:
    """As the run time prepares them: nothing is padded."""
    pieces = (piece for picture in pictures for piece in cut(picture, plan(picture.size, config.slices), config.slices))
    return [inputs_of(piece, config) for piece in pieces]


def inputs_of(piece: Slice, config: ModelConfig) -> Inputs:
    patches = piece.tgt_size[0] * piece.tgt_size[1]
    return {
        "pixel_values": piece.pixel_values()[None],
        "patch_attention_mask": np.ones((1, 1, patches), np.float32),
        "position_ids": vision_position_ids(piece.tgt_size, config.vision)[None],
    }
