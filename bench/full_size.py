"""A number of layers -> a model folder in INT4 of the real model's geometry with random weights: speed does not depend on what the weights are."""

import tempfile
from pathlib import Path

from bench.make_checkpoint import VISION_LAYERS, make_checkpoint
from conversion.checkpoint import Source
from conversion.compress import Recipe
from conversion.job import convert

__all__ = ["VISION_LAYERS", "build"]


def build(folder: Path, layers: int, vision_layers: int) -> None:
    """Convert a checkpoint of random weights, of which nothing stays but the folder."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        make_checkpoint(Path(scratch), layers, vision_layers)
        convert(Source.locate(scratch), folder, Recipe("int4"))
