import math
from collections import Counter

import numpy as np
import openvino as ov
import PIL.Image
import pytest

from conversion.checkpoint import Source
from conversion.compress import Recipe
from conversion.job import convert
from pipeline.artifacts import LANGUAGE_MODEL, RESAMPLER, TEXT_EMBEDDINGS, VISION_EMBEDDINGS, Manifest
from pipeline.config import ModelConfig, TextConfig
from pipeline.errors import InputError

#: Matrices of the golden model: 7 in each of 2 layers and lm_head; 6 in each of 3 layers, the convolution and the positions; 6; 1.
MATRICES = {LANGUAGE_MODEL: 15, VISION_EMBEDDINGS: 20, RESAMPLER: 6, TEXT_EMBEDDINGS: 1}


def _matrices(path):
    """How many weight matrices of each element type: constants with two wide dimensions or more, zero points and scales left out."""
    sizes = (
        (node.get_element_type().get_type_name(), node.get_output_shape(0))
        for node in ov.Core().read_model(path).get_ops()
        if node.get_type_name() == "Constant"
    )
    return Counter(kind for kind, shape in sizes if len(shape) > 1 and shape[0] > 1 and shape[-1] > 1 and math.prod(shape) >= 48 * 48)


def test_int4_is_four_bits_in_the_language_model_and_eight_elsewhere(int4_folder):
    assert _matrices(int4_folder / LANGUAGE_MODEL)["i4"] == MATRICES[LANGUAGE_MODEL]
    for name in (VISION_EMBEDDINGS, RESAMPLER, TEXT_EMBEDDINGS):
        assert _matrices(int4_folder / name)["u8"] == MATRICES[name]


@pytest.mark.parametrize(("folder", "kind"), [("int8_folder", "u8"), ("fp16_folder", "f16"), ("fp32_folder", "f32")])
def test_any_other_format_is_the_same_everywhere(request, folder, kind):
    for name, count in MATRICES.items():
        found = _matrices(request.getfixturevalue(folder) / name)
        assert found[kind] >= count
        assert kind == "u8" or set(found) == {kind}


def test_zero_points_and_a_ratio_of_eight_bits_can_be_had(golden, tmp_path):
    convert(Source.locate(str(golden / "tiny_model")), tmp_path / "out", Recipe("int4", group_size=16, ratio=0.5, symmetric=False))
    found = _matrices(tmp_path / "out" / LANGUAGE_MODEL)
    assert min(found["u4"], found["u8"]) > 0
    assert found["u4"] + found["u8"] == MATRICES[LANGUAGE_MODEL]
    assert found["i4"] == 0


def test_a_group_size_that_divides_no_width_is_refused_with_one_that_does(golden):
    text = ModelConfig.from_folder(golden / "tiny_model").text
    with pytest.raises(InputError, match=r"64 does not divide the model's intermediate_size of 416; 32 would do"):
        Recipe("int4").check(text)
    Recipe("int4", group_size=32).check(text)


def test_the_default_group_size_fits_the_published_model():
    published = TextConfig(hidden_size=3584, intermediate_size=18944, num_attention_heads=28, num_key_value_heads=4)
    Recipe().check(published)
    with pytest.raises(InputError, match=r"512 does not divide .* 256 would do"):
        Recipe(group_size=512).check(TextConfig(hidden_size=3584, intermediate_size=18944 + 256, num_attention_heads=28))


def test_the_group_size_concerns_int4_alone(golden):
    Recipe("int8", group_size=64).check(ModelConfig.from_folder(golden / "tiny_model").text)


def test_the_image_encoder_can_compute_in_eight_bits_and_sees_nearly_the_same(golden, tmp_path, fp32, models_of, image_inputs):
    pictures = [PIL.Image.open(path).convert("RGB") for path in sorted((golden / "images").glob("?_*.png"))]
    convert(Source.locate(str(golden / "tiny_model")), tmp_path / "out", Recipe("int4", group_size=32, vision_format="int8-ptq"), pictures)
    ops = Counter(node.get_type_name() for node in ov.Core().read_model(tmp_path / "out" / VISION_EMBEDDINGS).get_ops())
    assert ops["FakeQuantize"] >= 3 * 6  # the inputs of the matrix products of each layer
    assert _matrices(tmp_path / "out" / LANGUAGE_MODEL)["i4"] == MATRICES[LANGUAGE_MODEL]
    assert Manifest.read(tmp_path / "out").recipe["vision_format"] == "int8-ptq"
    inputs = image_inputs("tiny_single0.npz", "a_300x200")
    found, expected = (models.vision(**inputs)[0].ravel() for models in (models_of(tmp_path / "out"), fp32))
    assert found @ expected / np.linalg.norm(found) / np.linalg.norm(expected) > 0.99


@pytest.mark.parametrize(("vision_format", "kind"), [("int8", "u8"), ("fp16", "f16")])
def test_the_image_encoder_can_have_a_format_of_its_own(golden, tmp_path, vision_format, kind):
    weight_format = {"int8": "fp16", "fp16": "int8"}[vision_format]
    convert(Source.locate(str(golden / "tiny_model")), tmp_path / "out", Recipe(weight_format, vision_format=vision_format))
    assert _matrices(tmp_path / "out" / VISION_EMBEDDINGS)[kind] >= MATRICES[VISION_EMBEDDINGS]
    assert _matrices(tmp_path / "out" / RESAMPLER)[{"u8": "f16", "f16": "u8"}[kind]] >= MATRICES[RESAMPLER]
    assert Manifest.read(tmp_path / "out").recipe == {"weight_format": weight_format, "vision_format": vision_format}


def test_activations_are_not_quantised_without_pictures(golden, tmp_path):
    with pytest.raises(InputError, match="pictures to calibrate on"):
        convert(Source.locate(str(golden / "tiny_model")), tmp_path / "out", Recipe("int8", vision_format="int8-ptq"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fields", [{"weight_format": "int2"}, {"group_size": 0}, {"ratio": 0.0}, {"ratio": 1.5}, {"vision_format": "int3"}])
def test_an_impossible_recipe_is_refused(fields):
    with pytest.raises(InputError, match=str(next(iter(fields.values())))):
        Recipe(**fields)


@pytest.mark.parametrize(("folder", "precision"), [("fp32_folder", "f32"), ("int4_folder", "u8")])
def test_keys_and_values_are_kept_as_the_weights_deserve(request, folder, precision):
    compiled = ov.Core().compile_model(request.getfixturevalue(folder) / LANGUAGE_MODEL, "CPU")
    assert compiled.get_property("KV_CACHE_PRECISION").get_type_name() == precision
