"""What is meant -> how it is said: names, questions in several phrasings, answers in one; English and Chinese."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from numpy.random import Generator

from demo.chance import pick
from demo.phrases import PHRASES

Code: TypeAlias = Literal["en", "zh"]

_CHINESE = {
    "red": "红色",
    "orange": "橙色",
    "yellow": "黄色",
    "green": "绿色",
    "blue": "蓝色",
    "purple": "紫色",
    "black": "黑色",
    "white": "白色",
    "circle": "圆形",
    "square": "正方形",
    "triangle": "三角形",
    "star": "星形",
    "diamond": "菱形",
    "cross": "十字形",
    "small": "小的",
    "large": "大的",
}
CHINESE_NAMES = tuple(_CHINESE.values())
_PLACES = {  # (column, row) of a 3 by 3 grid
    "en": (("top left", "top", "top right"), ("left", "centre", "right"), ("bottom left", "bottom", "bottom right")),
    "zh": (("左上角", "上方", "右上角"), ("左边", "中间", "右边"), ("左下角", "下方", "右下角")),
}
RELATIONS = {
    "left": {"en": "to the left of", "zh": "左边"},
    "right": {"en": "to the right of", "zh": "右边"},
    "above": {"en": "above", "zh": "上方"},
    "below": {"en": "below", "zh": "下方"},
    "inside": {"en": "inside", "zh": "里面"},
}
_DIRECTIONS = {
    "left": {"en": "To the left", "zh": "向左"},
    "right": {"en": "To the right", "zh": "向右"},
    "up": {"en": "Upwards", "zh": "向上"},
    "down": {"en": "Downwards", "zh": "向下"},
}
_ASPECTS = {
    "colour": {"en": "The colour", "zh": "颜色"},
    "shape": {"en": "The shape", "zh": "形状"},
    "size": {"en": "The size", "zh": "大小"},
    "place": {"en": "The place", "zh": "位置"},
}
_NUMBERS = {"en": ("zero", "one", "two", "three", "four", "five", "six"), "zh": ("零", "一", "两", "三", "四", "五", "六")}
_TIMES = {"en": ("never", "once", "twice", "three times"), "zh": ("零次", "一次", "两次", "三次")}


@dataclass(frozen=True)
class Reference:
    """The attributes by which a thing, or things, are called; None for one that is not said."""

    size: str | None = None
    colour: str | None = None
    shape: str | None = None


@dataclass(frozen=True)
class Language:
    """One of the two. Answers are whole: capital letter, full stop."""

    code: Code

    @property
    def english(self) -> bool:
        return self.code == "en"

    def ask(self, phrase: str, random: Generator, **names: str) -> str:
        """A question in one of its phrasings."""
        return pick(random, PHRASES[phrase][self.code]).format(**names)

    def name(self, what: Reference, *, plural: bool = False) -> str:
        """ "small red circle", "red things"; "小的红色圆形", "红色的图形"."""
        if not self.english:
            said = "".join(_CHINESE[word] for word in (what.size, what.colour) if word)
            if what.shape:
                return said + _CHINESE[what.shape]
            return said + ("的" if what.colour else "") + "图形"
        noun = what.shape or "thing"
        if plural:
            noun += "es" if noun == "cross" else "s"
        return " ".join(word for word in (what.size, what.colour, noun) if word)

    def some(self, what: Reference) -> str:
        """ "a red circle", "an orange thing"."""
        name = self.name(what)
        return f"{'an' if name[0] in 'aeiou' else 'a'} {name}" if self.english else name

    def relation(self, relation: str) -> str:
        return RELATIONS[relation][self.code]

    def colour(self, colour: str) -> str:
        return self.sentence(colour if self.english else _CHINESE[colour])

    def shape(self, shape: str) -> str:
        return self.sentence(self.some(Reference(shape=shape)))

    def thing_size(self, size: str) -> str:
        return self.sentence(size if self.english else _CHINESE[size])

    def count(self, number: int) -> str:
        return self.sentence(_NUMBERS[self.code][number] + ("" if self.english else "个"))

    def times(self, number: int) -> str:
        return self.sentence(_TIMES[self.code][number])

    def place(self, cell: tuple[int, int]) -> str:
        column, row = cell
        place = _PLACES[self.code][row][column]
        return self.sentence(f"{'in' if cell == (1, 1) else 'at'} the {place}" if self.english else f"在{place}")

    def direction(self, direction: str) -> str:
        return self.sentence(_DIRECTIONS[direction][self.code])

    def aspect(self, aspect: str) -> str:
        return self.sentence(_ASPECTS[aspect][self.code])

    def image(self, number: int) -> str:
        return self.sentence(f"image {number}" if self.english else f"图{number}")

    def the(self, *things: Reference) -> str:
        """ "The red circle, the blue square."."""
        if self.english:
            return self.sentence(", ".join(f"the {self.name(thing)}" for thing in things))
        return self.sentence("，".join(self.name(thing) for thing in things))

    def list(self, *things: Reference) -> str:
        """ "A small red circle, a large blue square."."""
        return self.sentence((", " if self.english else "，").join(self.some(thing) for thing in things))

    def truth(self, value: bool) -> str:
        return ("Yes." if value else "No.") if self.english else ("是的。" if value else "不是。")

    def presence(self, value: bool) -> str:
        return ("Yes." if value else "No.") if self.english else ("有。" if value else "没有。")

    def refusal(self) -> str:
        return "I only know drawn scenes." if self.english else "我只认识画出来的场景。"

    def sentence(self, words: str) -> str:
        return words[0].upper() + words[1:] + ("." if self.english else "。")


ENGLISH, CHINESE = Language("en"), Language("zh")
