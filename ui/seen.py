"""A plan and its answer -> what the model saw: a small sheet of its pictures, cut as they were, and one line of what was measured."""

import math
import re
from dataclasses import dataclass

import PIL.Image
from PIL import ImageDraw, ImageFont

from pipeline import Answer
from pipeline.processor import Plan, PlannedPicture

WIDTH = 640  # pixels of the sheet, as wide as a chat's bubble
_GAP, _CAPTION = 6, 18
_BACKGROUND, _INK = (255, 255, 255), (40, 40, 40)
# In a picture of any colour one of the two is seen.
_CUT = ((255, 255, 255), (220, 0, 90))
# One Chinese character counts as a word.
_WORD = re.compile(r"[\u3400-\u9fff]|[^\s\u3400-\u9fff]+")


@dataclass(frozen=True)
class Measured:
    """What an answer took. `words_a_second` is None for an answer of a word or none, `cached` is the share of the prompt."""

    slices: int
    vision_s: float
    ttft_s: float | None
    words_a_second: float | None
    cached: float


def measured(answer: Answer) -> Measured:
    """The figures of the line below an answer."""
    words = len(_WORD.findall(answer.text))
    seconds = (len(answer.token_ids) - 1) / answer.decode_tps if answer.decode_tps else 0.0
    pace = words / seconds if words > 1 and seconds > 0 else None
    return Measured(answer.encoded_slices, answer.vision_s, answer.ttft_s, pace, answer.cached_tokens / max(answer.prompt_tokens, 1))


def sheet(plan: Plan) -> PIL.Image.Image | None:
    """Every picture and frame of a plan in a row after another, each with its number or time; None where there is none.

    Returns:
        RGB, `WIDTH` pixels wide.
    """
    if not plan.pictures:
        return None
    columns = next(columns for columns, most in ((2, 2), (3, 6), (4, 16), (6, 36), (8, math.inf)) if len(plan.pictures) <= most)
    side = (WIDTH - _GAP) // columns - _GAP
    tiles = [_tile(item, side) for item in plan.pictures]
    rows = [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
    heights = [max(tile.height for tile in row) + _CAPTION + _GAP for row in rows]
    drawn = PIL.Image.new("RGB", (WIDTH, sum(heights) + _GAP), _BACKGROUND)
    canvas, font = ImageDraw.Draw(drawn), ImageFont.load_default(12)
    top, number = _GAP, 0
    for start, row, height in zip(range(0, len(tiles), columns), rows, heights, strict=True):
        for column, (item, tile) in enumerate(zip(plan.pictures[start:], row, strict=False)):
            left = _GAP + column * (side + _GAP)
            number += item.time is None
            canvas.text((left, top), _caption(item, number), fill=_INK, font=font)
            drawn.paste(tile, (left, top + _CAPTION))
        top += height
    return drawn


def _tile(item: PlannedPicture, side: int) -> PIL.Image.Image:
    """A small copy of the overview, with lines where the picture was cut."""
    tile = PIL.Image.fromarray(item.slices[0].pixels)
    tile.thumbnail((side, side))
    columns, rows = item.layout.grid or (1, 1)
    canvas = ImageDraw.Draw(tile)
    for fill, shift in zip(_CUT, (0, 1), strict=True):
        for column in range(1, columns):
            x = round(column * tile.width / columns) + shift
            canvas.line((x, 0, x, tile.height), fill=fill)
        for row in range(1, rows):
            y = round(row * tile.height / rows) + shift
            canvas.line((0, y, tile.width, y), fill=fill)
    return tile


def _caption(item: PlannedPicture, number: int) -> str:
    """The time of a frame; the number of a picture as people count them, and its grid."""
    if item.time is not None:
        return clock(item.time)
    columns, rows = item.layout.grid or (1, 1)
    return f"{number}: {columns} x {rows}" if item.layout.grid else str(number)


def clock(seconds: float) -> str:
    """Minutes, seconds and tenths, as a player shows them."""
    tenths = round(seconds * 10)
    return f"{tenths // 600}:{tenths // 10 % 60:02}" + (f".{tenths % 10}" if tenths % 10 else "")
