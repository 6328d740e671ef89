"""From a conversation to what the language model's own rows must say and where its heads must look."""

import dataclasses

import numpy as np
import pytest
import torch

from demo.batches import Example, collate, example
from demo.circuits import (
    AFTER,
    ANSWERING,
    CAME,
    CHANGED,
    COLOUR,
    GONE,
    LOOKS,
    NUMBERED,
    SAID,
    SHAPE,
    SIZE,
    Answer,
    Known,
    Lessons,
    Shown,
    Written,
    circuit_losses,
    known,
    lessons,
)
from demo.episodes import Episode, episode
from demo.heads import LABELS, NUMBERS, directions
from demo.language import CHINESE, Reference
from demo.questions import Sought
from demo.scenes import COLOURS, GLYPHS, IGNORED, SHAPES
from demo.small_files import write_small_files
from pipeline.processor import Processor

RED, BLUE = (1 + list(COLOURS).index(name) for name in ("red", "blue"))
CIRCLE, STAR = (1 + SHAPES.index(name) for name in ("circle", "star"))
NOUNS = (*SHAPES, "thing", "图形", *(CHINESE.name(Reference(shape=shape)) for shape in SHAPES))


@pytest.fixture(scope="module")
def processor(tmp_path_factory: pytest.TempPathFactory) -> Processor:
    folder = tmp_path_factory.mktemp("demo")
    write_small_files(folder)
    return Processor(folder)


def picture(start: int, digit: int, *things: tuple[int, int], size: int = 2) -> Shown:
    """Four rows, of shapes and colours, each thing's rank that of its row; its end is the token after them."""
    shape, colour = np.array(things, np.int64).T
    return Shown(start, start + 4, digit, shape, colour, size * (shape > 0), np.cumsum(shape > 0) * (shape > 0), sum(shape > 0))


#: A red circle goes and a blue star comes; the red star stays.
PICTURES = (
    picture(2, 0, (CIRCLE, RED), (STAR, RED), (0, 0), (0, 0)),
    picture(10, 8, (0, 0), (STAR, RED), (0, 0), (STAR, BLUE)),
)


#: The second has a 7 in its first row, and in a slice of its own, after it, a 7 again, then an 8; the first an 8 in its first.
WRITTEN = Written(*np.zeros((3, 20), np.int64))
for place, glyph, rank, number in ((2, "8", 1, 1), (10, "7", 1, 2), (16, "7", 1, 2), (17, "8", 2, 2)):
    WRITTEN.glyph[place], WRITTEN.rank[place], WRITTEN.picture[place] = 1 + GLYPHS.index(glyph), rank, number


def taught_by(*answers: Answer, shown: tuple[Shown, ...] = PICTURES) -> Known:
    return known(shown, WRITTEN, answers, 20)


def seen(look: str, sought: Sought) -> list[list[int]]:
    """Where the two tokens of an answer are seen, by the heads for that look; no other looks anywhere."""
    taught = taught_by(Answer(slice(18, 20), sought, 16, (1, 2)))
    assert not any(taught.seen[name].any() for name in ANSWERING if name != look and {name, look} != {"from", "to"})
    assert not taught.seen[look][:18].any()
    return [list(np.flatnonzero(taught.seen[look][place])) for place in (18, 19)]


def test_rows_know_what_was_at_their_place_and_whether_it_came_or_went() -> None:
    taught = taught_by()
    assert taught.said["event"][10:14].tolist() == [GONE, 0, 0, CAME]
    assert taught.said["was shape"][10:14].tolist() == [CIRCLE, STAR, 0, 0]
    assert taught.looks["image before"][10:14].tolist() == [2, 3, 4, 5]
    assert not taught.looks["image before"][:10].any()  # and all others at the first token
    assert not taught.looks["frame before"].any()
    assert taught.number[2:7].tolist() == [0] * 5
    assert taught.number[10:15].tolist() == [1] * 5
    assert taught.looks["digit"][10:15].tolist() == [8] * 5
    assert taught.said["things"][[6, 14]].tolist() == [2, 2]


