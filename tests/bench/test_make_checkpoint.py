"""Checkpoints of random weights are what they stand for: the official one's names, shapes, type and shards, at any size."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from bench.make_checkpoint import LAYERS, VISION_LAYERS, make_checkpoint, shards, skeleton, write_small_files
from conversion.checkpoint import Checkpoint, Source
from conversion.compress import Recipe
from conversion.job import convert
from demo.reference import load_modules
from pipeline.artifacts import verify
from pipeline.config import ModelConfig

SMALL_TEXT = {"hidden_size": 128, "intermediate_size": 192, "num_attention_heads": 2, "num_key_value_heads": 1}
SMALL_VISION = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2}


@pytest.fixture
def small(tmp_path: Path) -> Callable[..., Path]:
    def make(name: str, layers: int = 2, seed: int = 0) -> Path:
        (tmp_path / name).mkdir()
        make_checkpoint(tmp_path / name, layers, 1, seed, SMALL_TEXT, SMALL_VISION)
        return tmp_path / name

    return make


def test_the_full_size_has_the_official_number_of_weights_in_four_shards(tmp_path: Path) -> None:
    write_small_files(tmp_path, LAYERS, VISION_LAYERS)
    tensors = skeleton(tmp_path)
    assert sum(tensor.numel() for tensor in tensors.values()) == 8_099_175_152
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    split = shards(tensors)
    assert sorted(split.filename_to_tensors) == [f"model-{number:05}-of-00004.safetensors" for number in range(1, 5)]
    assert split.metadata["total_size"] == 16_198_350_304
    assert split.tensor_to_filename["llm.model.embed_tokens.weight"] == "model-00001-of-00004.safetensors"
    assert split.tensor_to_filename["resampler.query"] == "model-00004-of-00004.safetensors"


def test_a_small_one_is_read_back_and_converted(small: Callable[..., Path], tmp_path: Path) -> None:
    folder = small("checkpoint")
    checkpoint = Checkpoint.open(folder)
    assert checkpoint.shapes == {name: tuple(tensor.shape) for name, tensor in skeleton(folder).items()}
    convert(Source.locate(str(folder)), tmp_path / "out", Recipe("int4", group_size=64))
    verify(tmp_path / "out")
    assert ModelConfig.from_folder(tmp_path / "out").text.num_hidden_layers == 2


def test_several_shards_come_with_their_index(small: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import split_torch_state_dict_into_shards

    monkeypatch.setattr(
        "bench.make_checkpoint.split_torch_state_dict_into_shards", lambda *a, **k: split_torch_state_dict_into_shards(*a, **k, max_shard_size="20MB")
    )
    folder = small("checkpoint")
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) >= 2
    assert index["metadata"]["total_size"] == 2 * sum(math.prod(shape) for shape in Checkpoint.open(folder).shapes.values())


def test_a_tensor_depends_on_its_name_and_the_seed_alone(small: Callable[..., Path]) -> None:
    one, again, other = (_read(folder) for folder in (small("one", layers=1), small("again", layers=2), small("other", layers=1, seed=1)))
    assert all(torch.equal(tensor, again[name]) for name, tensor in one.items())
    assert not torch.equal(one["llm.lm_head.weight"], other["llm.lm_head.weight"])
    assert not torch.equal(one["llm.lm_head.weight"], one["llm.model.embed_tokens.weight"])


def test_what_goes_through_all_layers_keeps_its_size(small: Callable[..., Path]) -> None:
    folder = small("checkpoint", layers=28)
    model = load_modules(folder)
    words = model.llm.model.embed_tokens(torch.arange(0, 1000, 50)[None])
    after = model.llm.model(inputs_embeds=words, output_hidden_states=True).hidden_states[-2]  # the last is behind the norm
    assert 0.5 < words.std() < 2
    assert 0.5 < after.std() / words.std() < 3


def _read(folder: Path) -> dict[str, torch.Tensor]:
    with safe_open(folder / "model.safetensors", framework="pt") as stored:
        return {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
