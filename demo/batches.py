"""Scenes and episodes -> a training batch: slices (pictures, 3, 14, 14 * patches), what each patch shows, and prompts (episodes, tokens)."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import PIL.Image
import torch

from demo.circuits import Answer, Known, Lessons, Shown, Written, at_rows, known, lessons
from demo.episodes import Episode, Media, Turn
from demo.language import CHINESE, ENGLISH, Code
from demo.scenes import IGNORED, LABEL_COUNTS, Scene, patch_labels
from pipeline.config import ModelConfig
from pipeline.cutting import CutPicture, Cutting
from pipeline.media import Picture
from pipeline.message import Image, Message, Part, Text, Video
from pipeline.preprocess import Layout, Slice, vision_position_ids
from pipeline.processor import Options, PlannedPicture, Processor
from pipeline.tokenizer import Tokenizer
from pipeline.vision import sincos_table

GROUP = 4  # episodes of about one length that the language model learns from at once: less is padded


@dataclass(frozen=True)
class Sight:
    """A slice, and for each label what its patches show, (rows, columns)."""

    slice: Slice
    labels: dict[str, np.ndarray]


@dataclass(frozen=True)
class Example:
    """One episode as the model is shown it: exactly the run time's slices, prompt and ids, the answers written out."""

    sights: tuple[Sight, ...]
    input_ids: tuple[int, ...]
    image_bound: tuple[tuple[int, int], ...]
    targets: tuple[int, ...]  # input_ids where an answer stands, its terminator included; IGNORED elsewhere
    known: Known


@dataclass(frozen=True)
class Pictures:
    """Padded slices."""

    pixel_values: torch.Tensor  # (pictures, 3, 14, 14 * patches) float32
    patch_mask: torch.Tensor  # (pictures, 1, patches) float32
    position_ids: torch.Tensor  # (pictures, patches) int64
    pos_embed: torch.Tensor  # (patches, pictures, hidden) float32
    labels: dict[str, torch.Tensor]  # each (pictures, patches) int64


@dataclass(frozen=True)
class Words:
    """Padded conversations. Padding stands on the right, where no earlier token attends to it."""

    input_ids: torch.Tensor  # (episodes, tokens) int64
    image_positions: torch.Tensor  # (pictures * queries, 2) int64: episode and token
    pictures: slice  # those of the batch that these episodes show, in this order
    targets: torch.Tensor  # (episodes, tokens) int64
    lessons: Lessons


@dataclass(frozen=True)
class Batch:
    """`words` is empty where only seeing is learned."""

    pictures: Pictures
    words: tuple[Words, ...] = ()


def look(image: PIL.Image.Image, scene: Scene | None, processor: Processor) -> list[Sight]:
    """A picture on its own: overview and slices."""
    ((placed,),) = processor.place([[processor.cutting(Options()).picture(Picture(image))]], Options())
    return _sights(placed, scene)


def example(episode: Episode, processor: Processor) -> Example:
    """Lay an episode out as a conversation is laid out for an answer, with every answer in it."""
    media = [item for turn in episode.turns for item in turn.media]
    scenes = [scene for item in media for scene in item.scenes]
    cutting = processor.cutting(Options())
    placed = processor.place([_pictures(item, cutting) for item in media], Options())
    planned = [picture for pictures in placed for picture in pictures]
    pieces = [_sights(item, scene) for item, scene in zip(planned, scenes, strict=True)]
    messages = []
    for turn in episode.turns:
        messages += [Message("user", (*(_part(item) for item in turn.media), Text(turn.question))), Message.assistant(turn.answer)]
    prompt = processor.prompt(messages, placed)
    tokenizer = processor.tokenizer
    header = [tokenizer.control_id("<|im_start|>"), *tokenizer.encode("assistant\n")]
    ids = prompt.input_ids[: -len(header)]  # that of one more answer
    terminator = tokenizer.control_id("<|im_end|>")
    targets = _targets(ids, header, terminator)
    overviews = itertools.accumulate((len(own) for own in pieces[:-1]), initial=0)
    closes = tokenizer.control_id("</image_id>")
    shown = [_shown(own[0], prompt.image_bound[index], scene, ids, closes) for own, index, scene in zip(pieces, overviews, scenes, strict=True)]
    asked_until = len(header) + len([terminator, *tokenizer.encode("\n")]) - 1  # tokens before those from which an answer is said
    answers = [
        Answer(places, turn.sought, _name_end(turn, episode.language, tokenizer, places.start - asked_until), _items(ids[places], tokenizer))
        for places, turn in zip(_answers(targets), episode.turns, strict=True)
    ]
    taught = known(shown, _written(pieces, prompt.image_bound, len(ids)), answers, len(ids))
    return Example(tuple(sight for own in pieces for sight in own), ids, prompt.image_bound, targets, taught)


