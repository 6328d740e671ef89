"""Scenes as drawn: nothing overlaps, colours are what they are called, and the patch labels say what the pixels show."""

import dataclasses
import math

import numpy as np
import pytest

from demo.layouts import Wish, arrange, ordinary_size
from demo.pages import page
from demo.scenes import COLOURS, GLYPHS, IGNORED, LABEL_COUNTS, SHAPES, Print, Scene, Style, Thing, draw, patch_labels
from demo.stock import Stock


def scenes(number: int, **wish: object) -> list[Scene]:
    random = np.random.default_rng(7)
    return [arrange(random, Stock("train"), Wish(**{"count": index % 6 + 1, **wish})) for index in range(number)]  # type: ignore[arg-type]


def pixels_of(thing: Thing, scene: Scene) -> tuple[float, float, float]:
    return thing.x * scene.size[0], thing.y * scene.size[1], thing.radius * scene.unit


def test_things_keep_clear_of_each_other_of_the_edges_and_of_the_prints() -> None:
    for scene in [*scenes(300), *scenes(100, count=2, texts=("473", "CAT"))]:
        for index, thing in enumerate(scene.things):
            x, y, radius = pixels_of(thing, scene)
            assert radius <= x <= scene.size[0] - radius
            assert radius <= y <= scene.size[1] - radius
            for other in scene.things[:index]:
                a, b, reach = pixels_of(other, scene)
                assert math.hypot(x - a, y - b) > radius + reach
            for text in scene.prints:
                across = abs(x - text.x * scene.size[0]) - text.width * scene.unit / 2
                down = abs(y - text.y * scene.size[1]) - text.height * scene.unit / 2
                assert math.hypot(max(across, 0), max(down, 0)) > radius


def test_what_is_inside_is_wholly_inside() -> None:
    for scene in scenes(100, count=3, variety="distinct", container=True):
        inner = next(thing for thing in scene.things if thing.inside is not None)
        outer = scene.things[inner.inside or 0]
        assert outer.shape in ("circle", "square")
        (x, y, radius), (a, b, reach) = pixels_of(inner, scene), pixels_of(outer, scene)
        assert math.hypot(x - a, y - b) + radius < reach * 0.74


def test_prints_stay_within_the_picture() -> None:
    for scene in scenes(200, count=0, texts=("9999", "MWMWM")):
        for text in scene.prints:
            width, height = text.width * scene.unit, text.height * scene.unit
            assert width / 2 < text.x * scene.size[0] < scene.size[0] - width / 2
            assert height / 2 < text.y * scene.size[1] < scene.size[1] - height / 2
        first, second = sorted(scene.prints, key=lambda text: text.y)
        assert (second.y - first.y) * scene.size[1] > (first.height + second.height) * scene.unit / 2


def test_the_colour_at_the_centre_of_a_thing_is_nearest_to_what_it_is_called() -> None:
    random = np.random.default_rng(1)
    for scene in scenes(300):
        pixels = np.asarray(draw(scene, random)).astype(float)
        for thing in scene.things:
            x, y, _ = pixels_of(thing, scene)
            seen = pixels[int(y) - 1 : int(y) + 2, int(x) - 1 : int(x) + 2].mean((0, 1))
            distances = {colour: min(math.dist(seen, paint) for paint in paints) for colour, paints in COLOURS.items()}
            assert min(distances, key=distances.__getitem__) == thing.colour, (thing, seen)


def test_every_thing_stands_out_from_the_background() -> None:
    assert all(math.dist(thing.rgb, scene.background) > 100 for scene in scenes(300) for thing in scene.things)


def test_small_and_large_are_clearly_apart() -> None:
    radii = {"small": [0.0], "large": [1.0]}
    for scene in [*scenes(200), *scenes(50, count=3, variety="distinct", container=True)]:
        for thing in scene.things:
            radii[thing.size].append(thing.radius)
    assert min(radii["large"]) > 1.5 * max(radii["small"])


def test_a_drawing_depends_on_the_scene_and_the_random_state_alone() -> None:
    for scene in scenes(20):
        first, again = (draw(scene, np.random.default_rng(5)).tobytes() for _ in range(2))
        assert first == again


@pytest.mark.parametrize("box", [(0.0, 0.0, 1.0, 1.0), (0.5, 0.0, 1.0, 0.5), (0.0, 1 / 3, 0.5, 2 / 3)])
def test_patch_labels_agree_with_the_pixels(box: tuple[float, float, float, float]) -> None:
    checked = 0
    for scene in scenes(60):
        plain = dataclasses.replace(scene, size=(672, 672), background=(128, 128, 128), style=Style())
        painted = dataclasses.replace(
            plain, things=tuple(dataclasses.replace(thing, rgb=(0, 0, 10 * (1 + index))) for index, thing in enumerate(plain.things))
        )
        pixels = np.asarray(draw(painted, np.random.default_rng(0)))
        left, top, right, bottom = (round(672 * edge) for edge in box)
        rows, columns = (bottom - top) // 28, (right - left) // 28
        labels = patch_labels(plain, (rows, columns), box)
        for row in range(rows):
            for column in range(columns):
                patch = pixels[top + 28 * row :, left + 28 * column :][:28, :28]
                shares = [((patch == (0, 0, 10 * (1 + index))).all(-1)).mean() for index in range(len(plain.things))]
                best = int(np.argmax(shares))
                if shares[best] > 0.45:
                    assert labels["shape"][row, column] == 1 + SHAPES.index(plain.things[best].shape)
                    assert labels["colour"][row, column] == 1 + list(COLOURS).index(plain.things[best].colour)
                    checked += 1
                elif shares[best] < 0.1:
                    assert labels["shape"][row, column] == labels["colour"][row, column] == 0
    assert checked > 200


