"""A model's weights -> its files: bfloat16, in shards with an index as the official checkpoint has them; each file is replaced whole."""

import json
from pathlib import Path

import torch
from safetensors.torch import save
from torch import nn

from conversion.checkpoint import INDEX
from conversion.model import MiniCPMV

SHARDS = {"vpm.": 1, "resampler.": 1, "llm.": 2}  # so that no file is above 10 MB


def write_weights(model: MiniCPMV, folder: Path) -> None:
    """In bfloat16, in shards with an index as the official checkpoint has them."""
    tensors, shards = halved(model), max(SHARDS.values())
    index = {name: next(number for prefix, number in SHARDS.items() if name.startswith(prefix)) for name in tensors}
    files = {number: f"model-{number:05}-of-{shards:05}.safetensors" for number in range(1, shards + 1)}
    for number, file in files.items():
        replace(folder / file, save({name: tensor for name, tensor in tensors.items() if index[name] == number}, metadata={"format": "pt"}))
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    text = json.dumps({"metadata": {"total_size": total}, "weight_map": {name: files[number] for name, number in index.items()}}, indent=1)
    replace(folder / INDEX, f"{text}\n".encode())


def halved(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: weight.detach().to(torch.bfloat16).contiguous() for name, weight in module.state_dict().items()}


def replace(path: Path, content: bytes) -> None:
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(content)
    partial.replace(path)