def collate(examples: Sequence[Example], config: ModelConfig) -> Batch:
    """Episodes of about one length together, each group padded to its longest."""
    ordered = sorted(examples, key=lambda one: len(one.input_ids))
    groups = [ordered[start : start + GROUP] for start in range(0, len(ordered), GROUP)]
    words, shown = [], 0
    for group in groups:
        pictures = sum(len(one.sights) for one in group)
        words.append(_words(group, slice(shown, shown + pictures)))
        shown += pictures
    return Batch(collate_sights([sight for one in ordered for sight in one.sights], config), tuple(words))


def collate_sights(sights: Sequence[Sight], config: ModelConfig) -> Pictures:
    """Pad to the most patches."""
    patches = [height * width for height, width in (sight.slice.tgt_size for sight in sights)]
    count, longest, patch = len(sights), max(patches), config.vision.patch_size
    pixel_values = np.zeros((count, 3, patch, patch * longest), np.float32)
    patch_mask, position_ids = np.zeros((count, 1, longest), np.float32), np.zeros((count, longest), np.int64)
    pos_embed = np.zeros((longest, count, config.text.hidden_size), np.float32)
    labels = {name: np.full((count, longest), IGNORED, np.int64) for name in LABEL_COUNTS}
    for index, (sight, length) in enumerate(zip(sights, patches, strict=True)):
        pixel_values[index, :, :, : patch * length] = sight.slice.pixel_values()
        patch_mask[index, :, :length] = 1
        position_ids[index, :length] = vision_position_ids(sight.slice.tgt_size, config.vision)
        pos_embed[:length, index] = sincos_table(sight.slice.tgt_size, config.text.hidden_size)
        for name, shown in sight.labels.items():
            labels[name][index, :length] = shown.reshape(-1)
    return Pictures(
        pixel_values=torch.from_numpy(pixel_values),
        patch_mask=torch.from_numpy(patch_mask),
        position_ids=torch.from_numpy(position_ids),
        pos_embed=torch.from_numpy(pos_embed),
        labels={name: torch.from_numpy(array) for name, array in labels.items()},
    )


def _words(examples: Sequence[Example], pictures: slice) -> Words:
    tokens = max(len(one.input_ids) for one in examples)
    input_ids, targets = np.zeros((len(examples), tokens), np.int64), np.full((len(examples), tokens), IGNORED, np.int64)
    positions = []
    for row, one in enumerate(examples):
        input_ids[row, : len(one.input_ids)] = one.input_ids
        targets[row, : len(one.targets)] = one.targets
        positions += [(row, place) for start, end in one.image_bound for place in range(start, end)]
    image_positions = torch.tensor(positions, dtype=torch.int64).reshape(-1, 2)
    shown = lessons([one.known for one in examples], tokens)
    return Words(torch.from_numpy(input_ids), image_positions, pictures, torch.from_numpy(targets), shown)