def test_patch_labels_spell_what_is_printed() -> None:
    scene = Scene((168, 168), (255, 255, 255), (), (Print("4A7", 0.5, 0.5, 0.2, (0, 0, 0), spacing=0.4),))
    glyphs = patch_labels(scene, (12, 12))["glyph"]
    assert [GLYPHS[label - 1] for label in dict.fromkeys(glyphs[6].tolist()) if label] == ["4", "A", "7"]
    assert not patch_labels(scene, (12, 12), (0.0, 0.0, 0.2, 0.2))["glyph"].any()
    ink = np.asarray(draw(scene, np.random.default_rng(0)).convert("L")).reshape(12, 14, 12, 14).min((1, 3)) < 100
    assert (glyphs > 0)[ink].mean() > 0.7


def test_patch_labels_leave_out_print_that_nobody_could_read() -> None:
    scene = Scene((400, 400), (255, 255, 255), (), (Print("473", 0.22, 0.24, 11 / 400, (0, 0, 0), spacing=0.5),))
    assert not patch_labels(scene, (12, 12))["glyph"].any()
    assert set(patch_labels(scene, (12, 12), (0.0, 0.0, 0.5, 0.5))["glyph"].flat) >= {GLYPHS.index(digit) + 1 for digit in "473"}


def test_labels_are_below_their_counts() -> None:
    for scene in scenes(30, count=2, texts=("ZOO", "9")):
        for name, labels in patch_labels(scene, (11, 13)).items():
            assert labels.shape == (11, 13)
            assert 0 <= labels.min() <= labels.max() < LABEL_COUNTS[name]


def test_labels_tell_size_place_and_rank_of_whole_pictures_only() -> None:
    things = (Thing("star", "red", "large", 0.8, 0.2, 0.15, (255, 0, 0)), Thing("circle", "blue", "small", 0.2, 0.8, 0.08, (0, 0, 255)))
    labels = patch_labels(Scene((168, 168), (255, 255, 255), things), (12, 12))
    at_star, at_circle = (2, 9), (9, 2)
    assert [[int(labels[name][place]) for name in ("size", "place", "rank")] for place in (at_star, at_circle)] == [[2, 3, 2], [1, 7, 1]]
    part = patch_labels(Scene((168, 168), (255, 255, 255), things), (12, 12), (0.5, 0.0, 1.0, 0.5))
    assert {int(part[name][5, 7]) for name in ("size", "place", "rank")} == {IGNORED}
    assert part["shape"][5, 7] == 1 + SHAPES.index("star")


def test_the_rank_of_a_glyph_is_its_place_in_a_text_that_is_wholly_shown() -> None:
    scene = Scene((168, 168), (255, 255, 255), (), (Print("4A7", 0.5, 0.5, 0.2, (0, 0, 0), spacing=0.4),))
    labels = patch_labels(scene, (12, 12))
    assert [rank for rank in dict.fromkeys(labels["rank"][6].tolist()) if rank] == [1, 2, 3]
    assert IGNORED in patch_labels(scene, (12, 12), (0.4, 0.0, 1.0, 1.0))["rank"]


def test_a_page_is_crowded_and_nothing_on_it_overlaps() -> None:
    random, shares = np.random.default_rng(2), []
    for _ in range(40):
        scene = page(random, Stock("train"))
        width, height = (side / scene.unit for side in scene.size)
        boxes = [(thing.x * width, thing.y * height, 0.9 * thing.radius, 0.9 * thing.radius) for thing in scene.things]
        boxes += [(text.x * width, text.y * height, text.width / 2, text.height / 2) for text in scene.prints]
        for index, (x, y, across, down) in enumerate(boxes):
            assert across <= x <= width - across
            assert down <= y <= height - down
            assert all(abs(x - a) > across + b or abs(y - c) > down + d for a, c, b, d in boxes[:index])
        labels = patch_labels(scene, (12, 12))
        shares.append(float(((labels["glyph"] > 0) | (labels["shape"] > 0)).mean()))
    assert np.mean(shares) > 0.3


def test_every_size_is_within_what_is_promised() -> None:
    random = np.random.default_rng(3)
    for _ in range(1000):
        width, height = ordinary_size(random)
        assert 100 <= min(width, height) <= max(width, height) <= 230
        assert width * height <= 168 * 168
