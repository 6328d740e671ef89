import numpy as np
import pytest
import torch

TOLERANCE = 2e-5


def _torch(inputs):
    return {name: torch.from_numpy(value) for name, value in inputs.items()}


def test_embeddings_are_the_golden_ones(golden, tiny, image_inputs):
    inputs = _torch(image_inputs("tiny_single0.npz", "a_300x200"))
    embeddings = tiny.vpm.embeddings(inputs["pixel_values"], inputs["position_ids"])
    np.testing.assert_allclose(embeddings, np.load(golden / "tiny_single0.npz")["vision_embeddings"], atol=TOLERANCE)


@pytest.mark.parametrize(
    ("file", "image"), [("tiny_single0.npz", "a_300x200"), ("tiny_single1.npz", "b_900x500"), ("tiny_single2.npz", "d_200x1000")]
)
def test_last_hidden_state_is_the_golden_one(golden, tiny, image_inputs, file, image):
    inputs = image_inputs(file, image)
    found, expected = tiny.vpm(**_torch(inputs)).numpy(), np.load(golden / file)["vision_last_hidden_state"]
    for picture, mask in enumerate(inputs["patch_attention_mask"][:, 0]):
        np.testing.assert_allclose(found[picture, mask > 0], expected[picture, mask > 0], atol=TOLERANCE)


def test_a_padded_picture_comes_out_as_it_does_alone(tiny, image_inputs):
    inputs = image_inputs("tiny_single1.npz", "b_900x500")
    patches = int(inputs["patch_attention_mask"][1].sum())
    assert patches < inputs["patch_attention_mask"].shape[-1]
    alone = {
        "pixel_values": inputs["pixel_values"][1:2, :, :, : 14 * patches],
        "patch_attention_mask": inputs["patch_attention_mask"][1:2, :, :patches],
        "position_ids": inputs["position_ids"][1:2, :patches],
    }
    np.testing.assert_allclose(tiny.vpm(**_torch(inputs))[1, :patches], tiny.vpm(**_torch(alone))[0], atol=TOLERANCE)
