"""The image encoder and the resampler against the official code, over the fp32 IR; and the cache in front of them."""

import json
import threading
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from pipeline.config import EngineConfig, ModelConfig, SliceConfig
from pipeline.engine.compiled import Compiler
from pipeline.preprocess import Slice, cut, plan
from pipeline.vision import VisionCache, VisionEncoder, sincos_table

CONFIG = SliceConfig(use_image_id=True)


@pytest.fixture
def encoder(fp32_folder: Path) -> VisionEncoder:
    return Compiler(fp32_folder, EngineConfig(device="CPU")).vision(ModelConfig.from_folder(fp32_folder), 2**28)


def slices_of(golden: Path, *names: str) -> list[Slice]:
    slices = []
    for name in names:
        with PIL.Image.open(golden / "images" / f"{name}.png") as image:
            slices += cut(image.convert("RGB"), plan(image.size, CONFIG), CONFIG)
    return slices


@pytest.mark.parametrize("case", ["single0", "single1", "single2"])
def test_embeds_of_a_conversation_equal_the_official_resampler_output(encoder: VisionEncoder, golden: Path, case: str) -> None:
    texts = json.loads((golden / "tiny_texts.json").read_text())
    name = texts[case]["msgs"][0]["content"][0]["image"]
    embeds = encoder.encode(slices_of(golden, name))
    np.testing.assert_allclose(np.stack(embeds), np.load(golden / f"tiny_{case}.npz")["resampler_output"], atol=2e-5)


def test_embeds_of_a_padded_official_batch_equal_ours_without_padding(encoder: VisionEncoder, golden: Path) -> None:
    embeds = encoder.encode(slices_of(golden, "a_300x200", "b_900x500", "d_200x1000"))
    np.testing.assert_allclose(np.stack(embeds), np.load(golden / "tiny_batch.npz")["resampler_output"], atol=2e-5)


def test_the_table_of_positions_equals_the_official_one(golden: Path) -> None:
    data = np.load(golden / "resampler_pos_embed.npz")
    for rows, hidden in ((data["tiny_rows"], 256), (data["full3584_rows"], 3584)):
        assert str(data["dtype"][0]) == "float32"
        side = int(data["index"].max()) + 1
        table = sincos_table((side, side), hidden).reshape(side, side, hidden)
        for (row, column), expected in zip(data["index"], rows, strict=True):
            # The official table depends on the CPU: float32 powers of numpy differ in the last bit, and 69 patches away that is 1.2e-5.
            np.testing.assert_allclose(table[row, column], expected, rtol=0, atol=2e-5)


def test_sides_above_seventy_patches_have_positions_of_their_own() -> None:
    table = sincos_table((1, 180), 64)
    assert len({row.tobytes() for row in table}) == 180
    np.testing.assert_array_equal(table[:70], sincos_table((1, 70), 64))


def test_a_picture_seen_before_is_not_encoded_again(encoder: VisionEncoder, golden: Path) -> None:
    slices = slices_of(golden, "b_900x500")
    first = encoder.encode([*slices, slices[1]])
    assert encoder.encoded == 3
    again = encoder.encode([*slices_of(golden, "c_448x448"), *slices])
    assert encoder.encoded == 4
    np.testing.assert_array_equal(np.stack(again[1:]), np.stack(first[:3]))


def test_a_cancel_is_seen_before_the_next_batch(encoder: VisionEncoder, golden: Path) -> None:
    cancelled, seen = threading.Event(), []

    def progress(done: int, total: int) -> None:
        seen.append((done, total))
        cancelled.set()

    assert encoder.encode(slices_of(golden, "a_300x200", "b_900x500"), cancelled, progress) is None
    assert seen == [(0, 4)]
    assert encoder.encoded < 4


def test_the_cache_keeps_the_most_recently_used_within_its_bytes() -> None:
    cache, embeds = VisionCache(max_bytes=2 * 400), np.zeros((10, 10), np.float32)
    cache.put(b"a", embeds)
    cache.put(b"b", embeds)
    assert cache.get(b"a") is not None
    cache.put(b"c", embeds)
    assert cache.get(b"b") is None
    assert cache.get(b"a") is not None
    assert cache.get(b"c") is not None
    cache.put(b"large", np.zeros((100, 100), np.float32))
    assert (len(cache), cache.num_bytes) == (2, 2 * 400)
