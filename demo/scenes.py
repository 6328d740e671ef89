"""A drawn scene (things, prints, style) -> an RGB picture, and which of its patches (rows, columns) shows what.

Places are fractions of the picture's sides. Every other length is a fraction of the square root of its area, its `unit`: so a thing of one
radius covers about as many patches whatever the picture's shape.
"""

import io
import itertools
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from demo import fonts
from demo.textures import Colour, Size, background

# What each colour may be painted as: mixtures of two of these. The first is the one of HTML.
COLOURS: dict[str, tuple[Colour, ...]] = {
    "red": ((255, 0, 0), (215, 30, 40), (195, 20, 25)),
    "orange": ((255, 165, 0), (250, 130, 20), (240, 145, 40)),
    "yellow": ((255, 255, 0), (250, 220, 40), (255, 235, 80)),
    "green": ((0, 128, 0), (40, 165, 60), (30, 190, 70)),
    "blue": ((0, 0, 255), (40, 90, 220), (30, 60, 180)),
    "purple": ((128, 0, 128), (140, 50, 180), (155, 70, 200)),
    "black": ((0, 0, 0), (25, 25, 30)),
    "white": ((255, 255, 255), (245, 245, 240)),
}
SHAPES = ("circle", "square", "triangle", "star", "diamond", "cross")
GLYPHS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
RANKS = 6  # things are counted to six, and no text is longer
IGNORED = -100  # of patch_labels: nobody could tell
LABEL_COUNTS = {  # of patch_labels, none included
    "shape": 1 + len(SHAPES),
    "colour": 1 + len(COLOURS),
    "size": 3,
    "place": 10,
    "rank": 1 + RANKS,
    "glyph": 1 + len(GLYPHS),
}
SAMPLES = 8  # by as many is each patch looked at for its labels

Point: TypeAlias = tuple[float, float]
Box: TypeAlias = tuple[float, float, float, float]
ThingSize: TypeAlias = Literal["small", "large"]


@dataclass(frozen=True)
class Thing:
    """One shape. `form` (0..1) varies its proportions, `angle` (degrees) turns it a little; `inside` is the index of the thing that holds it."""

    shape: str
    colour: str
    size: ThingSize
    x: float
    y: float
    radius: float  # of a circle around all of it
    rgb: Colour
    angle: float = 0.0
    form: float = 0.5
    hollow: bool = False
    inside: int | None = None


@dataclass(frozen=True)
class Print:
    """Capitals or digits drawn in the picture around (x, y); `height` is that of a capital, `spacing` is in heights."""

    text: str
    x: float
    y: float
    height: float
    rgb: Colour
    angle: float = 0.0
    spacing: float = 0.1
    font: int = 0

    def cells(self) -> list[tuple[float, float]]:
        """Left and right of each glyph from the middle of the text, in heights."""
        advances = [advance + self.spacing for advance in fonts.advances(self.font, self.text)]
        edges = [-sum(advances) / 2]
        for advance in advances:
            edges.append(edges[-1] + advance)
        return list(itertools.pairwise(edges))

    @property
    def width(self) -> float:
        """In units, like `height`."""
        return 2 * self.cells()[-1][1] * self.height


@dataclass(frozen=True)
class Style:
    """How the scene is drawn. `outline` and `blur` are lengths in pixels; `strength`, `light` and `noise` are amplitudes; `jpeg` 0 is none."""

    smooth: bool = True
    outline: float = 0.0
    texture: str = "plain"
    strength: float = 0.0
    light: float = 0.0
    noise: float = 0.0
    blur: float = 0.0
    jpeg: int = 0


@dataclass(frozen=True)
class Scene:
    """Everything that a picture shows; `size` is (width, height) in pixels."""

    size: Size
    background: Colour
    things: tuple[Thing, ...]
    prints: tuple[Print, ...] = ()
    style: Style = Style()

    @property
    def unit(self) -> float:
        """Pixels: the side of a square as large as the picture."""
        return math.sqrt(self.size[0] * self.size[1])


