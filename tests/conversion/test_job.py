import shutil

import numpy as np
import openvino as ov
import openvino_genai
import pytest

from conversion import job as room
from conversion.checkpoint import Checkpoint, Source
from conversion.compress import Recipe
from conversion.job import convert
from pipeline.artifacts import MANIFEST, REQUIRED, File, Manifest, verify
from pipeline.errors import ArtifactError, InputError


@pytest.fixture
def source(golden):
    return Source.locate(str(golden / "tiny_model"))


@pytest.mark.parametrize("folder", ["fp32_folder", "int4_folder"])
def test_the_manifest_lists_every_file_as_it_is(request, folder):
    folder = request.getfixturevalue(folder)
    verify(folder)
    manifest = Manifest.read(folder)
    assert manifest.files == {path.name: File.of(path) for path in folder.iterdir() if path.name != MANIFEST}
    assert manifest.files.keys() >= {
        *REQUIRED,
        "openvino_tokenizer.xml",
        "openvino_detokenizer.xml",
        "generation_config.json",
        "tokenizer_config.json",
    }


def test_the_manifest_says_where_a_folder_comes_from(int4_folder, fp32_folder):
    manifest = Manifest.read(int4_folder)
    assert (manifest.source, manifest.revision) == ("tiny_model", None)
    assert manifest.recipe == {"weight_format": "int4", "group_size": 32, "ratio": 1.0, "symmetric": True}
    assert {"nncf", "openvino", "torch", "transformers"} <= manifest.versions.keys()
    assert Manifest.read(fp32_folder).recipe == {"weight_format": "fp32"}


def test_no_file_tells_where_it_was_made(golden, fp32_folder, int4_folder):
    for folder in (fp32_folder, int4_folder):
        for place in (golden, folder.parent):
            assert [path.name for path in folder.iterdir() if str(place).encode() in path.read_bytes()] == []


@pytest.mark.parametrize("weight_format", ["int4", "fp32", "fp16", "int8"])
def test_openvino_genai_answers_about_a_picture(request, weight_format):
    folder = request.getfixturevalue(f"{weight_format}_folder")
    picture = ov.Tensor(np.random.default_rng(0).integers(0, 256, (1, 300, 500, 3), dtype=np.uint8))
    for backend in ({}, {"ATTENTION_BACKEND": "PA", "INFERENCE_PRECISION_HINT": "f32"}):
        pipeline = openvino_genai.VLMPipeline(folder, "CPU", **backend)
        answer = pipeline.generate("What is this?", images=[picture], max_new_tokens=8, do_sample=False)
        assert len(answer.texts[0]) > 0


def test_openvino_genai_takes_the_golden_tokens(golden, fp32_folder):
    """On a text without pictures, where its preprocessing plays no part, it must go the official way."""
    pipeline = openvino_genai.VLMPipeline(fp32_folder, "CPU", INFERENCE_PRECISION_HINT="f32")
    ids = np.load(golden / "tiny_text_only.npz")["greedy_ids"][0]
    expected = pipeline.get_tokenizer().decode(ids.tolist())
    assert pipeline.generate("Who are you?", max_new_tokens=len(ids), do_sample=False, repetition_penalty=1.0).texts[0] == expected


def test_the_checkpoints_code_is_never_run(golden, tmp_path):
    checkpoint = shutil.copytree(golden / "tiny_model", tmp_path / "checkpoint")
    for name in ("modeling_minicpmv", "configuration_minicpm", "tokenization_minicpmv_fast", "processing_minicpmv", "image_processing_minicpmv"):
        (checkpoint / f"{name}.py").write_text("raise SystemExit('remote code was run')\n")
    convert(Source.locate(str(checkpoint)), tmp_path / "out", Recipe("fp32"))
    assert list((tmp_path / "out").glob("*.py")) == []


def test_a_wrong_group_size_costs_no_download_and_no_reading(monkeypatch, source, tmp_path):
    def never(*_):
        raise AssertionError("weights were touched")

    monkeypatch.setattr(Source, "fetch_weights", never)
    monkeypatch.setattr(Checkpoint, "open", never)
    with pytest.raises(InputError, match="32 would do"):
        convert(source, tmp_path / "out", Recipe("int4", group_size=64))
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_that_does_not_fit_is_refused_before_any_part_is_converted(monkeypatch, make_checkpoint, tmp_path):
    monkeypatch.setattr(Checkpoint, "load", lambda *_: pytest.fail("a weight was read"))
    checkpoint = make_checkpoint(without="llm.model.norm.weight")
    with pytest.raises(ArtifactError, match=r"missing: llm\.model\.norm\.weight"):
        convert(Source.locate(str(checkpoint)), tmp_path / "out", Recipe("fp32"))
    assert not (tmp_path / "out").exists()


def test_a_disk_too_small_is_told_before_any_part_is_converted(monkeypatch, source, tmp_path):
    monkeypatch.setattr("conversion.folder.shutil.disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 0))
    with pytest.raises(InputError, match="disk"):
        convert(source, tmp_path / "out", Recipe("fp32"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("folder", "recipe"), [("fp32_folder", Recipe("fp32")), ("int4_folder", Recipe("int4", group_size=32))])
def test_the_space_asked_for_is_enough_and_not_much_too_much(monkeypatch, request, source, tmp_path, folder, recipe):
    def check_space(_, needed):
        asked.append(needed)
        raise InputError("enough")

    asked = []
    made = request.getfixturevalue(folder)  # before the patches: the session's folder is made by the same code
    monkeypatch.setattr(room, "check_space", check_space)
    monkeypatch.setattr(room, "SMALL_FILES_BYTES", 0)
    with pytest.raises(InputError, match="enough"):
        convert(source, tmp_path / "out", recipe)
    weights = sum(path.stat().st_size for path in made.glob("*_model.bin"))
    assert weights <= asked[0] <= 1.25 * weights


@pytest.mark.parametrize("fault", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_run_leaves_nothing(monkeypatch, source, tmp_path, fault):
    def interrupted(*_):
        raise fault

    monkeypatch.setattr(room, "write_small_files", interrupted)
    with pytest.raises(fault):
        convert(source, tmp_path / "out", Recipe("fp32"))
    assert list(tmp_path.iterdir()) == []


def test_a_run_told_not_to_proceed_leaves_nothing(source, tmp_path):
    """As after an interruption that a library has lost."""
    calls = []

    def proceed():
        calls.append(None)
        if len(calls) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(source, tmp_path / "out", Recipe("fp32"), proceed=proceed)
    assert list(tmp_path.iterdir()) == []
