"""A torch part of the model -> ov.Model with optimum-intel's input and output names; every dimension that can vary is dynamic (-1)."""

import contextlib
import warnings
from collections.abc import Iterator, Mapping

import openvino as ov
import torch
from openvino import opset13 as ops
from openvino.frontend.pytorch import patch_model
from openvino.op.util import Variable, VariableInfo
from torch import nn
from transformers import Qwen2ForCausalLM

from conversion.resampler import Resampler
from conversion.vision_encoder import VisionEncoder

#: Sizes of the examples a trace runs on: two of everything that varies, since a size of 1 can take another path through the code.
ROWS, TOKENS, PAST = 2, 3, 4


def vision_embeddings(encoder: VisionEncoder) -> ov.Model:
    """pixel_values, patch_attention_mask, position_ids -> last_hidden_state; shapes as in `VisionEncoder.forward`."""
    channels, patch = encoder.embeddings.patch_embedding.weight.shape[1:3]
    examples = {
        "pixel_values": torch.zeros(ROWS, channels, patch, patch * TOKENS),
        "patch_attention_mask": torch.ones(ROWS, 1, TOKENS),
        "position_ids": torch.zeros(ROWS, TOKENS, dtype=torch.int64),
    }
    shapes = {"pixel_values": (-1, channels, patch, -1), "patch_attention_mask": (-1, 1, -1), "position_ids": (-1, -1)}
    return _trace(encoder, examples, shapes, ["last_hidden_state"])


def resampler(module: Resampler) -> ov.Model:
    """image_feature, pos_embed, key_padding_mask -> last_hidden_state; shapes as in `Resampler.forward`."""
    hidden, vision_hidden = module.kv_proj.weight.shape
    examples = {
        "image_feature": torch.zeros(ROWS, TOKENS, vision_hidden),
        "pos_embed": torch.zeros(TOKENS, ROWS, hidden),
        "key_padding_mask": torch.zeros(ROWS, TOKENS),
    }
    shapes = {"image_feature": (-1, -1, vision_hidden), "pos_embed": (-1, -1, hidden), "key_padding_mask": (-1, -1)}
    return _trace(module, examples, shapes, ["last_hidden_state"])


def text_embeddings(embedding: nn.Embedding) -> ov.Model:
    """input (batch, tokens) int64 -> inputs_embeds (batch, tokens, hidden) float32."""
    return _trace(embedding, {"input": torch.zeros(ROWS, TOKENS, dtype=torch.int64)}, {"input": (-1, -1)}, ["inputs_embeds"])


def language_model(llm: Qwen2ForCausalLM) -> ov.Model:
    """attention_mask (batch, past + tokens) int64, position_ids (batch, tokens) int64, inputs_embeds (batch, tokens, hidden) float32,
    beam_idx (batch) int32 -> logits (batch, tokens, vocab) float32.

    Keys and values are state, float32 (batch, kv heads, past, head_dim), reordered by `beam_idx` at the start of each inference.
    """
    config = llm.config
    head_dim = config.hidden_size // config.num_attention_heads
    cached = [f"past_key_values.{layer}.{half}" for layer in range(config.num_hidden_layers) for half in ("key", "value")]
    examples = {
        "attention_mask": torch.ones(ROWS, PAST + TOKENS, dtype=torch.int64),
        "position_ids": torch.arange(PAST, PAST + TOKENS).expand(ROWS, -1),
        "inputs_embeds": torch.zeros(ROWS, TOKENS, config.hidden_size),
        "past_key_values": tuple(torch.zeros(ROWS, config.num_key_value_heads, PAST, head_dim) for _ in cached),
    }
    shapes = {"attention_mask": (-1, -1), "position_ids": (-1, -1), "inputs_embeds": (-1, -1, config.hidden_size)}
    shapes |= dict.fromkeys(cached, (-1, config.num_key_value_heads, -1, head_dim))
    outputs = ["logits", *(name.replace("past_key_values", "present") for name in cached)]
    model = _trace(StatelessDecoder(llm), examples, shapes, outputs)
    _make_stateful(model, cached)
    return model


