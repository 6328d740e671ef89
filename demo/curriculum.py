"""A share of the training's time -> what is learned then, from which batches; they are drawn in a process of their own."""

import itertools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from demo.batches import Batch, collate, collate_sights, example, look
from demo.chance import pick
from demo.episodes import Episode, episode
from demo.pages import page
from demo.scenes import draw
from demo.stock import Stock
from pipeline.processor import Processor

PICTURES = 32  # slices a step, while only seeing is learned
EPISODES = 24  # a step, afterwards
SEEN_SKILLS = ("colour", "count", "size", "relation", "read_number", "read_word", "small_print", "describe", "refuse")
_SHAPES = {"colour": 1.0, "shape": 1.0, "size": 1.0, "count": 1.0, "where": 1.0, "exist": 1.0, "describe": 1.0}
_ALONE = {**_SHAPES, "count": 1.5, "describe": 2.0, "relation": 2.0, "followup": 1.0, "read_number": 1.5, "read_word": 2.0, "refuse": 0.5}
_ALBUMS = {"multi": 4.0, "video": 3.5, "small_print": 1.5}
# What is still guessed when all else is known, and takes the most examples.
_HARD = {"count": 4.0, "relation": 5.0, "followup": 1.5, "read_number": 2.0, "read_word": 2.0, "multi": 4.0, "video": 4.0, "small_print": 2.5}
_SEVERAL = {"count": 3.0, "relation": 1.5, "followup": 2.0, "read_number": 1.0, "read_word": 2.0, "multi": 7.0, "video": 7.0, "small_print": 1.5}
_LAST = {
    "count": 4.0,
    "relation": 2.0,
    "followup": 2.5,
    "read_number": 2.5,
    "read_word": 2.0,
    "multi": 8.0,
    "video": 3.0,
    "small_print": 3.0,
    "describe": 2.0,
}
_EASY = {"colour": 0.3, "shape": 0.3, "size": 0.3, "where": 0.3, "exist": 0.5, "describe": 1.0, "refuse": 0.3}
_WEAK = {
    "count": 5.0,
    "relation": 3.0,
    "followup": 3.5,
    "read_number": 1.5,
    "read_word": 3.0,
    "multi": 8.0,
    "video": 2.5,
    "small_print": 4.0,
    "describe": 4.0,
}
_WEAKEST = {**_WEAK, "count": 9.0, "describe": 5.0, "followup": 5.0, "refuse": 1.0}
SELDOM = ("written", "whole")  # where what is asked of several pictures is seen too seldom: an album without such a question gives way to another
OTHERS = 2**40  # from here on are the seeds of those others
ALONE = ("count", "relation")  # asked as often as there is something to ask, without questions of other skills between


@dataclass(frozen=True)
class Stage:
    """What is learned until a share of the whole time.

    Args:
        sides: what learns, of "sight", "names" (what finds what words name) and "talk".
        skills: how often each opens an episode, questions of others following; empty while there is only seeing.
        most: things in a picture, so that looking is learned before searching.
        rates: shares of the peak rates at its beginning and at its end, between which they fall evenly.
    """

    until: float
    sides: tuple[str, ...]
    skills: dict[str, float] = field(default_factory=dict)
    most: int = 6
    rates: tuple[float, float] = (1.0, 1.0)


