"""Checkpoints in the official format: the golden one, and others of any size; and the models of a converted folder, compiled for exact comparison."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from conversion.checkpoint import INDEX, WEIGHTS
from conversion.model import MiniCPMV
from demo.reference import load_modules
from pipeline.artifacts import LANGUAGE_MODEL, RESAMPLER, TEXT_EMBEDDINGS, VISION_EMBEDDINGS
from pipeline.config import ModelConfig

#: Sizes that the golden checkpoint shares with no other: nothing may be tuned to it.
OTHER_SIZES = {
    "hidden_size": 384,
    "intermediate_size": 320,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "rope_theta": 10000.0,
    "rms_norm_eps": 1e-5,
    "query_num": 9,
    "drop_vision_last_layer": True,
    "vision_batch_size": 2,
    "slice_config": {"max_slice_nums": 4, "patch_size": 14, "scale_resolution": 448},
    "vision_config": {
        "hidden_size": 36,
        "intermediate_size": 52,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "image_size": 560,
        "patch_size": 14,
    },
}


class Models:
    """The four models of a folder, computing in float32, each compiled when it is first needed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.loaded: dict[str, ov.CompiledModel] = {}

    def compiled(self, name: str) -> ov.CompiledModel:
        if name not in self.loaded:
            hints = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
            self.loaded[name] = ov.Core().compile_model(self.folder / name, "CPU", hints)
        return self.loaded[name]

    def vision(self, **inputs: NDArray[Any]) -> NDArray[np.float32]:
        return self.compiled(VISION_EMBEDDINGS)(inputs)["last_hidden_state"]

    def resampler(self, **inputs: NDArray[Any]) -> NDArray[np.float32]:
        return self.compiled(RESAMPLER)(inputs)["last_hidden_state"]

    def embed(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        return self.compiled(TEXT_EMBEDDINGS)({"input": ids})["inputs_embeds"]

    def decoder(self) -> "Decoder":
        return Decoder(self.compiled(LANGUAGE_MODEL).create_infer_request())


class Decoder:
    """The stateful language model with one conversation, or one batch of them, in its state."""

    def __init__(self, request: ov.InferRequest) -> None:
        self.request = request
        self.mask: NDArray[np.int64] | None = None

    def step(
        self, inputs_embeds: NDArray[np.float32], mask: NDArray[np.int64] | None = None, beam_idx: list[int] | None = None
    ) -> NDArray[np.float32]:
        """inputs_embeds (batch, tokens, hidden), mask (batch, tokens) of these tokens alone -> logits (batch, tokens, vocab)."""
        batch, tokens, _ = inputs_embeds.shape
        new = np.ones((batch, tokens), np.int64) if mask is None else mask.astype(np.int64)
        past = np.zeros((batch, 0), np.int64) if self.mask is None else self.mask[beam_idx or list(range(batch))]
        self.mask = np.concatenate([past, new], axis=1)
        position_ids = np.where(self.mask == 0, 1, np.cumsum(self.mask, axis=1) - 1)[:, -tokens:]
        inputs = {
            "attention_mask": self.mask,
            "position_ids": position_ids,
            "inputs_embeds": inputs_embeds,
            "beam_idx": np.array(beam_idx or range(batch), np.int32),
        }
        return self.request.infer(inputs)["logits"].copy()


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Where a model folder is to be; nothing is there yet."""
    return tmp_path / "models" / "out"


@pytest.fixture(scope="session")
def tiny(golden: Path) -> MiniCPMV:
    """The golden checkpoint as torch modules in float32."""
    return load_modules(golden / "tiny_model")


@pytest.fixture(scope="session")
def fp16_folder(converted: Callable[[str], Path]) -> Path:
    return converted("fp16")


@pytest.fixture(scope="session")
def int8_folder(converted: Callable[[str], Path]) -> Path:
    return converted("int8")


@pytest.fixture(scope="session")
def fp32(fp32_folder: Path) -> Models:
    return Models(fp32_folder)


@pytest.fixture
def models_of() -> Callable[[Path], Models]:
    return Models


@pytest.fixture
def modules_of() -> Callable[[Path], MiniCPMV]:
    return load_modules


@pytest.fixture
def make_checkpoint(golden: Path, tmp_path: Path) -> Callable[..., Path]:
    """Write a checkpoint with random weights; keywords replace fields of config.json."""

    def make(*, name: str = "checkpoint", dtype: torch.dtype = torch.float32, shards: int = 1, without: str | None = None, **fields: object) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for file in ("config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(golden / "tiny_model" / file, folder / file)
        config = _edit(folder / "config.json", **fields)
        _edit(folder / "preprocessor_config.json", image_feature_size=config["query_num"], max_slice_nums=config["slice_config"]["max_slice_nums"])
        torch.manual_seed(0)
        tensors = {key: tensor.to(dtype).contiguous() for key, tensor in MiniCPMV(ModelConfig.from_folder(folder)).state_dict().items()}
        if config["tie_word_embeddings"]:
            del tensors["llm.lm_head.weight"]
        if without is not None:
            del tensors[without]
        _save(folder, tensors, shards)
        return folder

    return make


@pytest.fixture
def other_sizes() -> dict[str, Any]:
    return OTHER_SIZES


@pytest.fixture
def image_inputs(golden: Path) -> Callable[..., dict[str, NDArray[Any]]]:
    """The stored 8-bit pictures of golden images -> a padded batch for the image encoder, with the golden position ids."""

    def inputs(file: str, *images: str) -> dict[str, NDArray[Any]]:
        stored = np.load(golden / "pixels_u8.npz")
        pictures = [stored[key] for image in images for key in stored if key.startswith(f"{image}__")]
        rows = [_patch_row(picture) for picture in pictures]
        patches = [row.shape[-1] // 14 for row in rows]
        pixel_values = np.zeros((len(rows), 3, 14, 14 * max(patches)), np.float32)
        mask = np.zeros((len(rows), 1, max(patches)), np.float32)
        for index, row in enumerate(rows):
            pixel_values[index, :, :, : row.shape[-1]] = row
            mask[index, :, : patches[index]] = 1
        position_ids = np.load(golden / file)["vision_position_ids"].astype(np.int64)
        return {"pixel_values": pixel_values, "patch_attention_mask": mask, "position_ids": position_ids}

    return inputs


@pytest.fixture(scope="session")
def resampler_inputs() -> Callable[..., dict[str, NDArray[Any]]]:
    """Features (pictures, patches, vision hidden) and their grids (pictures, 2), height first -> the resampler's inputs."""

    def inputs(features: NDArray[np.float32], tgt_sizes: NDArray[Any], hidden: int) -> dict[str, NDArray[Any]]:
        pictures, patches, _ = features.shape
        pos_embed = np.zeros((patches, pictures, hidden), np.float32)
        padding = np.ones((pictures, patches), np.float32)
        for index, (height, width) in enumerate(tgt_sizes):
            pos_embed[: height * width, index] = _sincos_table(height, width, hidden)
            padding[index, : height * width] = 0
        return {"image_feature": features, "pos_embed": pos_embed, "key_padding_mask": padding}

    return inputs


def _edit(path: Path, **fields: object) -> dict[str, Any]:
    values = json.loads(path.read_text()) | fields
    path.write_text(json.dumps(values))
    return values


def _save(folder: Path, tensors: dict[str, torch.Tensor], shards: int) -> None:
    if shards == 1:
        save_file(tensors, folder / WEIGHTS)
        return
    names, weight_map = sorted(tensors), {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        own = names[shard::shards]
        save_file({name: tensors[name] for name in own}, folder / file)
        weight_map |= dict.fromkeys(own, file)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def _patch_row(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(height, width, 3) -> (3, 14, 14 * patches)."""
    pixels = (picture.astype(np.float32) / np.float32(255) - np.float32(0.5)) / np.float32(0.5)
    height, width, _ = picture.shape
    grid = pixels.reshape(height // 14, 14, width // 14, 14, 3)
    return grid.transpose(4, 1, 0, 2, 3).reshape(3, 14, -1)


def _sincos_table(height: int, width: int, dim: int) -> NDArray[np.float32]:
    """(height * width, dim): columns in the first half, rows in the second, sines before cosines in each."""
    quarter = dim // 4
    omega = (1.0 / 10000 ** (np.arange(quarter, dtype=np.float32) / np.float32(quarter))).astype(np.float32)
    rows, columns = np.meshgrid(np.arange(height, dtype=np.float32), np.arange(width, dtype=np.float32), indexing="ij")
    angles = [place.reshape(-1, 1) * omega for place in (columns, rows)]
    return np.concatenate([wave(angle) for angle in angles for wave in (np.sin, np.cos)], axis=1)
