"""What a model folder says, and what an operator or a caller may ask for."""

import json
import shutil
from pathlib import Path

import pytest

from pipeline.config import EngineConfig, GenerationConfig, ModelConfig, SliceConfig, TextConfig, VisionConfig
from pipeline.errors import ArtifactError, InputError


@pytest.fixture
def folder(golden: Path, tmp_path: Path) -> Path:
    for name in ("config.json", "preprocessor_config.json"):
        shutil.copyfile(golden / "tiny_model" / name, tmp_path / name)
    return tmp_path


def edit(path: Path, **fields: object) -> None:
    values = json.loads(path.read_text())
    for name, value in fields.items():
        if value is None:
            values.pop(name, None)
        else:
            values[name] = value
    path.write_text(json.dumps(values))


def test_every_size_comes_from_the_folder(folder: Path) -> None:
    config = ModelConfig.from_folder(folder)
    assert config.text == TextConfig(256, 416, 2, 4, 2, 780, 32768, 1e-6, 1e6, "silu", False)
    assert config.text.head_dim == 64
    assert config.vision == VisionConfig(48, 88, 3, 4, 3, 980, 14)
    assert config.vision.position_side_patches == 70
    assert config.slices == SliceConfig(9, 448, 14, True)
    assert (config.query_num, config.drop_vision_last_layer, config.vision_batch_size) == (16, False, 16)


def test_what_the_files_leave_out_has_the_official_default(folder: Path) -> None:
    edit(folder / "config.json", vision_config=None, drop_vision_last_layer=None, vision_batch_size=None)
    edit(folder / "preprocessor_config.json", norm_mean=None)
    config = ModelConfig.from_folder(folder)
    assert config.vision == VisionConfig(1152, 4304, 27, 16, 3, 980, 14)
    assert (config.drop_vision_last_layer, config.vision_batch_size) == (True, 16)
    assert config.slices.norm_mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(("field", "value"), [("image_feature_size", 64), ("patch_size", 16), ("max_slice_nums", 4), ("use_image_id", False)])
def test_files_that_contradict_each_other_are_refused(folder: Path, field: str, value: object) -> None:
    edit(folder / "preprocessor_config.json", **{field: value})
    with pytest.raises(ArtifactError, match=rf"preprocessor_config.json says {value}"):
        ModelConfig.from_folder(folder)


@pytest.mark.parametrize(
    "fields",
    [{"hidden_size": "256"}, {"num_hidden_layers": -1}, {"rope_theta": "x"}, {"vision_config": [1]}, {"slice_config": [1]}, {"query_num": True}],
)
def test_a_value_of_the_wrong_kind_is_named(folder: Path, fields: dict[str, object]) -> None:
    edit(folder / "config.json", **fields)
    with pytest.raises(ArtifactError, match=next(iter(fields))):
        ModelConfig.from_folder(folder)


def test_another_kind_of_model_is_refused(folder: Path) -> None:
    edit(folder / "config.json", model_type="llava")
    with pytest.raises(ArtifactError, match="'llava'; only 'minicpmv'"):
        ModelConfig.from_folder(folder)


@pytest.mark.parametrize(("content", "sentence"), [(None, "is missing"), ("{", "cannot be read as JSON"), ("[]", "holds no JSON object")])
def test_a_missing_or_broken_file_is_named(folder: Path, content: str | None, sentence: str) -> None:
    (folder / "config.json").unlink()
    if content is not None:
        (folder / "config.json").write_text(content)
    with pytest.raises(ArtifactError, match=f"config.json {sentence}"):
        ModelConfig.from_folder(folder)


def test_each_mode_has_its_official_defaults() -> None:
    sampling = GenerationConfig.sampling()
    assert (sampling.do_sample, sampling.top_p, sampling.top_k, sampling.temperature, sampling.repetition_penalty) == (True, 0.8, 100, 0.7, 1.05)
    beams = GenerationConfig.beams()
    assert (beams.do_sample, beams.num_beams, beams.repetition_penalty) == (False, 3, 1.2)
    greedy = GenerationConfig.greedy()
    assert (greedy.do_sample, greedy.num_beams, greedy.repetition_penalty) == (False, 1, 1.0)
    assert {config.max_new_tokens for config in (sampling, beams, greedy)} == {2048}
    assert sampling == GenerationConfig()


def test_the_golden_defaults_of_chat_are_ours(golden: Path) -> None:
    for case in json.loads((golden / "prompts.json").read_text()).values():
        assert {name: getattr(GenerationConfig.sampling(), name) for name in case["generation_kwargs"]} == case["generation_kwargs"]


def test_an_unknown_option_is_an_error_and_not_ignored() -> None:
    with pytest.raises(InputError, match=r"^Unknown generation option: top_n\.$"):
        GenerationConfig.sampling(top_n=3)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"temperature": 0.0}, "temperature is 0.0; it must be from 0.01 to 10.0."),
        ({"top_p": 1.5}, "top_p is 1.5; it must be from 0.0 to 1.0."),
        ({"max_new_tokens": 0}, "max_new_tokens is 0; it must be from 1 to 32768."),
        ({"num_beams": 3}, "Sampling takes one beam, not 3: choose sampling or beams."),
        ({"stop": ("",)}, "A stop string is empty."),
        ({"stop": "abc"}, "stop must be a tuple of strings."),
        ({"seed": -1}, "seed is -1; it must be a whole number from 0."),
        ({"max_new_tokens": 2.5}, "max_new_tokens is 2.5; it must be a whole number."),
        ({"temperature": "hot"}, "temperature is 'hot'; it must be a number."),
        ({"temperature": float("nan")}, "temperature is nan; it must be from 0.01 to 10.0."),
    ],
)
def test_a_value_out_of_bounds_is_named_with_its_bounds(options: dict, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        GenerationConfig.sampling(**options)
    assert str(caught.value) == sentence


@pytest.mark.parametrize("device", ["AUTO", "CPU", "GPU", "GPU.1"])
def test_known_devices_are_accepted(device: str) -> None:
    assert EngineConfig(device=device).device == device


@pytest.mark.parametrize(
    ("device", "reason"),
    [("NPU", "fixed shapes"), ("NPU.0", "fixed shapes"), ("TPU", "use AUTO, CPU, GPU or GPU.n"), ("GPU.x", "use AUTO"), ("CPU.0", "use AUTO")],
)
def test_other_devices_are_refused_with_the_reason(device: str, reason: str) -> None:
    with pytest.raises(InputError, match=f"^DEVICE={device} .*{reason}"):
        EngineConfig(device=device)


def test_other_unusable_engine_options_are_refused() -> None:
    for options in (
        {"backend": "magic"},
        {"prefill_chunk_tokens": 0},
        {"max_prompt_tokens": 0},
        {"max_waiting": 0},
        {"max_picture_bytes": 0},
        {"max_running": 0},
        {"mixed_step_tokens": 0},
        {"prompt_lookup_tokens": -1},
    ):
        with pytest.raises(InputError, match=str(next(iter(options.values())))):
            EngineConfig(**options)
