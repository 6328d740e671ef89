"""Episodes: the same for the same seed, right when worked out again from the scene, fair, and with nothing held out in training."""

import math
import re
from collections import Counter, defaultdict
from functools import lru_cache
from itertools import pairwise

import pytest

from demo.episodes import SKILLS, Episode, Turn, episode
from demo.language import CHINESE, ENGLISH, Language
from demo.scenes import COLOURS, SHAPES, Scene, Thing
from demo.stock import HELD_OUT_PAIRS, WORDS, held_out_number, held_out_word
from pipeline.config import SliceConfig
from pipeline.preprocess import plan

SLICES = SliceConfig(scale_resolution=168)
LANGUAGES = {"en": ENGLISH, "zh": CHINESE}
# Words of a question or an answer, in both languages, and the attribute each names.
NAMES = {
    **{word: word for word in (*COLOURS, *SHAPES, "small", "large")},
    **dict(zip(("红色", "橙色", "黄色", "绿色", "蓝色", "紫色", "黑色", "白色"), COLOURS, strict=True)),
    **dict(zip(("圆形", "正方形", "三角形", "星形", "菱形", "十字形"), SHAPES, strict=True)),
    "小的": "small",
    "大的": "large",
}
NAMED = re.compile("(?!smaller|larger)(?:" + "|".join(sorted(NAMES, key=len, reverse=True)) + ")")
NUMBERS = {word: number for words in (["zero", "one", "two", "three", "four", "five", "six"], "零一两三四五六") for number, word in enumerate(words)}
PLACES = {
    "top": (None, 0),
    "bottom": (None, 2),
    "left": (0, None),
    "right": (2, None),
    "上": (None, 0),
    "下": (None, 2),
    "左": (0, None),
    "右": (2, None),
}


@lru_cache
def episodes(split: str, skill: str | None = None, number: int = 150) -> tuple[Episode, ...]:
    return tuple(episode(seed, split, skill) for seed in range(number))  # type: ignore[arg-type]


def turns(skill: str, number: int = 150) -> list[tuple[Language, Scene, Turn]]:
    """Turns about one picture of a scene, of both splits."""
    found = []
    for one in (*episodes("train", skill, number), *episodes("test", skill, number)):
        scene = one.turns[0].media[0].scenes[0]
        assert scene is not None
        found += [(LANGUAGES[one.language], scene, turn) for turn in one.turns if turn.skill == skill]
    return found


def shown(one: Episode) -> list[Scene]:
    return [scene for turn in one.turns for media in turn.media for scene in media.scenes if scene is not None]


def said(text: str) -> set[str]:
    return {NAMES[name] for name in NAMED.findall(text.lower())}


def called(text: str, scene: Scene) -> list[Thing]:
    """The things to which all attributes named in the text apply."""
    return [thing for thing in scene.things if said(text) <= {thing.colour, thing.shape, thing.size}]


def the_one(text: str, scene: Scene) -> Thing:
    found = called(text, scene)
    assert len(found) == 1, (text, scene)
    return found[0]


@pytest.mark.parametrize("skill", [None, *SKILLS])
def test_the_same_seed_gives_the_same_episode(skill: str | None) -> None:
    first, again, other = episode(11, "train", skill), episode(11, "train", skill), episode(11, "test", skill)
    assert first == again
    assert first != other


def test_an_unknown_skill_is_refused() -> None:
    with pytest.raises(ValueError, match="no skill 'dance'"):
        episode(0, "train", "dance")


def test_training_never_meets_what_is_held_out() -> None:
    pairs = re.compile(
        "|".join(f"{colour} {shape}" for colour, shape in HELD_OUT_PAIRS)
        + "|"
        + "|".join(f"{a}的?{b}" for a in NAMES for b in NAMES if (NAMES[a], NAMES[b]) in HELD_OUT_PAIRS and not a.isascii() and not b.isascii())
    )
    for skill in (None, *SKILLS):
        for one in episodes("train", skill):
            for scene in shown(one):
                assert not {(thing.colour, thing.shape) for thing in scene.things} & HELD_OUT_PAIRS
                for text in scene.prints:
                    assert not (held_out_number(int(text.text)) if text.text.isdigit() else held_out_word(text.text))
            for turn in one.turns:
                assert not pairs.search(turn.question + turn.answer), turn


