"""One scene -> a question about it, of a given skill, and its one right answer; None where nothing unambiguous can be asked."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import combinations, pairwise, permutations
from typing import Literal, TypeAlias

from numpy.random import Generator

from demo.chance import pick, shuffled
from demo.language import Language, Reference
from demo.scenes import COLOURS, SHAPES, Scene, Thing, ranks_of
from demo.stock import Stock


@dataclass(frozen=True)
class Sought:
    """Where in the pictures an answer is seen: at what so called things cover, or at what is written, in a picture as a whole, or where the
    question names them; the "way" of a thing, where it is in the first and where in the last.

    Args:
        seen: of the things, where they are ("shown", "counted" if all of them, "listed" if one after the other), or where they have come, gone or
            either ("changed") since the picture before.
        picture: counted from 0; None for all.
        rank: of the thing, counted from 1 at the left; None for any.
        text: that is written.
    """

    seen: Literal["shown", "counted", "listed", "came", "gone", "changed", "written", "whole", "named", "way"]
    what: Reference = field(default_factory=Reference)
    picture: int | None = None
    rank: int | None = None
    text: str = ""


@dataclass(frozen=True)
class Asked:
    """`meaning` is what was asked, whatever the words: no two turns of one episode share it. `about` is the index of the thing asked about."""

    skill: str
    question: str
    answer: str
    meaning: object
    about: int | None = None
    sought: Sought | None = None


Asker: TypeAlias = Callable[[Scene, Language, Stock, Generator], Asked | None]


def cell(x: float, y: float) -> tuple[int, int] | None:
    """Column and row of a 3 by 3 grid, where (x, y) is well inside one."""
    column, row = ((0 if at < 0.28 else 1 if 0.39 < at < 0.61 else 2 if at > 0.72 else None) for at in (x, y))
    return None if column is None or row is None else (column, row)


def related(scene: Scene, thing: Thing, other: Thing, relation: str) -> bool | None:
    """Whether it stands so to the other, or None where one could argue."""
    if relation == "inside":
        return thing.inside is not None and scene.things[thing.inside] is other
    if thing.inside is not None or other.inside is not None:
        return None
    along = (other.x - thing.x) * scene.size[0] if relation in ("left", "right") else (other.y - thing.y) * scene.size[1]
    along /= scene.unit * (1 if relation in ("left", "above") else -1)
    if abs(along) < 0.85 * (thing.radius + other.radius):
        return None
    return along > 0


def full(thing: Thing) -> Reference:
    return Reference(None, thing.colour, thing.shape)


def references(scene: Scene, index: int, hidden: str = "") -> list[Reference]:
    """Ways to call this thing, and no other in the scene, in one or two words that do not say its attribute `hidden`."""
    thing, found = scene.things[index], []
    names = [name for name in ("shape", "colour", "size") if name != hidden]
    for words in ([name] for name in names if name != "size"), combinations(names, 2):
        for said in words:
            if sum(all(getattr(other, name) == getattr(thing, name) for name in said) for other in scene.things) == 1:
                found.append(Reference(**{name: getattr(thing, name) for name in said}))
    return found


def _about(scene: Scene, random: Generator, hidden: str, fits: Callable[[Thing], bool] = lambda _: True) -> tuple[int, Reference] | None:
    """Any thing that has a name of its own, and that name."""
    for index in shuffled(random, range(len(scene.things))):
        if fits(scene.things[index]) and (names := references(scene, index, hidden)):
            return index, pick(random, names)
    return None


def ask_colour(scene: Scene, language: Language, _: Stock, random: Generator) -> Asked | None:
    return None if (found := _about(scene, random, "colour")) is None else ask_attribute("colour", scene, *found, language, random)


def ask_shape(scene: Scene, language: Language, _: Stock, random: Generator) -> Asked | None:
    return None if (found := _about(scene, random, "shape")) is None else ask_attribute("shape", scene, *found, language, random)


def ask_size(scene: Scene, language: Language, _: Stock, random: Generator) -> Asked | None:
    wanted = pick(random, ("small", "large"))
    found = _about(scene, random, "size", lambda thing: thing.size == wanted) or _about(scene, random, "size")
    return None if found is None else ask_attribute("size", scene, *found, language, random)


def ask_where(scene: Scene, language: Language, _: Stock, random: Generator) -> Asked | None:
    found = _about(scene, random, "", lambda thing: cell(thing.x, thing.y) is not None)
    return None if found is None else ask_attribute("where", scene, *found, language, random)


def ask_attribute(skill: str, scene: Scene, index: int, name: Reference, language: Language, random: Generator) -> Asked:
    question = language.ask(skill, random, thing=language.name(name))
    return Asked(skill, question, attribute(skill, scene.things[index], language), (skill, index), index, shown(scene, index))


def shown(scene: Scene, thing: int) -> Sought:
    """An answer that is seen at this thing of a picture that is shown alone."""
    return Sought("shown", picture=0, rank=ranks_of(scene)[thing])


def attribute(skill: str, thing: Thing, language: Language) -> str:
    """The answer about one thing.

    Raises:
        ValueError: it is not well inside a cell, so nobody should ask where it is.
    """
    if skill == "colour":
        return language.colour(thing.colour)
    if skill == "shape":
        return language.shape(thing.shape)
    if skill == "size":
        return language.thing_size(thing.size)
    place = cell(thing.x, thing.y)
    if place is None:
        raise ValueError(f"({thing.x:.2f}, {thing.y:.2f}) is between two places")
    return language.place(place)


def count(scene: Scene, what: Reference) -> int:
    return sum(what.colour in (None, thing.colour) and what.shape in (None, thing.shape) for thing in scene.things)


def countable(scene: Scene, random: Generator) -> Reference:
    """What to count: all, or a colour or a shape; the greatest number often, or the answer would mostly be one."""
    if random.random() < 0.3:
        return Reference()
    options = [Reference(colour=colour) for colour in COLOURS] + [Reference(shape=shape) for shape in SHAPES]
    numbers = {option: count(scene, option) for option in options}
    most = max(numbers.values())
    wanted = 0 if random.random() < 0.1 else most if random.random() < 0.5 else pick(random, range(1, most + 1))
    return pick(random, [option for option in options if numbers[option] == wanted] or [Reference()])


def ask_count(scene: Scene, language: Language, _: Stock, random: Generator) -> Asked | None:
    if scene.prints:
        return None
    what = countable(scene, random)
    question = language.ask("count", random, things=language.name(what, plural=True))
    return Asked("count", question, language.count(count(scene, what)), ("count", what), sought=Sought("counted", what, 0))


def ask_relation(scene: Scene, language: Language, _: Stock, random: Generator) -> Asked | None:
    """About half of them yes or no; half of what is asked of a scene where something is inside is about that."""
    inside = any(thing.inside is not None for thing in scene.things) and random.random() < 0.5
    relations = ["inside"] if inside else ["left", "right", "above", "below"]
    if random.random() < 0.55 and (asked := _ask_related(scene, relations, language, random)):
        return asked
    truth = random.random() < 0.5
    for first, second in shuffled(random, list(permutations(range(len(scene.things)), 2))):
        for relation in shuffled(random, relations):
            thing, other = scene.things[first], scene.things[second]
            names, others = references(scene, first), references(scene, second)
            if related(scene, thing, other, relation) is truth and names and others:
                question = language.ask(
                    "relation",
                    random,
                    thing=language.name(pick(random, names)),
                    other=language.name(pick(random, others)),
                    relation=language.relation(relation),
                )
                return Asked("relation", question, language.truth(truth), (first, relation, second))
    return None


def _ask_related(scene: Scene, relations: list[str], language: Language, random: Generator) -> Asked | None:
    for index in shuffled(random, range(len(scene.things))):
        for relation in shuffled(random, relations):
            other, names = scene.things[index], references(scene, index)
            answers = {place: related(scene, thing, other, relation) for place, thing in enumerate(scene.things) if place != index}
            fitting = [place for place, answer in answers.items() if answer]
            if names and len(fitting) == 1 and None not in answers.values():
                question = language.ask("related", random, other=language.name(pick(random, names)), relation=language.relation(relation))
                answer = language.the(full(scene.things[fitting[0]]))
                return Asked("relation", question, answer, (relation, index), sought=shown(scene, fitting[0]))
    return None


def ask_exist(scene: Scene, language: Language, stock: Stock, random: Generator) -> Asked | None:
    """Half are absent; most of these are of a colour and a shape that are both there, but not together."""
    if scene.prints:
        return None
    truth = random.random() < 0.5
    what = existing(scene, random) if truth else absent([scene], stock, random)
    if what is None:
        return None
    return Asked("exist", language.ask("exist", random, thing=language.some(what)), language.presence(truth), ("exist", what))


def existing(scene: Scene, random: Generator) -> Reference:
    thing = pick(random, scene.things)
    return full(thing) if random.random() < 0.7 else pick(random, [Reference(colour=thing.colour), Reference(shape=thing.shape)])


def absent(scenes: list[Scene], stock: Stock, random: Generator) -> Reference | None:
    """What none of them shows."""
    things = [thing for scene in scenes for thing in scene.things]
    shown = {(thing.colour, thing.shape) for thing in things}
    colours, shapes = sorted({colour for colour, _ in shown}), sorted({shape for _, shape in shown})
    if random.random() < 0.3:
        missing = [Reference(colour=colour) for colour in COLOURS if colour not in colours] + [
            Reference(shape=shape) for shape in SHAPES if shape not in shapes
        ]
        return pick(random, missing) if missing else None
    for near in (True, False) if random.random() < 0.7 else (False,):
        pairs = [(colour, shape) for colour in (colours if near else COLOURS) for shape in (shapes if near else SHAPES)]
        if left := [pair for pair in pairs if pair not in shown and stock.allows(*pair)]:
            return Reference(None, *pick(random, left))
    return None


def ask_number(scene: Scene, language: Language, _: Stock, random: Generator) -> Asked | None:
    return _read(scene, "read_number", True, language, random)


def ask_word(scene: Scene, language: Language, _: Stock, random: Generator) -> Asked | None:
    return _read(scene, "read_word", False, language, random)


def _read(scene: Scene, skill: str, digits: bool, language: Language, random: Generator) -> Asked | None:
    found = [text.text for text in scene.prints if text.text.isdigit() == digits]
    if len(found) != 1:
        return None
    return Asked(skill, language.ask(skill, random), language.sentence(found[0]), skill, sought=Sought("written", picture=0, text=found[0]))


def ask_small_print(scene: Scene, language: Language, stock: Stock, random: Generator) -> Asked | None:
    """By "small print" where there is one text, by "number" and "word" where there are two."""
    if len(scene.prints) == 1 and random.random() < 0.7:
        text = scene.prints[0].text
        answer = language.sentence(text)
        return Asked("small_print", language.ask("small_print", random), answer, answer, sought=Sought("written", picture=0, text=text))
    asked = pick(random, (ask_number, ask_word))(scene, language, stock, random)
    return asked and Asked("small_print", asked.question, asked.answer, asked.answer, sought=asked.sought)


def ask_describe(scene: Scene, language: Language, _: Stock, random: Generator) -> Asked | None:
    """Up to four things, where left to right is beyond doubt."""
    things = sorted(scene.things, key=lambda thing: thing.x)
    gaps = [(right.x - left.x) * scene.size[0] / scene.unit for left, right in pairwise(things)]
    if scene.prints or not 1 <= len(things) <= 4 or any(gap < 0.09 for gap in gaps):
        return None
    said = (Reference(thing.size, thing.colour, thing.shape) for thing in things)
    return Asked("describe", language.ask("describe", random), language.list(*said), "describe", sought=Sought("listed", picture=0))


ASKERS: dict[str, Asker] = {
    "colour": ask_colour,
    "shape": ask_shape,
    "size": ask_size,
    "count": ask_count,
    "where": ask_where,
    "relation": ask_relation,
    "exist": ask_exist,
    "read_number": ask_number,
    "read_word": ask_word,
    "describe": ask_describe,
    "small_print": ask_small_print,
}
