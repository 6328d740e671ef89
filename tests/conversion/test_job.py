import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import openvino as ov
import openvino_genai
import PIL.Image
import pytest

from conversion import job as room
from conversion import parts
from conversion.checkpoint import INDEX, Checkpoint, Source
from conversion.compress import Recipe
from conversion.fidelity import FIDELITY, Limits
from conversion.job import convert
from conversion.parts import Part
from conversion.proof import Proof
from conversion.workspace import kept_steps, place_of
from pipeline.artifacts import LANGUAGE_MODEL, MANIFEST, REQUIRED, VISION_EMBEDDINGS, File, Manifest, verify
from pipeline.errors import ArtifactError, InputError

INT4 = Recipe("int4", group_size=32)
ROOT = Path(room.__file__).parent.parent

#: Files that are saved, in order: the four models, tokenizer, detokenizer.
SAVED = 6

#: A conversion to INT4 that is killed as no process can help: in the middle of writing its n-th file, or right after its n-th record.
KILLED = """
import os, signal, sys
from pathlib import Path
import openvino
from conversion import workspace
from conversion.checkpoint import Source
from conversion.compress import Recipe
from conversion.job import convert
source, output, moment, n = sys.argv[1:]
calls = []

def then_killed(function, damage):
    def called(*arguments, **options):
        result = function(*arguments, **options)
        calls.append(function)
        if len(calls) == int(n):
            damage(*arguments)
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return called

def cut(model, path):
    file = Path(path).with_suffix(".bin")
    os.truncate(file, file.stat().st_size // 2)

if moment == "writing":
    openvino.save_model = then_killed(openvino.save_model, cut)
else:
    workspace.Workspace._write_record = then_killed(workspace.Workspace._write_record, lambda work: None)
convert(Source.locate(source), Path(output), Recipe("int4", group_size=32))
"""


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
        "fidelity.json",
        "README.md",
    }


def test_the_manifest_says_where_a_folder_comes_from(int4_folder, fp32_folder):
    manifest = Manifest.read(int4_folder)
    assert (manifest.source, manifest.revision) == ("tiny_model", None)
    assert manifest.recipe == {"weight_format": "int4", "group_size": 32, "ratio": 1.0, "symmetric": True, "vision_format": "int8"}
    assert {"nncf", "openvino", "torch", "transformers"} <= manifest.versions.keys()
    assert Manifest.read(fp32_folder).recipe == {"weight_format": "fp32", "vision_format": "fp32"}


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


def _of_another_kind(folder):
    """Give a sharded checkpoint the names that one in 4 bits has."""
    index = json.loads((folder / INDEX).read_text())
    names = [name for name in index["weight_map"] if name.startswith("llm.") and name.endswith("proj.weight")]
    index["weight_map"] |= {f"{name}.absmax": index["weight_map"][name] for name in names}
    (folder / INDEX).write_text(json.dumps(index))
    return [f"{name}.absmax" for name in sorted(names)]


def test_another_kind_of_checkpoint_is_refused_in_a_sentence_before_its_weights_are_fetched(hub, make_checkpoint, tmp_path):
    folder = make_checkpoint(shards=2)
    names = _of_another_kind(folder)
    hub.hub.publish("owner/name", folder, [path.name for path in folder.iterdir()])
    with pytest.raises(ArtifactError) as caught:
        convert(Source.locate("owner/name"), tmp_path / "out", INT4)
    told = f"unknown: {', '.join(names[:5])} and {len(names) - 5} more"
    assert str(caught.value) == f"The checkpoint's tensors do not fit its config.json; {told}."
    assert hub.asked(r"/resolve/.*index\.json$")
    assert not hub.asked(r"\.safetensors$")