def test_the_test_shows_held_out_pairs_in_about_half_of_its_scenes() -> None:
    drawn = [one for skill in ("colour", "count", "relation", "describe", "multi", "video") for one in episodes("test", skill)]
    rare = [any((thing.colour, thing.shape) in HELD_OUT_PAIRS for scene in shown(one) for thing in scene.things) for one in drawn]
    assert 0.4 < sum(rare) / len(rare) < 0.6


def test_the_test_prints_held_out_numbers_and_words_half_the_time() -> None:
    for skill, held_out in (("read_number", lambda text: held_out_number(int(text))), ("read_word", held_out_word)):
        texts = [turn.answer[:-1] for _, _, turn in turns(skill) if turn in [t for one in episodes("test", skill) for t in one.turns]]
        assert 0.35 < sum(held_out(text) for text in texts) / len(texts) < 0.65


def test_a_fifth_of_the_words_and_a_tenth_of_the_numbers_are_held_out() -> None:
    assert len(set(WORDS)) == len(WORDS) >= 140
    assert 0.15 < sum(map(held_out_word, WORDS)) / len(WORDS) < 0.25
    assert 0.08 < sum(map(held_out_number, range(10000))) / 10000 < 0.12


@pytest.mark.parametrize("skill", SKILLS)
def test_both_languages_come_about_half_the_time_and_never_mix(skill: str) -> None:
    drawn = [*episodes("train", skill), *episodes("test", skill)]
    assert 0.4 < sum(one.language == "en" for one in drawn) / len(drawn) < 0.6
    for one in drawn:
        for turn in one.turns:
            chinese = any("\u3400" < letter < "\uffff" for letter in turn.question)
            assert chinese == (one.language == "zh")
            assert turn.answer.endswith("。" if chinese else ".")
            assert "{" not in turn.question


@pytest.mark.parametrize("skill", SKILLS)
def test_an_episode_of_a_skill_asks_for_it_and_shows_its_media_first(skill: str) -> None:
    for one in episodes("train", skill):
        assert one.turns[0].media
        assert not any(turn.media for turn in one.turns[1:])
        wanted = one.turns[1:] if skill == "followup" else one.turns
        assert wanted
        assert {turn.skill for turn in wanted} == {skill}


def test_a_mixture_has_every_skill_and_packs_other_questions_behind_the_first() -> None:
    drawn = episodes("train", None, 600)
    assert {turn.skill for one in drawn for turn in one.turns} == set(SKILLS)
    assert len({turn.skill for turn in episode(3, "train", "describe", mixed=True).turns}) > 1
    assert sum(len(one.turns) for one in drawn) / len(drawn) > 2


@pytest.mark.parametrize("skill", ["colour", "shape", "size"])
def test_attributes_are_those_of_the_one_thing_that_is_called_so(skill: str) -> None:
    for _, scene, turn in turns(skill):
        question = re.sub("small or large|large or small|小的还是大的|大的还是小的", "", turn.question)
        assert said(turn.answer) == {getattr(the_one(question, scene), skill)}


def test_where_is_the_cell_and_the_centre_is_well_inside_it() -> None:
    for _, scene, turn in turns("where"):
        thing = the_one(turn.question, scene)
        column, row = 1, 1
        for word, (across, down) in PLACES.items():
            if word in turn.answer:
                column, row = (column if across is None else across), (row if down is None else down)
        assert abs(thing.x * 3 - 0.5 - column) < 0.35 or (column, thing.x < 0.5) in ((0, True), (2, False))
        assert (int(thing.x * 3), int(thing.y * 3)) == (column, row)
        assert all(abs(place - edge) > 0.05 for place in (thing.x, thing.y) for edge in (1 / 3, 2 / 3))


def test_counts_are_right() -> None:
    for _, scene, turn in turns("count"):
        answer = turn.answer.lower().rstrip(".。").removesuffix("个")
        assert NUMBERS[answer] == len(called(turn.question, scene)), turn


def test_what_exists_is_there_and_half_of_it_is_not() -> None:
    answers = []
    for _, scene, turn in turns("exist"):
        answers.append(turn.answer in ("Yes.", "有。"))
        assert answers[-1] == bool(called(turn.question, scene)), turn
    assert 0.45 < sum(answers) / len(answers) < 0.55


