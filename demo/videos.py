"""A short drawn video, one frame a second -> its scenes in order, and questions about what happens."""

import dataclasses
from dataclasses import dataclass

from numpy.random import Generator

from demo.chance import between, pick, shuffled
from demo.language import Language
from demo.layouts import Wish, arrange, fits
from demo.questions import Asked, Sought, full, references
from demo.scenes import Scene, Thing
from demo.stock import Stock

_STEPS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}


@dataclass(frozen=True)
class Film:
    """3 to 8 scenes, a second apart."""

    scenes: tuple[Scene, ...]
    asked: tuple[Asked, ...]


def film(random: Generator, stock: Stock, language: Language) -> Film:
    return pick(random, (_moving, _moving, _appearing, _vanishing, _ordered, _blinking))(random, stock, language)


def _moving(random: Generator, stock: Stock, language: Language) -> Film:
    """One thing moves at an even pace in one of four directions; the others stand still, out of its way."""
    frames = pick(random, (3, 3, 4, 4, 5))
    direction = pick(random, tuple(_STEPS))
    across, down = _STEPS[direction]
    while True:
        scene = arrange(random, stock, Wish(pick(random, (1, 2, 2, 3)), "distinct"))
        for index in shuffled(random, range(len(scene.things))):
            thing = scene.things[index]
            way, middle = between(random, 0.35, 0.6), between(random, 0.4, 0.6)
            places = [
                (
                    middle + across * way * (frame / (frames - 1) - 0.5) if across else thing.x,
                    middle + down * way * (frame / (frames - 1) - 0.5) if down else thing.y,
                )
                for frame in range(frames)
            ]
            scenes = [_with(scene, index, dataclasses.replace(thing, x=x, y=y)) for x, y in places]
            if all(fits(one) for one in scenes):
                names = references(scene, index)
                question = language.ask("moves", random, thing=language.name(pick(random, names)))
                sought = Sought("changed", full(thing))
                asked = [
                    Asked("video", question, language.direction(direction), "moves", sought=Sought("way", full(thing))),
                    Asked("video", language.ask("what_moves", random), language.the(full(thing)), "what_moves", sought=sought),
                ]
                return Film(tuple(scenes), tuple(shuffled(random, asked)))


def _appearing(random: Generator, stock: Stock, language: Language) -> Film:
    scenes, thing = _changing(random, stock)
    asked = Asked("video", language.ask("appears", random), language.the(full(thing)), "appears", sought=Sought("came", full(thing)))
    return Film(tuple(scenes), (asked,))


def _vanishing(random: Generator, stock: Stock, language: Language) -> Film:
    scenes, thing = _changing(random, stock)
    asked = Asked("video", language.ask("vanishes", random), language.the(full(thing)), "vanishes", sought=Sought("gone", full(thing)))
    return Film(tuple(reversed(scenes)), (asked,))


def _changing(random: Generator, stock: Stock) -> tuple[list[Scene], Thing]:
    """Scenes to the last of which one thing has come; one to three others are always there."""
    whole = arrange(random, stock, Wish(pick(random, (2, 3, 4)), "distinct"))
    index = int(random.random() * len(whole.things))
    frames = pick(random, (3, 4, 5))
    start = pick(random, range(1, frames))
    return [_only(whole, {index} if frame >= start else set(), {index}) for frame in range(frames)], whole.things[index]


def _ordered(random: Generator, stock: Stock, language: Language) -> Film:
    """Two or three things come one after the other and stay."""
    number = pick(random, (2, 3))
    whole = arrange(random, stock, Wish(number, "distinct"))
    order = shuffled(random, range(number))
    frames = pick(random, range(number + 1, 6))
    starts = sorted(shuffled(random, range(1, frames))[:number])
    scenes = [
        _only(whole, {thing for thing, start in zip(order, starts, strict=True) if frame >= start}, set(range(number))) for frame in range(frames)
    ]
    things = [full(whole.things[index]) for index in order]
    asked = [
        Asked("video", language.ask("order", random), language.the(*things), "order", sought=Sought("came")),
        Asked("video", language.ask("first", random), language.the(things[0]), "first", sought=Sought("came", things[0])),
        Asked("video", language.ask("last", random), language.the(things[-1]), "last", sought=Sought("came", things[-1])),
    ]
    return Film(tuple(scenes), tuple(shuffled(random, asked)))


def _blinking(random: Generator, stock: Stock, language: Language) -> Film:
    """One thing is away for a frame, once to three times, and back each time; the others are always there."""
    whole = arrange(random, stock, Wish(pick(random, (1, 2, 3)), "distinct"))
    index, times = int(random.random() * len(whole.things)), pick(random, (1, 2, 3))
    frames = pick(random, range(2 * times + 1, min(2 * times + 3, 8) + 1))
    away: set[int] = set()
    while len(away) < times:
        frame = pick(random, range(1, frames - 1))
        away = away | {frame} if not {frame - 1, frame, frame + 1} & away else set()
    scenes = [_only(whole, set() if frame in away else {index}, {index}) for frame in range(frames)]
    name = language.name(pick(random, references(whole, index)))
    sought = Sought("changed", full(whole.things[index]))
    return Film(tuple(scenes), (Asked("video", language.ask("blinks", random, thing=name), language.times(times), "blinks", sought=sought),))


def _with(scene: Scene, index: int, thing: Thing) -> Scene:
    return dataclasses.replace(scene, things=(*scene.things[:index], thing, *scene.things[index + 1 :]))


def _only(scene: Scene, shown: set[int], changing: set[int]) -> Scene:
    """The scene with only those of its changing things that are shown."""
    return dataclasses.replace(scene, things=tuple(thing for index, thing in enumerate(scene.things) if index in shown or index not in changing))
