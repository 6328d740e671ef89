"""A language model with random weights -> the same model, begun with words that point at what they name.

Nothing here is learned. The word for a label has a direction, as the label has in pictures (`demo.heads`). In the first layer one head finds patches
by a word, another brings each word those just before it; in the second a head finds patches by all of a name's words. What is found, heads of all
layers pass on as words.
"""

import itertools
import math
from collections.abc import Mapping, Sequence

import torch
from transformers import Qwen2ForCausalLM
from transformers.models.qwen2.modeling_qwen2 import Qwen2Attention

from demo.heads import LABELS, directions
from demo.scenes import LABEL_COUNTS

WORD = 5.0  # length of a label's direction in the row of its word, beside about as much that is random
SPOKEN = 0.5  # and in the row of the last layer that says the word
MATCH = 0.8  # gain of the queries and keys of the heads that find what words name
PASSED_ON = 0.3  # gain of what heads copy
NEAR, NEAR_FOCUS, NEAR_PAIRS = 1.5, 1.0, 8  # tokens back, where a head looks for the words before; logit for each of the fastest rotary pairs
REMEMBERED = 0.8  # gain of the words before
NAMES, GLYPHS = ("shape", "colour", "size"), ("glyph", "rank", "shape", "colour", "size")
LABELLED = (*NAMES, "place", "rank")


@torch.no_grad()
def name(model: Qwen2ForCausalLM, lexicon: Mapping[int, Sequence[int]]) -> None:
    """Begin it.

    Args:
        lexicon: the rows of labels, counted through LABEL_COUNTS, and the tokens that say each.
    """
    llm = model.model
    hidden_size = llm.embed_tokens.embedding_dim
    shown, said = directions(hidden_size)[: 2 * LABELS].split(LABELS)
    llm.embed_tokens.weight.normal_(std=0.3)
    for label, tokens in lexicon.items():
        llm.embed_tokens.weight[list(tokens)] += WORD * said[label]
        model.lm_head.weight[list(tokens)] += SPOKEN * said[label]
    first, second, *others = (layer.self_attn for layer in llm.layers)
    _find(first, 0, shown, said)
    _copy(first, 0, 0, shown[_rows(LABELLED)], PASSED_ON * said[_rows(LABELLED)])
    _remember(first, 1, len(_rows(LABELLED)), said[_rows(NAMES)])
    _copy(first, first.num_key_value_groups, 0, shown[_rows(GLYPHS)], PASSED_ON * said[_rows(GLYPHS)])
    _find(second, second.num_key_value_groups, shown, said)
    _copy(second, second.num_key_value_groups, 0, shown[_rows(LABELLED)], PASSED_ON * said[_rows(LABELLED)])
    for attention in (second, *others):
        _copy(attention, 0, 0, said[_rows(LABELLED)], PASSED_ON * said[_rows(LABELLED)])
    for attention in others:
        _copy(attention, attention.num_key_value_groups, 0, shown[_rows(GLYPHS)], PASSED_ON * said[_rows(GLYPHS)])


def _find(attention: Qwen2Attention, head: int, shown: torch.Tensor, said: torch.Tensor) -> None:
    """The head looks where is shown what is said, by the slowest of the rotary pairs, which hardly tell how far apart two tokens are."""
    size, found = attention.head_dim, _rows(NAMES)
    half, pairs = len(found) // 2, size // 2
    slow = torch.cat([torch.arange(pairs - half, pairs), torch.arange(size - half, size)])
    for project, line, words in ((attention.q_proj, head, said), (attention.k_proj, head // attention.num_key_value_groups, shown)):
        lines = slice(line * size, (line + 1) * size)
        project.weight[lines], project.bias[lines] = 0.0, 0.0
        project.weight[line * size + slow] = MATCH * words[found]


def _remember(attention: Qwen2Attention, head: int, place: int, said: torch.Tensor) -> None:
    """The head looks at the tokens just before and keeps what they say, by the values from `place` on; its keys are shared with a head that finds."""
    size, group = attention.head_dim, head // attention.num_key_value_groups
    fast = torch.arange(NEAR_PAIRS)
    loudness = math.sqrt(NEAR_FOCUS * math.sqrt(size))
    back = NEAR / attention.config.rope_parameters["rope_theta"] ** (fast / (size // 2))
    attention.q_proj.weight[head * size : (head + 1) * size], attention.q_proj.bias[head * size : (head + 1) * size] = 0.0, 0.0
    attention.k_proj.bias[group * size + fast] = loudness
    attention.q_proj.bias[head * size + fast], attention.q_proj.bias[head * size + size // 2 + fast] = loudness * back.cos(), -loudness * back.sin()
    _copy(attention, head, place, said, REMEMBERED * said)


def _copy(attention: Qwen2Attention, head: int, place: int, heard: torch.Tensor, told: torch.Tensor) -> None:
    """What the head looks at hears (rows, hidden), it tells (rows, hidden), by its values from `place` on."""
    size, values = attention.head_dim, place + torch.arange(len(heard))
    attention.v_proj.weight[head // attention.num_key_value_groups * size + values] = heard
    attention.o_proj.weight[:, head * size + values] = told.T


def _rows(names: Sequence[str]) -> list[int]:
    """Of these labels, counted through LABEL_COUNTS, without those of nothing."""
    starts = dict(zip(LABEL_COUNTS, itertools.accumulate(LABEL_COUNTS.values(), initial=0), strict=False))
    return [starts[name] + value for name in names for value in range(1, LABEL_COUNTS[name])]