def test_most_of_what_is_absent_has_its_colour_and_its_shape_elsewhere_in_the_scene() -> None:
    absent = [(scene, said(turn.question)) for _, scene, turn in turns("exist") if turn.answer in ("No.", "没有。")]
    near = [
        all(any(name in (thing.colour, thing.shape) for thing in scene.things) for name in names) for scene, names in absent if len(scene.things) > 1
    ]
    assert sum(near) / len(near) > 0.3


def test_relations_are_evident_and_yes_as_often_as_no() -> None:
    relations = {"left": "left|左边", "right": "right of|右边", "above": "above|上方", "below": "below|下方", "inside": "inside|里面"}
    truths = []
    for language, scene, turn in turns("relation"):
        if turn.answer not in ("Yes.", "No.", "是的。", "不是。"):
            continue
        truth = turn.answer in ("Yes.", "是的。")
        truths.append(truth)
        (relation,) = (name for name, words in relations.items() if re.search(words, turn.question.removesuffix("is that right?")))
        words = {"en": "to the left of|to the right of|above|below|inside", "zh": "在"}[language.code]
        first, second = (the_one(part, scene) for part in re.split(words, turn.question.replace("在不在", "在").replace("是不是", ""), maxsplit=1))
        if relation == "inside":
            assert truth == (first.inside is not None and scene.things[first.inside] is second)
            continue
        along = (second.x - first.x) * scene.size[0] if relation in ("left", "right") else (second.y - first.y) * scene.size[1]
        assert truth == (along * (1 if relation in ("left", "above") else -1) > 0)
        assert abs(along) > 0.8 * (first.radius + second.radius) * scene.unit
    assert 0.45 < sum(truths) / len(truths) < 0.55


def test_what_is_read_is_printed() -> None:
    for skill in ("read_number", "read_word", "small_print"):
        for _, scene, turn in turns(skill):
            assert turn.answer[:-1] in [text.text for text in scene.prints]
            if skill != "small_print":
                assert turn.answer[:-1].isdigit() == (skill == "read_number")


def test_descriptions_name_everything_from_left_to_right() -> None:
    for language, scene, turn in turns("describe"):
        things = sorted(scene.things, key=lambda thing: thing.x)
        parts = turn.answer.split(", " if language.english else "，")
        assert [said(part) for part in parts] == [{thing.size, thing.colour, thing.shape} for thing in things]
        assert len(things) <= 4


def test_small_print_is_cut_and_legible_in_a_slice_only() -> None:
    for _, scene, _ in turns("small_print"):
        layout = plan(scene.size, SLICES)
        assert layout.grid is not None
        assert layout.refined_size is not None
        for text in scene.prints:
            height = text.height * scene.unit
            # Half a patch of the overview, a whole one of a slice.
            assert height * layout.overview_size[1] / scene.size[1] < 7.4
            assert height * layout.refined_size[1] / scene.size[1] > 12
            for side, half in ((0, text.width / 2), (1, text.height / 2)):
                place, reach = (text.x, text.y)[side] * layout.grid[side], half * scene.unit / scene.size[side] * layout.grid[side]
                assert math.floor(place - reach) == math.floor(place + reach)


@pytest.mark.parametrize("skill", ["size", "relation", "read_number", "read_word", "describe", "multi", "followup", "video"])
def test_ordinary_pictures_are_not_cut(skill: str) -> None:
    for one in episodes("train", skill):
        assert all(plan(frame.size, SLICES).grid is None for media in one.turns[0].media for frame in media.frames)


def test_images_are_told_apart_by_their_numbers() -> None:
    for one in (*episodes("train", "multi"), *episodes("test", "multi")):
        media = one.turns[0].media
        assert 2 <= len(media) <= 4
        for turn in one.turns:
            numbers = [int(number) for number in re.findall(r"(?:[Ii]mage |图)(\d)", turn.question + turn.answer)]
            assert all(1 <= number <= len(media) for number in numbers)
            scenes = [item.scenes[0] for item in media]
            if re.fullmatch(r"Image \d\.|图\d。", turn.answer) and said(turn.question):
                assert [bool(called(turn.question, scene)) for scene in scenes if scene] == [
                    index + 1 == numbers[-1] for index in range(len(scenes))
                ], turn


def test_videos_have_three_to_eight_frames_a_second_apart() -> None:
    for one in (*episodes("train", "video"), *episodes("test", "video")):
        (media,) = one.turns[0].media
        assert media.kind == "video"
        assert 3 <= len(media.frames) <= 8
        assert media.times == tuple(float(second) for second in range(len(media.frames)))
        assert len({frame.size for frame in media.frames}) == 1


