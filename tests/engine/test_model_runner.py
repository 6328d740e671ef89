"""The language model on paged attention over the fp32 IR: official logits, in whatever blocks, pieces and company."""

import os
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.artifacts import BUNDLED
from pipeline.config import EngineConfig, ModelConfig
from pipeline.engine import model_runner
from pipeline.engine.compiled import Compiler
from pipeline.engine.model_runner import BLOCK_SIZE, ModelRunner, Rows
from pipeline.errors import ArtifactError, InputError

CASES = ["tiny_single0", "tiny_single1", "tiny_single2", "tiny_text_only"]


@pytest.fixture(scope="module")
def runner(fp32_folder: Path) -> ModelRunner:
    return ModelRunner(Compiler(fp32_folder, EngineConfig(device="CPU")), 2**30, 32)


@pytest.fixture
def data(golden: Path) -> dict[str, Any]:
    return {case: np.load(golden / f"{case}.npz") for case in CASES}


def rows(data: Any, start: int, end: int, table: list[int], wanted: int = 1) -> Rows:
    return Rows(data["inputs_embeds"][0, start:end], start, table[: -(-end // BLOCK_SIZE)], wanted)


@pytest.mark.parametrize("case", CASES)
def test_logits_of_all_positions_equal_the_official_ones(runner: ModelRunner, data: dict[str, Any], case: str) -> None:
    one = data[case]
    length = one["logits"].shape[1]
    logits = runner.forward([rows(one, 0, length, [9, 3, 7, 0], wanted=length)])
    np.testing.assert_allclose(logits, one["logits"][0], atol=1e-4)


@pytest.mark.parametrize("sizes", [[1] * 62, [61, 1], [7, 13, 42], [32, 30]])
def test_a_prompt_in_pieces_equals_the_prompt_at_once(runner: ModelRunner, data: dict[str, Any], sizes: list[int]) -> None:
    one, start = data["tiny_single0"], 0
    for size in sizes:
        logits = runner.forward([rows(one, start, start + size, [5, 2])])
        start += size
        np.testing.assert_allclose(logits, one["logits"][:, start - 1], atol=1e-4)


def test_prefill_and_decode_of_several_sequences_in_one_call_disturb_each_other_in_nothing(runner: ModelRunner, data: dict[str, Any]) -> None:
    tables = {case: list(range(4 * index, 4 * index + 4)) for index, case in enumerate(CASES)}
    lengths = {case: data[case]["logits"].shape[1] for case in CASES}
    begun = {case: min(10 * index, lengths[case] - 1) for index, case in enumerate(CASES)}
    runner.forward([rows(data[case], 0, begun[case], tables[case], wanted=0) for case in CASES if begun[case]])
    ends = {case: lengths[case] if index % 2 else begun[case] + 1 for index, case in enumerate(CASES)}
    logits = runner.forward([rows(data[case], begun[case], ends[case], tables[case]) for case in CASES])
    for case, own in zip(CASES, logits, strict=True):
        np.testing.assert_allclose(own, data[case]["logits"][0, ends[case] - 1], atol=1e-4)


def test_a_copied_block_holds_what_the_first_one_held_and_no_more_of_it(runner: ModelRunner, data: dict[str, Any]) -> None:
    one, other = data["tiny_single0"], data["tiny_single2"]
    common = 18  # both prompts begin with the same words
    runner.forward([rows(one, 0, common, [0], wanted=0)])
    runner.copy([(0, 1)])
    both = [rows(one, common, 40, [0, 2]), rows(other, common, 40, [1, 3])]
    logits = runner.forward(both)
    np.testing.assert_allclose(logits, np.stack([one["logits"][0, 39], other["logits"][0, 39]]), atol=1e-4)


def test_what_was_in_the_blocks_before_leaves_no_trace(runner: ModelRunner, data: dict[str, Any]) -> None:
    for cache in runner._caches:
        cache[:] = 1e3
    one = data["tiny_single0"]
    np.testing.assert_allclose(runner.forward([rows(one, 0, 62, [4, 1])]), one["logits"][:, -1], atol=1e-4)


def test_after_warming_up_the_first_long_prompt_takes_no_longer_than_the_next() -> None:
    """It took five times as long: attention was prepared anew for each block of it."""
    runner = ModelRunner(Compiler(BUNDLED, EngineConfig(device="CPU")), 2**30, 64)
    hidden_size = ModelConfig.from_folder(BUNDLED).text.hidden_size
    runner.warm_up(hidden_size, prefill_tokens=64, mixed_tokens=48, sequences=8, longest=4096)
    piece = np.zeros((64, hidden_size), np.float32)

    def median_step() -> float:
        taken = []
        for start in range(0, 1984, len(piece)):
            begun = time.perf_counter()
            runner.forward([Rows(piece, start, range(-(-(start + len(piece)) // BLOCK_SIZE)), wanted=1)])
            taken.append(time.perf_counter() - begun)
        return statistics.median(taken)

    first, second = median_step(), median_step()
    assert first < 2.5 * second


@pytest.mark.parametrize(
    ("limits", "share"), [([], 1.0), (["max\n"], 1.0), (["max\n", "9223372036854771712\n"], 1.0), (["1000000\n"], 1e6), (["max\n", "2000000\n"], 2e6)]
)
def test_the_memory_here_is_what_the_container_may_use(limits: list[str], share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [tmp_path / "of version 2", tmp_path / "of version 1"]
    for file, limit in zip(files, limits, strict=False):
        file.write_text(limit)
    monkeypatch.setattr(model_runner, "CGROUP_LIMITS", files)
    everything = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert model_runner.memory_bytes_here() == (everything if share == 1.0 else share)


def test_the_pool_is_no_larger_than_asked(fp32_folder: Path) -> None:
    compiler = Compiler(fp32_folder, EngineConfig(device="CPU"))
    block_bytes = sum(cache[0].nbytes for cache in ModelRunner(compiler, 2**30, 1)._caches)
    runner = ModelRunner(compiler, 5 * block_bytes + 1, 100)
    assert (runner.num_blocks, runner.kv_cache_bytes) == (5, 5 * block_bytes)
    with pytest.raises(InputError, match=rf"kv_cache_bytes is 10; one block of 32 tokens takes {block_bytes:,}\."):
        ModelRunner(compiler, 10, 100)


def test_a_model_without_attention_states_is_refused(fp32_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.engine.model_runner.LANGUAGE_MODEL", "openvino_resampler_model.xml")
    with pytest.raises(ArtifactError):
        ModelRunner(Compiler(fp32_folder, EngineConfig(device="CPU")), 2**30, 4)