def draw(scene: Scene, random: Generator) -> Image.Image:
    """The picture. `random` makes texture and noise; the same state gives the same picture."""
    style, (width, height) = scene.style, scene.size
    image = background(scene.size, scene.background, style.texture, style.strength, random)
    scale = 2 if style.smooth else 1
    if scale > 1:
        image = image.resize((width * scale, height * scale), Image.Resampling.NEAREST)
    canvas = ImageDraw.Draw(image)
    for thing in scene.things:
        centre, radius = (thing.x * width * scale, thing.y * height * scale), thing.radius * scene.unit * scale
        if style.outline and not thing.hollow:
            _fill(canvas, thing, centre, radius, (235, 235, 235) if thing.colour in ("black", "purple", "blue") else (15, 15, 15))
            radius -= style.outline * scale
        _fill(canvas, thing, centre, radius, thing.rgb)
    if scale > 1:
        image = image.reduce(scale)
    for text in scene.prints:
        _write(image, text, scene.unit)
    return _finish(image, style, random)


def patch_labels(scene: Scene, tgt_size: tuple[int, int], box: Box = (0.0, 0.0, 1.0, 1.0)) -> dict[str, NDArray[np.int64]]:
    """What each patch of a grid (rows, columns) over `box` (left, top, right, bottom, in fractions of the sides) shows.

    Returns:
        Each (rows, columns), 0 for none: "shape", "colour" and "glyph" are 1 + the index in SHAPES, COLOURS, GLYPHS; "size" is 1 for small; "place"
        is 1 + the cell of a 3 by 3 grid where the thing has its centre; "rank" counts things from left to right, and the glyphs of each text. A
        patch shows what covers most of it, if that is a quarter of it or more; an eighth is enough for a glyph. Print lower than half a patch is not
        labelled: who could read it? What takes the whole picture to be known is IGNORED where `box` shows a part.
    """
    rows, columns = tgt_size
    across, down = columns * SAMPLES / (box[2] - box[0]), rows * SAMPLES / (box[3] - box[1])  # samples in the whole picture
    unit, whole = math.sqrt(across * down), box == (0.0, 0.0, 1.0, 1.0)
    image = Image.new("L", (columns * SAMPLES, rows * SAMPLES))
    canvas = ImageDraw.Draw(image)
    kinds = [(0,) * len(LABEL_COUNTS)]
    ranks = ranks_of(scene)
    for index, thing in enumerate(scene.things):
        place = 1 + 3 * min(int(3 * thing.y), 2) + min(int(3 * thing.x), 2)
        rank = ranks[index] if len(ranks) <= RANKS else IGNORED
        known = (1 if thing.size == "small" else 2, place, rank) if whole else (IGNORED,) * 3
        kinds.append((1 + SHAPES.index(thing.shape), 1 + list(COLOURS).index(thing.colour), *known, 0))
        _fill(canvas, thing, ((thing.x - box[0]) * across - 0.5, (thing.y - box[1]) * down - 0.5), thing.radius * unit - 0.5, len(kinds) - 1)
    glyphs_from = len(kinds)
    for text in scene.prints:
        height = text.height * unit
        if height < SAMPLES / 2:
            continue
        middle = ((text.x - box[0]) * across - 0.5, (text.y - box[1]) * down - 0.5)
        half = text.width * unit / 2
        complete = middle[0] >= half and middle[0] + half <= image.width
        for rank, (glyph, (left, right)) in enumerate(zip(text.text, text.cells(), strict=True), 1):
            kinds.append((0, 0, 0, 0, rank if complete else IGNORED, 1 + GLYPHS.index(glyph)))
            edge = 0.5 / height  # Pillow fills whatever an outline touches
            corners = ((left + edge, edge - 0.5), (right - edge, edge - 0.5), (right - edge, 0.5 - edge), (left + edge, 0.5 - edge))
            canvas.polygon(_placed(corners, text.angle, middle, height), fill=len(kinds) - 1)
    samples = np.asarray(image).reshape(rows, SAMPLES, columns, SAMPLES)
    counts = np.stack([(samples == kind).sum((1, 3)) * (2 if kind >= glyphs_from else 1) for kind in range(len(kinds))])  # (kinds, rows, columns)
    counts[0] = SAMPLES**2 // 4  # the least that counts
    found = np.asarray(kinds, np.int64)[counts.argmax(0)].transpose(2, 0, 1)
    return dict(zip(LABEL_COUNTS, found, strict=True))


