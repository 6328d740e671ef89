"""A number of layers -> a checkpoint with the official names, shapes, type, shards and index, its weights random: any size up to the real one.

python -m bench.make_checkpoint FOLDER [--layers N] [--vision-layers N] [--seed S]
python -m bench.make_checkpoint FOLDER --full                                       8,099,175,152 weights, 16.2 GB

Every tensor depends on the seed and its name alone, so that the first layers of any two checkpoints are the same.
"""

import argparse
import json
import math
import sys
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import StateDictSplit, split_torch_state_dict_into_shards

from conversion.checkpoint import INDEX, WEIGHTS
from conversion.model import MiniCPMV
from pipeline.config import ModelConfig

GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "golden"
TEXT = {"hidden_size": 3584, "intermediate_size": 18944, "num_attention_heads": 28, "num_key_value_heads": 4}
VISION = {"hidden_size": 1152, "intermediate_size": 4304, "num_attention_heads": 16}
LAYERS, VISION_LAYERS = 28, 27
PARTS = ("llm.", "vpm.", "resampler.")  # in the order of the official shards


def make_checkpoint(
    folder: Path, layers: int, vision_layers: int, seed: int = 0, text: Mapping[str, int] = TEXT, vision: Mapping[str, int] = VISION
) -> None:
    """Write it into an empty folder; no more than one tensor is in memory at a time."""
    write_small_files(folder, layers, vision_layers, text, vision)
    model = skeleton(folder)
    split = shards(model)
    for file, names in split.filename_to_tensors.items():
        _write_shard(folder / file, {name: tuple(model[name].shape) for name in names}, seed)
    if split.is_sharded:
        (folder / INDEX).write_text(json.dumps({"metadata": split.metadata, "weight_map": split.tensor_to_filename}, indent=1) + "\n")


def write_small_files(folder: Path, layers: int, vision_layers: int, text: Mapping[str, int] = TEXT, vision: Mapping[str, int] = VISION) -> None:
    """The configs, and the real tokenizer of 151,666 tokens."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((GOLDEN / "tokenizer" / name).read_bytes())
    config = json.loads((GOLDEN / "tiny_model" / "config.json").read_text())
    config |= {**text, "num_hidden_layers": layers, "vocab_size": 151666, "query_num": 64, "bos_token_id": 151643, "eos_token_id": 151645}
    config["vision_config"] |= {**vision, "num_hidden_layers": vision_layers}
    processor = json.loads((GOLDEN / "tiny_model" / "preprocessor_config.json").read_text()) | {"image_feature_size": 64}
    for name, values in {"config.json": config, "preprocessor_config.json": processor}.items():
        (folder / name).write_text(json.dumps(values, indent=1) + "\n")


def skeleton(folder: Path) -> dict[str, torch.Tensor]:
    """Name -> a bfloat16 tensor without memory, in the order of the official shards."""
    stored = MiniCPMV.skeleton(ModelConfig.from_folder(folder)).stored_shapes()
    ordered = sorted(stored, key=lambda name: next(place for place, part in enumerate(PARTS) if name.startswith(part)))
    return {name: torch.empty(stored[name], dtype=torch.bfloat16, device="meta") for name in ordered}


def shards(tensors: dict[str, torch.Tensor]) -> StateDictSplit:
    """Which file holds which tensors: no file above 5 GB, as official checkpoints are cut."""
    return split_torch_state_dict_into_shards(tensors, filename_pattern=WEIGHTS.replace(".safetensors", "{suffix}.safetensors"))


def _write_shard(path: Path, shapes: Mapping[str, tuple[int, ...]], seed: int) -> None:
    """A safetensors file: the length of its header, the header, the numbers. The library's own writer wants all of them in memory at once."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)  # the numbers are to begin at a multiple of 8
    with path.open("wb") as stream:
        stream.write(len(encoded).to_bytes(8, "little") + encoded)
        for name, shape in shapes.items():
            _values(name, shape, seed).view(torch.int16).numpy().tofile(stream)


def _values(name: str, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Ones for a norm, small numbers for a bias; a matrix is scaled by its width, so that what goes through it keeps its size."""
    if len(shape) == 1 and name.endswith("weight"):
        return torch.ones(shape, dtype=torch.bfloat16)
    random = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))
    return torch.empty(shape, dtype=torch.bfloat16).normal_(std=_scale(name, shape), generator=random)


def _scale(name: str, shape: tuple[int, ...]) -> float:
    if len(shape) == 1:
        return 0.02
    if name == "llm.model.embed_tokens.weight":
        return 1.0  # as what the resampler gives: words and pictures weigh alike
    added = "layers." in name and name.endswith(("o_proj.weight", "down_proj.weight", "out_proj.weight", "fc2.weight"))
    # What all layers add comes to as much as what they began with, as in a model that learns.
    return math.prod(shape[1:]) ** -0.5 * ((2 * LAYERS) ** -0.5 if added else 1.0)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="a new folder")
    parser.add_argument("--layers", metavar="N", type=int, default=2, help="of the language model (default: 2)")
    parser.add_argument("--vision-layers", metavar="N", type=int, default=2, help="of the image encoder (default: 2)")
    parser.add_argument("--full", action="store_true", help=f"all {LAYERS} and {VISION_LAYERS} of them")
    parser.add_argument("--seed", metavar="S", type=int, default=0)
    options = parser.parse_args(arguments)
    layers, vision_layers = (LAYERS, VISION_LAYERS) if options.full else (options.layers, options.vision_layers)
    options.folder.mkdir(parents=True)
    make_checkpoint(options.folder, layers, vision_layers, options.seed)
    written = sum(path.stat().st_size for path in options.folder.iterdir())
    print(json.dumps({"folder": options.folder.name, "layers": layers, "vision_layers": vision_layers, "bytes": written}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
