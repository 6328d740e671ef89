"""From episodes to batches to a checkpoint: the run time's own prompts, the right tokens to learn, and a training that goes on where it was."""

from pathlib import Path

import numpy as np
import pytest
import torch

from conversion.checkpoint import Checkpoint
from conversion.model import MiniCPMV
from demo.batches import IGNORED, LABELS, collate, example
from demo.episodes import SKILLS, episode
from demo.train import Trainer, write_small_files
from demo.vocabulary import CONTROL
from pipeline.config import ModelConfig
from pipeline.processor import Processor
from pipeline.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    write_small_files(folder)
    return folder


@pytest.fixture(scope="module")
def processor(folder: Path) -> Processor:
    return Processor(folder)


def test_the_vocabulary_has_the_official_control_tokens_and_exclamation_marks_are_id_0(folder: Path) -> None:
    tokenizer = Tokenizer(folder)
    assert set(tokenizer.control_ids) == set(CONTROL)
    assert tokenizer.encode("!") == [0]
    assert tokenizer.decode(tokenizer.encode("有几个red星形？ 🙂")) == "有几个red星形？ 🙂"


@pytest.mark.parametrize("skill", SKILLS)
def test_what_is_learned_is_every_answer_with_its_terminator_and_nothing_else(processor: Processor, skill: str) -> None:
    for seed in range(3):
        shown = episode(seed, "train", skill, mixed=True)
        one = example(shown, processor)
        learned = [token for token in one.targets if token != IGNORED]
        assert processor.tokenizer.decode(learned) == "".join(f"{turn.answer}<|im_end|>" for turn in shown.turns)
        assert all(target in (IGNORED, token) for target, token in zip(one.targets, one.input_ids, strict=True))
        assert len(one.slices) == len(one.labels) == len(one.image_bound)


def test_padding_is_masked_and_every_picture_stands_at_its_place(processor: Processor) -> None:
    examples = [example(episode(seed, "train", skill), processor) for seed, skill in enumerate(("colour", "multi", "small_print"))]
    batch = collate(examples, processor.config)
    pieces = [piece for one in examples for piece in one.slices]
    for index, piece in enumerate(pieces):
        height, width = piece.tgt_size
        assert batch.patch_mask[index].sum() == height * width
        np.testing.assert_array_equal(batch.pixel_values[index, :, :, : 14 * height * width], piece.pixel_values())
        assert all((batch.labels[name][index, height * width :] == IGNORED).all() for name in LABELS)
    unk = processor.tokenizer.control_id("<unk>")
    rows, places = batch.image_positions.T
    assert len(rows) == len(pieces) * processor.config.query_num == int((batch.input_ids == unk).sum())
    assert (batch.input_ids[rows, places] == unk).all()


def test_training_learns_and_goes_on_from_its_state(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    for path in folder.iterdir():
        (tmp_path / "model" / path.name).write_bytes(path.read_bytes())
    work = tmp_path / "work"
    work.mkdir()
    trainer = Trainer(tmp_path / "model", work, budget_s=3600)
    processor = Processor(folder)
    batch = collate([example(episode(seed, "train", "colour"), processor) for seed in range(4)], processor.config)
    losses = [trainer.learn(batch) for _ in range(30)]
    assert losses[-1]["words"] < 0.5 * losses[0]["words"]
    assert all(losses[-1][name] < losses[0][name] for name in LABELS)
    trainer.elapsed = 30.0
    trainer.save()
    again = Trainer(tmp_path / "model", work, budget_s=3600)
    assert (again.step, again.elapsed) == (30, 30.0)
    assert again.learn(batch)["words"] == pytest.approx(trainer.learn(batch)["words"], rel=1e-3)


def test_the_checkpoint_is_an_official_one_in_bfloat16_within_its_size(folder: Path, tmp_path: Path) -> None:
    Trainer(folder, tmp_path, budget_s=60).save()
    config = ModelConfig.from_folder(folder)
    checkpoint = Checkpoint.open(folder)
    model = MiniCPMV.skeleton(config)
    checkpoint.check(model.stored_shapes(), model.may_ignore)
    assert checkpoint.numel() * torch.bfloat16.itemsize <= 12_000_000
