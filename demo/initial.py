"""A model with random weights -> the same model, begun where training would else spend its first hours: it sees edges, looks at places, knows words.

Nothing here is learned. The image encoder's patches begin as cosine transforms, its first layer as histograms of oriented edges (Dalal and Triggs,
2005), its attention as glances at the neighbours (as ConViT's, d'Ascoli et al., 2021); each query of the resampler begins at a place of its own.
Where the language model begins, `demo.words` says.
"""

import itertools
import math
from collections.abc import Mapping, Sequence

import torch

from conversion.model import MiniCPMV
from conversion.resampler import HEAD_DIM, Resampler
from conversion.vision_encoder import VisionEncoder
from demo.layouts import SCALE_RESOLUTION
from demo.words import name

SIDE = SCALE_RESOLUTION / 14  # patches along a square picture
LOUDNESS = 0.7  # of sin and cos of a patch's place

# Of the image encoder's rows, one after the other: brightness and two opponent colours by frequency, the place, edges by cell and direction.
CHANNELS = (((1.0, 1.0, 1.0), 56), ((1.0, -1.0, 0.0), 6), ((0.5, 0.5, -1.0), 6))
CONTENT = sum(count for _, count in CHANNELS)
GAIN = 0.2  # of the frequency 1; the higher ones are fainter in pictures, and amplified as much
FREQUENCIES = 12  # of the sin/cos table: those fast enough to tell neighbouring patches apart
SPOTS, CELLS, DIRECTIONS = 6, 3, 8  # along a patch: where edges are looked for, where they are counted; directions in half a turn
SPREAD = 1.3  # pixels: of an edge detector's window
EDGE, THRESHOLD, COUNT = 0.4, 0.5, 0.15  # gain of a detector, how loud an edge must be, weight of one in its cell
LOOKS = (  # columns and rows from a patch to where the heads of each layer look first; the other heads look where they like
    ((-1, 0), (1, 0), (0, -1), (0, 1)),
    ((-1, 0), (1, 0), (0, -1), (0, 1)),
    ((-1, -1), (1, 1), (-1, 1), (1, -1)),
    ((-2, 0), (2, 0), (0, -2), (0, 2)),
)
LOOK_FOCUS = 1.5  # logit for each frequency in step

# Of the resampler.
QUERY_FREQUENCIES = 20
QUERY_FOCUS = 0.39  # a query then looks about 0.8 patches around its place
APART = 0.4  # patches: so far to the left and to the right of it look the two heads


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
def initialise(model: MiniCPMV, lexicon: Mapping[int, Sequence[int]], start: int) -> None:
    """Begin every part of it.

    Args:
        lexicon: the rows of labels, counted through LABEL_COUNTS, and the tokens that say each.
        start: the token with which every conversation begins.
    """
    _see_edges(model.vpm, *_see_frequencies(model.vpm))
    _look_around(model.vpm, model.config.vision.position_side_patches)
    _gather(model.resampler)
    name(model.llm, lexicon, start)


def _see_frequencies(vpm: VisionEncoder) -> tuple[torch.Tensor, torch.Tensor]:
    """The frequencies of brightness (56, patch, patch), of length 1, and how loud each is made."""
    conv = vpm.embeddings.patch_embedding
    patch = conv.kernel_size[0]
    middles = torch.arange(patch) + 0.5
    waves = torch.stack([torch.cos(math.pi * middles * k / patch) * math.sqrt((2 if k else 1) / patch) for k in range(patch)])
    slowest = sorted(itertools.product(range(patch), repeat=2), key=lambda wave: wave[0] ** 2 + wave[1] ** 2)
    basis = torch.stack([waves[down][:, None] * waves[across] for down, across in slowest])
    gains = torch.tensor([GAIN * (0.3 + math.hypot(*wave)) for wave in slowest])
    colours = [torch.nn.functional.normalize(torch.tensor(colour), dim=0)[:, None, None] for colour, _ in CHANNELS]
    conv.weight.zero_()
    conv.bias.zero_()
    rows = [gains[row] * colour * basis[row] for colour, (_, count) in zip(colours, CHANNELS, strict=True) for row in range(count)]
    conv.weight[:CONTENT] = torch.stack(rows)
    return basis[: CHANNELS[0][1]], gains[: CHANNELS[0][1]]


