"""What helps the demo model learn: steps alike in every direction, queries that begin at their places, readers that cannot turn up their ears."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from conversion.model import MiniCPMV
from demo.heads import Heads
from demo.initial import initialise, places
from demo.muon import Muon, orthogonalised
from demo.scenes import LABEL_COUNTS
from demo.train import write_small_files
from pipeline.config import ModelConfig
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


def test_each_query_begins_by_looking_at_its_own_place(tmp_path: Path) -> None:
    write_small_files(tmp_path)
    torch.manual_seed(0)
    model = MiniCPMV(ModelConfig.from_folder(tmp_path))
    initialise(model)
    resampler = model.resampler
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
    weight = torch.where(wanted == 0, 0.1, 1.0)
    assert torch.isclose(losses[1]["shape"], (weight * each).sum() / weight.sum(), rtol=1e-4)
    assert not torch.isclose(losses[0]["shape"], losses[1]["shape"], rtol=1e-2)
