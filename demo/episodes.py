"""A seed, a split and maybe a skill -> an `Episode`: pictures and videos, questions about them, and the one right answer to each."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import PIL.Image
from numpy.random import Generator

from demo.chance import pick, shuffled, weighted
from demo.comparisons import album
from demo.language import CHINESE, ENGLISH, Code, Language
from demo.layouts import Wish, arrange, large_size, ordinary_size
from demo.questions import ASKERS, Asked, Sought, absent, ask_attribute, attribute, cell, count, countable, existing, references, shown
from demo.scenes import Scene, draw
from demo.stock import Split, Stock
from demo.textures import photograph
from demo.videos import film

# How often each is drawn when none is asked for: what is hard to learn, more often.
_WEIGHTS: dict[str, float] = {
    "colour": 4,
    "shape": 6,
    "size": 5,
    "count": 9,
    "where": 7,
    "relation": 10,
    "exist": 7,
    "read_number": 11,
    "read_word": 11,
    "describe": 8,
    "multi": 11,
    "followup": 7,
    "video": 10,
    "small_print": 6,
    "refuse": 3,
}
SKILLS: tuple[str, ...] = tuple(_WEIGHTS)
MAX_TURNS = 7


@dataclass(frozen=True)
class Media:
    """A picture (one frame at 0 s) or a video; `scenes` says what each frame shows, None for what is not a drawn scene."""

    kind: Literal["image", "video"]
    frames: tuple[PIL.Image.Image, ...]
    times: tuple[float, ...]  # seconds
    scenes: tuple[Scene | None, ...]


@dataclass(frozen=True)
class Turn:
    """A user's turn and its answer. A turn without media is about what was shown before."""

    media: tuple[Media, ...]
    question: str
    answer: str
    skill: str
    sought: Sought | None = None


@dataclass(frozen=True)
class Episode:
    """One conversation, in one language."""

    language: Code
    turns: tuple[Turn, ...]


def episode(seed: int, split: Split, skill: str | None = None, *, mixed: bool | None = None, most: int = 6) -> Episode:
    """The same arguments give the same episode.

    Args:
        skill: of the first turn, and of all unless `mixed`, but that a follow-up needs something to follow; None for any.
        mixed: let questions of other skills about the same scene follow; by default only if `skill` is None.
        most: things in a picture that is shown alone.

    Raises:
        ValueError: there is no such skill.
    """
    if skill is not None and skill not in SKILLS:
        raise ValueError(f"There is no skill {skill!r}; there are {', '.join(SKILLS)}.")
    random = np.random.default_rng((("train", "test").index(split), seed, 0 if skill is None else 1 + SKILLS.index(skill)))
    language = ENGLISH if random.random() < 0.5 else CHINESE
    stock = Stock(split, rare=split == "test" and random.random() < 0.5)
    mixed = skill is None if mixed is None else mixed
    skill = weighted(random, _WEIGHTS) if skill is None else skill
    media, asked = _shown(random, stock, language, skill, mixed, most)
    turns = [Turn(media if not index else (), one.question, one.answer, one.skill, one.sought) for index, one in enumerate(asked)]
    return Episode(language.code, tuple(turns))


def _shown(random: Generator, stock: Stock, language: Language, skill: str, mixed: bool, most: int) -> tuple[tuple[Media, ...], list[Asked]]:
    if skill == "refuse":
        return _refused(random, stock, language)
    if skill == "video":
        made = film(random, stock, language)
        frames = _drawn(random, made.scenes, alike=True)
        return (Media("video", frames, tuple(map(float, range(len(frames)))), made.scenes),), list(made.asked)
    if skill == "multi" or (skill == "followup" and random.random() < 0.2):
        shown = album(random, stock, language, follow_up=skill == "followup")
        frames = _drawn(random, shown.scenes, alike=shown.alike)
        return tuple(Media("image", (frame,), (0.0,), (scene,)) for frame, scene in zip(frames, shown.scenes, strict=True)), list(shown.asked)
    while True:
        wish = _wish(random, stock, skill)
        scene = arrange(random, stock, replace(wish, count=min(wish.count, most)))
        if asked := follow_up(scene, language, stock, random) if skill == "followup" else _packed(scene, language, stock, random, skill, mixed):
            return (Media("image", _drawn(random, (scene,)), (0.0,), (scene,)),), asked


def _wish(random: Generator, stock: Stock, skill: str) -> Wish:
    """A scene that something of this skill can be asked about."""
    if skill in ("read_number", "read_word", "small_print"):
        fine = skill == "small_print"
        number, word = stock.number(random, (2, 3, 3)) if fine else stock.number(random), stock.word(random)
        while fine and len(word) > 4:
            word = stock.word(random)
        texts = (number, word) if random.random() < 0.5 else (word,) if skill == "read_word" or (fine and random.random() < 0.5) else (number,)
        things = pick(random, (0, 0, 1, 2, 3) if fine else (0, 0, 0, 1, 2))
        size = large_size(random, *pick(random, ((300, 335), (300, 335), (380, 440), (455, 500)))) if fine else None
        return Wish(things, "any", texts=texts, size=size, fine=fine)
    size = large_size(random, 180, 330) if skill in ("colour", "shape", "count", "where", "exist") and random.random() < 0.08 else None
    if skill == "count":
        return Wish(pick(random, (1, 2, 3, 4, 4, 5, 5, 6, 6)), pick(random, ("few", "few", "few", "any")), size=size)
    if skill in ("relation", "followup"):
        return Wish(
            pick(random, (2, 2, 3, 4)), pick(random, ("distinct", "distinct", "any")), container=skill == "relation" and random.random() < 0.35
        )
    if skill == "describe":
        return Wish(pick(random, (1, 2, 3, 4)))
    if skill == "size":
        return Wish(pick(random, (1, 2, 2, 3, 3, 4)), pick(random, ("distinct", "any")))
    return Wish(pick(random, (1, 2, 3, 3, 4, 5, 6)), pick(random, ("distinct", "any")), size=size)