def test_what_happens_in_a_video_is_what_is_said() -> None:
    steps = {"To the left.": (-1, 0), "To the right.": (1, 0), "Upwards.": (0, -1), "Downwards.": (0, 1)}
    steps |= {"向左。": (-1, 0), "向右。": (1, 0), "向上。": (0, -1), "向下。": (0, 1)}
    times = {"Once.": 1, "Twice.": 2, "Three times.": 3, "一次。": 1, "两次。": 2, "三次。": 3}
    seen: Counter[str] = Counter()
    for one in (*episodes("train", "video"), *episodes("test", "video")):
        scenes = [scene for scene in one.turns[0].media[0].scenes if scene]
        names = [{(thing.colour, thing.shape): (thing.x, thing.y) for thing in scene.things} for scene in scenes]
        for turn in one.turns:
            if turn.answer in steps:
                (start, end) = (the_one(turn.question, scene) for scene in (scenes[0], scenes[-1]))
                moved = (end.x - start.x, end.y - start.y)
                assert math.hypot(*moved) > 0.3
                assert [round(part / math.hypot(*moved)) for part in moved] == list(steps[turn.answer])
                seen["moves"] += 1
            elif turn.answer in times:
                there = [bool(called(turn.question, scene)) for scene in scenes]
                assert sum(a and not b for a, b in pairwise(there)) == times[turn.answer]
                assert there[0]
                assert there[-1]
                seen["blinks"] += 1
            elif re.search("vanish|disappear|消失|不见", turn.question):
                (gone,) = set(names[0]) - set(names[-1])
                assert said(turn.answer) == set(gone)
                seen["vanishes"] += 1
            elif re.search("appear|出现", turn.question):
                come = sorted(set(names[-1]) - set(names[0]), key=lambda name: next(index for index, frame in enumerate(names) if name in frame))
                wanted = come[:1] if re.search("first|最先", turn.question) else come[-1:] if re.search("last|最后", turn.question) else come
                assert [said(part) for part in re.split(", |，", turn.answer)] == [set(name) for name in wanted]
                seen["appears"] += 1
    assert min(seen[kind] for kind in ("moves", "blinks", "vanishes", "appears")) > 20


def test_follow_ups_about_attributes_are_right() -> None:
    checked = 0
    for one in (*episodes("train", "followup"), *episodes("test", "followup")):
        scene = one.turns[0].media[0].scenes[0]
        first = one.turns[0]
        if first.skill not in ("colour", "shape", "size", "where") or scene is None:
            continue
        question = re.sub("small or large|large or small|小的还是大的|大的还是小的", "", first.question)
        thing = the_one(question, scene)
        for turn in one.turns[1:]:
            if re.search(r"\bits?\b|它", turn.question):
                assert said(turn.answer) <= {thing.colour, thing.shape, thing.size}
                checked += 1
            elif not re.search("other|另一个", turn.question):
                assert first.skill == "where" or said(turn.answer) == {getattr(the_one(turn.question, scene), first.skill)}
                checked += 1
            elif first.skill != "where":
                (other,) = (one for one in scene.things if one is not thing)
                assert said(turn.answer) == {getattr(other, first.skill)}
                checked += 1
    assert checked > 100


def test_pictures_that_are_no_scenes_are_refused_in_the_same_words() -> None:
    for one in episodes("train", "refuse"):
        assert one.turns[0].media[0].scenes == (None,)
        assert {turn.answer for turn in one.turns} == {LANGUAGES[one.language].refusal()}


def test_no_skill_is_answered_well_by_its_most_common_answer() -> None:
    answers: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for skill in SKILLS:
        for one in (*episodes("train", skill), *episodes("test", skill)):
            for turn in one.turns:
                if turn.skill == skill:
                    answers[skill, one.language][turn.answer] += 1
    for (skill, language), counted in sorted(answers.items()):
        (answer, times), total = counted.most_common(1)[0], sum(counted.values())
        print(f"{skill:12} {language} {total:4} answers, {len(counted):3} different, {times / total:4.0%} {answer}")
        assert skill == "refuse" or times / total < (0.6 if skill in ("exist", "size") else 0.4), (skill, counted.most_common(3))
