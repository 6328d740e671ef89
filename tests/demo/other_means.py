"""A seed -> a scene that `demo.scenes` had no hand in: matplotlib's anti-aliased patches on photo-like grounds, saved as JPEG at quality 60."""

import io
import math

import numpy as np
from matplotlib import patches
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.random import Generator

from demo.exam import Question
from pipeline.message import Image, Message

# By the names of CSS, two of each colour.
PAINTS = {
    "red": ("red", "crimson"),
    "orange": ("orange", "darkorange"),
    "yellow": ("yellow", "gold"),
    "green": ("green", "forestgreen"),
    "blue": ("blue", "royalblue"),
    "purple": ("purple", "rebeccapurple"),
    "black": ("black", "black"),
    "white": ("white", "snow"),
}
SHAPES = ("circle", "square", "triangle", "star", "diamond", "cross")
GROUNDS = ("lightgrey", "silver", "lightsteelblue", "wheat", "thistle", "dimgrey", "darkseagreen")


def scene(seed: int) -> tuple[bytes, list[tuple[str, str]]]:
    """A JPEG file of 168 to 336 pixels, and the colour and shape of each of its one to five things, no colour or shape twice."""
    random = np.random.default_rng(seed)
    width, height = (int(side) for side in random.integers(150, 190, 2) * (2 if random.random() < 0.3 else 1))
    figure = Figure(figsize=(width / 100, height / 100), dpi=100)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, 3), ylim=(0, 3 * height / width))
    axes.set_axis_off()
    ground = np.array(to_rgb(str(random.choice(GROUNDS))))
    axes.imshow(_photo_like(random, ground), extent=(0, 3, 0, 3 * height / width), interpolation="bicubic", aspect="auto")
    kinds = _kinds(random, ground)
    cells = random.permutation(9)[: len(kinds)]
    for (colour, shape), place in zip(kinds, cells, strict=True):
        x = place % 3 + 0.5 + random.uniform(-0.08, 0.08)
        y = (place // 3 + 0.5) * height / width + random.uniform(-0.06, 0.06)
        reach = random.uniform(0.24, 0.4) * min(1.0, height / width)
        paint = str(random.choice(PAINTS[colour]))
        axes.add_patch(_patch(shape, x, y, reach, paint, random.uniform(-0.15, 0.15)))
    file = io.BytesIO()
    canvas.print_jpg(file, pil_kwargs={"quality": 60})
    return file.getvalue(), kinds


def questions(count: int) -> list[Question]:
    """In turn a colour, a shape and a count, each about another scene."""
    found = []
    for seed in range(count):
        file, kinds = scene(seed)
        colour, shape = kinds[0]
        texts = {
            "colour": (f"What colour is the {shape}?", f"{colour.capitalize()}."),
            "shape": (f"What shape is the {colour} thing?", f"A {shape}."),
            "count": ("How many things are there?", f"{('One', 'Two', 'Three', 'Four', 'Five')[len(kinds) - 1]}."),
        }
        skill = list(texts)[seed % 3]
        found.append(Question(skill, "en", (Message.user(Image(file), texts[skill][0]),), texts[skill][1]))
    return found


def _kinds(random: Generator, ground: np.ndarray) -> list[tuple[str, str]]:
    """Colours that stand out from the ground in both of their paints."""
    clear = [name for name, paints in PAINTS.items() if min(math.dist(to_rgb(paint), ground) for paint in paints) > 0.45]
    count = min(int(random.integers(1, 6)), len(clear))
    colours, shapes = random.permutation(clear)[:count], random.permutation(SHAPES)[:count]
    return [(str(colour), str(shape)) for colour, shape in zip(colours, shapes, strict=True)]


def _photo_like(random: Generator, ground: np.ndarray) -> np.ndarray:
    """Light that falls off across the picture, and soft blotches."""
    light = np.linspace(-0.1, 0.1, 24) * random.choice((-1, 1))
    slope = light[:, None] if random.random() < 0.5 else light[None, :]
    blotches = np.kron(random.uniform(-0.05, 0.05, (4, 4)), np.ones((6, 6)))
    return np.clip(ground + (slope + blotches)[..., None] + random.uniform(-0.02, 0.02, (24, 24, 1)), 0, 1)


def _patch(shape: str, x: float, y: float, reach: float, paint: str, turn: float) -> patches.Patch:
    if shape == "circle":
        return patches.Circle((x, y), 0.9 * reach, color=paint, linewidth=0)
    if shape in ("square", "triangle", "diamond"):
        corners, start = (3, 0.0) if shape == "triangle" else (4, math.pi / 4 if shape == "square" else 0.0)
        return patches.RegularPolygon((x, y), corners, radius=reach, orientation=start + turn, color=paint, linewidth=0)
    if shape == "star":
        points = [((1.0, 0.42)[index % 2], math.pi / 2 + index * math.pi / 5) for index in range(10)]
    else:
        quarter = [
            (math.hypot(0.3, 0.95), math.atan2(0.3, 0.95)),
            (math.hypot(0.3, 0.3), math.pi / 4),
            (math.hypot(0.3, 0.95), math.atan2(0.95, 0.3)),
        ]
        points = [(length, angle + side * math.pi / 2) for side in range(4) for length, angle in quarter]
    outline = [(x + reach * length * math.cos(angle + turn), y + reach * length * math.sin(angle + turn)) for length, angle in points]
    return patches.Polygon(outline, closed=True, color=paint, linewidth=0)
