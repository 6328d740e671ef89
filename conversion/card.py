"""What a conversion was made of and how near it came -> README.md of the model folder: a model card, which depends on nothing but that."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from conversion.checkpoint import Source
from conversion.fidelity import FIDELITY, Figures, table
from conversion.licence import Licence
from pipeline.artifacts import CARD, MANIFEST
from pipeline.config import read_json

TEMPLATE = """---
{metadata}
---

# {name} for OpenVINO, {weight_format}

{origin} as OpenVINO IR: it answers about pictures and videos on an ordinary CPU. None of the checkpoint's Python code was run to make it, and none
is needed to use it from the Space or from OpenVINO GenAI.{remembered}

## How it was made

{recipe}

Libraries: {versions}.

## How near it is

Each part as IR beside the same part of the checkpoint in float32, on the same inputs: {pictures} drawn pictures ({patches} patches) and prompts of
{tokens} tokens together, through all {layers} layers of the language model. Cosines and errors are the worst of any input. Activations were
rounded no further here; a CPU that quantises them too, for speed, rounds a little more. All figures: `{fidelity}`.

{figures}

## What is in it

{files}

`{manifest}` has the size and sha256 of every file.

## Licence

{licence}

## How to use it

From the Space "MiniCPM-V 2.6 on OpenVINO", in a copy of your own: set the variable `MODEL_REPO` to the name of this repo, or `MODEL_DIR` to a folder
with its files.

With [OpenVINO GenAI](https://github.com/openvinotoolkit/openvino.genai) (`pip install openvino-genai huggingface_hub pillow`):

```python
import numpy as np
import openvino as ov
import openvino_genai
from huggingface_hub import snapshot_download
from PIL import Image

pipeline = openvino_genai.VLMPipeline(snapshot_download("OWNER/NAME"), "CPU")
picture = ov.Tensor(np.array(Image.open("photo.jpg").convert("RGB"))[None])
print(pipeline.generate("What is this?", images=[picture], max_new_tokens=200))
```

With [Optimum Intel](https://github.com/huggingface/optimum-intel), which runs the configuration and processor code of the original repo:

```python
from optimum.intel import OVModelForVisualCausalLM
from transformers import AutoConfig, AutoProcessor

config = AutoConfig.from_pretrained("{original}", trust_remote_code=True)
processor = AutoProcessor.from_pretrained("{original}", trust_remote_code=True)
model = OVModelForVisualCausalLM.from_pretrained("OWNER/NAME", config=config, trust_remote_code=True)
```
"""


def write_card(folder: Path, source: Source, recipe: Mapping[str, Any], versions: Mapping[str, str], parts: Mapping[str, Figures]) -> None:
    """Write README.md into a folder that is complete but for it and the manifest.

    Args:
        recipe: as the manifest tells it.
        parts: figures of each part, by its label.
    """
    base, licence = base_model(source), Licence.of(source)
    linked = f"[{base}](https://huggingface.co/{base})"
    if source.revision is not None:
        origin, remembered = f"{linked} at revision `{source.revision}`", ""
    else:
        origin = f"The checkpoint `{source.name}`, a folder on somebody's disk,"
        remembered = f"\n\nIts config names {linked} as where it comes from. Whether its weights are still those is not known here." if base else ""
    encoder, language_model = parts["image encoder"], parts["language model"]
    text = TEMPLATE.format(
        metadata=_metadata(source, base, licence, recipe).to_yaml(),
        name=source.name.rpartition("/")[2],
        weight_format=recipe["weight_format"].upper(),
        origin=origin,
        remembered=remembered,
        recipe="\n".join(["| setting | value |", "|---|---|", *(f"| {name.replace('_', ' ')} | {value} |" for name, value in recipe.items())]),
        versions=", ".join(f"{name} {version}" for name, version in versions.items()),
        pictures=len(encoder["patches"]),
        patches=", ".join(f"{width} x {height}" for height, width in encoder["patches"]),
        tokens=language_model["tokens"],
        layers=language_model["layers"],
        fidelity=FIDELITY,
        figures="\n".join(table(parts)),
        files="\n".join(["| file | MB |", "|---|---|", *_sizes(folder)]),
        manifest=MANIFEST,
        licence=licence.sentence,
        original=base or "OWNER/ORIGINAL",
    )
    (folder / CARD).write_text(text, encoding="utf-8")


def base_model(source: Source) -> str | None:
    """The Hub id of what was converted; of a folder the one that its config remembers, be it downloaded from there or trained further."""
    if source.revision is not None:
        return source.name
    remembered = read_json(source.folder / "config.json").get("_name_or_path")
    return remembered if isinstance(remembered, str) and re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", remembered) else None


def _metadata(source: Source, base: str | None, licence: Licence, recipe: Mapping[str, Any]) -> ModelCardData:
    return ModelCardData(
        **licence.lines,
        language="multilingual",
        base_model=base,
        base_model_relation="quantized" if source.revision is not None else None,  # a folder may be more than that
        pipeline_tag="image-text-to-text",
        library_name="openvino",
        tags=["openvino", "openvino-genai", "nncf", "minicpmv", recipe["weight_format"], "vision", "multi-image", "video"],
    )


def _sizes(folder: Path) -> list[str]:
    sizes = {path.name: path.stat().st_size for path in sorted(folder.glob("*.bin"))}
    return [f"| `{name}` | {size / 1e6:,.1f} |" for name, size in sizes.items()]
