"""Inputs_embeds (tokens, hidden) float32 of several sequences and their block tables -> logits (wanted, vocabulary) float32; owns the KV memory.

The language model on OpenVINO's paged attention: the batch is flat, sequence after sequence, and the keys and values of each lie in blocks of a pool.
"""

import itertools
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as ops
from openvino._offline_transformations import paged_attention_transformation

from pipeline.artifacts import LANGUAGE_MODEL
from pipeline.engine.compiled import Compiler, Logits, head_of
from pipeline.errors import ArtifactError, InputError

BLOCK_SIZE = 32  # tokens; what the CPU's paged attention takes
WANTED = "wanted_positions"
CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))  # of version 2, and of 1
FURTHER_SHAPES_SECONDS = 1.0  # of warming up for shapes that not every visitor meets


@dataclass(frozen=True)
class Rows:
    """The next tokens of one sequence.

    Args:
        inputs_embeds: (tokens, hidden) float32.
        past: tokens computed before them.
        block_table: the blocks of all of them, past ones first.
        wanted: of how many positions at the end the logits are wanted.
    """

    inputs_embeds: NDArray[np.float32]
    past: int
    block_table: Sequence[int]
    wanted: int


class ModelRunner:
    """The compiled model and `num_blocks` blocks. Not safe for two threads at once.

    Args:
        kv_cache_bytes: for all blocks together, at most.
        most_blocks: that can be of any use.

    Raises:
        ArtifactError: the model cannot be read, or cannot run on paged attention.
        InputError: not even one block fits.
    """

    def __init__(self, compiler: Compiler, kv_cache_bytes: int, most_blocks: int) -> None:
        compiled = compiler.compiled(LANGUAGE_MODEL, paged)
        self._request = compiled.create_infer_request()
        ports = [port for port in compiled.inputs if port.get_any_name().startswith(("key_cache.", "value_cache."))]
        shapes = [[size.get_length() for size in list(port.get_partial_shape())[1:]] for port in ports]
        types = [port.get_element_type().to_dtype() for port in ports]
        block_bytes = sum(int(np.prod(shape)) * np.dtype(dtype).itemsize for shape, dtype in zip(shapes, types, strict=True))
        self.num_blocks = min(kv_cache_bytes // block_bytes, most_blocks)
        if self.num_blocks < 1:
            raise InputError(f"kv_cache_bytes is {kv_cache_bytes:,}; one block of {BLOCK_SIZE} tokens takes {block_bytes:,}.")
        self.kv_cache_bytes = self.num_blocks * block_bytes
        # Zeros are not touched before they are written, so what is never used costs nothing.
        self._caches = [np.zeros((self.num_blocks, *shape), dtype) for shape, dtype in zip(shapes, types, strict=True)]
        for port, cache in zip(ports, self._caches, strict=True):
            self._request.set_tensor(port, ov.Tensor(cache, shared_memory=True))

    def copy(self, copies: Sequence[tuple[int, int]]) -> None:
        """Copy whole blocks, (from, to)."""
        for source, target in copies:
            for cache in self._caches:
                cache[target] = cache[source]

    def forward(self, batch: Sequence[Rows]) -> Logits:
        """Compute what is next of each sequence: logits (wanted positions of the first, of the second, ...; vocabulary), until the next call."""
        lengths = np.array([len(rows.inputs_embeds) for rows in batch])
        past = np.array([rows.past for rows in batch])
        ends = np.cumsum(lengths)
        tables = [np.asarray(rows.block_table, np.int32) for rows in batch]
        inputs = {
            "inputs_embeds": np.concatenate([rows.inputs_embeds for rows in batch]),
            "position_ids": np.concatenate([np.arange(start, start + length) for start, length in zip(past, lengths, strict=True)]),
            "past_lens": past.astype(np.int32),
            "subsequence_begins": _begins(lengths),
            "block_indices": np.concatenate(tables),
            "block_indices_begins": _begins([len(table) for table in tables]),
            "max_context_len": np.array((past + lengths).max(), np.int32),
            WANTED: np.concatenate([np.arange(end - rows.wanted, end) for rows, end in zip(batch, ends, strict=True)]),
        }
        for name, value in inputs.items():
            self._request.set_tensor(name, ov.Tensor(value))
        logits = self._request.infer(share_outputs=True)["logits"]
        return np.asarray(logits.reshape(-1, logits.shape[-1]), np.float32)

    def warm_up(self, hidden_size: int, prefill_tokens: int, mixed_tokens: int, sequences: int, longest: int) -> None:
        """Compute in the shapes of serving once: every number of sequences that decode together, prompts in steps of so many tokens, both at once,
        and a sequence of `longest` tokens.

        The very first call repacks the weights, which takes longer than anything after it, the first call of each shape prepares that shape, and
        attention is prepared anew with each block by which a sequence is longer than all before it. For those beside whom a prompt is read, and comes
        to its end, as many shapes as a second allows, the commonest first: all of a small model's; a large one computes a hundred times as long as it
        prepares. What is written lies in blocks that no table points to afterwards.
        """
        endings = ([tokens] for tokens in range(2, prefill_tokens))
        beside = ([1] * count + [tokens - count] for tokens in range(mixed_tokens, 1, -1) for count in range(1, min(sequences, tokens)))
        for shape in (*([1] * count for count in range(1, sequences + 1)), [prefill_tokens], [mixed_tokens]):
            self._compute_zeros(shape, hidden_size)
        self._compute_zeros([1], hidden_size, past=min(longest, self.num_blocks * BLOCK_SIZE) - 1)
        until = time.perf_counter() + FURTHER_SHAPES_SECONDS
        for shape in itertools.chain(itertools.islice(beside, sequences), endings, beside):
            if time.perf_counter() > until:
                break
            self._compute_zeros(shape, hidden_size)

    def _compute_zeros(self, shape: Sequence[int], hidden_size: int, past: int = 1) -> None:
        """A step of sequences of so many tokens each, after `past` others, unless there are too few blocks."""
        blocks, ends = iter(range(self.num_blocks)), [-(-(past + tokens) // BLOCK_SIZE) for tokens in shape]
        if sum(ends) <= self.num_blocks:
            self.forward(
                [
                    Rows(np.zeros((tokens, hidden_size), np.float32), past, list(itertools.islice(blocks, end)), 1)
                    for tokens, end in zip(shape, ends, strict=True)
                ]
            )


def paged(model: ov.Model) -> None:
    """Put a stateful language model on paged attention, its logits those of wanted positions only: a prompt's others, 600 kB each, nobody reads."""
    try:
        paged_attention_transformation(model)
    except RuntimeError as cause:
        raise ArtifactError(f"The language model cannot run on paged attention: {cause}") from cause
    head = head_of(model)
    wanted = ops.parameter([-1], np.int64, name=WANTED)
    wanted.output(0).set_names({WANTED})
    gathered = ops.gather(head.input_value(0), wanted, ops.constant(0, np.int64))
    head.input(0).replace_source_output(gathered.output(0))
    model.add_parameters([wanted])
    model.validate_nodes_and_infer_types()


def kv_cache_bytes_here() -> int:
    """An eighth of the memory that this process may use."""
    return memory_bytes_here() // 8


def memory_bytes_here() -> int:
    """The memory that this process may use."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = [limit.read_text().strip() for limit in CGROUP_LIMITS if limit.exists()]
    return min([total, *(int(limit) for limit in limits if limit != "max")])


def _begins(lengths: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int32]:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