def test_rows_know_whether_colour_shape_or_size_is_what_changed() -> None:
    first = picture(2, 0, (CIRCLE, RED), (CIRCLE, RED), (CIRCLE, RED), (CIRCLE, RED))
    second = picture(10, 8, (CIRCLE, BLUE), (STAR, RED), (STAR, BLUE), (0, 0))
    taught = taught_by(shown=(first, second))
    assert taught.said["aspect"][10:14].tolist() == [COLOUR, SHAPE, 0, 0]
    assert taught.said["event"][10:14].tolist() == [CHANGED, CHANGED, CHANGED, GONE]
    smaller = taught_by(shown=(first, dataclasses.replace(first, start=10, end=14, size=first.size - 1)))
    assert smaller.said["aspect"][10:14].tolist() == [SIZE] * 4


def test_answers_are_seen_where_their_things_are() -> None:
    assert seen("seen", Sought("shown", Reference(shape="star"))) == [[3, 11, 13]] * 2
    assert seen("seen", Sought("shown", Reference(colour="red"), picture=1)) == [[11]] * 2
    assert seen("seen", Sought("came")) == [[13]] * 2
    assert seen("seen", Sought("gone", Reference(colour="red", shape="circle"))) == [[10]] * 2
    assert seen("seen", Sought("changed")) == [[10, 13]] * 2
    assert seen("seen", Sought("shown", picture=1, rank=2)) == [[13]] * 2
    assert seen("written", Sought("written", picture=1, text="78")) == [[10, 16], [17]]
    assert seen("written", Sought("written", picture=0, text="8")) == [[2], []]
    assert seen("listed", Sought("listed", picture=0)) == [[2], [3]]
    assert seen("counted", Sought("counted", Reference(shape="star"), 1)) == [[11, 13]] * 2
    assert seen("from", Sought("way", Reference(shape="star"))) == [[3]] * 2
    assert seen("to", Sought("way", Reference(shape="star"))) == [[11, 13]] * 2
    assert seen("whole", Sought("whole", picture=1)) == [[14]] * 2
    assert seen("named", Sought("named", Reference(shape="star"))) == [[16]] * 2


@pytest.mark.parametrize("skill", ["multi", "video"])
def test_every_row_looks_at_the_same_place_of_the_picture_before_and_at_its_own_id(processor: Processor, skill: str) -> None:
    for seed in range(4):
        shown, one = laid_out(processor, seed, skill)
        pictures = [frame for media in shown.turns[0].media for frame in media.frames]
        for index, (start, end) in enumerate(one.image_bound):
            ids = {one.input_ids[place] for place in one.known.looks["digit"][start : end + 1] if place != IGNORED}
            assert ids == (set(processor.tokenizer.encode(str(index))) if skill == "multi" else set())
            before = list(range(*one.image_bound[index - 1])) if index else [0] * (end - start)
            used, unused = ("image before", "frame before")[:: 1 if skill == "multi" else -1]
            assert one.known.looks[used][start:end].tolist() == before
            assert not one.known.looks[unused].any()
        assert len(one.image_bound) == len(pictures)


@pytest.mark.parametrize("skill", ["multi", "video"])
def test_what_is_asked_of_several_pictures_is_seen_in_them(processor: Processor, skill: str) -> None:
    for seed in range(12):
        shown, one = laid_out(processor, seed, skill)
        rows = {place for start, end in one.image_bound for place in range(start, end + 1)}
        said = np.array(one.targets) != IGNORED
        for look, seen in one.known.seen.items():
            for place in np.flatnonzero(seen.any(1)):
                assert said[place + 1]
                looked_at = np.flatnonzero(seen[place])
                if look == "named":
                    (name,) = looked_at
                    assert processor.tokenizer.decode([one.input_ids[name]]).strip() in NOUNS
                else:
                    assert set(looked_at) <= rows
        shows = [turn.sought is not None and turn.sought.seen in ("came", "gone", "whole") for turn in shown.turns]
        assert any(seen.any() for seen in one.known.seen.values()) or not any(shows)


def laid_out(processor: Processor, seed: int, skill: str) -> tuple[Episode, Example]:
    shown = episode(seed, "train", skill, mixed=False)
    return shown, example(shown, processor)


def test_one_picture_teaches_only_what_it_shows_by_itself(processor: Processor) -> None:
    (words,) = collate([laid_out(processor, 3, "colour")[1]], processor.config).words
    losses = circuit_losses(*blank(words.lessons, 4), words.lessons)
    assert set(losses) == {"things", "seen", *LOOKS, *(f"number {layer}" for layer in NUMBERED)}


