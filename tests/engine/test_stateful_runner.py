"""The language model with its state inside OpenVINO, over the fp32 IR: official logits, however a prompt is cut into calls."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openvino as ov
import pytest

from pipeline.artifacts import LANGUAGE_MODEL
from pipeline.config import EngineConfig, GenerationConfig
from pipeline.engine.compiled import Compiler, Embedder
from pipeline.engine.sampler import BeamSearch
from pipeline.engine.stateful_runner import StatefulRunner, logits_of_last_position

CASES = ["tiny_single0", "tiny_single1", "tiny_single2", "tiny_text_only"]


@pytest.fixture(scope="module")
def loaded(fp32_folder: Path) -> StatefulRunner:
    return StatefulRunner(Compiler(fp32_folder, EngineConfig(device="CPU")))


@pytest.fixture
def runner(loaded: StatefulRunner) -> Iterator[StatefulRunner]:
    yield loaded
    loaded.truncate(0)


@pytest.mark.parametrize("case", CASES)
def test_the_last_logits_of_every_prefix_equal_the_official_ones(runner: StatefulRunner, golden: Path, case: str) -> None:
    data = np.load(golden / f"{case}.npz")
    for length in (1, 2, 17, data["logits"].shape[1]):
        runner.truncate(0)
        logits = runner.forward(data["inputs_embeds"][:, :length])
        np.testing.assert_allclose(logits, data["logits"][:, length - 1], atol=1e-4)


@pytest.mark.parametrize("sizes", [[1] * 62, [61, 1], [7, 13, 42], [62]])
def test_a_prompt_in_pieces_equals_the_prompt_at_once(runner: StatefulRunner, golden: Path, sizes: list[int]) -> None:
    data, start = np.load(golden / "tiny_single0.npz"), 0
    for size in sizes:
        logits = runner.forward(data["inputs_embeds"][:, start : start + size])
        start += size
        np.testing.assert_allclose(logits, data["logits"][:, start - 1], atol=1e-4)
    assert runner.length == 62


@pytest.mark.parametrize("kept", [0, 1, 30, 61])
def test_what_was_forgotten_leaves_no_trace(runner: StatefulRunner, golden: Path, kept: int) -> None:
    data, other = np.load(golden / "tiny_single0.npz"), np.load(golden / "tiny_single1.npz")
    runner.forward(data["inputs_embeds"][:, :kept] if kept else other["inputs_embeds"][:, :1])
    runner.forward(other["inputs_embeds"][:, :40])
    runner.truncate(kept)
    assert runner.length == kept
    logits = runner.forward(data["inputs_embeds"][:, kept:])
    np.testing.assert_allclose(logits, data["logits"][:, -1], atol=1e-4)


def test_rows_grow_out_of_one_change_places_and_shrink_to_one(runner: StatefulRunner, golden: Path) -> None:
    one, other = (np.load(golden / f"{case}.npz") for case in ("tiny_single0", "tiny_single2"))
    shared = 18  # both prompts begin with the same words
    np.testing.assert_array_equal(one["input_ids"][0, :shared], other["input_ids"][0, :shared])
    runner.forward(one["inputs_embeds"][:, :shared])
    both = [np.concatenate([other["inputs_embeds"][:, i : i + 1], one["inputs_embeds"][:, i : i + 1]]) for i in range(shared, 40)]
    runner.forward(both[0], (0, 0))
    for step, embeds in enumerate(both[1:], shared + 1):
        logits = runner.forward(embeds, (0, 1))
        np.testing.assert_allclose(logits, np.concatenate([other["logits"][:, step], one["logits"][:, step]]), atol=1e-4)
    logits = runner.forward(one["inputs_embeds"][:, 40:], (1,))
    np.testing.assert_allclose(logits, one["logits"][:, -1], atol=1e-4)


@pytest.mark.parametrize("case", ["tiny_single0", "tiny_single1", "tiny_single2"])
def test_the_best_beam_has_the_official_score(runner: StatefulRunner, fp32_folder: Path, golden: Path, case: str) -> None:
    embedder = Embedder(Compiler(fp32_folder, EngineConfig(device="CPU")))
    data = np.load(golden / f"{case}.npz")
    search = BeamSearch(GenerationConfig.beams(max_new_tokens=24), terminators=(759, 757))
    beam_idx = search.step(runner.forward(data["inputs_embeds"]))
    for _ in range(23):
        logits = runner.forward(embedder.embed([beam.token_ids[-1] for beam in search.live])[:, None], beam_idx)
        beam_idx = search.step(logits)
    best = search.best()
    assert list(best.token_ids) == data["beam3_rp1.2_ids"][0].tolist()
    assert best.score == pytest.approx(float(data["beam3_rp1.2_sequence_score"][0]), abs=1e-4)


def test_only_the_last_position_reaches_the_head(fp32_folder: Path, golden: Path) -> None:
    core = ov.Core()
    whole, cut = core.read_model(fp32_folder / LANGUAGE_MODEL), core.read_model(fp32_folder / LANGUAGE_MODEL)
    logits_of_last_position(cut)
    embeds = np.load(golden / "tiny_single0.npz")["inputs_embeds"]
    inputs = {
        "inputs_embeds": embeds,
        "attention_mask": np.ones((1, 62), np.int64),
        "position_ids": np.arange(62)[None],
        "beam_idx": np.zeros(1, np.int32),
    }
    of_whole, of_cut = (core.compile_model(model, "CPU")(inputs)["logits"] for model in (whole, cut))
    assert of_whole.shape == (1, 62, 780)
    assert of_cut.shape == (1, 1, 780)
    np.testing.assert_allclose(of_cut, of_whole[:, -1:], atol=2e-2)  # without our properties the plug-in keeps its cache in 8 bits
