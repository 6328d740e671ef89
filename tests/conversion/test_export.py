import numpy as np
import openvino as ov
import pytest
import torch
from openvino._offline_transformations import paged_attention_transformation

from conversion.checkpoint import Source
from conversion.compress import Recipe
from conversion.job import convert
from pipeline.artifacts import LANGUAGE_MODEL, RESAMPLER, TEXT_EMBEDDINGS, VISION_EMBEDDINGS

SINGLES = ["tiny_single0.npz", "tiny_single1.npz", "tiny_single2.npz"]
IMAGES = {"tiny_single0.npz": "a_300x200", "tiny_single1.npz": "b_900x500", "tiny_single2.npz": "d_200x1000"}


def _ports(ports):
    return {port.any_name: (port.element_type.get_type_name(), str(port.partial_shape)) for port in ports}


@pytest.mark.parametrize(
    ("name", "inputs", "outputs"),
    [
        (
            VISION_EMBEDDINGS,
            {"pixel_values": ("f32", "[?,3,14,?]"), "patch_attention_mask": ("f32", "[?,1,?]"), "position_ids": ("i64", "[?,?]")},
            {"last_hidden_state": ("f32", "[?,?,48]")},
        ),
        (
            RESAMPLER,
            {"image_feature": ("f32", "[?,?,48]"), "pos_embed": ("f32", "[?,?,256]"), "key_padding_mask": ("f32", "[?,?]")},
            {"last_hidden_state": ("f32", "[?,16,256]")},
        ),
        (TEXT_EMBEDDINGS, {"input": ("i64", "[?,?]")}, {"inputs_embeds": ("f32", "[?,?,256]")}),
        (
            LANGUAGE_MODEL,
            {"attention_mask": ("i64", "[?,?]"), "position_ids": ("i64", "[?,?]"), "inputs_embeds": ("f32", "[?,?,256]"), "beam_idx": ("i32", "[?]")},
            {"logits": ("f32", "[?,?,780]")},
        ),
    ],
)
@pytest.mark.parametrize("folder", ["fp32_folder", "int4_folder"])
def test_inputs_and_outputs_are_those_of_optimum_intels_exporter(request, folder, name, inputs, outputs):
    model = ov.Core().read_model(request.getfixturevalue(folder) / name)
    assert _ports(model.inputs) == inputs
    assert _ports(model.outputs) == outputs


@pytest.mark.parametrize("file", SINGLES)
def test_the_image_encoder_gives_the_golden_hidden_states(golden, fp32, image_inputs, file):
    inputs = image_inputs(file, IMAGES[file])
    found, expected = fp32.vision(**inputs), np.load(golden / file)["vision_last_hidden_state"]
    for picture, mask in enumerate(inputs["patch_attention_mask"][:, 0]):
        np.testing.assert_allclose(found[picture, mask > 0], expected[picture, mask > 0], atol=2e-5)


def test_the_image_encoder_gives_the_golden_hidden_states_of_a_batch(golden, fp32, image_inputs, resampler_inputs):
    inputs = image_inputs("tiny_batch.npz", "a_300x200", "b_900x500", "d_200x1000")
    stored, found = np.load(golden / "tiny_batch.npz"), fp32.vision(**inputs)
    np.testing.assert_allclose(found[:, :64], stored["vision_last_hidden_state_first64"], atol=2e-5)
    rows = fp32.resampler(**resampler_inputs(found, stored["tgt_sizes_cat"], 256))
    np.testing.assert_allclose(rows, stored["resampler_output"], atol=2e-5)


@pytest.mark.parametrize("file", SINGLES)
def test_the_resampler_gives_the_golden_rows(golden, fp32, resampler_inputs, file):
    stored = np.load(golden / file)
    inputs = resampler_inputs(stored["vision_last_hidden_state"], stored["tgt_sizes_cat"], 256)
    np.testing.assert_allclose(fp32.resampler(**inputs), stored["resampler_output"], atol=2e-5)


