"""A model folder -> its parts, read and compiled for a device; what every runner of the language model shares."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from pipeline.artifacts import RESAMPLER, TEXT_EMBEDDINGS, VISION_EMBEDDINGS
from pipeline.config import EngineConfig, ModelConfig
from pipeline.errors import ArtifactError, InputError
from pipeline.vision import VisionEncoder

Logits: TypeAlias = NDArray[np.float32]
# OpenVINO makes kernels for every size of slice and keeps 5,000: a mebibyte for each size that anybody ever showed. So many are those of a few
# pictures; the next one mostly has another size anyway.
KEPT_KERNELS = 100


class Compiler:
    """Compiles the parts of one folder.

    Raises:
        InputError: the device asked for is not there.
    """

    def __init__(self, folder: Path, engine: EngineConfig) -> None:
        self._core, self._folder = ov.Core(), folder
        self.device = _device(self._core, engine.device)
        self._threads = engine.threads

    def compiled(self, name: str, change: Callable[[ov.Model], None] | None = None, **on_cpu: int) -> ov.CompiledModel:
        """One part, its graph changed first; `on_cpu` are properties of its own where the device is a CPU.

        Raises:
            ArtifactError: it cannot be read, or this machine's OpenVINO cannot compile it.
        """
        try:
            model = self._core.read_model(self._folder / name)
            properties = _properties(model, self.device)
            if self.device == "CPU":
                properties |= ({"INFERENCE_NUM_THREADS": self._threads} if self._threads else {}) | on_cpu
            if change is not None:
                change(model)
            return self._core.compile_model(model, self.device, properties)
        except RuntimeError as cause:
            raise ArtifactError(f"{self._folder / name} cannot be loaded on {self.device}: {cause}") from cause

    def vision(self, config: ModelConfig, cache_bytes: int) -> VisionEncoder:
        encoder, resampler = (self.compiled(name, CPU_RUNTIME_CACHE_CAPACITY=KEPT_KERNELS) for name in (VISION_EMBEDDINGS, RESAMPLER))
        return VisionEncoder(encoder, resampler, config, cache_bytes)


class Embedder:
    """The token embedding. Not safe for two threads at once."""

    def __init__(self, compiler: Compiler) -> None:
        # A few rows of a table are read in no time by the thread that asks; a second one would be waited for while others use its core.
        self._request = compiler.compiled(TEXT_EMBEDDINGS, INFERENCE_NUM_THREADS=1).create_infer_request()

    def embed(self, input_ids: Sequence[int]) -> NDArray[np.float32]:
        """(tokens,) -> (tokens, hidden); the caller's own, so that image embeds can be written into it."""
        self._request.set_tensor("input", ov.Tensor(np.array([input_ids], np.int64)))
        return np.array(self._request.infer(share_outputs=True)["inputs_embeds"][0], np.float32)


def head_of(model: ov.Model) -> ov.Node:
    """The matrix product that makes logits of hidden states.

    Raises:
        ArtifactError: there is none.
    """
    node = model.output("logits").get_node()
    while node.get_type_name() != "MatMul":
        if node.get_input_size() == 0:
            raise ArtifactError("The language model does not end in a matrix product.")
        node = node.input_value(0).get_node()
    return node


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