def ranks_of(scene: Scene) -> list[int]:
    """Of each thing, counted from 1 at the left."""
    ordered = sorted(range(len(scene.things)), key=lambda index: scene.things[index].x)
    return [1 + ordered.index(index) for index in range(len(ordered))]


def _fill(canvas: ImageDraw.ImageDraw, thing: Thing, centre: Point, radius: float, fill: Colour | int) -> None:
    """One thing, or the ring that a hollow one is."""
    ring = max(round(radius * 0.2), 1)
    if thing.shape == "circle":
        x, y, reach = *centre, radius * 0.9
        box = (x - reach, y - reach, x + reach, y + reach)
        if thing.hollow:
            canvas.ellipse(box, outline=fill, width=ring)
        else:
            canvas.ellipse(box, fill=fill)
        return
    corners = _placed(_corners(thing.shape, thing.form), thing.angle, centre, radius)
    if thing.hollow:
        inner = _placed(_corners(thing.shape, thing.form), thing.angle, centre, radius - ring * 0.7)
        canvas.line([*inner, *inner[:2]], fill=fill, width=ring, joint="curve")
    else:
        canvas.polygon(corners, fill=fill)


@lru_cache(maxsize=1024)
def _corners(shape: str, form: float) -> tuple[Point, ...]:
    """The outline around (0, 0) within radius 1; y points down."""
    if shape == "square":
        return ((-0.74, -0.74), (0.74, -0.74), (0.74, 0.74), (-0.74, 0.74))
    if shape == "triangle":
        return ((0.0, -1.0), (0.92, 0.62), (-0.92, 0.62))
    if shape == "diamond":
        side = 0.62 + 0.38 * form
        return ((0.0, -1.0), (side, 0.0), (0.0, 1.0), (-side, 0.0))
    if shape == "star":
        reach = (1.0, 0.38 + 0.12 * form)
        turns = [math.pi * index / 5 for index in range(10)]
        return tuple((reach[index % 2] * math.sin(turn), -reach[index % 2] * math.cos(turn)) for index, turn in enumerate(turns))
    thick, long = 0.24 + 0.12 * form, 0.93
    quarter = ((-thick, -long), (thick, -long), (thick, -thick))
    return tuple(_turned(point, 90.0 * index) for index in range(4) for point in quarter)


def _turned(point: Point, degrees: float) -> Point:
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return point[0] * cosine - point[1] * sine, point[0] * sine + point[1] * cosine


def _placed(points: tuple[Point, ...], degrees: float, centre: Point, scale: float) -> list[Point]:
    turned = (_turned(point, degrees) for point in points) if degrees else points
    return [(centre[0] + scale * x, centre[1] + scale * y) for x, y in turned]


def _write(image: Image.Image, text: Print, unit: float) -> None:
    height = text.height * unit
    font = fonts.font(text.font, max(round(height / fonts.capital(text.font)), 4))
    middle, line = text.width * unit / 2 + height, 1.5 * height
    mask = Image.new("L", (math.ceil(2 * middle), math.ceil(2 * line)))
    canvas = ImageDraw.Draw(mask)
    for glyph, (left, right) in zip(text.text, text.cells(), strict=True):
        canvas.text((middle + height * (left + right) / 2, line + height / 2), glyph, fill=255, font=font, anchor="ms")
    if text.angle:
        mask = mask.rotate(-text.angle, Image.Resampling.BICUBIC)
    image.paste(text.rgb, (round(text.x * image.width - middle), round(text.y * image.height - line)), mask)


def _finish(image: Image.Image, style: Style, random: Generator) -> Image.Image:
    """What a camera, a scanner or a web page adds."""
    if style.light or style.noise:
        values = np.asarray(image, np.float32)
        if style.light:
            corners = 128 + 127 * (random.random((2, 2), np.float32) * 2 - 1)
            light = np.asarray(Image.fromarray(corners.astype(np.uint8)).resize(image.size, Image.Resampling.BILINEAR), np.float32)
            values = values * (1 + style.light / 128 * (light - 128))[..., None]
        if style.noise:
            values = values + style.noise * random.standard_normal((*values.shape[:2], 1 if random.random() < 0.5 else 3), np.float32)
        image = Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
    if style.blur:
        image = image.filter(ImageFilter.GaussianBlur(style.blur))
    if style.jpeg:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=style.jpeg)
        image = Image.open(file).convert("RGB")
    return image