def test_the_resampler_takes_sides_above_seventy_patches(golden, fp32, resampler_inputs):
    stored = np.load(golden / "resampler_direct.npz")
    np.testing.assert_allclose(fp32.resampler(**resampler_inputs(stored["x"], stored["tgt_sizes"], 256)), stored["y"], atol=2e-5)


@pytest.mark.parametrize("file", SINGLES)
def test_embeddings_with_pictures_in_their_places_are_the_golden_ones(golden, fp32, file):
    stored = np.load(golden / file)
    embeds = fp32.embed(stored["input_ids"].astype(np.int64))
    for (start, end), rows in zip(stored["image_bound_cat"], stored["resampler_output"], strict=True):
        embeds[0, start:end] = rows
    np.testing.assert_allclose(embeds, stored["inputs_embeds"], atol=1e-6)


@pytest.mark.parametrize("file", [*SINGLES, "tiny_text_only.npz"])
def test_logits_and_greedy_ids_are_the_golden_ones(golden, fp32, file):
    stored, decoder = np.load(golden / file), fp32.decoder()
    logits = decoder.step(stored["inputs_embeds"])
    np.testing.assert_allclose(logits, stored["logits"], atol=1e-4)
    ids = [int(logits[0, -1].argmax())]
    while len(ids) < stored["greedy_ids"].shape[1]:
        logits = decoder.step(fp32.embed(np.array([[ids[-1]]])))
        ids.append(int(logits[0, -1].argmax()))
    assert ids == stored["greedy_ids"][0].tolist()


def test_a_left_padded_batch_gives_the_golden_logits_and_greedy_ids(golden, fp32):
    stored, decoder = np.load(golden / "tiny_batch.npz"), fp32.decoder()
    logits = decoder.step(stored["inputs_embeds"], stored["attention_mask"])
    np.testing.assert_allclose(logits[:, -1:], stored["logits"], atol=1e-4)
    valid = stored["attention_mask"]
    assert (logits.argmax(-1)[valid] == stored["logits_full_argmax"][valid]).all()
    ids = [logits[:, -1].argmax(-1)]
    while len(ids) < stored["greedy_ids"].shape[1]:
        logits = decoder.step(fp32.embed(ids[-1][:, None]))
        ids.append(logits[:, -1].argmax(-1))
    assert np.stack(ids, axis=1).tolist() == stored["greedy_ids"].tolist()


def test_prefill_in_chunks_equals_prefill_at_once(golden, fp32):
    embeds, decoder = np.load(golden / "tiny_single1.npz")["inputs_embeds"], fp32.decoder()
    chunks = [decoder.step(embeds[:, start : start + 25]) for start in range(0, embeds.shape[1], 25)]
    np.testing.assert_allclose(np.concatenate(chunks, axis=1), fp32.decoder().step(embeds), atol=1e-4)


def test_beam_idx_grows_a_batch_and_reorders_its_state(golden, fp32):
    """One conversation becomes three; then the beams swap, and one dies. Each must go on as if it had been alone."""
    embeds, decoder = np.load(golden / "tiny_single0.npz")["inputs_embeds"], fp32.decoder()
    decoder.step(embeds)
    first, second = np.array([[5], [6], [7]]), np.array([[8], [9]])
    grown = decoder.step(fp32.embed(first), beam_idx=[0, 0, 0])
    swapped = decoder.step(fp32.embed(second), beam_idx=[2, 0])
    for beam, (ancestor, token) in enumerate(((2, 8), (0, 9))):
        alone = fp32.decoder()
        alone.step(embeds)
        np.testing.assert_allclose(grown[ancestor], alone.step(fp32.embed(first[ancestor : ancestor + 1]))[0], atol=1e-4)
        np.testing.assert_allclose(swapped[beam], alone.step(fp32.embed(np.array([[token]])))[0], atol=1e-4)


def test_a_reset_request_starts_from_nothing(golden, fp32):
    embeds, decoder = np.load(golden / "tiny_single0.npz")["inputs_embeds"], fp32.decoder()
    before = decoder.step(embeds)
    decoder.request.reset_state()
    decoder.mask = None
    np.testing.assert_array_equal(decoder.step(embeds), before)


