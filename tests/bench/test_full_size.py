"""The way of the real size, walked with the demo model's checkpoint: converted, published, pulled and asked."""

import json
from pathlib import Path

import pytest

from bench.full_size import CONTEXT_TOKENS, measure
from pipeline.artifacts import BUNDLED, LANGUAGE_MODEL, verify


def test_a_checkpoint_goes_all_the_way_to_an_answer_and_every_step_is_measured(tmp_path: Path) -> None:
    result = measure(tmp_path, BUNDLED.parent / "checkpoint", layers=0, vision_layers=0)
    assert list(result["steps"]) == ["conversion", "push", "serving"]
    serving = result["steps"]["serving"]
    assert serving["picture"]["text"] == "I only know drawn scenes.", "the picture is noise"
    assert serving["context"]["tokens"] >= CONTEXT_TOKENS
    assert serving["context"]["text"]
    assert 0 < serving["start"]["peak_anonymous_gib"] <= serving["peak_anonymous_gib"] < serving["peak_resident_gib"]
    assert result["bytes"][LANGUAGE_MODEL.replace(".xml", ".bin")] == (BUNDLED / LANGUAGE_MODEL.replace(".xml", ".bin")).stat().st_size
    bundled = json.loads((BUNDLED / "fidelity.json").read_text())["parts"]["language model"]
    assert result["fidelity"]["language model"]["kl"] == pytest.approx(bundled["kl"], rel=0.05), "that of the same weights, converted before"
    verify(tmp_path / "model")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "picture.png", "steps.json"], "the Hub and its cache are gone"
