"""What helps the demo model learn: even steps, a sense of edges and places to begin with, readers that cannot turn up their ears."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from conversion.model import MiniCPMV
from demo.heads import LABELS, Heads, directions
from demo.initial import CELLS, CONTENT, DIRECTIONS, FREQUENCIES, LOOKS, initialise, places
from demo.language import Language, Reference
from demo.lexicon import lexicon
from demo.muon import Muon, orthogonalised
from demo.scenes import COLOURS, GLYPHS, LABEL_COUNTS, RANKS, SHAPES
from demo.small_files import write_small_files
from demo.words import BEFORE
from pipeline.config import ModelConfig
from pipeline.preprocess import vision_position_ids
from pipeline.tokenizer import Tokenizer
from pipeline.vision import sincos_table


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 8, 40), (2, 40, 8)])
def test_a_step_is_about_as_large_in_every_direction(shape: tuple[int, ...]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    matrices[0] *= 1e-3
    values = torch.linalg.svdvals(orthogonalised(matrices))
    assert 0.5 < values.min() < values.max() < 1.3
    aligned = orthogonalised(matrices) * matrices
    assert (aligned.sum((1, 2)) > 0).all()


def test_muon_finds_a_least_squares_solution() -> None:
    torch.manual_seed(0)
    wanted, weight, inputs = torch.randn(6, 10), torch.nn.Parameter(torch.zeros(6, 10)), torch.randn(200, 10)
    optimiser = Muon([weight], lr=0.05)
    losses = []
    for step in range(200):
        optimiser.param_groups[0]["lr"] = 0.05 * (1 - step / 200)
        loss = ((inputs @ (weight - wanted).T) ** 2).mean()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 1e-3 * losses[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("begun")
    write_small_files(folder)
    return folder


@pytest.fixture(scope="module")
def begun(folder: Path) -> MiniCPMV:
    """The model before its first step."""
    torch.manual_seed(0)
    model = MiniCPMV(ModelConfig.from_folder(folder))
    tokenizer = Tokenizer(folder)
    initialise(model, lexicon(tokenizer), tokenizer.control_id("<|im_start|>"))
    return model


@torch.no_grad()
@pytest.mark.parametrize("direction", range(DIRECTIONS))
@pytest.mark.parametrize("sign", [1, -1])
def test_the_first_layer_counts_edges_by_where_they_are_and_how_they_run(begun: MiniCPMV, direction: int, sign: int) -> None:
    angle = math.pi * direction / DIRECTIONS
    down, across = torch.meshgrid(torch.arange(14) - 6.5, torch.arange(14) - 6.5, indexing="ij")
    step = sign * 0.8 * torch.sign(math.cos(angle) * across + math.sin(angle) * down)
    patches = torch.cat([step.expand(3, 14, 14), torch.full((3, 14, 14), 0.3)], dim=2)[None]
    layer = begun.vpm.encoder.layers[0]
    rows = begun.vpm.embeddings(patches, torch.tensor([[0, 1]]))
    counts = layer.mlp(layer.layer_norm2(rows))[0, :, CONTENT + 4 * FREQUENCIES :][:, : CELLS * CELLS * DIRECTIONS]
    edge, flat = counts.unflatten(1, (CELLS * CELLS, DIRECTIONS))
    assert edge[CELLS * CELLS // 2].argmax() == direction  # it runs through the middle
    assert edge.sum(0).argmax() == direction
    assert flat.abs().max() < 0.3 * edge.max()


@torch.no_grad()
def test_heads_begin_by_looking_at_the_neighbours(begun: MiniCPMV) -> None:
    side, heads = 12, begun.config.vision.num_attention_heads
    places_of_patches = torch.from_numpy(vision_position_ids((side, side), begun.config.vision))[None]
    noise = 0.05 * torch.randn(1, 3, 14, 14 * side * side, generator=torch.Generator().manual_seed(0))
    rows = begun.vpm.embeddings(noise, places_of_patches)
    inner = [row * side + column for row in range(2, side - 2) for column in range(2, side - 2)]
    for layer, looks in zip(begun.vpm.encoder.layers, LOOKS, strict=False):
        attention, normed = layer.self_attn, layer.layer_norm1(rows)
        q, k = (project(normed).unflatten(-1, (heads, -1)).transpose(1, 2) for project in (attention.q_proj, attention.k_proj))
        found = (q @ k.mT)[0, :, inner].argmax(-1)
        for head, (x, y) in enumerate(looks):
            wanted = torch.tensor(inner) + y * side + x
            assert (found[head] == wanted).float().mean() > 0.9
        assert not attention(normed, attention_mask=None)[0].any()  # nothing comes of it yet


def test_each_query_begins_by_looking_at_its_own_place(begun: MiniCPMV) -> None:
    model, resampler = begun, begun.resampler
    side, count = 12, resampler.query.shape[0]
    pos = torch.from_numpy(sincos_table((side, side), resampler.query.shape[1]))
    with torch.no_grad():
        key = resampler.ln_kv(resampler.kv_proj(torch.randn(side * side, model.config.vision.hidden_size))) + pos
        q, k, _ = resampler.attn.in_proj_weight.chunk(3)
        queries, keys = resampler.ln_q(resampler.query) @ q.T, key @ k.T
        middles = (torch.arange(math.isqrt(count)) + 0.5) * (side + 0.5) / math.isqrt(count) - 0.5
        for query, own in zip(*(rows.unflatten(1, (-1, 128)).unbind(1) for rows in (queries, keys)), strict=True):
            looks = torch.softmax(query @ own.T / math.sqrt(128), dim=1)
            across = looks @ (torch.arange(side * side) % side).float()
            down = looks @ (torch.arange(side * side) // side).float()
            assert (across.reshape(-1, len(middles)) - middles).abs().mean() < 0.8
            assert (down.reshape(-1, len(middles)) - middles[:, None]).abs().mean() < 0.5


@torch.no_grad()
@pytest.mark.parametrize(("first", "names"), [("shape", SHAPES), ("colour", tuple(COLOURS))])
def test_words_begin_by_finding_what_they_name(begun: MiniCPMV, folder: Path, first: str, names: tuple[str, ...]) -> None:
    tokenizer, attention = Tokenizer(folder), begun.llm.model.layers[0].self_attn
    start = sum(count for name, count in list(LABEL_COUNTS.items())[: list(LABEL_COUNTS).index(first)]) + 1
    shown = directions(begun.config.text.hidden_size)[start : start + len(names)]
    noise = torch.randn(shown.shape, generator=torch.Generator().manual_seed(0))
    key = attention.k_proj(torch.nn.functional.rms_norm(8 * shown + 0.5 * noise, shown.shape[-1:]))
    for value, name in enumerate(names):
        for text in (f" {name}", Language("zh").name(Reference(**{first: name})).removesuffix("的图形").removesuffix("图形")):
            (token,) = tokenizer.encode(text)
            word = begun.llm.model.embed_tokens(torch.tensor([token]))
            query = attention.q_proj(torch.nn.functional.rms_norm(word, word.shape[-1:]))
            assert (query[:, : attention.head_dim] @ key[:, : attention.head_dim].T).argmax() == value
            assert begun.llm.lm_head.weight[token] @ said_of(begun, start + value) > 0.3


@torch.no_grad()
@pytest.mark.parametrize("text", ["What is above the red star?", "红色星形的上方是什么？"])
def test_a_name_of_two_words_begins_by_finding_the_thing_that_is_both(begun: MiniCPMV, folder: Path, text: str) -> None:
    tokenizer, shown = Tokenizer(folder), directions(begun.config.text.hidden_size)
    starts = dict(zip(LABEL_COUNTS, np.cumsum([0, *LABEL_COUNTS.values()]), strict=False))

    def row(**names: int) -> torch.Tensor:
        """As the resampler says what a patch shows."""
        return sum((shown[starts[label] + names.get(label, 0)] for label in LABEL_COUNTS), torch.zeros(()))

    red, blue = (1 + list(COLOURS).index(colour) for colour in ("red", "blue"))
    circle, star = (1 + SHAPES.index(shape) for shape in ("circle", "star"))
    nothing = [row()] * 10
    picture = [*nothing, row(colour=red, shape=circle), *nothing, row(colour=red, shape=star), *nothing, row(colour=blue, shape=star), *nothing]
    ids = tokenizer.encode(text)
    words = begun.llm.model.embed_tokens(torch.tensor(ids))
    begun.llm.set_attn_implementation("eager")
    looks = begun.llm.model(inputs_embeds=torch.cat([torch.stack(picture), words])[None], output_attentions=True).attentions[1][0]
    place = next(index for index, token in enumerate(ids) if tokenizer.decode([token]) in (" star", "星形"))
    found = looks[begun.llm.model.layers[1].self_attn.num_key_value_groups, len(picture) + place, : len(picture)]
    assert found.argmax() == 21
    assert found[21] > 2 * found[[10, 32]].max()


@torch.no_grad()
def test_two_heads_begin_by_looking_at_the_same_place_of_the_picture_before_and_say_what_was_there(begun: MiniCPMV) -> None:
    hidden_size = begun.config.text.hidden_size
    square, generator = directions(hidden_size), torch.Generator().manual_seed(0)
    rows = 0.2 * torch.randn(160, hidden_size, generator=generator)
    rows[80 - BEFORE[0]] += 5 * square[2]  # a shape
    rows[80 - BEFORE[1]] += 5 * square[LABEL_COUNTS["shape"] + 3]  # a colour
    begun.llm.set_attn_implementation("eager")
    layer, inputs = begun.llm.model.layers[1], begun.llm.model.rotary_emb(rows[None], torch.arange(160)[None])
    told, looks = layer.self_attn(torch.nn.functional.rms_norm(rows, (hidden_size,))[None], inputs, torch.full((160, 160), -1e9).triu(1)[None, None])
    for head, distance in enumerate(BEFORE):
        assert looks[0, head, 80].argmax() == 80 - distance
    was = told[0, 80] @ square[2 * LABELS : 2 * LABELS + LABEL_COUNTS["shape"] + LABEL_COUNTS["colour"]].T
    assert set(was.topk(2).indices.tolist()) == {2, LABEL_COUNTS["shape"] + 3}


def said_of(model: MiniCPMV, label: int) -> torch.Tensor:
    return directions(model.config.text.hidden_size)[LABELS + label]


def test_no_token_begins_as_the_word_for_two_things(folder: Path) -> None:
    words = lexicon(Tokenizer(folder))
    tokens = [token for ids in words.values() for token in ids]
    assert len(tokens) == len(set(tokens))
    assert all(words.values())
    assert len(words) == len(SHAPES) + len(COLOURS) + 2 + 9 + RANKS + len(GLYPHS)


def test_queries_must_make_a_square() -> None:
    with pytest.raises(ValueError, match="35"):
        places(35, 64)


def labelled(heads: Heads) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    labels = {name: torch.from_numpy(np.random.default_rng(0).integers(0, count, (2, 20))) for name, count in LABEL_COUNTS.items()}
    return torch.randn(2, 20, heads.near.shape[1]), torch.randn(2, 9, 128), torch.randn(20, 2, 128), labels


def test_readers_hear_what_is_said_and_not_how_loudly() -> None:
    heads = Heads(96, places(9, 128))
    features, embeds, pos_embed, labels = labelled(heads)
    before, louder = heads(features, embeds, pos_embed, labels), heads(100 * features, 100 * embeds, pos_embed, labels)
    assert len(before) == 2 * len(LABEL_COUNTS)
    assert all(torch.isclose(before[name], louder[name], rtol=1e-4) for name in before)
    said = torch.zeros(2, 20, 96)
    starts = np.cumsum([0, *LABEL_COUNTS.values()])
    for start, wanted in zip(starts, labels.values(), strict=False):
        said += heads.near[start + wanted]
    assert all(heads(said, embeds, pos_embed, labels)[name] < 0.5 * before[name] for name in LABEL_COUNTS)


def test_patches_that_show_nothing_do_not_drown_the_others() -> None:
    heads = Heads(96, places(9, 128))
    features, embeds, pos_embed, labels = labelled(heads)
    nothing = {name: torch.zeros_like(wanted) for name, wanted in labels.items()}
    mostly = {name: torch.where(torch.arange(20) < 18, 0, 1 + wanted % (LABEL_COUNTS[name] - 1)) for name, wanted in labels.items()}
    losses = [heads(features, embeds, pos_embed, one) for one in (nothing, mostly)]
    said = torch.log_softmax((torch.nn.functional.rms_norm(features, (96,)) @ heads.near.T)[..., : LABEL_COUNTS["shape"]], -1)
    wanted = mostly["shape"]
    each = -said.gather(2, wanted[..., None])[..., 0]
    weight = torch.where(wanted == 0, 0.1, 4.0)
    assert torch.isclose(losses[1]["shape"], (weight * each).sum() / weight.sum(), rtol=1e-4)
    assert not torch.isclose(losses[0]["shape"], losses[1]["shape"], rtol=1e-2)


def test_a_small_thing_counts_as_much_as_a_large_one() -> None:
    heads = Heads(96, places(9, 128))
    _, embeds, pos_embed, _ = labelled(heads)
    thing = torch.tensor([1] * 9 + [2] + [0] * 10).repeat(2, 1)  # one shown by nine patches, one by a single one
    labels = dict.fromkeys(LABEL_COUNTS, thing)

    def loss(patch: int) -> float:
        """While that patch alone is read wrongly, as loudly as can be."""
        said = 50.0 * heads.near[thing]
        said[:, patch] = 50.0 * heads.near[(thing[:, patch] + 1) % 3]
        return float(heads(said, embeds, pos_embed, labels)["shape"].detach())

    assert loss(9) == pytest.approx(9 * loss(0), rel=1e-3)