def _see_edges(vpm: VisionEncoder, basis: torch.Tensor, gains: torch.Tensor) -> None:
    """Each hidden unit of the first layer answers to an edge of one direction and sign at one spot; each cell counts them."""
    mlp, patch = vpm.encoder.layers[0].mlp, basis.shape[1]
    for parameter in mlp.parameters():
        parameter.zero_()
    mlp.fc1.bias.fill_(-THRESHOLD)
    down, across = torch.meshgrid(torch.arange(patch) + 0.5, torch.arange(patch) + 0.5, indexing="ij")
    units = itertools.product(range(SPOTS), range(SPOTS), range(DIRECTIONS), (1, -1))
    for unit, (row, column, direction, sign) in enumerate(units):
        y, x = down - (row + 0.5) * patch / SPOTS, across - (column + 0.5) * patch / SPOTS
        angle = math.pi * direction / DIRECTIONS
        edge = (math.cos(angle) * x + math.sin(angle) * y) * torch.exp(-(x * x + y * y) / (2 * SPREAD**2))
        mlp.fc1.weight[unit, : len(basis)] = EDGE * sign * (basis * edge / edge.norm()).sum((1, 2)) / gains
        cell = row * CELLS // SPOTS * CELLS + column * CELLS // SPOTS
        mlp.fc2.weight[CONTENT + 4 * FREQUENCIES + cell * DIRECTIONS + direction, unit] = COUNT


def _look_around(vpm: VisionEncoder, side: int) -> None:
    """Patches say where they are, and heads compare it. What they find is not used at first: it is learned what for."""
    table, hidden_size = vpm.embeddings.position_embedding.weight, vpm.embeddings.position_embedding.embedding_dim
    quarter = hidden_size // 4
    told = torch.cat([part * quarter + torch.arange(FREQUENCIES) for part in range(4)])
    rows = [_row(column * SIDE / side, row * SIDE / side, hidden_size) for row in range(side) for column in range(side)]
    table.zero_()
    table[:, CONTENT : CONTENT + len(told)] = LOUDNESS * torch.stack(rows)[:, told]
    for layer in vpm.encoder.layers:
        layer.self_attn.out_proj.weight.zero_()
        layer.self_attn.out_proj.bias.zero_()
    for layer, looks in zip(vpm.encoder.layers, LOOKS, strict=False):
        attention = layer.self_attn
        count = attention.head_dim // 4
        chosen = torch.linspace(0, FREQUENCIES - 1, count).round().long()
        columns = torch.cat([CONTENT + part * FREQUENCIES + chosen for part in range(4)])
        loudness = math.sqrt(LOOK_FOCUS * math.sqrt(attention.head_dim) / 2)
        for head, (x, y) in enumerate(looks):
            start = head * attention.head_dim
            lines = start + torch.arange(4 * count)
            for weight in (attention.q_proj.weight, attention.k_proj.weight):
                weight[start : start + attention.head_dim] = 0.0
            attention.q_proj.weight[lines[:, None], columns] = loudness * _shift(x, y, 1 / 10000 ** (chosen / quarter))
            attention.k_proj.weight[lines, columns] = loudness


def _gather(resampler: Resampler) -> None:
    """Each query looks at its place in a square grid, one head a little to the left of it, one to the right."""
    resampler.proj.mul_(0.3)
    count, hidden_size = resampler.query.shape
    quarter = hidden_size // 4
    told = torch.cat([part * quarter + torch.arange(QUERY_FREQUENCIES) for part in range(4)])
    free = told + QUERY_FREQUENCIES
    table = places(count, hidden_size)[:, told]
    resampler.query.zero_()
    # The layer norm takes the mean away: what stands once with each sign passes it.
    resampler.query[:, told], resampler.query[:, free] = table, -table
    loudness = math.sqrt(hidden_size / (2 * 2 * QUERY_FREQUENCIES))
    resampler.kv_proj.weight[told] = 0.0  # where a key tells its place it tells nothing else
    q, k, _ = resampler.attn.in_proj_weight.chunk(3)
    omega = 1 / 10000 ** (torch.arange(QUERY_FREQUENCIES) / quarter)
    for head in range(resampler.attn.num_heads):
        lines = head * HEAD_DIM + torch.arange(4 * QUERY_FREQUENCIES)
        k[lines] = torch.nn.functional.one_hot(told, hidden_size).float()
        q[lines] = 0.0
        q[lines[:, None], told] = QUERY_FOCUS * math.sqrt(HEAD_DIM) / loudness * _shift(APART if head % 2 else -APART, 0.0, omega)


def _shift(x: float, y: float, omega: torch.Tensor) -> torch.Tensor:
    """The matrix that moves sin and cos of a column, then of a row, by so many patches."""
    count = len(omega)
    matrix = torch.zeros(4 * count, 4 * count)
    for axis, distance in enumerate((x, y)):
        sin = 2 * axis * count + torch.arange(count)
        cos, turn = sin + count, distance * omega
        matrix[sin, sin], matrix[sin, cos] = torch.cos(turn), torch.sin(turn)
        matrix[cos, cos], matrix[cos, sin] = torch.cos(turn), -torch.sin(turn)
    return matrix


def _row(x: float, y: float, hidden_size: int) -> torch.Tensor:
    """Of the table, at any place: half of it tells the column, half the row (specification, section 6)."""
    omega = 1 / 10000 ** (torch.arange(hidden_size // 4) / (hidden_size / 4))
    return torch.cat([function(place * omega) for place in (x, y) for function in (torch.sin, torch.cos)])
