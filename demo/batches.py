"""Episodes -> a training batch: slices (pictures, 3, 14, 14 * patches), prompts (episodes, tokens), what to learn, and what each patch shows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from demo.episodes import Episode, Media
from demo.scenes import patch_labels
from pipeline.config import ModelConfig
from pipeline.media import Picture
from pipeline.message import Image, Message, Part, Text, Video
from pipeline.preprocess import Layout, Slice, cut, vision_position_ids
from pipeline.processor import Options, Processor
from pipeline.vision import sincos_table

IGNORED = -100
LABELS = ("shape", "colour", "glyph")


@dataclass(frozen=True)
class Example:
    """One episode as the model is shown it: exactly the run time's slices, prompt and ids, the answers written out."""

    slices: tuple[Slice, ...]
    labels: tuple[dict[str, np.ndarray] | None, ...]  # for each slice what its patches show; None where nobody knows
    input_ids: tuple[int, ...]
    image_bound: tuple[tuple[int, int], ...]
    targets: tuple[int, ...]  # input_ids where an answer stands, its terminator included; IGNORED elsewhere


@dataclass(frozen=True)
class Batch:
    """Padded examples. Padding stands on the right, where no earlier token attends to it."""

    pixel_values: torch.Tensor  # (pictures, 3, 14, 14 * patches) float32
    patch_mask: torch.Tensor  # (pictures, 1, patches) float32
    position_ids: torch.Tensor  # (pictures, patches) int64
    pos_embed: torch.Tensor  # (patches, pictures, hidden) float32
    labels: dict[str, torch.Tensor]  # each (pictures, patches) int64
    input_ids: torch.Tensor  # (episodes, tokens) int64
    image_positions: torch.Tensor  # (pictures * queries, 2) int64: episode and token
    targets: torch.Tensor  # (episodes, tokens) int64


def example(episode: Episode, processor: Processor) -> Example:
    """Lay an episode out as a conversation is laid out for an answer, with every answer in it."""
    media = [item for turn in episode.turns for item in turn.media]
    scenes = [scene for item in media for scene in item.scenes]
    placed = processor.place([_pictures(item) for item in media], Options())
    planned = [picture for pictures in placed for picture in pictures]
    slices: list[Slice] = []
    labels: list[dict[str, np.ndarray] | None] = []
    for item, scene in zip(planned, scenes, strict=True):
        pieces = cut(item.picture.image, item.layout, processor.config.slices)
        slices += pieces
        for piece, box in zip(pieces, _boxes(item.layout), strict=True):
            labels.append(None if scene is None else patch_labels(scene, piece.tgt_size, box))
    messages = []
    for turn in episode.turns:
        messages += [Message("user", (*(_part(item) for item in turn.media), Text(turn.question))), Message.assistant(turn.answer)]
    prompt = processor.prompt(messages, placed)
    tokenizer = processor.tokenizer
    header = [tokenizer.control_id("<|im_start|>"), *tokenizer.encode("assistant\n")]
    ids = prompt.input_ids[: -len(header)]  # that of one more answer
    return Example(tuple(slices), tuple(labels), ids, prompt.image_bound, _targets(ids, header, tokenizer.control_id("<|im_end|>")))


def collate(examples: Sequence[Example], config: ModelConfig) -> Batch:
    """Pad to the longest picture and the longest conversation."""
    pieces = [piece for one in examples for piece in one.slices]
    patches = [height * width for height, width in (piece.tgt_size for piece in pieces)]
    count, longest, tokens = len(pieces), max(patches), max(len(one.input_ids) for one in examples)
    patch = config.vision.patch_size
    pixel_values = np.zeros((count, 3, patch, patch * longest), np.float32)
    patch_mask, position_ids = np.zeros((count, 1, longest), np.float32), np.zeros((count, longest), np.int64)
    pos_embed = np.zeros((longest, count, config.text.hidden_size), np.float32)
    shown = {name: np.full((count, longest), IGNORED, np.int64) for name in LABELS}
    known = [one for example in examples for one in example.labels]
    for index, (piece, length, label) in enumerate(zip(pieces, patches, known, strict=True)):
        pixel_values[index, :, :, : patch * length] = piece.pixel_values()
        patch_mask[index, :, :length] = 1
        position_ids[index, :length] = vision_position_ids(piece.tgt_size, config.vision)
        pos_embed[:length, index] = sincos_table(piece.tgt_size, config.text.hidden_size)
        for name, patches_show in (label or {}).items():
            shown[name][index, :length] = patches_show.reshape(-1)
    input_ids, targets = np.zeros((len(examples), tokens), np.int64), np.full((len(examples), tokens), IGNORED, np.int64)
    positions = []
    for row, one in enumerate(examples):
        input_ids[row, : len(one.input_ids)] = one.input_ids
        targets[row, : len(one.targets)] = one.targets
        positions += [(row, place) for start, end in one.image_bound for place in range(start, end)]
    return Batch(
        pixel_values=torch.from_numpy(pixel_values),
        patch_mask=torch.from_numpy(patch_mask),
        position_ids=torch.from_numpy(position_ids),
        pos_embed=torch.from_numpy(pos_embed),
        labels={name: torch.from_numpy(array) for name, array in shown.items()},
        input_ids=torch.from_numpy(input_ids),
        image_positions=torch.tensor(positions, dtype=torch.int64).reshape(-1, 2),
        targets=torch.from_numpy(targets),
    )


def _pictures(media: Media) -> list[Picture]:
    times = media.times if media.kind == "video" else (None,)
    return [Picture(frame, time) for frame, time in zip(media.frames, times, strict=True)]


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
