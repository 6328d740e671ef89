"""What the generator knows of a conversation -> losses on how the language model tells pictures apart and finds answers. Dropped after training.

Words alone teach this too slowly: an answer that compares is right only when all of a chain is, and nothing rewards its first links. So each link is
asked for by itself: a row looks at the same place of the picture before, says what was there and whether that came or went; a picture's end says
which picture it was and how many things it showed; and where an answer is written, some head looks at where it is seen: at each thing that is
counted, at that which a list has come to, at the next glyph.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from demo.heads import LABELS, NUMBERS, directions
from demo.questions import Sought
from demo.scenes import COLOURS, GLYPHS, IGNORED, LABEL_COUNTS, RANKS, SHAPES

CAME, GONE, CHANGED = 1, 2, 3
COLOUR, SHAPE, SIZE = 1, 2, 3
SAID = {"was shape": LABEL_COUNTS["shape"], "was colour": LABEL_COUNTS["colour"], "event": CHANGED + 1, "things": 1 + RANKS, "aspect": SIZE + 1}
AFTER = 2  # so many layers a row says it: those that learn beside the names
NUMBERED = (1, 2, 3)  # after each of these layers a picture's rows, and its end, know its number
LOOKS = {"digit": (0, 3), "frame before": (1, 0), "image before": (1, 1)}  # layer and head
_ANY = ((2, 2), (2, 3), (3, 2), (3, 3))  # any of the heads that look at things and glyphs
# Where an answer is seen: layers and heads of which one must look there, those that tell what is to be said of it. Each end of a way has its own.
ANSWERING = {
    "seen": _ANY,
    "from": ((2, 2),),
    "to": ((2, 3),),
    "named": ((2, 0), (2, 1), (3, 0), (3, 1)),
    "whole": ((3, 0), (3, 1)),
    "written": _ANY,
    "listed": _ANY,
    "counted": _ANY,
}
ANSWERING_LAYERS = sorted({layer for heads in ANSWERING.values() for layer, _ in heads})
# Weight of rows where nothing was, or nothing happened; that one aspect alone changed is so rare that it would be lost among them.
NONE = {"was shape": 0.1, "was colour": 0.1, "event": 0.1, "things": 1.0, "aspect": 0.005}
_FIRST = 2 * LABELS  # the directions before are those of what patches show and of words


@dataclass(frozen=True)
class Known:
    """Of one conversation, by token; IGNORED where there is nothing to know."""

    looks: dict[str, NDArray[np.int64]]  # of LOOKS, each (tokens,), the token that its head looks at
    number: NDArray[np.int64]  # (tokens,), of the picture, at its rows and its end
    said: dict[str, NDArray[np.int64]]  # of SAID, each (tokens,)
    seen: dict[str, NDArray[np.int8]]  # of ANSWERING, each (tokens, tokens), from where an answer is written to the parts in which it is seen, from 1


@dataclass
class Shown:
    """One picture's rows as they stand in a conversation: where, and what each shows, each (queries,). Without its slices."""

    start: int
    end: int
    digit: int  # or IGNORED
    shape: NDArray[np.int64]
    colour: NDArray[np.int64]
    size: NDArray[np.int64]
    rank: NDArray[np.int64]
    things: int
    event: NDArray[np.int64] = field(init=False)


@dataclass(frozen=True)
class Written:
    """What the rows of pictures and of their slices show of writing, each (tokens,): 0 for none, the glyph, its rank and its picture from 1 on."""

    glyph: NDArray[np.int64]
    rank: NDArray[np.int64]
    picture: NDArray[np.int64]


@dataclass(frozen=True)
class Answer:
    """Of one turn.

    Args:
        places: the tokens from which it is said.
        name: the last token of what its question names, -1 if it names nothing.
        items: which thing of a list each of the places speaks of, counted from 1.
    """

    places: slice
    sought: Sought | None
    name: int = -1
    items: Sequence[int] = ()


def at_rows(labels: Mapping[str, NDArray[np.int64]], queries: int) -> dict[str, NDArray[np.int64]]:
    """Labels of patches, each (rows, columns) -> what each of the resampler's rows shows of its square grid, each (queries,).

    A row shows what is at its middle, or if that is nothing, at the middles of its quarters: a small thing may lie between the middles of rows.
    """
    side, anything = math.isqrt(queries), labels["shape"] + labels["glyph"] > 0
    middle, *quarters = (_patches(shift, side, anything.shape) for shift in ((0.5, 0.5), (0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75)))
    chosen = middle
    for near in quarters:
        chosen = np.where(anything[chosen[0], chosen[1]], chosen, near)
    return {name: own[chosen[0], chosen[1]].reshape(-1) for name, own in labels.items()}


