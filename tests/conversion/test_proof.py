"""That what is wrong shows, part by part; that what is right passes is shown by every conversion of these tests."""

import numpy as np
import openvino as ov
import pytest
import torch

from conversion import proof as room
from conversion.checkpoint import Checkpoint
from conversion.model import MiniCPMV
from conversion.proof import Proof
from pipeline.artifacts import LANGUAGE_MODEL, RESAMPLER, TEXT_EMBEDDINGS, VISION_EMBEDDINGS
from pipeline.config import ModelConfig

PARTS = [VISION_EMBEDDINGS, RESAMPLER, TEXT_EMBEDDINGS, LANGUAGE_MODEL]


@pytest.fixture
def model(golden):
    return MiniCPMV.skeleton(ModelConfig.from_folder(golden / "tiny_model"))


@pytest.fixture
def prove(golden, model):
    """Figures of a part of a folder beside the golden checkpoint."""

    def figures(name, folder, progress=lambda _: None):
        return Proof(golden / "tiny_model", Checkpoint.open(golden / "tiny_model"), model, progress).of(name, folder)

    return figures


@pytest.mark.parametrize("name", PARTS)
def test_an_exact_part_is_found_exact_and_its_weights_are_let_go(prove, model, fp32_folder, name):
    figures = prove(name, fp32_folder)
    assert figures["cosine"] > 0.999999
    assert figures["relative_error"] < 1e-4
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


@pytest.mark.parametrize("name", PARTS)
def test_a_part_of_another_checkpoint_is_found_out(monkeypatch, prove, fp32_folder, name):
    load = Checkpoint.load

    def another(checkpoint, module, prefix, dtype=None):
        load(checkpoint, module, prefix, dtype)
        for parameter in module.parameters():
            parameter.data = parameter.data.flip(0)

    monkeypatch.setattr(Checkpoint, "load", another)
    assert prove(name, fp32_folder)["cosine"] < 0.9


def test_the_language_model_is_tried_alike_in_one_piece_and_a_layer_at_a_time(monkeypatch, prove, int4_folder):
    at_once = prove(LANGUAGE_MODEL, int4_folder)
    shares = []
    monkeypatch.setattr(room, "SPAN_WEIGHTS", 1)
    in_pieces = prove(LANGUAGE_MODEL, int4_folder, shares.append)
    assert shares == [0, 0, pytest.approx(1 / 3), pytest.approx(2 / 3)]
    assert in_pieces["layers"] == at_once["layers"] == 2
    for name in ("cosine", "relative_error", "kl", "top_1"):
        assert in_pieces[name] == pytest.approx(at_once[name], abs=5e-3)


def test_layers_in_the_wrong_order_are_found_out(prove, int4_folder, monkeypatch):
    """Each layer counts, not the first ones alone: here the checkpoint's two layers are swapped."""
    load = Checkpoint.load

    def swapped(checkpoint, module, prefix, dtype=None):
        other = {"llm.model.layers.0.": "llm.model.layers.1.", "llm.model.layers.1.": "llm.model.layers.0."}
        load(checkpoint, module, other.get(prefix, prefix), dtype)

    honest = prove(LANGUAGE_MODEL, int4_folder)["cosine"]
    monkeypatch.setattr(Checkpoint, "load", swapped)
    assert prove(LANGUAGE_MODEL, int4_folder)["cosine"] < honest - 0.2


def test_pictures_of_several_shapes_and_words_are_what_it_is_tried_on(prove, fp32_folder):
    assert prove(VISION_EMBEDDINGS, fp32_folder)["patches"] == [[32, 32], [16, 64], [39, 26]]
    assert prove(LANGUAGE_MODEL, fp32_folder)["tokens"] > 200


def test_the_language_model_on_torch_is_transformers_own(prove, golden, modules_of, fp32_folder, monkeypatch):
    """Layer by layer as the proof computes it, and in one call."""
    seen = []
    monkeypatch.setattr(room, "compare_logits", lambda expected, _: seen.append(expected) or {})
    monkeypatch.setattr(Proof, "_embeds", lambda *_: [np.load(golden / "tiny_text_only.npz")["inputs_embeds"]])
    prove(LANGUAGE_MODEL, fp32_folder)
    llm = modules_of(golden / "tiny_model").llm
    whole = llm(inputs_embeds=torch.from_numpy(np.load(golden / "tiny_text_only.npz")["inputs_embeds"])).logits
    np.testing.assert_allclose(seen[0][0], whole, atol=1e-4)


def test_no_activation_is_rounded_further(fp32_folder):
    compiled = ov.Core().compile_model(fp32_folder / LANGUAGE_MODEL, "CPU", room.EXACTLY)
    assert compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() == "f32"
    assert compiled.get_property("KV_CACHE_PRECISION").get_type_name() == "f32"
