"""Scenes drawn by other means: they are what they say, so that what a model says about them can be judged."""

import io
import math

import numpy as np
import PIL.Image
from matplotlib.colors import to_rgb
from scipy import ndimage

from tests.demo.other_means import PAINTS, questions, scene


def test_every_scene_shows_as_many_things_of_its_colours_as_it_says() -> None:
    for seed in range(20):
        file, kinds = scene(seed)
        pixels = np.asarray(PIL.Image.open(io.BytesIO(file)).convert("RGB"), float) / 255
        assert file[:2] == b"\xff\xd8"
        for colour, _ in kinds:
            near = min((np.linalg.norm(pixels - to_rgb(paint), axis=-1) for paint in PAINTS[colour]), key=lambda distance: float(distance.min()))
            _, things = ndimage.label(ndimage.binary_opening(near < 0.16, iterations=2))
            assert things == 1, (seed, colour)
        assert len(dict(kinds)) == len({shape for _, shape in kinds}) == len(kinds)
        assert math.prod(pixels.shape[:2]) > 140 * 140


def test_questions_about_them_take_turns() -> None:
    asked = questions(6)
    assert [question.skill for question in asked] == ["colour", "shape", "count"] * 2
    assert questions(6) == asked