def blank(taught: Lessons, heads: int) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """States that say nothing, and heads that look nowhere."""
    episodes, tokens = taught.number.shape
    return [torch.zeros(episodes, tokens, 256) for _ in range(5)], [torch.zeros(episodes, heads, tokens, tokens) for _ in range(4)]


def test_states_that_say_all_and_heads_that_look_right_have_next_to_no_loss() -> None:
    taught = lessons([taught_by(Answer(slice(18, 20), Sought("came")))], 22)
    states, looks = blank(taught, 4)
    at_first = circuit_losses(states, looks, taught)
    square, first = directions(256), 2 * LABELS
    for name, count in SAID.items():
        chosen = taught.said[name] != IGNORED
        states[AFTER][chosen] += 100 * square[first : first + count][taught.said[name][chosen]]
        first += count
    chosen = taught.number != IGNORED
    for layer in NUMBERED:
        states[layer][chosen] += 100 * square[-NUMBERS:][taught.number[chosen]]
    for name, (layer, head) in LOOKS.items():
        for row, place in (taught.looks[name] != IGNORED).nonzero().tolist():
            looks[layer][row, head, place, taught.looks[name][row, place]] = 1.0
    layer, head = ANSWERING["seen"][-1]  # one head is enough
    looks[layer][0, head, 18:20, 13] = 1.0
    at_last = circuit_losses(states, looks, taught)
    assert set(at_first) == set(at_last) == {*SAID, *LOOKS, "seen", *(f"number {layer}" for layer in NUMBERED)}
    assert all(at_last[name][0] < 0.05 * at_first[name][0] for name in at_first), at_last
    louder = circuit_losses([100 * state for state in states], looks, taught)
    assert louder["event"][0] == pytest.approx(float(at_last["event"][0]), abs=1e-3)


def test_padding_teaches_nothing() -> None:
    taught = taught_by(Answer(slice(18, 20), Sought("changed")))
    short, long = lessons([taught], 20), lessons([taught], 30)
    assert (long.number[:, 20:] == IGNORED).all()
    assert not long.seen["seen"][:, 20:].any()
    assert not long.seen["seen"][..., 20:].any()
    assert torch.equal(long.looks["digit"][:, :20], short.looks["digit"])


def test_what_is_counted_is_looked_at_thing_by_thing() -> None:
    taught = lessons([taught_by(Answer(slice(18, 20), Sought("counted", Reference(shape="star"), 1)))], 20)
    states, looks = blank(taught, 4)
    layer, head = ANSWERING["counted"][0]
    looks[layer][0, head, 18:20, 11] = 1.0
    one_alone = circuit_losses(states, looks, taught)["counted"][0]
    looks[layer][0, head, 18:20, [[11], [13]]] = 0.5
    each = circuit_losses(states, looks, taught)["counted"][0]
    assert each == pytest.approx(np.log(2), abs=1e-3)
    assert one_alone > 5 * each


@pytest.mark.parametrize(("skill", "look"), [("describe", "listed"), ("count", "counted"), ("small_print", "written"), ("relation", "seen")])
def test_what_is_asked_of_one_picture_is_seen_in_it(processor: Processor, skill: str, look: str) -> None:
    found = 0
    for seed in range(4):
        _, one = laid_out(processor, seed, skill)
        rows = {place for start, end in one.image_bound for place in range(start, end)}
        for place in np.flatnonzero(one.known.seen[look].any(1)):
            found += 1
            assert one.targets[place + 1] != IGNORED
            assert set(np.flatnonzero(one.known.seen[look][place])) <= rows
    assert found


def test_a_list_is_seen_thing_by_thing_from_the_left(processor: Processor) -> None:
    for seed in range(6):
        shown, one = laid_out(processor, seed, "describe")
        (scene,) = shown.turns[0].media[0].scenes
        assert scene is not None
        listed = one.known.seen["listed"]
        places = [tuple(np.flatnonzero(listed[place])) for place in np.flatnonzero(listed.any(1))]
        assert len(dict.fromkeys(places)) == len(scene.things)
