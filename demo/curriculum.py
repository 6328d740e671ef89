"""The number of a training step -> what is learned then, from which batch; batches are drawn in a process of their own."""

from collections import deque
from collections.abc import Iterator
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
AHEAD = 4  # batches drawn before they are needed
SEEN_SKILLS = ("colour", "count", "size", "relation", "read_number", "read_word", "small_print", "describe", "refuse")
_SHAPES = {"colour": 1.0, "shape": 1.0, "size": 1.0, "count": 1.0, "where": 1.0, "exist": 1.0, "describe": 1.0}
_ALONE = {**_SHAPES, "count": 1.5, "describe": 2.0, "relation": 2.0, "followup": 1.0, "read_number": 1.5, "read_word": 2.0, "refuse": 0.5}
_ALBUMS = {"multi": 4.0, "video": 3.5, "small_print": 1.5}
# What is still guessed when all else is known takes the most examples.
_EASY = {"colour": 0.3, "shape": 0.3, "size": 0.3, "where": 0.3, "exist": 0.5, "describe": 1.0, "refuse": 0.5}
_HARD = {"count": 4.0, "relation": 3.0, "followup": 3.0, "read_number": 1.5, "read_word": 2.5, "multi": 9.0, "video": 7.0, "small_print": 2.5}
_HARDEST = {"count": 7.0, "relation": 3.0, "followup": 4.0, "read_number": 1.5, "read_word": 3.0, "multi": 7.0, "video": 4.5, "small_print": 4.0}
SELDOM = ("written", "whole")  # where what is asked of several pictures is seen too seldom: an album without such a question gives way to another
OTHERS = 2**40  # from here on are the seeds of those others
ALONE = ("count", "relation")  # asked as often as there is something to ask, without questions of other skills between


@dataclass(frozen=True)
class Stage:
    """What is learned for so many steps.

    Args:
        sides: what learns: "sight" alone, or "talk", or with it "names", which finds what words name.
        skills: how often each opens an episode, questions of others following; empty while there is only seeing.
        most: things in a picture, so that looking is learned before searching.
        rates: shares of the peak rates at its beginning and at its end, between which they fall evenly.
        four_bits: every other step computes with the language model's weights as INT4 will have them.
    """

    steps: int
    sides: tuple[str, ...]
    skills: dict[str, float] = field(default_factory=dict)
    most: int = 6
    rates: tuple[float, float] = (1.0, 1.0)
    four_bits: bool = False


STAGES = (
    Stage(2100, ("sight",), rates=(1.0, 0.01)),
    Stage(1500, ("sight",), rates=(0.5, 0.01)),
    Stage(60, ("talk",), _SHAPES, most=1),
    Stage(200, ("talk",), {**_SHAPES, "read_number": 1.0, "refuse": 0.3}, most=2),
    Stage(250, ("talk",), _ALONE, most=3),
    Stage(350, ("talk",), _ALONE),
    Stage(300, ("names", "talk"), _ALONE),
    Stage(600, ("names", "talk"), {**_ALONE, **_ALBUMS}),
    Stage(1700, ("names", "talk"), {**_EASY, **_HARD}),
    Stage(1100, ("names", "talk"), {**_EASY, **_HARDEST, "describe": 4.0, "refuse": 1.5}, rates=(0.8, 0.4)),
    Stage(1400, ("names", "talk"), {**_EASY, **_HARDEST, "describe": 4.0, "refuse": 1.5}, rates=(0.4, 0.01), four_bits=True),
)
STEPS = sum(stage.steps for stage in STAGES)


def stage_at(step: int) -> tuple[int, float]:
    """Index in STAGES, and the share of that stage that is over, 0 to 1."""
    for index, stage in enumerate(STAGES):
        if step < stage.steps:
            return index, step / stage.steps
        step -= stage.steps
    raise ValueError(f"the training ends {step} steps before this one")


def rate_at(step: int) -> float:
    """Share of the peak rates."""
    index, over = stage_at(step)
    first, last = STAGES[index].rates
    return first + (last - first) * over


def batches(folder: Path, first: int) -> Iterator[Batch]:
    """The batches from number `first` to the last, a few drawn ahead; each is drawn from seeds that its number alone decides."""
    with ProcessPoolExecutor(1, initializer=_prepare_worker, initargs=(folder,)) as pool:
        ahead: deque[Future[Batch]] = deque()
        for number in range(first, STEPS):
            stage = STAGES[stage_at(number)[0]]
            ahead.append(pool.submit(_episodes, number, stage) if stage.skills else pool.submit(_pictures, number))
            if len(ahead) > AHEAD:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


_processor: list[Processor] = []  # of the worker process


def _prepare_worker(folder: Path) -> None:
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
