"""A number of layers -> a model folder in INT4 of the real model's geometry with random weights: speed does not depend on what the weights are."""

import json
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

from conversion.checkpoint import INDEX, Source
from conversion.compress import Recipe
from conversion.job import convert
from conversion.model import MiniCPMV
from pipeline.config import ModelConfig

GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "golden"
TEXT = {"hidden_size": 3584, "intermediate_size": 18944, "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 151666}
VISION = {"hidden_size": 1152, "intermediate_size": 4304, "num_attention_heads": 16}
LAYERS, VISION_LAYERS = 28, 27
SHARD_BYTES = 1_000_000_000


def build(folder: Path, layers: int, vision_layers: int) -> None:
    """Convert a checkpoint of random weights, of which nothing stays but the folder."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        _write_checkpoint(Path(scratch), layers, vision_layers)
        convert(Source.locate(scratch), folder, Recipe("int4"))


def _write_checkpoint(folder: Path, layers: int, vision_layers: int) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((GOLDEN / "tokenizer" / name).read_bytes())
    config = json.loads((GOLDEN / "tiny_model" / "config.json").read_text())
    config |= {**TEXT, "num_hidden_layers": layers, "query_num": 64, "bos_token_id": 151643, "eos_token_id": 151645}
    config["vision_config"] |= {**VISION, "num_hidden_layers": vision_layers}
    (folder / "config.json").write_text(json.dumps(config))
    processor = json.loads((GOLDEN / "tiny_model" / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps({**processor, "image_feature_size": 64}))
    torch.manual_seed(0)
    shard: dict[str, torch.Tensor] = {}
    files: dict[str, str] = {}

    def write() -> None:
        file = f"model-{len(set(files.values())) + 1:05}.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        files.update(dict.fromkeys(shard, file))
        shard.clear()

    for name, shape in MiniCPMV.skeleton(ModelConfig.from_folder(folder)).stored_shapes().items():
        is_norm = len(shape) == 1 and name.endswith("weight")
        shard[name] = torch.ones(shape, dtype=torch.bfloat16) if is_norm else torch.empty(shape, dtype=torch.bfloat16).normal_(std=0.02)
        if sum(tensor.nbytes for tensor in shard.values()) > SHARD_BYTES:
            write()
    write()
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": files}))
