import json
import os
import shutil

import PIL.Image
import pytest

from conversion.checkpoint import Source
from conversion.compress import Recipe
from conversion.fidelity import Limits
from conversion.identity import identity


@pytest.fixture
def source(golden, tmp_path):
    return Source.locate(str(shutil.copytree(golden / "tiny_model", tmp_path / "checkpoint")))


def _changed(one, other):
    return {name for name in one if one[name] != other[name]}


def test_the_same_conversion_is_the_same_also_after_a_round_through_json(source):
    one = identity(source, Recipe(), Limits(), [])
    assert json.loads(json.dumps(identity(source, Recipe(), Limits(), []))) == one


def test_each_thing_that_decides_the_result_shows(source):
    one = identity(source, Recipe(), Limits(), [])
    assert _changed(one, identity(source, Recipe(ratio=0.5), Limits(), [])) == {"recipe"}
    assert _changed(one, identity(source, Recipe(), Limits(), [PIL.Image.new("RGB", (2, 3))])) == {"calibration pictures"}
    os.utime(source.folder / "model.safetensors", (1, 1))
    assert _changed(one, identity(source, Recipe(), Limits(), [])) == {"files of the checkpoint"}
    assert "nncf" in one["library versions"]


def test_limits_count_only_where_they_decide_what_is_made(source):
    for fallback, changed in ((False, set()), (True, {"limits of fidelity"})):
        recipe = Recipe(vision_format="int8-ptq", ptq_fallback=fallback)
        assert _changed(identity(source, recipe, Limits(), []), identity(source, recipe, Limits(0.5), [])) == changed
        assert _changed(identity(source, recipe, Limits(), []), identity(source, recipe, Limits(max_kl=0.5), [])) == set()


def test_pictures_of_the_same_bytes_and_another_shape_differ(source):
    wide, tall = (identity(source, Recipe(), Limits(), [PIL.Image.new("RGB", size)]) for size in ((2, 3), (3, 2)))
    assert _changed(wide, tall) == {"calibration pictures"}
