"""Two to four scenes shown in one turn -> questions that name an image by its number, counted from 1, or ask for that number."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from numpy.random import Generator

from demo.chance import between, pick, shuffled
from demo.language import Language, Reference
from demo.layouts import Wish, arrange, fits, paint, radius
from demo.questions import Asked, Sought, attribute, count, countable, full, references
from demo.scenes import COLOURS, SHAPES, Scene, Thing, ThingSize
from demo.stock import HELD_OUT_PAIRS, Stock

ASPECTS = ("colour", "shape", "size", "place")
Asker: TypeAlias = Callable[[Generator, list[Scene], Language], Asked | None]


@dataclass(frozen=True)
class Album:
    """`alike`: all are drawn with the same noise."""

    scenes: tuple[Scene, ...]
    asked: tuple[Asked, ...]
    alike: bool = False


def album(random: Generator, stock: Stock, language: Language, follow_up: bool = False) -> Album:
    """With `follow_up`, one question and the same about another image."""
    if follow_up:
        return _gallery(random, stock, language, follow_up=True)
    kind = random.random()
    if kind < 0.25:
        return _changed(random, stock, language)
    return _missing(random, stock, language) if kind < 0.4 else _gallery(random, stock, language, follow_up=False)


def _gallery(random: Generator, stock: Stock, language: Language, *, follow_up: bool) -> Album:
    """Scenes that have nothing to do with each other."""
    number = pick(random, (2, 2, 2, 3, 3, 4))
    printed = random.random() < 0.15
    plain = dataclasses.replace(stock, rare=False)
    rare = int(random.random() * number)
    wishes = [
        Wish(0, texts=(stock.number(random, (1, 2, 2, 3)),)) if printed else Wish(pick(random, (1, 2, 3, 4)), pick(random, ("distinct", "any")))
        for _ in range(number)
    ]
    scenes = [arrange(random, stock if index == rare else plain, wish) for index, wish in enumerate(wishes)]
    if follow_up:
        asked = _same_of_another(random, scenes, language)
    else:
        askers = [_read_in] if printed else [_which_has, _which_has, _count_in, _count_in, _colour_in, _most]
        asked = _several(random, askers, scenes, language)
    return Album(tuple(scenes), tuple(asked)) if asked else _gallery(random, stock, language, follow_up=follow_up)


def _several(random: Generator, askers: list[Asker], scenes: list[Scene], language: Language) -> list[Asked]:
    """Up to four questions, none of them twice."""
    tries = [pick(random, askers)(random, scenes, language) for _ in range(7)]
    return list({one.meaning: one for one in tries if one}.values())[:4]


def _which_has(random: Generator, scenes: list[Scene], language: Language) -> Asked | None:
    image = int(random.random() * len(scenes))
    others = [thing for index, scene in enumerate(scenes) if index != image for thing in scene.things]
    options = {
        what
        for thing in scenes[image].things
        for what in (full(thing), Reference(colour=thing.colour), Reference(shape=thing.shape))
        if not any(what.colour in (None, other.colour) and what.shape in (None, other.shape) for other in others)
    }
    if not options:
        return None
    what = pick(random, sorted(options, key=repr))
    return Asked(
        "multi",
        language.ask("which_has", random, thing=language.some(what)),
        language.image(image + 1),
        ("which", what),
        sought=Sought("named", what),
    )


def _count_in(random: Generator, scenes: list[Scene], language: Language) -> Asked | None:
    image = int(random.random() * len(scenes))
    what = countable(scenes[image], random)
    question = language.ask("count_in", random, things=language.name(what, plural=True), number=str(image + 1))
    return Asked("multi", question, language.count(count(scenes[image], what)), ("count", image, what), sought=Sought("counted", what, image))


def _colour_in(random: Generator, scenes: list[Scene], language: Language) -> Asked | None:
    image = int(random.random() * len(scenes))
    index = int(random.random() * len(scenes[image].things))
    names = references(scenes[image], index, "colour")
    if not names:
        return None
    question = language.ask("colour_in", random, thing=language.name(pick(random, names)), number=str(image + 1))
    thing = scenes[image].things[index]
    sought = Sought("shown", full(thing), image)
    return Asked("multi", question, attribute("colour", thing, language), ("colour", image, index), sought=sought)


def _read_in(random: Generator, scenes: list[Scene], language: Language) -> Asked | None:
    image = int(random.random() * len(scenes))
    text = scenes[image].prints[0].text
    question = language.ask("read_in", random, number=str(image + 1))
    return Asked("multi", question, language.sentence(text), ("read", image), sought=Sought("written", picture=image, text=text))


def _most(random: Generator, scenes: list[Scene], language: Language) -> Asked | None:
    most = random.random() < 0.5
    numbers = [len(scene.things) for scene in scenes]
    best = max(numbers) if most else min(numbers)
    if numbers.count(best) != 1:
        return None
    phrase = ("more" if most else "fewer") if len(scenes) == 2 else ("most" if most else "fewest")
    image = numbers.index(best)
    return Asked("multi", language.ask(phrase, random), language.image(image + 1), phrase, sought=Sought("whole", picture=image))


def _same_of_another(random: Generator, scenes: list[Scene], language: Language) -> list[Asked]:
    """How many, what number, or what colour the same kind of thing has, in one image and then in others."""
    images = shuffled(random, range(len(scenes)))[:3]
    if scenes[0].prints:
        texts = [scenes[image].prints[0].text for image in images]
        phrase, words, answers = "read_in", {}, [language.sentence(text) for text in texts]
        sought = [Sought("written", picture=image, text=text) for image, text in zip(images, texts, strict=True)]
    elif random.random() < 0.5:
        what = countable(scenes[images[0]], random)
        phrase, words = "count_in", {"things": language.name(what, plural=True)}
        answers = [language.count(count(scenes[image], what)) for image in images]
        sought = [Sought("counted", what, image) for image in images]
    else:
        shape = pick(random, SHAPES)
        found = [[thing for thing in scenes[image].things if thing.shape == shape] for image in images]
        chosen = [(image, things[0]) for image, things in zip(images, found, strict=True) if len(things) == 1]
        if len(chosen) < 2:
            return []
        images = [image for image, _ in chosen]
        phrase, words = "colour_in", {"thing": language.name(Reference(shape=shape))}
        answers = [attribute("colour", thing, language) for _, thing in chosen]
        sought = [Sought("shown", Reference(shape=shape), image) for image in images]
    asked = [Asked("multi", language.ask(phrase, random, number=str(images[0] + 1), **words), answers[0], images[0], sought=sought[0])]
    for image, answer, place in zip(images[1:], answers[1:], sought[1:], strict=True):
        asked.append(Asked("followup", language.ask("and_image", random, number=str(image + 1)), answer, image, sought=place))
    return asked


def _changed(random: Generator, stock: Stock, language: Language) -> Album:
    """The same scene twice, but for one aspect of one thing."""
    aspect = pick(random, ASPECTS)
    while True:
        scene = arrange(random, stock, Wish(pick(random, (1, 2, 3, 4)), "distinct"))
        index = int(random.random() * len(scene.things))
        for _ in range(10):
            thing = _changed_thing(random, scene.things[index], aspect)
            moved = abs(thing.x - scene.things[index].x) + abs(thing.y - scene.things[index].y)
            other = dataclasses.replace(scene, things=(*scene.things[:index], thing, *scene.things[index + 1 :]))
            if fits(other) and (thing.colour, thing.shape) not in HELD_OUT_PAIRS and (aspect != "place" or moved > 0.35):
                asked = Asked("multi", language.ask("differs", random), language.aspect(aspect), "differs", sought=Sought("changed"))
                scenes = [scene, other] if random.random() < 0.5 else [other, scene]
                others = _several(random, [_which_has, _count_in, _colour_in], scenes, language)[:2]
                return Album(tuple(scenes), (asked, *others), alike=True)


def _changed_thing(random: Generator, thing: Thing, aspect: str) -> Thing:
    if aspect == "colour":
        colour = pick(random, [colour for colour in COLOURS if colour != thing.colour])
        return dataclasses.replace(thing, colour=colour, rgb=paint(random, colour))
    if aspect == "shape":
        return dataclasses.replace(thing, shape=pick(random, [shape for shape in SHAPES if shape != thing.shape]))
    if aspect == "size":
        size: ThingSize = "small" if thing.size == "large" else "large"
        return dataclasses.replace(thing, size=size, radius=radius(random, size))
    return dataclasses.replace(thing, x=between(random, 0, 1), y=between(random, 0, 1))


def _missing(random: Generator, stock: Stock, language: Language) -> Album:
    """The same scene twice, one of them without one thing."""
    whole = arrange(random, stock, Wish(pick(random, (2, 3, 4)), "distinct"))
    index = int(random.random() * len(whole.things))
    less = dataclasses.replace(whole, things=(*whole.things[:index], *whole.things[index + 1 :]))
    first = random.random() < 0.5
    question = language.ask("missing", random, number="1" if first else "2", other="2" if first else "1")
    name = full(whole.things[index])
    asked = [Asked("multi", question, language.the(name), "missing", sought=Sought("gone" if first else "came", name))]
    scenes = [whole, less] if first else [less, whole]
    asked += [one for one in (_most(random, scenes, language), _count_in(random, scenes, language)) if one and random.random() < 0.4]
    return Album(tuple(scenes), tuple(asked), alike=True)