def _patches(shift: tuple[float, float], side: int, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """(2, side, side): rows and columns of the patches at a place within each cell of a square grid over a picture of so many patches."""
    down, across = (((np.arange(side) + part) * size / side).astype(np.int64) for part, size in zip(shift, shape, strict=True))
    return np.stack(np.meshgrid(down, across, indexing="ij"))


def known(shown: Sequence[Shown], written: Written, answers: Sequence[Answer], tokens: int) -> Known:
    """What a conversation of so many tokens teaches."""
    number = np.full(tokens, IGNORED, np.int64)
    looks = {"digit": np.full(tokens, IGNORED, np.int64), "frame before": np.zeros(tokens, np.int64), "image before": np.zeros(tokens, np.int64)}
    said = {name: np.full(tokens, IGNORED, np.int64) for name in SAID}
    for index, picture in enumerate(shown):
        rows, count = slice(picture.start, picture.end), picture.end - picture.start
        number[picture.start : picture.end + 1], looks["digit"][picture.start : picture.end + 1] = index, picture.digit
        said["things"][picture.end] = picture.things
        picture.event = np.zeros(count, np.int64)
        if not index:
            continue
        last = shown[index - 1]
        looks["frame before" if picture.digit == IGNORED else "image before"][rows] = np.arange(last.start, last.end)
        said["was shape"][rows], said["was colour"][rows] = last.shape, last.colour
        other = (last.shape != picture.shape) | (last.colour != picture.colour)
        picture.event = other * (CAME * (picture.shape > 0) + GONE * (last.shape > 0))
        said["event"][rows] = picture.event
        changed = np.stack([last.colour != picture.colour, last.shape != picture.shape, last.size != picture.size])
        one = (last.shape > 0) & (picture.shape > 0) & (changed.sum(0) == 1)
        said["aspect"][rows] = one * np.array([COLOUR, SHAPE, SIZE])[changed.argmax(0)]
    seen = {name: np.zeros((tokens, tokens), np.int8) for name in ANSWERING}
    for answer in answers:
        if answer.sought:
            for name, place, rows in _looks(answer, answer.sought, shown, written):
                seen[name][place] = rows
    return Known(looks, number, said, seen)


def _looks(answer: Answer, sought: Sought, shown: Sequence[Shown], written: Written) -> Iterator[tuple[str, int | slice, NDArray[np.int8]]]:
    """Of ANSWERING, from where an answer is said, and the parts in which it is seen from there, (tokens,)."""
    tokens, places = len(written.glyph), answer.places
    picture = shown[sought.picture or 0]

    def at(one: Shown, rows: NDArray[Any]) -> NDArray[np.int8]:
        parts = np.zeros(tokens, np.int8)
        parts[one.start : one.end] = rows
        return parts

    match sought.seen:
        case "named":
            yield "named", places, (np.arange(tokens) == answer.name).astype(np.int8)
        case "whole":
            yield "whole", places, (np.arange(tokens) == picture.end).astype(np.int8)
        case "written":
            own = written.picture == 1 + (sought.picture or 0)
            # Glyph by glyph; the full stop after them is not written.
            for rank, (place, glyph) in enumerate(zip(range(places.start, places.stop), sought.text, strict=False), 1):
                yield "written", place, (own & (written.glyph == 1 + GLYPHS.index(glyph)) & (written.rank == rank)).astype(np.int8)
        case "listed":
            for place, item in zip(range(places.start, places.stop), answer.items, strict=True):
                yield "listed", place, at(picture, (picture.shape > 0) & (picture.rank == item))
        case "counted":
            yield "counted", places, at(picture, _called(picture, sought) * np.maximum(picture.rank, 0))
        case "way":
            for name, one in (("from", shown[0]), ("to", shown[-1])):
                yield name, places, at(one, _called(one, sought))
        case _:
            yield "seen", places, _seen(shown, sought, tokens).astype(np.int8)


def _seen(shown: Sequence[Shown], sought: Sought, tokens: int) -> NDArray[np.bool_]:
    seen = np.zeros(tokens, np.bool_)
    for index, picture in enumerate(shown):
        if sought.picture not in (None, index):
            continue
        rows = _called(picture, sought) & (picture.event & CAME > 0 if sought.seen == "came" else True)
        if sought.seen in ("gone", "changed"):
            was = _called(shown[index - 1], sought) & (picture.event & GONE > 0) if index else np.zeros_like(rows)
            rows = was if sought.seen == "gone" else was | (rows & (picture.event & CAME > 0))
        seen[picture.start : picture.end] = rows
    return seen


def _called(picture: Shown, sought: Sought) -> NDArray[np.bool_]:
    """The rows that show things of that name."""
    rows = picture.shape > 0
    if sought.what.shape:
        rows &= picture.shape == 1 + SHAPES.index(sought.what.shape)
    if sought.what.colour:
        rows &= picture.colour == 1 + list(COLOURS).index(sought.what.colour)
    if sought.rank is not None:
        rows &= picture.rank == sought.rank
    return rows


@dataclass(frozen=True)
class Lessons:
    """What is known of padded conversations, as `Known` names it: (episodes, tokens), and of `seen` (episodes, tokens, tokens)."""

    looks: dict[str, torch.Tensor]
    number: torch.Tensor
    said: dict[str, torch.Tensor]
    seen: dict[str, torch.Tensor]


def lessons(conversations: Sequence[Known], tokens: int) -> Lessons:
    """Padded on the right to so many tokens."""

    def padded(rows: Sequence[NDArray[Any]], nothing: int = IGNORED) -> torch.Tensor:
        return torch.from_numpy(np.stack([np.pad(row, (0, tokens - len(row)), constant_values=nothing) for row in rows]))

    return Lessons(
        {name: padded([one.looks[name] for one in conversations]) for name in LOOKS},
        padded([one.number for one in conversations]),
        {name: padded([one.said[name] for one in conversations]) for name in SAID},
        {name: padded([one.seen[name] for one in conversations], 0) for name in ANSWERING},
    )


def circuit_losses(hidden_states: Sequence[torch.Tensor], attentions: Sequence[torch.Tensor], wanted: Lessons) -> dict[str, tuple[torch.Tensor, int]]:
    """A loss by name, and over how many places it is the mean.

    Args:
        hidden_states: before each layer and after the last, each (episodes, tokens, hidden).
        attentions: of each layer, each (episodes, heads, tokens, tokens).
    """
    size = hidden_states[0].shape[-1]
    square, first = directions(size), _FIRST
    found: dict[str, tuple[torch.Tensor, int]] = {}
    for name, count in SAID.items():
        chosen = wanted.said[name] != IGNORED
        if chosen.any():
            weight = torch.ones(count)
            weight[0] = NONE[name]
            logits = _heard(hidden_states[AFTER][chosen]) @ square[first : first + count].T
            found[name] = functional.cross_entropy(logits, wanted.said[name][chosen], weight), int(chosen.sum())
        first += count
    chosen = wanted.number != IGNORED
    for layer in NUMBERED:
        logits = _heard(hidden_states[layer][chosen]) @ square[-NUMBERS:].T
        found[f"number {layer}"] = functional.cross_entropy(logits, wanted.number[chosen]), int(chosen.sum())
    for name, (layer, head) in LOOKS.items():
        goals = wanted.looks[name]
        rows, places = (goals != IGNORED).nonzero(as_tuple=True)
        if len(rows):
            found[name] = _missed(attentions[layer][rows, head, places, goals[rows, places]]).mean(), len(rows)
    # Rows of every head at once: gradients of each look on its own would fill a matrix of all looks each time.
    rows, places = torch.stack([seen.any(2) for seen in wanted.seen.values()]).any(0).nonzero(as_tuple=True)
    looks = {layer: attentions[layer][rows, :, places].float().unbind(1) for layer in ANSWERING_LAYERS}
    for name, heads in ANSWERING.items():
        seen = wanted.seen[name][rows, places]
        chosen = seen.any(1)
        if chosen.any():
            own = torch.stack([looks[layer][head][chosen] for layer, head in heads])
            found[name] = _overlooked(own, seen[chosen]).mean(), int(chosen.sum())
    return found


def _overlooked(looks: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """(heads, places, tokens), (places, tokens) -> (places,), by the head that overlooks the least; each part of an answer counts as much."""
    parts = [part for part in range(1, int(seen.max()) + 1) if (seen == part).any()]
    there = torch.stack([(seen == part).any(-1) for part in parts])
    missed = torch.stack([_missed((looks * (seen == part)).sum(-1)) for part in parts], 1)  # (heads, parts, places)
    return ((missed * there).sum(1) / there.sum(0)).amin(0)


def _heard(rows: torch.Tensor) -> torch.Tensor:
    return functional.rms_norm(rows.float(), rows.shape[-1:])


def _missed(mass: torch.Tensor) -> torch.Tensor:
    return -torch.log(mass.float() + 1e-9)