@pytest.mark.parametrize("folder", ["fp32_folder", "int4_folder"])
def test_the_plug_in_fuses_attention_with_its_state(request, folder):
    compiled = ov.Core().compile_model(request.getfixturevalue(folder) / LANGUAGE_MODEL, "CPU")
    layers = [str(node.get_rt_info()["layerType"].value) for node in compiled.get_runtime_model().get_ops()]
    assert layers.count("ScaledDotProductAttention") == 2
    assert layers.count("RoPE") == 4
    assert "Softmax" not in layers


@pytest.mark.parametrize("folder", ["fp32_folder", "int4_folder"])
def test_paged_attention_replaces_the_state(request, folder):
    model = ov.Core().read_model(request.getfixturevalue(folder) / LANGUAGE_MODEL)
    paged_attention_transformation(model)
    names = {port.any_name for port in model.inputs}
    assert {"key_cache.0", "value_cache.0", "key_cache.1", "value_cache.1", "inputs_embeds", "position_ids", "block_indices", "past_lens"} <= names
    assert not names & {"attention_mask", "beam_idx"}
    assert len(model.get_sinks()) == 0
    ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


@pytest.fixture
def other(make_checkpoint, other_sizes, models_of, modules_of, tmp_path):
    """A checkpoint of other sizes in float16 shards, its embeddings tied: its modules, and its models."""
    checkpoint = make_checkpoint(dtype=torch.float16, shards=3, tie_word_embeddings=True, **other_sizes)
    convert(Source.locate(str(checkpoint)), tmp_path / "fp32", Recipe("fp32"))
    return modules_of(checkpoint), models_of(tmp_path / "fp32")


def test_models_of_other_sizes_equal_their_modules(other, resampler_inputs):
    modules, models = other
    random = np.random.default_rng(0)
    tgt_sizes = np.array([[3, 4], [2, 3], [1, 5]])
    mask = np.stack([np.arange(12) < height * width for height, width in tgt_sizes]).astype(np.float32)
    inputs = {
        "pixel_values": random.standard_normal((3, 3, 14, 14 * 12), np.float32),
        "patch_attention_mask": mask[:, None],
        "position_ids": random.integers(0, 1600, (3, 12)),
    }
    hidden = models.vision(**inputs)
    expected = modules.vpm(**{name: torch.from_numpy(value) for name, value in inputs.items()}).numpy()
    np.testing.assert_allclose(hidden[mask > 0], expected[mask > 0], atol=2e-5)

    inputs = resampler_inputs(expected, tgt_sizes, 384)
    rows = models.resampler(**inputs)
    assert rows.shape == (3, 9, 384)
    np.testing.assert_allclose(rows, modules.resampler(**{name: torch.from_numpy(value) for name, value in inputs.items()}), atol=2e-5)

    ids = random.integers(0, 780, (2, 17))
    embeds = modules.llm.get_input_embeddings()(torch.from_numpy(ids))
    np.testing.assert_array_equal(models.embed(ids), embeds)
    np.testing.assert_allclose(models.decoder().step(embeds.numpy()), modules.llm(inputs_embeds=embeds).logits, atol=1e-4)


@pytest.mark.parametrize("folder", ["fp16_folder", "int8_folder"])
def test_sixteen_bit_weights_pass_through_the_trace_unharmed(request, golden, tiny, models_of, image_inputs, folder):
    """Where the target is not fp32 the trace sees stand-ins for the weights: the right ones must come out, in the right places."""
    models, stored = models_of(request.getfixturevalue(folder)), np.load(golden / "tiny_single0.npz")
    ids = stored["input_ids"].astype(np.int64)
    for found, expected in [
        (models.vision(**image_inputs("tiny_single0.npz", "a_300x200")), stored["vision_last_hidden_state"]),
        (models.embed(ids), tiny.llm.get_input_embeddings()(torch.from_numpy(ids)).numpy()),
        (models.decoder().step(stored["inputs_embeds"]), stored["logits"]),
    ]:
        assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < 0.05
