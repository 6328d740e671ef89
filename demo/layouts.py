"""How many things, of what kinds -> a `Scene` in which nothing overlaps and every colour stands out from the background."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from numpy.random import Generator

from demo.chance import between, pick, shuffled
from demo.fonts import FONTS
from demo.scenes import COLOURS, Print, Scene, Style, Thing, ThingSize
from demo.stock import Pair, Stock
from demo.textures import BACKGROUNDS, Colour, Size
from pipeline.preprocess import choose_grid

SCALE_RESOLUTION = 168  # of the demo model: a picture of no more than its square is not cut
MAX_SLICES = 9
CONTRAST = 105.0  # Euclidean distance in RGB between a thing and what it stands on
Variety: TypeAlias = Literal["distinct", "any", "few"]

_RADII = {"small": (0.065, 0.085), "large": (0.135, 0.165)}
_GAP = 0.02
_FINE = (14.0, 20.0)  # pixels of a capital as a slice shows it
_TOO_FINE = 7.0  # pixels of a capital as the overview shows it, that it takes slices to read it
_INK: tuple[Colour, ...] = ((10, 10, 10), (40, 40, 45), (250, 250, 250))
_COLOURED_INK: tuple[Colour, ...] = (*_INK, (200, 20, 30), (20, 60, 200), (0, 110, 50), (120, 30, 140), (255, 225, 40), (255, 150, 30))


@dataclass(frozen=True)
class Wish:
    """What a scene should have. `variety` of its things: no colour or shape twice, any, or of two colours and two shapes."""

    count: int
    variety: Variety = "any"
    container: bool = False
    texts: tuple[str, ...] = ()
    size: Size | None = None
    fine: bool = False  # the texts are too small to be read without slices


def arrange(random: Generator, stock: Stock, wish: Wish) -> Scene:
    """Draw lots until a layout fits."""
    while True:
        size = wish.size or ordinary_size(random)
        prints = _prints(random, wish, size)
        things = _things(random, stock, wish, size, prints)
        if things is None:
            continue
        style = style_of(random, printed=bool(prints))
        ground = ground_for(random, [thing.rgb for thing in things], style)
        if ground is None:
            continue
        # Where there are things only they have colours, so that "the red thing" is never a text.
        inks = inks_on(ground, coloured=not things, contrast=110 if wish.fine else 80)
        if prints and not inks:
            continue
        prints = [dataclasses.replace(text, rgb=pick(random, inks)) for text in prints]
        return Scene(size, ground, tuple(things), tuple(prints), style)


def ordinary_size(random: Generator) -> Size:
    """A picture that is not cut: sides of 100 to 230 pixels."""
    if random.random() < 0.3:
        return SCALE_RESOLUTION, SCALE_RESOLUTION
    side, ratio = between(random, 132, 168), math.exp(between(random, -0.45, 0.45))
    width = int(side * math.sqrt(ratio))
    return width, int(side * side / width)


def large_size(random: Generator, low: float, high: float) -> Size:
    """A picture that is cut: `low` to `high` are the side of a square as large."""
    side, ratio = between(random, low, high), math.exp(between(random, 0.0, 0.5))
    sides = int(side * math.sqrt(ratio)), int(side / math.sqrt(ratio))
    return sides if random.random() < 0.5 else (sides[1], sides[0])


def fits(scene: Scene) -> bool:
    """Whether every thing is within the picture, clear of the others, and stands out from the background."""
    width, height = (side / scene.unit for side in scene.size)
    for index, thing in enumerate(scene.things):
        x, y, margin = thing.x * width, thing.y * height, thing.radius + 0.01
        if not (margin < x < width - margin and margin < y < height - margin) or math.dist(thing.rgb, scene.background) < CONTRAST:
            return False
        for other in scene.things[:index]:
            if math.hypot(x - other.x * width, y - other.y * height) < thing.radius + other.radius + _GAP:
                return False
    return True


def radius(random: Generator, size: ThingSize) -> float:
    return between(random, *_RADII[size])


def kinds(random: Generator, stock: Stock, count: int, variety: Variety) -> list[Pair]:
    """Colour and shape of each thing; one of them held out if the stock is of a rare episode."""
    if variety == "few":
        few = [stock.pair(random) for _ in range(2)]
        found = [pick(random, few) if random.random() < 0.8 else stock.pair(random) for _ in range(count)]
    else:
        found = [stock.pair(random) for _ in range(count)]
    if stock.rare and found:
        found[0] = stock.rare_pair(random)
    while variety == "distinct" and not _distinct(found):
        for index in range(1, count):
            while not _distinct(found[: index + 1]):
                found[index] = stock.pair(random)
                if random.random() < 0.02:  # the rest may leave no pair over
                    return kinds(random, stock, count, variety)
    return shuffled(random, found)


def paint(random: Generator, colour: str) -> Colour:
    """One of the many paints that have this name."""
    first, second, share = pick(random, COLOURS[colour]), pick(random, COLOURS[colour]), random.random()
    noise = (random.random(3) * 16 - 8).tolist()
    red, green, blue = (min(max(round(a + (b - a) * share + c), 0), 255) for a, b, c in zip(first, second, noise, strict=True))
    return red, green, blue


def _distinct(pairs: Sequence[Pair]) -> bool:
    return len({colour for colour, _ in pairs}) == len(pairs) == len({shape for _, shape in pairs})


def _things(random: Generator, stock: Stock, wish: Wish, size: Size, prints: Sequence[Print]) -> list[Thing] | None:
    """None if they do not fit."""
    pairs = kinds(random, stock, wish.count, wish.variety)
    large = (0.5, 0.5, 0.5, 0.5, 0.35, 0.3, 0.25)[wish.count]
    sizes: list[ThingSize] = ["large" if random.random() < large else "small" for _ in pairs]
    radii = [radius(random, name) for name in sizes]
    inner: int | None = None
    if wish.container:
        outer = next((index for index, (_, shape) in enumerate(pairs) if shape in ("circle", "square")), None)
        if outer is None or len(pairs) < 2:
            return None
        inner = pick(random, [index for index in range(len(pairs)) if index != outer])
        if pairs[inner][0] == pairs[outer][0]:
            return None
        pairs[0], pairs[outer] = pairs[outer], pairs[0]  # what holds another is drawn before it
        inner = outer if inner == 0 else inner
        sizes[0], radii[0] = "large", between(random, 0.2, 0.235)
        sizes[inner], radii[inner] = "small", between(random, 0.06, 0.075)
    places = _places(random, radii, size, prints, inner)
    if places is None:
        return None
    things: list[Thing] = []
    for index, ((colour, shape), (x, y)) in enumerate(zip(pairs, places, strict=True)):
        hollow = wish.container and index == 0 and random.random() < 0.5
        angle = 0.0 if random.random() < 0.4 else between(random, -14, 14)
        rgb = paint(random, colour)
        form = round(random.random(), 1)
        things.append(Thing(shape, colour, sizes[index], x, y, radii[index], rgb, angle, form, hollow, 0 if index == inner else None))
    if inner is not None and not things[0].hollow and math.dist(things[0].rgb, things[inner].rgb) < CONTRAST:
        return None
    return things


def _places(random: Generator, radii: Sequence[float], size: Size, prints: Sequence[Print], inner: int | None) -> list[tuple[float, float]] | None:
    """Centres in fractions of the sides: half the time in cells of a 3 by 3 grid, half the time anywhere."""
    unit = math.sqrt(size[0] * size[1])
    width, height = size[0] / unit, size[1] / unit
    cells = shuffled(random, [(column, row) for column in (1, 3, 5) for row in (1, 3, 5)]) if random.random() < 0.5 else []
    boxes = [(text.x * width, text.y * height, text.width / 2, text.height * 0.8) for text in prints]
    placed: list[tuple[float, float, float]] = []
    for index, radius in enumerate(radii):
        margin = radius + 0.015
        if 2 * margin > min(width, height):
            return None
        lots = random.random((12, 2)).tolist()
        for attempt, (across, down) in enumerate(lots):
            if index == inner:
                x, y = placed[0][0] + (across - 0.5) * 0.05, placed[0][1] + (down - 0.5) * 0.05
                break
            if cells and attempt < len(cells):
                column, row = cells[attempt]
                x, y = width * (column / 6 + (across - 0.5) * 0.1), height * (row / 6 + (down - 0.5) * 0.1)
                x, y = min(max(x, margin), width - margin), min(max(y, margin), height - margin)
            else:
                x, y = margin + across * (width - 2 * margin), margin + down * (height - 2 * margin)
            clear = all(math.hypot(x - a, y - b) > radius + r + _GAP for a, b, r in placed)
            if clear and all(math.hypot(max(abs(x - a) - w, 0), max(abs(y - b) - h, 0)) > radius + _GAP for a, b, w, h in boxes):
                break
        else:
            return None
        placed.append((x, y, radius))
    return [(x / width, y / height) for x, y, _ in placed]


def _prints(random: Generator, wish: Wish, size: Size) -> list[Print]:
    """Texts in their places, still in black; at most two, one above the other."""
    unit = math.sqrt(size[0] * size[1])
    halves = shuffled(random, [(0.0, 0.5), (0.5, 1.0)])
    bands = halves if len(wish.texts) == 2 else [(0.0, 1.0)] * len(wish.texts)
    found: list[Print] = []
    for text, (top, bottom) in zip(wish.texts, bands, strict=True):
        height = _fine_height(random, size) if wish.fine else between(random, 0.12, 0.18 if len(wish.texts) == 1 else 0.15)
        font = 0 if random.random() < 0.6 else pick(random, range(len(FONTS)))
        angle = 0.0 if random.random() < 0.5 or wish.fine else between(random, -6, 6)
        made = Print(text, 0.5, 0.5, height, (0, 0, 0), angle, between(random, 0.15, 0.35) if wish.fine else between(random, 0.05, 0.3), font)
        room = 0.86 * size[0] / unit
        if made.width > room:
            made = dataclasses.replace(made, height=made.height * room / made.width)
        across, down = made.width * unit / size[0] / 2 + 0.03, made.height * unit / size[1] * 0.9 + 0.02
        x, y = between(random, across, 1 - across), between(random, top + down, bottom - down)
        if wish.fine:
            x, y = _within_slice(x, across, size, 0), _within_slice(y, down, size, 1)
        found.append(dataclasses.replace(made, x=x, y=y))
    return found


def _fine_height(random: Generator, size: Size) -> float:
    columns, rows = choose_grid(size, MAX_SLICES, SCALE_RESOLUTION) or (1, 1)
    return min(between(random, *_FINE) / math.sqrt(columns * rows), _TOO_FINE) / SCALE_RESOLUTION


def _within_slice(place: float, half: float, size: Size, axis: int) -> float:
    """The nearest place at which a print of half-width `half` is not cut in two."""
    grid = choose_grid(size, MAX_SLICES, SCALE_RESOLUTION)
    step = 1 / grid[axis] if grid else 1.0
    start = min(int(place / step), round(1 / step) - 1) * step
    return min(max(place, start + half), start + step - half) if 2 * half < step else start + step / 2


def ground_for(random: Generator, paints: Sequence[Colour], style: Style) -> Colour | None:
    """White, black or a greyish colour that every paint stands out from, whatever the texture does; None if there is none such."""
    contrast = CONTRAST + 0.8 * style.strength
    for _ in range(40):
        kind = random.random()
        if kind < 0.2:
            level, tint = 255, 0.0
        elif kind < 0.25:
            level, tint = 0, 0.0
        else:
            level, tint = int(between(random, 60, 245)), 40.0
        values = (level + tint * (random.random(3) * 2 - 1)).tolist()
        red, green, blue = (min(max(round(value), 0), 255) for value in values)
        if all(math.dist((red, green, blue), rgb) > contrast for rgb in paints):
            return red, green, blue
    return None


def inks_on(ground: Colour, *, coloured: bool, contrast: float) -> list[Colour]:
    """What can be written with, by the difference in brightness."""
    return [rgb for rgb in (_COLOURED_INK if coloured else _INK) if abs(_luma(rgb) - _luma(ground)) > contrast]


def _luma(rgb: Colour) -> float:
    return 0.3 * rgb[0] + 0.59 * rgb[1] + 0.11 * rgb[2]


def style_of(random: Generator, *, printed: bool) -> Style:
    """`printed`: gentle with what is to be read."""
    gentle = 0.5 if printed else 1.0
    texture = pick(random, BACKGROUNDS[1:]) if random.random() < 0.5 else "plain"
    strongest = {"plain": 0.0, "gradient": 60.0, "clouds": 34.0}.get(texture, 24.0)
    return Style(
        smooth=random.random() < 0.75,
        outline=between(random, 1, 2.2) if random.random() < 0.2 else 0.0,
        texture=texture,
        strength=between(random, 0.25, 1) * strongest * gentle,
        light=between(random, 0.03, 0.15) if random.random() < 0.2 else 0.0,
        noise=between(random, 2, 14) * gentle if random.random() < 0.3 else 0.0,
        blur=between(random, 0.4, 1.1) * gentle if random.random() < 0.12 else 0.0,
        jpeg=int(between(random, 70 if printed else 50, 96)) if random.random() < 0.3 else 0,
    )