def _sights(item: PlannedPicture, scene: Scene | None) -> list[Sight]:
    sights = []
    for piece, box in zip(item.slices, _boxes(item.layout), strict=True):
        labels = patch_labels(scene, piece.tgt_size, box) if scene else {name: np.zeros(piece.tgt_size, np.int64) for name in LABEL_COUNTS}
        sights.append(Sight(piece, labels))
    return sights


def _shown(overview: Sight, bound: tuple[int, int], scene: Scene | None, ids: Sequence[int], closes: int) -> Shown:
    start, end = bound
    rows = at_rows(overview.labels, end - start)
    digit = start - 3 if ids[start - 2] == closes else IGNORED  # an id, its end, the picture's beginning
    return Shown(start, end, digit, rows["shape"], rows["colour"], rows["size"], rows["rank"], len(scene.things) if scene else IGNORED)


def _written(pieces: Sequence[Sequence[Sight]], bounds: Sequence[tuple[int, int]], tokens: int) -> Written:
    glyph, rank, picture = np.zeros((3, tokens), np.int64)
    numbered = [(number, sight) for number, own in enumerate(pieces, 1) for sight in own]
    for (number, sight), (start, end) in zip(numbered, bounds, strict=True):
        rows = at_rows(sight.labels, end - start)
        glyph[start:end], rank[start:end], picture[start:end] = rows["glyph"], rows["rank"], number
    return Written(glyph, rank, picture)


def _items(before: Sequence[int], tokenizer: Tokenizer) -> list[int]:
    """Of each token from which an answer is said, the first of which stands before it: which of the things it lists is spoken of there, from 1."""
    return [1 + sum(tokenizer.decode([token]).strip() in (",", "，") for token in before[1 : index + 1]) for index in range(len(before))]


def _name_end(turn: Turn, code: Code, tokenizer: Tokenizer, end: int) -> int:
    """The last token of the name of what is sought, in a question that ends before the token `end`; -1 if it has none."""
    name = (ENGLISH if code == "en" else CHINESE).name(turn.sought.what) if turn.sought and turn.sought.seen == "named" else ""
    if not name:
        return -1
    ids = tokenizer.encode(turn.question)
    until = turn.question.index(name) + len(name)
    return end - len(ids) + next(count for count in range(len(ids)) if len(tokenizer.decode(ids[: count + 1])) >= until)


def _answers(targets: Sequence[int]) -> list[slice]:
    """From where each answer is said: each token is said at the one before it."""
    learned = [index for index, target in enumerate(targets) if target != IGNORED]
    starts = [index for index in learned if targets[index - 1] == IGNORED]
    ends = [index for index in learned if index + 1 == len(targets) or targets[index + 1] == IGNORED]
    return [slice(start - 1, end - 1) for start, end in zip(starts, ends, strict=True)]  # the terminator is said of nothing


def _pictures(media: Media, cutting: Cutting) -> list[CutPicture]:
    if media.kind == "image":
        return [cutting.picture(Picture(media.frames[0]))]
    return list(cutting.frames(Picture(frame, time) for frame, time in zip(media.frames, media.times, strict=True)))


def _part(media: Media) -> Part:
    """Only its kind counts: the placeholders are there already."""
    return Image(b"") if media.kind == "image" else Video(b"")


def _boxes(layout: Layout) -> list[tuple[float, float, float, float]]:
    """What the overview and each slice show of the picture: left, top, right, bottom from 0 to 1."""
    columns, rows = layout.grid or (0, 0)
    cells = [(x / columns, y / rows, (x + 1) / columns, (y + 1) / rows) for y in range(rows) for x in range(columns)]
    return [(0.0, 0.0, 1.0, 1.0), *cells]


def _targets(ids: Sequence[int], header: Sequence[int], terminator: int) -> tuple[int, ...]:
    targets, start = [IGNORED] * len(ids), 0
    while start < len(ids):
        if list(ids[start : start + len(header)]) == list(header):
            start += len(header)
            end = ids.index(terminator, start) + 1
            targets[start:end] = ids[start:end]
            start = end
        start += 1
    return tuple(targets)
