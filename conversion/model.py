"""ModelConfig -> MiniCPMV, a torch module whose state dict has the official names and shapes: `vpm.`, `resampler.`, `llm.`."""

import re
from pathlib import Path
from typing import Self

import torch
from torch import nn
from transformers import Qwen2Config, Qwen2ForCausalLM
from transformers.models.qwen2.modeling_qwen2 import Qwen2RotaryEmbedding

from conversion.resampler import HEAD_DIM, Resampler
from conversion.vision_encoder import VisionEncoder
from pipeline.config import ModelConfig, TextConfig, read_json
from pipeline.errors import ArtifactError


class MiniCPMV(nn.Module):
    """The three parts of the model; each is called on its own, since what joins them is not a network (see the pipeline).

    Built in the usual way it has random weights and can be trained.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.vpm = VisionEncoder(config.vision, config.drop_vision_last_layer)
        self.resampler = Resampler(config.query_num, config.text.hidden_size, config.vision.hidden_size)
        self.llm = Qwen2ForCausalLM(_qwen2_config(config.text))

    @classmethod
    def skeleton(cls, config: ModelConfig) -> Self:
        """The same model with shapes and no weights: parameters on torch's meta device, to be loaded a part at a time."""
        with torch.device("meta"):
            model = cls(config)
        # No checkpoint holds the rotary frequencies: they are computed, which cannot happen on the meta device.
        model.llm.model.rotary_emb = Qwen2RotaryEmbedding(model.llm.config)
        return model

    @property
    def lm_head_prefix(self) -> str:
        """Under which name a checkpoint holds what becomes lm_head: its own, or the token embedding's where the two are one."""
        return "llm.model.embed_tokens." if self.config.text.tie_word_embeddings else "llm.lm_head."

    def stored_shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the tensors that a checkpoint of this model must hold."""
        shapes = {name: tuple(tensor.shape) for name, tensor in self.state_dict().items()}
        if self.config.text.tie_word_embeddings:
            del shapes["llm.lm_head.weight"]
        return shapes

    def may_ignore(self, name: str) -> bool:
        """Whether a checkpoint may hold this tensor although the model has no use for it."""
        dropped = self.config.vision.num_hidden_layers - 1
        return bool(
            (self.config.drop_vision_last_layer and re.match(rf"vpm\.encoder\.layers\.{dropped}\.", name))
            or (self.config.text.tie_word_embeddings and name == "llm.lm_head.weight")
        )


def check_architecture(config: ModelConfig, folder: Path) -> None:
    """Make sure that config.json asks for nothing that these modules do not do.

    Raises:
        ArtifactError: names the field.
    """
    stated = read_json(folder / "config.json")
    for name in ("use_sliding_window", "rope_scaling"):
        if stated.get(name):
            raise ArtifactError(f"{folder / 'config.json'} asks for {name}, which MiniCPM-V 2.6 does not have.")
    if quantized := stated.get("quantization_config"):
        method = quantized.get("quant_method", "quantised") if isinstance(quantized, dict) else quantized
        raise ArtifactError(f"{folder / 'config.json'} says that the weights are quantised ({method}): what is converted are those of 16 or 32 bits.")
    text, vision = config.text, config.vision
    divisions = {
        "num_attention_heads divides hidden_size": (text.hidden_size, text.num_attention_heads),
        "num_key_value_heads divides num_attention_heads": (text.num_attention_heads, text.num_key_value_heads),
        "num_attention_heads divides hidden_size in vision_config": (vision.hidden_size, vision.num_attention_heads),
        f"the resampler's heads of {HEAD_DIM} divide hidden_size": (text.hidden_size, text.hidden_size // HEAD_DIM),
    }
    for rule, (whole, parts) in divisions.items():
        if parts < 1 or whole % parts:
            raise ArtifactError(f"{folder / 'config.json'} breaks the rule that {rule}: {whole} by {parts}.")


def _qwen2_config(config: TextConfig) -> Qwen2Config:
    return Qwen2Config(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        num_key_value_heads=config.num_key_value_heads,
        hidden_act=config.hidden_act,
        max_position_embeddings=config.max_position_embeddings,
        rms_norm_eps=config.rms_norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
        tie_word_embeddings=config.tie_word_embeddings,
        attn_implementation="sdpa",
    )