def test_a_quantised_checkpoint_is_refused_before_its_weights_are_fetched(hub, golden, tmp_path):
    folder = shutil.copytree(golden / "tiny_model", tmp_path / "checkpoint")
    stated = json.loads((folder / "config.json").read_text()) | {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    (folder / "config.json").write_text(json.dumps(stated))
    hub.hub.publish("owner/name", folder, [path.name for path in folder.iterdir()])
    with pytest.raises(ArtifactError, match=r"config\.json says that the weights are quantised \(bitsandbytes\)"):
        convert(Source.locate("owner/name"), tmp_path / "out", INT4)
    assert not hub.asked(r"\.safetensors$")


def test_a_disk_too_small_is_told_before_any_part_is_converted(monkeypatch, source, tmp_path):
    monkeypatch.setattr("conversion.folder.shutil.disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 0))
    with pytest.raises(InputError, match="disk"):
        convert(source, tmp_path / "out", Recipe("fp32"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("recipe", "held"), [(Recipe("fp32"), "language model in fp32"), (Recipe("int8", vision_format="fp16"), "image encoder in fp16")]
)
def test_a_memory_too_small_is_told_before_any_part_is_converted(monkeypatch, source, tmp_path, recipe, held):
    monkeypatch.setattr(room, "memory_bytes_here", lambda: 100_000)
    with pytest.raises(InputError, match=rf"^The {held} takes .* GB of memory, and this machine has 0\.0 GB: int8 and int4 take less\.$"):
        convert(source, tmp_path / "out", recipe)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("folder", "recipe"), [("fp32_folder", Recipe("fp32")), ("int4_folder", Recipe("int4", group_size=32))])
def test_the_space_asked_for_is_enough_and_not_much_too_much(monkeypatch, request, source, tmp_path, folder, recipe):
    def check_space(_, needed, *__):
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
def test_an_interrupted_run_keeps_its_parts_and_the_next_goes_on_to_the_same_bytes(monkeypatch, source, tmp_path, fp32_folder, fault):
    def interrupted(*_):
        raise fault

    with monkeypatch.context() as patched:
        patched.setattr(room, "write_small_files", interrupted)
        with pytest.raises(fault):
            convert(source, tmp_path / "out", Recipe("fp32"))
    assert kept_steps(tmp_path / "out") == ["image encoder", "resampler", "token embedding", "language model"]
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(Part, "write", lambda *_: pytest.fail("a part was made again"))
    convert(source, tmp_path / "out", Recipe("fp32"))
    assert Manifest.read(tmp_path / "out") == Manifest.read(fp32_folder)
    verify(tmp_path / "out")
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


@pytest.mark.parametrize("seed", [1, 2])
def test_a_run_interrupted_again_and_again_ends_with_the_same_bytes(monkeypatch, source, tmp_path, int4_folder, seed):
    """Each time in the middle of writing a file, some files further on than before."""
    save, written, last = ov.save_model, [], 0

    def interrupted(model, path, **options):
        save(model, path, **options)
        written.append(path.name)
        if len(written) == last:
            os.truncate(path.with_suffix(".bin"), 100)
            raise KeyboardInterrupt

    monkeypatch.setattr(parts.ov, "save_model", interrupted)
    moments = sorted(random.Random(seed).sample(range(1, SAVED + 1), 2))
    for moment in moments:
        written.clear()
        last = moment - sum(label != "tokenizer and configs" for label in kept_steps(tmp_path / "out"))
        with pytest.raises(KeyboardInterrupt):
            convert(source, tmp_path / "out", INT4)
        assert not (tmp_path / "out").exists()
    convert(source, tmp_path / "out", INT4)
    assert Manifest.read(tmp_path / "out") == Manifest.read(int4_folder)
    verify(tmp_path / "out")


@pytest.mark.parametrize(
    ("moment", "n", "done"), [("writing", 2, ["image encoder"]), ("recording", 3, ["image encoder", "resampler", "token embedding"])]
)
def test_a_killed_run_leaves_nothing_that_looks_complete_and_the_next_goes_on(source, tmp_path, int4_folder, moment, n, done):
    command = [sys.executable, "-c", KILLED, str(source.folder), str(tmp_path / "out"), moment, str(n)]
    killed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "out").exists()
    assert kept_steps(tmp_path / "out") == done
    with pytest.raises(ArtifactError):
        verify(place_of(tmp_path / "out") / "model")
    convert(source, tmp_path / "out", INT4)
    assert Manifest.read(tmp_path / "out") == Manifest.read(int4_folder)


def test_a_run_told_not_to_proceed_before_anything_is_done_leaves_nothing(source, tmp_path):
    """As after an interruption that a library has lost."""
    calls = []

    def proceed():
        calls.append(None)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(source, tmp_path / "out", Recipe("fp32"), proceed=proceed)
    assert list(tmp_path.iterdir()) == []


def test_a_part_that_comes_out_wrong_ends_the_conversion_and_is_named(monkeypatch, source, tmp_path):
    """A resampler without its last matrix is a resampler that somebody converted wrongly."""
    export = parts.export.resampler

    def wrong(module):
        module.proj.data = module.proj.data.flip(0)
        return export(module)

    monkeypatch.setattr(parts.export, "resampler", wrong)
    with pytest.raises(
        ArtifactError, match=r"^The resampler in int8 is too far from the checkpoint: its cosine is -?0\.\d+, and the limit is 0\.99\.$"
    ):
        convert(source, tmp_path / "out", INT4)
    assert not (tmp_path / "out").exists()


def test_the_limit_can_be_set_and_a_part_that_is_judged_anew_is_not_made_again(monkeypatch, source, tmp_path):
    with pytest.raises(ArtifactError, match=r"^The language model in int4 is too far .* the limit is 0\.99\.$"):
        convert(source, tmp_path / "out", INT4, limits=Limits(0.99))
    monkeypatch.setattr(Part, "write", lambda *_: pytest.fail("a part was made again"))
    convert(source, tmp_path / "out", INT4, limits=Limits(0.8))
    report = json.loads((tmp_path / "out" / FIDELITY).read_text())
    assert report["limits"]["language model"]["cosine"] == 0.8
    assert 0.8 < report["parts"]["language model"]["cosine"] < 0.99


def test_a_language_model_that_diverges_is_judged_anew_by_another_limit_and_not_made_again(monkeypatch, source, tmp_path):
    made, figures = [], {"cosine": 0.99, "relative_error": 0.1, "patches": [[1, 1]], "layers": 2, "tokens": 3, "top_1": 0.9}
    monkeypatch.setattr(Part, "write", lambda part, *_: made.append(part.file))
    monkeypatch.setattr(Proof, "of", lambda _, file, __: figures | ({"kl": 1.25} if file == LANGUAGE_MODEL else {}))
    with pytest.raises(ArtifactError, match=r"^The language model in int4 is too far .* diverges by 1\.2500 nats, and the limit is 0\.75\.$"):
        convert(source, tmp_path / "out", INT4)
    convert(source, tmp_path / "out", INT4, limits=Limits(max_kl=1.5))
    assert (len(made), made.count(LANGUAGE_MODEL)) == (4, 1)
    assert json.loads((tmp_path / "out" / FIDELITY).read_text())["limits"]["language model"] == {"cosine": 0.8, "kl": 1.5}


def test_the_report_has_figures_of_every_part(int4_folder):
    report = json.loads((int4_folder / FIDELITY).read_text())["parts"]
    assert {label: figures["format"] for label, figures in report.items()} == {
        "image encoder": "int8",
        "resampler": "int8",
        "token embedding": "int8",
        "language model": "int4",
    }
    assert len({tuple(size) for size in report["image encoder"]["patches"]}) == 3
    assert all(0.8 < figures["cosine"] < 1 and 0 < figures["relative_error"] < 0.6 for figures in report.values())
    language_model = report["language model"]
    assert language_model["layers"] == 2
    assert 0 < language_model["kl"] < 0.75
    assert 0.2 < language_model["top_1"] < 1


def test_an_encoder_quantised_too_coarsely_ends_the_conversion_or_is_made_in_int8_if_that_was_said(source, tmp_path, int4_folder, caplog):
    """Its activations are calibrated on grey alone, which leaves no room for colours."""
    grey, recipe = [PIL.Image.new("RGB", (64, 64), (127, 127, 127))], Recipe("int4", group_size=32, vision_format="int8-ptq")
    with pytest.raises(ArtifactError, match=r"^The image encoder in int8-ptq is too far"):
        convert(source, tmp_path / "out", recipe, grey)
    convert(source, tmp_path / "out", dataclasses.replace(recipe, ptq_fallback=True), grey)
    assert "The image encoder in int8-ptq is too far" in caplog.text
    assert Manifest.read(tmp_path / "out").recipe["vision_format"] == "int8"
    assert File.of(tmp_path / "out" / VISION_EMBEDDINGS) == File.of(int4_folder / VISION_EMBEDDINGS)


def test_an_interrupted_conversion_does_not_go_on_with_another_recipe_or_a_changed_checkpoint(golden, tmp_path, monkeypatch, caplog):
    checkpoint = shutil.copytree(golden / "tiny_model", tmp_path / "checkpoint")
    source, made = Source.locate(str(checkpoint)), []
    write = Part.write

    def written(part, checkpoint, recipe, folder, calibration):
        if part.file == LANGUAGE_MODEL:
            raise KeyboardInterrupt
        made.append((part.label, recipe.weight_format))
        write(part, checkpoint, recipe, folder, calibration)

    monkeypatch.setattr(Part, "write", written)
    monkeypatch.setattr(Proof, "of", lambda *_: {"cosine": 1.0, "relative_error": 0.0})
    for recipe in (Recipe("fp32"), Recipe("fp32"), Recipe("fp16")):
        with pytest.raises(KeyboardInterrupt):
            convert(source, tmp_path / "out", recipe)
    assert [weight_format for _, weight_format in made] == ["fp32"] * 3 + ["fp16"] * 3
    assert "recipe." in caplog.text
    os.utime(checkpoint / "model.safetensors", (1, 1))
    with pytest.raises(KeyboardInterrupt):
        convert(source, tmp_path / "out", Recipe("fp16"))
    assert len(made) == 9
    assert "files of the checkpoint." in caplog.text
