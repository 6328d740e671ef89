"""A checkpoint of other sizes, from its files to an answer: the pipeline over its IR against its torch modules run as the official code runs them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from conversion.checkpoint import Source
from conversion.compress import Recipe
from conversion.job import convert
from conversion.model import MiniCPMV
from pipeline.assistant import Assistant
from pipeline.config import EngineConfig, GenerationConfig
from pipeline.message import Image, Message
from pipeline.preprocess import Slice, vision_position_ids
from pipeline.vision import sincos_table

SIZES = [(900, 500), (1000, 1000), (100, 700), (60, 4000)]


def official_embeds(model: MiniCPMV, slices: list[Slice]) -> torch.Tensor:
    """All pictures in one padded batch, the encoder in chunks of `vision_batch_size` (spec 5, 6)."""
    config, count = model.config, len(slices)
    patches = [height * width for height, width in (piece.tgt_size for piece in slices)]
    longest = max(patches)
    pixel_values, mask, positions = np.zeros((count, 3, 14, 14 * longest), np.float32), np.zeros((count, 1, longest)), np.zeros((count, longest))
    table = np.zeros((longest, count, config.text.hidden_size), np.float32)
    for index, (piece, length) in enumerate(zip(slices, patches, strict=True)):
        pixel_values[index, :, :, : 14 * length] = piece.pixel_values()
        mask[index, :, :length] = 1
        positions[index, :length] = vision_position_ids(piece.tgt_size, config.vision)
        table[:length, index] = sincos_table(piece.tgt_size, config.text.hidden_size)
    inputs = torch.tensor(pixel_values), torch.tensor(mask, dtype=torch.float32), torch.tensor(positions, dtype=torch.int64)
    chunks = zip(*(tensor.split(config.vision_batch_size) for tensor in inputs), strict=True)
    features = torch.cat([model.vpm(*chunk) for chunk in chunks])
    return model.resampler(features, torch.tensor(table), 1 - inputs[1][:, 0])


@pytest.mark.parametrize("drop_vision_last_layer", [True, False])
async def test_another_checkpoint_is_answered_as_its_own_modules_answer(
    make_checkpoint: Callable[..., Path],
    modules_of: Callable[[Path], MiniCPMV],
    other_sizes: dict[str, Any],
    tmp_path: Path,
    drop_vision_last_layer: bool,
) -> None:
    folder = make_checkpoint(shards=3, dtype=torch.float16, **(other_sizes | {"drop_vision_last_layer": drop_vision_last_layer}))
    convert(Source.locate(str(folder)), tmp_path / "ir", Recipe("fp32"))
    random = np.random.default_rng(0)
    pictures = [Image(PIL.Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8))) for width, height in SIZES]
    messages = [Message.user(*pictures[:2], "Compare."), Message.assistant("Done."), Message.user("And", *pictures[2:], "these?")]
    model = modules_of(folder)
    with Assistant(tmp_path / "ir", EngineConfig(device="CPU")) as assistant, torch.inference_mode():
        plan = assistant.processor.plan(messages)
        slices = plan.slices
        grids = [item.layout.grid for item in plan.pictures]
        assert grids == [(2, 1), (2, 2), None, (1, 3)], "at most four slices, as this checkpoint says"
        assert {end - start for start, end in plan.prompt.image_bound} == {9}
        embeds = official_embeds(model, slices)
        ours = assistant._engine._vision.encode(slices)
        assert ours is not None
        np.testing.assert_allclose(np.stack(ours), embeds.numpy(), atol=2e-5)
        inputs_embeds = model.llm.model.embed_tokens(torch.tensor([plan.prompt.input_ids]))
        for (start, end), rows in zip(plan.prompt.image_bound, embeds, strict=True):
            inputs_embeds[0, start:end] = rows
        terminators = list(assistant.processor.tokenizer.terminators)
        options = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": terminators, "pad_token_id": 0}
        expected = model.llm.generate(inputs_embeds=inputs_embeds, attention_mask=torch.ones(inputs_embeds.shape[:2]), **options)[0].tolist()
        answer = await assistant.answer(messages, GenerationConfig.greedy(max_new_tokens=12))
        assert list(answer.token_ids) == [token for token in expected if token not in terminators]
