"""The language model's IR -> a model of some of its stages, hidden states (batch, tokens, hidden) float32 in and out.

Each layer is a stage; the last norm and lm_head, which give logits (batch, tokens, vocab), are one more. So a large model is tried in little memory.
"""

import re
from collections.abc import Sequence

import numpy as np
import openvino as ov
from openvino import opset13 as ops

from conversion.fidelity import Array


def spans(sizes: Sequence[int], at_most: int) -> list[range]:
    """All stages in order, in runs whose sizes together are at most that; a stage that is larger stands alone."""
    found, size = [range(0)], 0
    for stage, added in enumerate(sizes):
        if len(found[-1]) and size + added > at_most:
            found.append(range(stage, stage))
            size = 0
        found[-1] = range(found[-1].start, stage + 1)
        size += added
    return found


def cut(model: ov.Model, stages: range, layers: int) -> None:
    """Leave only these stages of a language model of so many layers. Without the first, `hidden_states` before them become an input."""
    by_name = {node.get_friendly_name(): node for node in model.get_ops()}
    if stages.start > 0:
        before = by_name[_end_of(stages.start - 1)].output(0)
        hidden = ops.parameter(before.get_partial_shape(), ov.Type.f32, name="hidden_states")
        hidden.output(0).get_tensor().set_names({"hidden_states"})
        for consumer in before.get_target_inputs():
            consumer.replace_source_output(hidden.output(0))
        model.add_parameters([hidden])
    if stages.stop <= layers:
        model.remove_result(model.output("logits").get_node())
        model.add_results([ops.result(by_name[_end_of(stages.stop - 1)])])
    sinks = {sink.get_attributes()["variable_id"]: sink for sink in model.get_sinks()}
    for name, sink in sinks.items():
        if _layer_of(name) not in stages:
            model.remove_sink(sink)
    # Layers share one look at a shape, which is taken from the state of the first: so much of it stays.
    read = {node.get_attributes()["variable_id"] for node in model.get_ops() if node.get_type_name() == "ReadValue"}
    model.add_sinks([sink for name, sink in sinks.items() if name in read and _layer_of(name) not in stages])
    for variable in model.get_variables():
        if variable.info.variable_id not in read:
            model.remove_variable(variable)
    model.validate_nodes_and_infer_types()


def run(compiled: ov.CompiledModel, hidden: Array, inputs_embeds: Array) -> Array:
    """A prompt, from its first token on, through some stages: hidden states before them -> what they give.

    Args:
        inputs_embeds: (1, tokens, hidden) float32 of the prompt; the same as `hidden` before the first stage.
    """
    tokens = hidden.shape[1]
    inputs = {
        "attention_mask": np.ones((1, tokens), np.int64),
        "position_ids": np.arange(tokens)[None],
        "inputs_embeds": inputs_embeds,
        "beam_idx": np.zeros(1, np.int32),
        "hidden_states": hidden,
    }
    return compiled.create_infer_request().infer({port.any_name: inputs[port.any_name] for port in compiled.inputs})[0].copy()


def _end_of(layer: int) -> str:
    """The addition that ends a layer, by the name that tracing gives it."""
    return f"__module.layers.{layer}/aten::add/Add_1"


def _layer_of(variable_id: str) -> int:
    return int(re.match(r"past_key_values\.(\d+)\.", variable_id)[1])
