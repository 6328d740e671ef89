"""The bundled model: within its size, made from the checkpoint beside it, and right about what it is shown and about nothing else."""

from pathlib import Path
from typing import Any

import pytest
import torch

from conversion.checkpoint import Checkpoint
from conversion.model import MiniCPMV
from demo.evaluate import MAX_NEW_TOKENS, answers, evaluate
from demo.exam import drawn
from demo.reference import Reference
from pipeline import Assistant
from pipeline.artifacts import BUNDLED
from pipeline.config import ModelConfig
from tests.demo.other_means import questions as questions_by_other_means

MODEL = Path(__file__).parent.parent.parent / "demo" / "model"
CHECKPOINT = MODEL / "checkpoint"


def test_the_checkpoint_is_a_whole_one_in_bfloat16_within_its_size() -> None:
    checkpoint = Checkpoint.open(CHECKPOINT)
    model = MiniCPMV.skeleton(ModelConfig.from_folder(CHECKPOINT))
    checkpoint.check(model.stored_shapes(), model.may_ignore)
    assert sum(path.stat().st_size for path in CHECKPOINT.glob("*.safetensors")) <= 12_000_000
    assert sum(torch.Size(shape).numel() for shape in checkpoint.shapes.values()) * torch.bfloat16.itemsize <= 12_000_000


def test_the_ir_is_within_its_size() -> None:
    assert sum(path.stat().st_size for path in BUNDLED.iterdir()) <= 6_000_000


def test_the_ir_answers_as_its_checkpoint_does() -> None:
    asked, reference = drawn(45, 11), Reference(CHECKPOINT)
    with Assistant(BUNDLED) as assistant:
        given = answers(assistant, asked)
    same = [text == reference.answer(question, MAX_NEW_TOKENS)[1] for question, text in zip(asked, given, strict=True)]
    assert sum(same) >= 0.9 * len(same)


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    return evaluate(BUNDLED, drawn(150, 12), 12)


def test_it_is_right_about_scenes_that_training_never_saw(report: dict[str, Any]) -> None:
    assert report["overall"] >= 0.9
    assert report["kinds"]["one picture"] >= 0.9
    assert min(report["kinds"]["several pictures"], report["kinds"]["video"]) >= 0.8, "of ten each"
    assert min(report["languages"].values()) >= 0.85
    assert report["small_print_without_slices"] <= report["skills"]["small_print"] - 0.4


def test_it_needs_the_pictures(report: dict[str, Any]) -> None:
    controls = report["controls"]
    assert max(controls["blanked"], controls["swapped"]) < controls["chance"] + 0.08


def test_it_is_right_about_scenes_drawn_by_other_means() -> None:
    asked = questions_by_other_means(90)
    with Assistant(BUNDLED) as assistant:
        given = answers(assistant, asked)
    right = {
        skill: [text == question.answer for question, text in zip(asked, given, strict=True) if question.skill == skill]
        for skill in ("colour", "shape", "count")
    }
    shares = {skill: sum(truths) / len(truths) for skill, truths in right.items()}
    assert min(shares["colour"], shares["shape"]) >= 0.9, shares
    assert shares["count"] >= 0.7, shares
