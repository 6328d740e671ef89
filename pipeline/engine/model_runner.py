"""The language model on OpenVINO: ids -> inputs_embeds (tokens, hidden) float32 -> logits (batch, vocabulary) float32 of the last position."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as ops

from pipeline.artifacts import LANGUAGE_MODEL, RESAMPLER, TEXT_EMBEDDINGS, VISION_EMBEDDINGS
from pipeline.config import EngineConfig, ModelConfig
from pipeline.errors import ArtifactError, InputError
from pipeline.vision import VisionEncoder

Logits = NDArray[np.float32]


class StatefulRunner:
    """One sequence at a time, its keys and values kept inside OpenVINO's state. Not safe for two threads at once."""

    def __init__(self, language_model: ov.CompiledModel, text_embeddings: ov.CompiledModel) -> None:
        self._embedder = text_embeddings.create_infer_request()
        self._request = language_model.create_infer_request()
        self._length = 0

    @property
    def length(self) -> int:
        """Tokens whose keys and values are held."""
        return self._length

    def embed(self, input_ids: Sequence[int]) -> NDArray[np.float32]:
        """(tokens,) -> (tokens, hidden); of our own, so that image embeds can be written into it."""
        return np.array(self._embedder.infer({"input": np.array([input_ids], np.int64)})["inputs_embeds"][0], np.float32)

    def forward(self, inputs_embeds: NDArray[np.float32], beam_idx: Sequence[int] = (0,)) -> Logits:
        """Append (batch, tokens, hidden) to the state and give the logits of the last position, (batch, vocabulary).

        Row i goes on from row beam_idx[i] of the state, so the batch may grow, shrink and change order from call to call.
        """
        batch, tokens, _ = inputs_embeds.shape
        total = self._length + tokens
        result = self._request.infer(
            {
                "inputs_embeds": inputs_embeds,
                "attention_mask": np.ones((batch, total), np.int64),
                "position_ids": np.broadcast_to(np.arange(self._length, total, dtype=np.int64), (batch, tokens)),
                "beam_idx": np.array(beam_idx, np.int32),
            }
        )
        self._length = total
        return np.asarray(result["logits"][:, -1], np.float32)

    def truncate(self, length: int) -> None:
        """Forget all but the first `length` tokens (and all but the first row of the batch)."""
        if length == 0:
            self._request.reset_state()
        elif length < self._length:
            for state in self._request.query_state():
                kept = np.ascontiguousarray(state.state.data[:1, :, :length])  # (batch, heads, tokens, head_dim)
                state.state = ov.Tensor(kept)
        self._length = min(length, self._length)


def load(folder: Path, config: ModelConfig, engine: EngineConfig) -> tuple[StatefulRunner, VisionEncoder]:
    """Read and compile the four parts of a model folder.

    Raises:
        ArtifactError: a part cannot be read, or this machine's OpenVINO cannot compile it.
        InputError: the device asked for is not there.
    """
    core = ov.Core()
    device = _device(core, engine.device)

    def compiled(name: str, *, only_last: bool = False) -> ov.CompiledModel:
        try:
            model = core.read_model(folder / name)
            if only_last:
                logits_of_last_position(model)
            return core.compile_model(model, device, {**_properties(model, device), **threads})
        except RuntimeError as cause:
            raise ArtifactError(f"{folder / name} cannot be loaded on {device}: {cause}") from cause

    threads = {"INFERENCE_NUM_THREADS": engine.threads} if engine.threads and device == "CPU" else {}
    vision = VisionEncoder(compiled(VISION_EMBEDDINGS), compiled(RESAMPLER), config, engine.vision_cache_bytes)
    return StatefulRunner(compiled(LANGUAGE_MODEL, only_last=True), compiled(TEXT_EMBEDDINGS)), vision


def logits_of_last_position(model: ov.Model) -> None:
    """Cut a language model's hidden states to their last position before the head: a prompt's other logits are 600 kB a token that nobody reads."""
    node = model.output("logits").get_node()
    while node.get_type_name() != "MatMul":
        if node.get_input_size() == 0:
            raise ArtifactError("The language model does not end in a matrix product.")
        node = node.input_value(0).get_node()
    last = ops.slice(node.input_value(0), [-1], [np.iinfo(np.int64).max], [1], [1])
    node.input(0).replace_source_output(last.output(0))
    model.validate_nodes_and_infer_types()


def _device(core: ov.Core, asked: str) -> str:
    """AUTO is a GPU where OpenVINO finds one, else the CPU."""
    available = core.available_devices
    if asked == "AUTO":
        return next((name for name in available if name.startswith("GPU")), "CPU")
    if asked not in available and f"{asked}.0" not in available:
        raise InputError(f"DEVICE={asked} is not on this machine; OpenVINO finds {', '.join(available)}.")
    return asked


def _properties(model: ov.Model, device: str) -> dict[str, Any]:
    """How exactly to compute: a compressed model as fast as its weights allow, an uncompressed one without further rounding."""
    compressed = [op for op in model.get_ops() if op.get_type_name() == "Constant" and op.get_element_type().to_string() in ("i4", "u4", "i8", "u8")]
    if not compressed:
        return {"INFERENCE_PRECISION_HINT": "f32", **({"KV_CACHE_PRECISION": "f32"} if device == "CPU" else {})}
    # Activations are quantised in groups; groups of the weights' own size are a quarter faster than the default (bench).
    groups = [
        int(op.get_output_shape(0)[2]) for op in compressed if op.get_element_type().to_string() in ("i4", "u4") and len(op.get_output_shape(0)) == 3
    ]
    return {"DYNAMIC_QUANTIZATION_GROUP_SIZE": max(groups)} if groups else {}
