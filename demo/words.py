"""A language model with random weights -> the same model, begun with words that point at what they name.

Nothing here is learned. The word for a label has a direction, as the label has in pictures (`demo.heads`). In the first layer one head finds patches
by a word, another brings each word those just before it; in the second a head finds patches by all of a name's words. What is found, heads of all
layers pass on as words. Two more heads of the second layer find what the picture before showed at the same place.
"""

import itertools
import math
from collections.abc import Mapping, Sequence

import torch
from torch.nn import functional
from transformers import Qwen2ForCausalLM
from transformers.models.qwen2.modeling_qwen2 import Qwen2Attention

from demo.heads import LABELS, NUMBERS, directions
from demo.scenes import LABEL_COUNTS

WORD = 5.0  # length of a label's direction in the row of its word, beside about as much that is random
SPOKEN = 0.5  # and in the row of the last layer that says the word
MATCH = 0.8  # gain of the queries and keys of the heads that find what words name
PASSED_ON = 0.3  # gain of what heads copy
NEAR, NEAR_FOCUS, NEAR_PAIRS = 1.5, 1.0, 8  # tokens back, where a head looks for the words before; logit for each of the fastest rotary pairs
BEFORE = (67, 70)  # tokens back to the same row of the frame before, and of the image before, which has an id
BEFORE_FOCUS, BEFORE_PAIRS, BEFORE_GAIN = 2.0, 10, 1.2  # a picture's rows are loud: what they hear beside it has to be
NOWHERE = 0.85  # as a share of the logit for what was before: that for the first token
NUMBER_GAIN = 2.0  # of the head that finds a name, for the number of the picture: it has to last through a layer
REMEMBERED = 0.8  # gain of the words before
NAMES, GLYPHS = ("shape", "colour", "size"), ("glyph", "rank", "shape", "colour", "size")
LABELLED = (*NAMES, "place", "rank")


@torch.no_grad()
def name(model: Qwen2ForCausalLM, lexicon: Mapping[int, Sequence[int]], start: int) -> None:
    """Begin it.

    Args:
        lexicon: the rows of labels, counted through LABEL_COUNTS, and the tokens that say each.
        start: the token with which every conversation begins.
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
    # The number of the picture in which a name is found; pictures are counted from 1.
    numbers, digits = directions(hidden_size)[-NUMBERS:], said[_rows(("glyph",))[1 : 1 + NUMBERS]]
    _copy(second, second.num_key_value_groups, len(_rows(LABELLED)), numbers, NUMBER_GAIN * numbers + PASSED_ON * digits)
    _copy(others[-1], 1, len(_rows(LABELLED)), numbers, NUMBER_GAIN * digits)
    seen, was = _rows(("shape", "colour"), nothing=True), torch.zeros_like(shown)
    was[seen] = directions(hidden_size)[2 * LABELS :][seen]
    _look_before(second, llm.embed_tokens.weight[start], shown[seen], was[seen])
    for attention in others:
        _copy(attention, 0, 0, said[_rows(LABELLED)], PASSED_ON * said[_rows(LABELLED)])
        # What is there, or was there until it went.
        _copy(attention, attention.num_key_value_groups, 0, (shown + was)[_rows(GLYPHS)], PASSED_ON * said[_rows(GLYPHS)])


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


def _look_before(attention: Qwen2Attention, start: torch.Tensor, shown: torch.Tensor, was: torch.Tensor) -> None:
    """Two heads look at the same place of the picture before, one in videos and one where pictures have ids, and what is shown there they tell was
    there. Nearly as much they look at `start` (hidden,), which shows nothing: so they soon learn when to look at which.
    """
    size = attention.head_dim
    fast = torch.arange(BEFORE_PAIRS)
    pairs = torch.cat([fast, size // 2 + fast, torch.tensor([size // 2 - 1])])  # the last of them hardly turns, however far
    loudness = math.sqrt(BEFORE_FOCUS * math.sqrt(size))
    attention.k_proj.weight[pairs], attention.k_proj.bias[fast] = 0.0, loudness
    attention.k_proj.weight[pairs[-1]] = functional.normalize(start, dim=0)  # of a row of that direction: the root of its size
    nowhere = NOWHERE * BEFORE_FOCUS * BEFORE_PAIRS * math.sqrt(size) / math.sqrt(len(start))
    for head, distance in enumerate(BEFORE):
        back = distance / attention.config.rope_parameters["rope_theta"] ** (fast / (size // 2))
        attention.q_proj.weight[head * size + pairs] = 0.0
        attention.q_proj.bias[head * size + pairs] = torch.cat([loudness * back.cos(), -loudness * back.sin(), torch.tensor([nowhere])])
        attention.o_proj.weight[:, head * size : (head + 1) * size] = 0.0
        _copy(attention, head, 0, shown, BEFORE_GAIN * was)


def _copy(attention: Qwen2Attention, head: int, place: int, heard: torch.Tensor, told: torch.Tensor) -> None:
    """What the head looks at hears (rows, hidden), it tells (rows, hidden), by its values from `place` on."""
    size, values = attention.head_dim, place + torch.arange(len(heard))
    attention.v_proj.weight[head // attention.num_key_value_groups * size + values] = heard
    attention.o_proj.weight[:, head * size + values] = told.T


def _rows(names: Sequence[str], *, nothing: bool = False) -> list[int]:
    """Of these labels, counted through LABEL_COUNTS; without those of nothing unless they are wanted."""
    starts = dict(zip(LABEL_COUNTS, itertools.accumulate(LABEL_COUNTS.values(), initial=0), strict=False))
    return [starts[name] + value for name in names for value in range(0 if nothing else 1, LABEL_COUNTS[name])]
