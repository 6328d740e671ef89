"""The language model with its state inside OpenVINO: inputs_embeds (batch, tokens, hidden) float32 -> logits (batch, vocabulary) float32."""

from collections.abc import Sequence

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as ops

from pipeline.artifacts import LANGUAGE_MODEL
from pipeline.engine.compiled import Compiler, Logits, head_of


class StatefulRunner:
    """One sequence at a time, its keys and values kept inside OpenVINO's state. Not safe for two threads at once."""

    def __init__(self, compiler: Compiler) -> None:
        self._request = compiler.compiled(LANGUAGE_MODEL, logits_of_last_position).create_infer_request()
        self._length = 0

    @property
    def length(self) -> int:
        """Tokens whose keys and values are held."""
        return self._length

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


def logits_of_last_position(model: ov.Model) -> None:
    """Cut a language model's hidden states to their last position before the head: a prompt's other logits are 600 kB a token that nobody reads."""
    head = head_of(model)
    last = ops.slice(head.input_value(0), [-1], [np.iinfo(np.int64).max], [1], [1])
    head.input(0).replace_source_output(last.output(0))
    model.validate_nodes_and_infer_types()