STAGES = (
    Stage(0.062, ("sight",)),
    Stage(0.066, ("talk",), _SHAPES, most=1),
    Stage(0.081, ("talk",), {**_SHAPES, "read_number": 1.0, "refuse": 0.3}, most=2),
    Stage(0.098, ("talk",), _ALONE, most=3),
    Stage(0.120, ("talk",), _ALONE),
    Stage(0.151, ("names", "talk"), _ALONE),
    Stage(0.183, ("names", "talk"), {**_ALONE, **_ALBUMS}),
    Stage(0.304, ("sight", "names", "talk"), {**_EASY, **_HARD}),
    Stage(0.402, ("names", "talk"), {**_EASY, **_SEVERAL}),
    Stage(0.447, ("sight", "names", "talk"), {**_EASY, **_SEVERAL}),
    Stage(0.688, ("names", "talk"), {**_EASY, **_SEVERAL, "multi": 9.0, "video": 9.0}),
    Stage(0.756, ("names", "talk"), {**_EASY, **_LAST}),
    Stage(0.815, ("sight", "names", "talk"), {**_EASY, **_LAST}, rates=(1.0, 0.02)),
    Stage(0.884, ("sight",), rates=(0.4, 0.01)),
    Stage(0.948, ("names", "talk"), {**_EASY, **_WEAK}, rates=(0.6, 0.01)),
    Stage(0.989, ("names", "talk"), {**_EASY, **_WEAKEST}, rates=(0.4, 0.01)),
    Stage(1.00, ("names", "talk"), {**_EASY, **_WEAKEST, "refuse": 6.0}, rates=(0.15, 0.01)),
)


def stage_at(progress: float) -> int:
    """Index in STAGES; `progress` is a share of the whole time, 0 to 1."""
    return next(index for index, stage in enumerate(STAGES) if progress < stage.until or stage is STAGES[-1])


def rate_at(progress: float) -> float:
    """Share of the peak rates; `progress` is a share of the whole time, 0 to 1."""
    index = stage_at(progress)
    begun, stage = STAGES[index - 1].until if index else 0.0, STAGES[index]
    first, last = stage.rates
    return first + (last - first) * (progress - begun) / (stage.until - begun)


def batches(folder: Path, first: int, stage_now: Callable[[], int]) -> Iterator[Batch]:
    """The batches from number `first` on, a few drawn ahead; each is drawn from seeds that its number and stage alone decide."""
    with ProcessPoolExecutor(1, initializer=_prepare_worker, initargs=(folder,)) as pool:
        ahead: list[tuple[int, Future[Batch]]] = []
        for number in itertools.count(first):
            now = stage_now()
            # What was made ahead for an earlier stage is of no use to this one.
            ahead = [(index, batch) for index, batch in ahead if index == now]
            stage = STAGES[now]
            ahead.append((now, pool.submit(_episodes, number, stage) if stage.skills else pool.submit(_pictures, number)))
            if len(ahead) > 4:
                yield ahead.pop(0)[1].result()


_processor: list[Processor] = []  # of the worker process


def _prepare_worker(folder: Path) -> None:
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))  # it draws in what the training leaves over
    torch.set_num_threads(1)
    _processor.append(Processor(folder))


def _pictures(number: int) -> Batch:
    """Half of them slices of crowded pages, the others of scenes that questions are asked about."""
    random, processor = np.random.default_rng(number), _processor[0]
    sights = []
    while len(sights) < PICTURES:
        if random.random() < 0.5:
            scene = page(random, Stock("train"))
            sights += look(draw(scene, random), scene, processor)
        else:
            shown = episode(int(random.integers(2**40)), "train", pick(random, SEEN_SKILLS)).turns[0].media[0]
            sights += look(shown.frames[0], shown.scenes[0], processor)[:5]
    return Batch(collate_sights(sights[:PICTURES], processor.config))


def _episodes(number: int, stage: Stage) -> Batch:
    weights = np.array(list(stage.skills.values()))
    chosen = np.random.default_rng(number).choice(list(stage.skills), EPISODES, p=weights / weights.sum())
    first = number * EPISODES
    shown = [_episode(first + index, str(skill), stage.most) for index, skill in enumerate(chosen)]
    return collate([example(one, _processor[0]) for one in shown], _processor[0].config)


def _episode(seed: int, skill: str, most: int) -> Episode:
    shown = episode(seed, "train", skill, mixed=skill not in ALONE, most=most)
    if skill == "multi" and not any(turn.sought and turn.sought.seen in SELDOM for turn in shown.turns):
        return episode(OTHERS + seed, "train", skill, mixed=True, most=most)
    return shown
