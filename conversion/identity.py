"""All that decides what a conversion gives -> JSON values to compare an unfinished one with: another's parts are never mixed in."""

import hashlib
import importlib.metadata
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import PIL.Image

from conversion.checkpoint import SMALL_FILES, WEIGHT_FILES, Source
from conversion.compress import Recipe
from conversion.fidelity import Limits

#: Whose versions decide what comes out.
LIBRARIES = ("nncf", "openvino", "openvino-tokenizers", "torch", "transformers")


def versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in LIBRARIES}


def identity(source: Source, recipe: Recipe, limits: Limits, pictures: Sequence[PIL.Image.Image]) -> dict[str, Any]:
    """The checkpoint's files count by size and time of change: to read 16 GB again would take longer than most parts."""
    stats = {path.name: path.stat() for pattern in (*SMALL_FILES, WEIGHT_FILES) for path in source.folder.glob(pattern)}
    return {
        "source": [source.name, source.revision],
        "files of the checkpoint": {name: [stat.st_size, stat.st_mtime_ns] for name, stat in sorted(stats.items())},
        "recipe": asdict(recipe),
        "limits of fidelity": limits.min_cosine if recipe.ptq_fallback else None,  # nothing else that is made depends on them
        "calibration pictures": _digest(b"%d %d " % picture.size + picture.tobytes() for picture in pictures),
        "library versions": versions(),
        "conversion code": _digest(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))),
    }


def _digest(contents: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for content in contents:
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()
