"""The image processor against the official one: sizes, grids and pixels are equal, not close."""

import hashlib
import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from pipeline.config import SliceConfig, VisionConfig
from pipeline.message import Placeholder
from pipeline.preprocess import cut, plan, vision_position_ids

CONFIG = SliceConfig(use_image_id=True)


def as_lists(value):
    return json.loads(json.dumps(value))


def opened(path: Path) -> PIL.Image.Image:
    with PIL.Image.open(path) as image:
        return image.convert("RGB")


def test_every_golden_size_gets_the_official_grid_and_sizes(golden: Path) -> None:
    cases = json.loads((golden / "slicing.json").read_text())
    for case in cases:
        layout = plan(tuple(case["size"]), CONFIG, case["max_slice_nums"])
        columns, rows = layout.grid or (1, 1)
        cell = layout.refined_size and (layout.refined_size[0] // columns, layout.refined_size[1] // rows)
        ours = (layout.grid, layout.overview_size, layout.refined_size, cell, 1 + layout.num_slices, layout.tgt_sizes)
        official = [case[name] for name in ("grid", "source_size", "refine_size", "slice_size", "n_images", "tgt_sizes")]
        assert as_lists(ours) == official, case["size"]
    assert len(cases) == 220


def test_every_golden_placeholder_is_written_as_the_official_code_writes_it(golden: Path, build_text) -> None:
    for case in json.loads((golden / "slicing.json").read_text()):
        layout = plan(tuple(case["size"]), CONFIG, case["max_slice_nums"])
        expected = case["placeholder_id3"].replace("{U64}", "<unk>" * 64)
        assert build_text([Placeholder(3, layout.grid)]) == expected
        assert build_text([Placeholder(None, layout.grid)]) == expected.removeprefix("<image_id>3</image_id>")


def test_pixels_equal_the_official_bytes(golden: Path) -> None:
    stored = np.load(golden / "pixels_u8.npz")
    checked = 0
    for case in json.loads((golden / "pixels.json").read_text()):
        image = opened(golden / "images" / f"{case['image']}.png")
        layout = plan(image.size, CONFIG, case["max_slice_nums"])
        assert as_lists((image.size,)) == case["image_sizes"]
        assert as_lists(layout.tgt_sizes) == case["tgt_sizes"]
        for piece, official in zip(cut(image, layout, CONFIG), case["slices"], strict=True):
            values = piece.pixel_values()
            assert (list(values.shape), str(values.dtype)) == (official["shape"], official["dtype"].removeprefix("torch."))
            assert hashlib.sha256(piece.pixels.tobytes()).hexdigest() == official["sha256_uint8_hwc"]
            assert hashlib.sha256(values.tobytes()).hexdigest() == official["sha256_float32"]
            assert values.reshape(-1)[:8].tolist() == official["first8"]
            if official["uint8_stored"]:
                np.testing.assert_array_equal(piece.pixels, stored[official["key"]])
                checked += 1
    assert checked == len(stored.files)


def test_a_whole_tensor_equals_the_official_one(golden: Path) -> None:
    image = opened(golden / "images" / "a_300x200.png")
    (piece,) = cut(image, plan(image.size, CONFIG), CONFIG)
    np.testing.assert_array_equal(piece.pixel_values(), np.load(golden / "pixels_float32_example.npz")["pixel_values"])


def test_position_buckets_equal_the_official_ones_for_every_side(golden: Path) -> None:
    for patches, buckets in json.loads((golden / "vision_position_bucket.json").read_text()).items():
        along_the_row = vision_position_ids((1, int(patches)), VisionConfig())
        down_the_column = vision_position_ids((int(patches), 1), VisionConfig())
        assert along_the_row.tolist() == buckets, patches
        assert down_the_column.tolist() == [70 * bucket for bucket in buckets], patches


@pytest.mark.parametrize("case", ["tiny_single0", "tiny_single1", "tiny_single2", "tiny_batch"])
def test_position_ids_of_whole_pictures_equal_the_official_ones(golden: Path, case: str) -> None:
    data = np.load(golden / f"{case}.npz")
    for (height, width), padded in zip(data["tgt_sizes_cat"], data["vision_position_ids"], strict=True):
        ids = vision_position_ids((int(height), int(width)), VisionConfig())
        np.testing.assert_array_equal(ids, padded[: len(ids)])
        assert not padded[len(ids) :].any()


def test_a_digest_tells_pixels_and_shape_apart() -> None:
    image = PIL.Image.new("RGB", (448, 448), "red")
    layout = plan(image.size, CONFIG)
    one = cut(image, layout, CONFIG)[0]
    changed = image.copy()
    changed.putpixel((200, 200), (0, 255, 0))
    turned = plan((320, 640), CONFIG, 1), plan((640, 320), CONFIG, 1)
    tall, wide = (cut(PIL.Image.new("RGB", item.size, "red"), item, CONFIG)[0] for item in turned)
    assert one.digest == cut(image.copy(), layout, CONFIG)[0].digest
    assert one.digest != cut(changed, layout, CONFIG)[0].digest
    assert tall.pixels.size == wide.pixels.size
    assert tall.digest != wide.digest


def test_no_slice_at_all_is_a_programming_error() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        plan((10, 10), CONFIG, 0)
