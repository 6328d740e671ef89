import numpy as np
import pytest
import torch

TOLERANCE = 2e-5


def _run(tiny, inputs):
    return tiny.resampler(**{name: torch.from_numpy(value) for name, value in inputs.items()})


@pytest.mark.parametrize("file", ["tiny_single0.npz", "tiny_single1.npz", "tiny_single2.npz"])
def test_rows_are_the_golden_ones(golden, tiny, resampler_inputs, file):
    stored = np.load(golden / file)
    inputs = resampler_inputs(stored["vision_last_hidden_state"], stored["tgt_sizes_cat"], 256)
    np.testing.assert_allclose(_run(tiny, inputs), stored["resampler_output"], atol=TOLERANCE)


def test_a_side_above_seventy_patches_is_as_good_as_any(golden, tiny, resampler_inputs):
    stored = np.load(golden / "resampler_direct.npz")
    assert stored["tgt_sizes"].max() > 70
    np.testing.assert_allclose(_run(tiny, resampler_inputs(stored["x"], stored["tgt_sizes"], 256)), stored["y"], atol=TOLERANCE)


def test_what_stands_on_padding_changes_nothing(golden, tiny, resampler_inputs):
    stored = np.load(golden / "tiny_single1.npz")
    inputs = resampler_inputs(stored["vision_last_hidden_state"], stored["tgt_sizes_cat"], 256)
    spoilt = inputs | {"image_feature": inputs["image_feature"] + 1000 * inputs["key_padding_mask"][:, :, None]}
    np.testing.assert_allclose(_run(tiny, spoilt), _run(tiny, inputs), atol=1e-6)
