"""From episodes to batches to a checkpoint: the run time's own prompts, the right tokens to learn, and a training that goes on where it was."""

import json
import shutil
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from conversion.checkpoint import Checkpoint
from conversion.model import MiniCPMV
from demo.batches import GROUP, Batch, collate, example, look
from demo.curriculum import STAGES, STEPS, batches, rate_at, stage_at
from demo.curve import draw_curve
from demo.episodes import SKILLS, episode
from demo.four_bits import GROUP_SIZE, InFourBits, in_four_bits
from demo.scenes import IGNORED, LABEL_COUNTS
from demo.small_files import write_small_files
from demo.train import WARM_UP_STEPS, Trainer
from demo.vocabulary import CONTROL
from pipeline.config import ModelConfig
from pipeline.processor import Processor
from pipeline.tokenizer import Tokenizer

BEGINS = list(accumulate((stage.steps for stage in STAGES), initial=0))
TALK_LEARNS_FROM, NAMES_LEARN_FROM = (
    next(begun for begun, stage in zip(BEGINS, STAGES, strict=False) if side in stage.sides) for side in ("talk", "names")
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    write_small_files(folder)
    return folder


@pytest.fixture
def fresh(folder: Path, tmp_path: Path) -> Path:
    """The small files alone, in a folder of the test's own."""
    return shutil.copytree(folder, tmp_path / "model", ignore=shutil.ignore_patterns("model*", "training"))


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
        assert len(one.sights) == len(one.image_bound)


def test_letters_that_are_read_are_written_one_by_one(folder: Path) -> None:
    tokenizer = Tokenizer(folder)
    for word in ("QUEEN", "CAT", "XKWQZ"):
        assert [tokenizer.decode([token]) for token in tokenizer.encode(f"{word}.")] == [*word, "."]


def test_padding_is_masked_and_every_picture_stands_at_its_place(processor: Processor) -> None:
    skills = ("small_print", "colour", "multi", *["shape"] * (GROUP - 2))  # more than one group, the longest not last
    examples = [example(episode(seed, "train", skill), processor) for seed, skill in enumerate(skills)]
    batch = collate(examples, processor.config)
    ordered = sorted(examples, key=lambda one: len(one.input_ids))
    sights = [sight for one in ordered for sight in one.sights]
    pictures = batch.pictures
    for index, sight in enumerate(sights):
        height, width = sight.slice.tgt_size
        assert pictures.patch_mask[index].sum() == height * width
        np.testing.assert_array_equal(pictures.pixel_values[index, :, :, : 14 * height * width], sight.slice.pixel_values())
        assert all((pictures.labels[name][index, height * width :] == IGNORED).all() for name in LABEL_COUNTS)
    assert len(batch.words) == 2
    unk = processor.tokenizer.control_id("<unk>")
    shown = 0
    for words, group in zip(batch.words, (ordered[:GROUP], ordered[GROUP:]), strict=True):
        rows, places = words.image_positions.T
        count = sum(len(one.sights) for one in group)
        assert words.pictures == slice(shown, shown + count)
        assert len(rows) == count * processor.config.query_num == int((words.input_ids == unk).sum())
        assert (words.input_ids[rows, places] == unk).all()
        shown += count
    assert shown == len(sights)


def small_batch(processor: Processor) -> Batch:
    return collate([example(episode(seed, "train", "colour"), processor) for seed in range(4)], processor.config)


def test_training_learns_to_see_and_to_talk_and_goes_on_from_its_checkpoint(fresh: Path) -> None:
    trainer = Trainer(fresh)
    batch = small_batch(Processor(fresh))
    sights = [trainer.learn(Batch(batch.pictures)) for _ in range(WARM_UP_STEPS)]
    assert all(sights[-1][name] < sights[0][name] for name in LABEL_COUNTS)
    trainer.step = NAMES_LEARN_FROM
    losses = [trainer.learn(batch) for _ in range(WARM_UP_STEPS)]
    assert losses[-1]["words"] < 0.5 * losses[0]["words"]
    trainer.elapsed = 100.0
    trainer.save()
    again = Trainer(fresh)
    assert (again.step, again.elapsed) == (NAMES_LEARN_FROM + WARM_UP_STEPS, pytest.approx(trainer.elapsed, abs=1))
    following = [one.learn(batch) for one in (again, trainer)]
    assert following[0]["words"] == pytest.approx(following[1]["words"], rel=0.05)  # weights are kept in bfloat16
    assert again.learn(batch)["words"] < following[0]["words"]


def test_what_was_logged_of_steps_that_were_not_saved_is_logged_anew(fresh: Path) -> None:
    trainer = Trainer(fresh)
    trainer.step = 30
    trainer.save()
    trainer.log.write_text("".join(json.dumps({"step": step}) + "\n" for step in (25, 50)))
    assert json.loads(Trainer(fresh).log.read_text()) == {"step": 25}


def test_seeing_is_learned_first_and_left_alone_afterwards_and_what_finds_names_while_talking_begins(fresh: Path) -> None:
    trainer, processor = Trainer(fresh), Processor(fresh)
    batch = small_batch(processor)

    def changed(step: int, batch: Batch) -> set[str]:
        before = {name: weight.clone() for name, weight in trainer.model.state_dict().items()}
        trainer.step = step
        trainer.learn(batch)
        names = [name.split(".") for name, weight in trainer.model.state_dict().items() if not torch.equal(weight, before[name])]
        return {".".join(name[:4] if name[0] == "llm" else name[:1]) for name in names}

    layers = [f"llm.model.layers.{index}" for index in range(4)]
    assert changed(0, Batch(batch.pictures)) == {"vpm", "resampler"}
    talking = {*layers[2:], "llm.model.norm.weight", "llm.lm_head.weight"}
    assert changed(TALK_LEARNS_FROM, batch) == talking
    assert changed(NAMES_LEARN_FROM, batch) == {*layers[:2], "llm.model.embed_tokens.weight"} | talking


def test_a_stage_has_as_many_steps_as_it_says_and_rates_fall_evenly_in_it() -> None:
    for index, (begun, stage) in enumerate(zip(BEGINS, STAGES, strict=False)):
        steps = range(begun, begun + stage.steps)
        assert {stage_at(step)[0] for step in steps} == {index}
        first, last = stage.rates
        assert [rate_at(step) for step in steps] == pytest.approx([first + (last - first) * over / stage.steps for over in range(stage.steps)])
    with pytest.raises(ValueError, match="the training ends"):
        stage_at(STEPS)


def test_a_training_that_goes_on_is_given_the_batches_that_one_at_a_stroke_would_be_and_ends_with_the_last(
    fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = [replace(stage, steps=2) for stage in (STAGES[0], STAGES[-1])]
    monkeypatch.setattr("demo.curriculum.STAGES", few)
    monkeypatch.setattr("demo.curriculum.STEPS", 4)
    whole = list(batches(fresh, 0))
    assert [len(batch.words) > 0 for batch in whole] == [False, False, True, True]
    for one, other in zip(whole[1:], batches(fresh, 1), strict=True):
        torch.testing.assert_close(one.pictures.pixel_values, other.pictures.pixel_values, rtol=0, atol=0)
        for words, others in zip(one.words, other.words, strict=True):
            assert torch.equal(words.input_ids, others.input_ids)


def test_in_four_bits_is_what_the_compressor_makes_of_a_matrix() -> None:
    import nncf
    import openvino as ov
    from openvino import opset13 as ops

    weight = torch.randn(48, 2 * GROUP_SIZE, generator=torch.Generator().manual_seed(1))
    given = ops.parameter([-1, 2 * GROUP_SIZE], np.float32)
    product = ops.matmul(given, ops.constant(weight.numpy()), transpose_a=False, transpose_b=True)
    model = ov.Model([ops.result(product)], [given])
    model = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT4_SYM, group_size=GROUP_SIZE, ratio=1.0, all_layers=True)
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"})
    compressed = compiled(np.eye(2 * GROUP_SIZE, dtype=np.float32))[0].T
    np.testing.assert_allclose(in_four_bits(weight).numpy(), compressed, atol=3e-3)  # scales are kept in float16


def test_weights_are_their_own_again_after_four_bits() -> None:
    layer = torch.nn.Linear(GROUP_SIZE, 3)
    before = layer.weight.clone()
    with InFourBits(layer):
        assert not torch.equal(layer.weight, before)
        layer(torch.ones(1, GROUP_SIZE)).sum().backward()
    assert torch.equal(layer.weight, before)
    assert layer.weight.grad is not None
    assert torch.equal(layer.weight.grad, torch.ones(3, GROUP_SIZE))


def test_a_sight_of_a_cut_picture_is_its_overview_and_its_slices(processor: Processor) -> None:
    shown = episode(0, "train", "small_print").turns[0].media[0]
    sights = look(shown.frames[0], shown.scenes[0], processor)
    assert len(sights) > 3
    assert not sights[0].labels["glyph"].any()  # too small to be read in the overview
    assert any(sight.labels["glyph"].any() for sight in sights[1:])


def test_the_checkpoint_is_an_official_one_in_bfloat16_within_its_size(fresh: Path) -> None:
    Trainer(fresh).save()
    config = ModelConfig.from_folder(fresh)
    checkpoint = Checkpoint.open(fresh)
    model = MiniCPMV.skeleton(config)
    checkpoint.check(model.stored_shapes(), model.may_ignore)
    assert sum(torch.Size(shape).numel() for shape in checkpoint.shapes.values()) * torch.bfloat16.itemsize <= 12_000_000
    assert max(path.stat().st_size for path in fresh.rglob("*.*")) <= 10_000_000


def test_a_learning_curve_is_drawn_from_the_log(tmp_path: Path) -> None:
    lines = [
        {"step": step, "minutes": step / 10, "stage": step // 3, "shape": 2 / (1 + step)} | ({"words": 1.0} if step > 2 else {}) for step in range(9)
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    draw_curve(tmp_path / "log.jsonl", tmp_path / "curve.png")
    with PIL.Image.open(tmp_path / "curve.png") as picture:
        assert picture.size == (900, 500)
        assert len(picture.convert("RGB").getcolors(100_000) or ()) > 50