def _packed(scene: Scene, language: Language, stock: Stock, random: Generator, skill: str, mixed: bool) -> list[Asked]:
    """Several questions about one scene; the first is of the skill, and so are the others unless mixed. None if nothing can be asked."""
    first = ASKERS[skill](scene, language, stock, random)
    if first is None:
        return []
    asked = {first.meaning: first}
    fitting = [name for name in ASKERS if name != "small_print" and (name not in ("read_number", "read_word") or skill != "small_print")] + [skill]
    for _ in range(MAX_TURNS - 1):
        one = ASKERS[pick(random, fitting) if mixed else skill](scene, language, stock, random)
        if one is not None:
            asked.setdefault(one.meaning, one)
    return list(asked.values())


def follow_up(scene: Scene, language: Language, stock: Stock, random: Generator) -> list[Asked]:
    """A question, and one or two that can be understood only after it."""
    kind = random.random()
    if kind < 0.45:
        return _more_of_it(scene, language, random)
    if kind < 0.75:
        return _the_same_of_another(scene, language, random)
    if kind < 0.87:
        first, second = countable(scene, random), countable(scene, random)
        asked = [(first, language.ask("count", random, things=language.name(first, plural=True)), language.count(count(scene, first)))]
        asked += [(second, language.ask("and_count", random, things=language.name(second, plural=True)), language.count(count(scene, second)))]
    else:
        asked = []
        for phrase in ("exist", "and_exist"):
            truth = random.random() < 0.5
            what = existing(scene, random) if truth else absent([scene], stock, random)
            if what is None:
                return []
            asked.append((what, language.ask(phrase, random, thing=language.some(what)), language.presence(truth)))
    skills = ("count" if kind < 0.87 else "exist", "followup")
    return (
        [
            Asked(skill, question, answer, what, sought=Sought("counted", what, 0) if kind < 0.87 else None)
            for skill, (what, question, answer) in zip(skills, asked, strict=True)
        ]
        if asked[0][0] != asked[1][0]
        else []
    )


def _more_of_it(scene: Scene, language: Language, random: Generator) -> list[Asked]:
    """Other attributes of the thing that was asked about, none of them said before."""
    index = int(random.random() * len(scene.things))
    thing = scene.things[index]
    names = references(scene, index)
    if not names:
        return []
    name = pick(random, names)
    skills = [skill for skill in ("colour", "shape", "size") if getattr(name, skill) is None] + (["where"] if cell(thing.x, thing.y) else [])
    skills = shuffled(random, skills)[:3]
    asked = [ask_attribute(skills[0], scene, index, name, language, random)] if len(skills) > 1 else []
    for skill in skills[1:]:
        question = language.ask(f"and_{skill}", random)
        asked.append(Asked("followup", question, attribute(skill, thing, language), skill, sought=shown(scene, index)))
    return asked


def _the_same_of_another(scene: Scene, language: Language, random: Generator) -> list[Asked]:
    """The same attribute of another thing: "the other one" where there are two."""
    skill = pick(random, ("colour", "shape", "size", "where"))
    known = [index for index, thing in enumerate(scene.things) if skill != "where" or cell(thing.x, thing.y)]
    named = [(index, names) for index in known if (names := references(scene, index, skill))]
    if len(named) < 2:
        return []
    (first, names), *others = shuffled(random, named)[:3]
    asked = [ask_attribute(skill, scene, first, pick(random, names), language, random)]
    for index, names in others:
        other_one = len(scene.things) == 2 and random.random() < 0.6
        question = (
            language.ask("and_the_other_one", random) if other_one else language.ask("and_other", random, thing=language.name(pick(random, names)))
        )
        asked.append(Asked("followup", question, attribute(skill, scene.things[index], language), index, sought=shown(scene, index)))
    return asked


def _refused(random: Generator, stock: Stock, language: Language) -> tuple[tuple[Media, ...], list[Asked]]:
    """Any question about what is not a drawn scene."""
    size = large_size(random, 200, 300) if random.random() < 0.1 else ordinary_size(random)
    media = Media("image", (photograph(size, random),), (0.0,), (None,))
    asked: list[Asked] = []
    while len(asked) < pick(random, (1, 2)):
        skill = pick(random, [name for name in ASKERS if name != "small_print"])
        imagined = arrange(random, stock, _wish(random, stock, skill))
        one = ASKERS["describe" if random.random() < 0.3 else skill](imagined, language, stock, random)
        if one is not None:
            asked.append(replace(one, skill="refuse", answer=language.refusal(), sought=None))
    return (media,), asked


def _drawn(random: Generator, scenes: tuple[Scene, ...], alike: bool = False) -> tuple[PIL.Image.Image, ...]:
    """`alike`: with the same texture and noise in each."""
    seeds = [int(random.integers(2**32)) for _ in range(1 if alike else len(scenes))]
    return tuple(draw(scene, np.random.default_rng(seeds[0 if alike else index])) for index, scene in enumerate(scenes))