class StatelessDecoder(nn.Module):
    """The language model without its token embedding, with the keys and values of earlier tokens as inputs and of all tokens as outputs."""

    def __init__(self, llm: Qwen2ForCausalLM) -> None:
        super().__init__()
        self.rotary_emb = llm.model.rotary_emb
        self.layers = llm.model.layers
        self.norm = llm.model.norm
        self.lm_head = llm.lm_head

    def forward(
        self, attention_mask: torch.Tensor, position_ids: torch.Tensor, inputs_embeds: torch.Tensor, past_key_values: tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor, ...]:
        """Tensors as in `language_model`; `past_key_values` is key, value of layer 0, then of layer 1, and so on."""
        total, tokens = attention_mask.shape[1], inputs_embeds.shape[1]
        place = torch.arange(total)
        visible = (place <= place[total - tokens :, None]) & attention_mask[:, None, None, :].bool()  # (batch, 1, tokens, total)
        mask = torch.zeros_like(visible, dtype=torch.float32).masked_fill(~visible, torch.finfo(torch.float32).min)
        cache = _Cache(past_key_values)
        hidden = inputs_embeds
        rotation = self.rotary_emb(hidden, position_ids)
        for layer in self.layers:
            hidden = layer(hidden, attention_mask=mask, position_embeddings=rotation, past_key_values=cache, use_cache=True)
        return self.lm_head(self.norm(hidden)), *cache.present


class _Cache:
    """What an attention layer of transformers asks of a cache: give it a step's keys and values, get those of all tokens."""

    def __init__(self, past: tuple[torch.Tensor, ...]) -> None:
        self.past = past
        self.present: list[torch.Tensor] = []

    def update(self, key: torch.Tensor, value: torch.Tensor, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        key = torch.cat([self.past[2 * layer], key], dim=2)
        value = torch.cat([self.past[2 * layer + 1], value], dim=2)
        self.present += [key, value]
        return key, value


def _trace(module: nn.Module, examples: Mapping[str, object], shapes: Mapping[str, tuple[int, ...]], outputs: list[str]) -> ov.Model:
    """Trace a module and give its inputs and outputs their names, types and dynamic shapes.

    Linear layers and embeddings in 16 bits stay in 16 bits: they become constants that share the module's memory.
    """
    module.eval()
    with warnings.catch_warnings(), _traceable(module), torch.no_grad():
        # The tracer remarks on every Python branch (that it took the right ones is what the tests compare) and on its own old age.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        warnings.filterwarnings("ignore", message="`torch.jit", category=DeprecationWarning)
        model = ov.convert_model(module, example_input=dict(examples))
    for port, (name, shape) in zip(model.inputs, shapes.items(), strict=True):
        port.get_tensor().set_names({name})
        port.get_node().set_friendly_name(name)
        port.get_node().set_partial_shape(ov.PartialShape(list(shape)))
    for port, name in zip(model.outputs, outputs, strict=True):
        port.get_tensor().set_names({name})
    model.validate_nodes_and_infer_types()
    return model


def _make_stateful(model: ov.Model, cached: list[str]) -> None:
    """Turn each `past_key_values` input and the `present` output that belongs to it into a variable, read through a gather by `beam_idx`.

    A variable that was never written starts empty, with as many rows as `inputs_embeds` has.
    """
    beam_idx = ops.parameter(ov.PartialShape([-1]), ov.Type.i32, name="beam_idx")
    beam_idx.output(0).get_tensor().set_names({"beam_idx"})
    model.add_parameters([beam_idx])
    batch_axis = ops.constant(0, ov.Type.i64)
    batch = ops.gather(ops.shape_of(model.input("inputs_embeds")), ops.constant([0], ov.Type.i64), batch_axis)
    for name in cached:
        past, present = model.input(name).get_node(), model.output(name.replace("past_key_values", "present")).get_node()
        heads, head_dim = (past.get_partial_shape()[axis].get_length() for axis in (1, 3))
        info = VariableInfo()
        info.variable_id = f"{name}{name.replace('past_key_values', 'present')}"
        info.data_type = past.get_element_type()
        info.data_shape = past.get_partial_shape()
        variable = Variable(info)
        empty = ops.concat([batch, ops.constant([heads, 0, head_dim], ov.Type.i64)], 0)
        read = ops.read_value(ops.broadcast(ops.constant(0.0, past.get_element_type()), empty), variable)
        reordered = ops.gather(read, beam_idx, batch_axis)
        for consumer in past.output(0).get_target_inputs():
            consumer.replace_source_output(reordered.output(0))
        assign = ops.assign(present.input_value(0).get_node(), variable)
        model.add_variables([variable])
        model.add_sinks([assign])
        model.remove_result(present)
        model.remove_parameter(past)
    model.validate_nodes_and_infer_types()


@contextlib.contextmanager
def _traceable(module: nn.Module) -> Iterator[None]:
    """Let a module with 16-bit weights be traced with float32 activations; the library's own way, which has no public name."""
    if all(tensor.dtype == torch.float32 for tensor in module.parameters()):
        yield
        return
    marker = "_conversion_original_forward"
    getattr(patch_model, "__make_16bit_traceable")(module, marker)
    try:
        yield
    finally:
        patch_model.unpatch_model(module, marker)
