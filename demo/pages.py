"""A random state -> a scene crowded with words, numbers and things, row by row: nothing to ask about, but every patch of it teaches to see."""

import dataclasses
import math

from numpy.random import Generator

from demo.chance import between, pick
from demo.fonts import FONTS
from demo.layouts import ground_for, inks_on, ordinary_size, paint, radius, style_of
from demo.scenes import Print, Scene, Thing, ThingSize
from demo.stock import Stock
from demo.textures import Size

_MARGIN = 0.02  # in units, as all lengths here
_HEIGHTS = (0.08, 0.18)  # of a capital, from that of small print in a slice to that of a headline


def page(random: Generator, stock: Stock) -> Scene:
    """Draw lots until the colours go together."""
    while True:
        size = ordinary_size(random)
        unit = math.sqrt(size[0] * size[1])
        colours = [(pair[0], paint(random, pair[0])) for pair in (stock.pair(random) for _ in range(3))]
        prints: list[Print] = []
        things: list[Thing] = []
        top = between(random, _MARGIN, 2 * _MARGIN)
        while top < size[1] / unit - 0.1:
            kind = random.random()
            if kind < 0.65:
                height = between(random, *_HEIGHTS)
                prints += _line(random, stock, size, top, height)
                top += height * between(random, 1.08, 1.3)
            else:
                reach = radius(random, name := pick(random, ("small", "large")))
                things += _row(random, stock, size, top, name, reach, dict(colours))
                top += 2 * reach + _MARGIN
        style = style_of(random, printed=True)
        ground = ground_for(random, [rgb for _, rgb in colours], style)
        inks = inks_on(ground, coloured=True, contrast=90) if ground else []
        if ground and inks:
            return Scene(size, ground, tuple(things), tuple(dataclasses.replace(text, rgb=pick(random, inks)) for text in prints), style)


def _line(random: Generator, stock: Stock, size: Size, top: float, height: float) -> list[Print]:
    """Words and numbers side by side, as many as fit."""
    width, down = (side / math.sqrt(size[0] * size[1]) for side in size)
    font, spacing = pick(random, range(len(FONTS))) if random.random() < 0.5 else 0, between(random, 0.05, 0.35)
    left, found = between(random, _MARGIN, 0.06), []
    while top + height < down - _MARGIN:
        text = stock.number(random) if random.random() < 0.3 else stock.word(random)
        made = Print(text, 0.0, (top + height / 2) / down, height, (0, 0, 0), 0.0, spacing, font)
        if left + made.width > width - _MARGIN:
            break
        found.append(dataclasses.replace(made, x=(left + made.width / 2) / width))
        left += made.width + height * between(random, 0.4, 0.8)
    return found


def _row(
    random: Generator, stock: Stock, size: Size, top: float, name: ThingSize, reach: float, colours: dict[str, tuple[int, int, int]]
) -> list[Thing]:
    """Things side by side, as many as fit."""
    width, down = (side / math.sqrt(size[0] * size[1]) for side in size)
    left, found = between(random, _MARGIN, 0.06), []
    while top + 2 * reach < down - _MARGIN and left + 2 * reach < width - _MARGIN:
        colour, shape = stock.pair(random)
        if colour in colours:
            angle = between(random, -14, 14)
            x, y = (left + reach) / width, (top + reach) / down
            found.append(Thing(shape, colour, name, x, y, reach, colours[colour], angle, round(random.random(), 1)))
            left += 2 * reach + between(random, 0.005, 0.05)
    return found
