"""A model with random weights -> the same model, begun where training would else spend its first hour: each query looks at a place of its own."""

import math

import torch

from conversion.model import MiniCPMV
from conversion.resampler import HEAD_DIM
from demo.layouts import SCALE_RESOLUTION

SIDE = SCALE_RESOLUTION / 14  # patches along a square picture
FREQUENCIES = 20  # of the sin/cos table: those fast enough to tell neighbouring patches apart
FOCUS = 0.39  # logit for each frequency in step; a query then looks about 0.8 patches around its place
APART = 0.5  # patches: so far to the left and to the right of it look the two heads


def places(count: int, hidden_size: int) -> torch.Tensor:
    """Rows (count, hidden) of the resampler's sin/cos table at the middles of a square grid over a square picture.

    Raises:
        ValueError: `count` is not a square.
    """
    side = math.isqrt(count)
    if side * side != count:
        raise ValueError(f"{count} queries make no square grid.")
    middles = [(index + 0.5) * (SIDE + 0.5) / side - 0.5 for index in range(side)]
    return torch.stack([_row(x, y, hidden_size) for y in middles for x in middles])


@torch.no_grad()
def initialise(model: MiniCPMV) -> None:
    """Give the learned positions and the queries a sense of place, and words and pictures a like loudness."""
    vision, side = model.config.vision, model.config.vision.position_side_patches
    half_patches = [_row(column * SIDE / side, row * SIDE / side, vision.hidden_size) for row in range(side) for column in range(side)]
    model.vpm.embeddings.position_embedding.weight.copy_(0.5 * torch.stack(half_patches))
    model.llm.model.embed_tokens.weight.normal_(std=0.3)
    resampler = model.resampler
    resampler.proj.mul_(0.3)
    count, hidden_size = resampler.query.shape
    quarter = hidden_size // 4
    told = torch.cat([part * quarter + torch.arange(FREQUENCIES) for part in range(4)])  # sin and cos of x, sin and cos of y
    free = told + FREQUENCIES
    table = places(count, hidden_size)[:, told]
    resampler.query.zero_()
    # The layer norm takes the mean away: what stands once with each sign passes it.
    resampler.query[:, told], resampler.query[:, free] = table, -table
    loudness = math.sqrt(hidden_size / (2 * 2 * FREQUENCIES))
    resampler.kv_proj.weight[told] = 0.0  # where a key tells its place it tells nothing else
    q, k, _ = resampler.attn.in_proj_weight.chunk(3)
    omega = 1 / 10000 ** (torch.arange(FREQUENCIES) / quarter)
    for head in range(resampler.attn.num_heads):
        rows = head * HEAD_DIM + torch.arange(4 * FREQUENCIES)
        k[rows] = torch.nn.functional.one_hot(told, hidden_size).float()
        turn = (APART if head % 2 else -APART) * omega
        shift = torch.eye(4 * FREQUENCIES)
        sin, cos = torch.arange(FREQUENCIES), FREQUENCIES + torch.arange(FREQUENCIES)
        shift[sin, sin], shift[sin, cos] = torch.cos(turn), torch.sin(turn)
        shift[cos, cos], shift[cos, sin] = torch.cos(turn), -torch.sin(turn)
        q[rows] = 0.0
        q[rows[:, None], told[None, :]] = FOCUS * math.sqrt(HEAD_DIM) / loudness * shift


def _row(x: float, y: float, hidden_size: int) -> torch.Tensor:
    """Of the table, at any place: half of it tells the column, half the row (specification, section 6)."""
    omega = 1 / 10000 ** (torch.arange(hidden_size // 4) / (hidden_size / 4))
    return torch.cat([function(place * omega) for place in (x, y) for function in (torch.sin, torch.cos)])
