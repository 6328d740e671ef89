import contextlib
import json
import re

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file

from conversion.checkpoint import INDEX, WEIGHTS, Checkpoint, Source, check_index
from conversion.model import MiniCPMV
from pipeline import hub
from pipeline.config import ModelConfig
from pipeline.errors import ArtifactError, InputError
from tests.hub.server import Fault


@pytest.fixture
def skeleton(golden):
    return MiniCPMV.skeleton(ModelConfig.from_folder(golden / "tiny_model"))


@pytest.fixture
def tensors(golden):
    return load_file(golden / "tiny_model" / WEIGHTS)


def _check(folder, tensors, skeleton):
    save_file(tensors, folder / WEIGHTS)
    Checkpoint.open(folder).check(skeleton.stored_shapes(), skeleton.may_ignore)


def test_the_official_names_and_shapes_are_accepted(golden, skeleton):
    Checkpoint.open(golden / "tiny_model").check(skeleton.stored_shapes(), skeleton.may_ignore)


def test_every_missing_unknown_and_misshapen_tensor_is_named_in_one_error(tmp_path, tensors, skeleton):
    del tensors["vpm.post_layernorm.bias"], tensors["llm.lm_head.weight"]
    tensors["llm.model.layers.7.mlp.up_proj.weight"] = torch.zeros(2)
    tensors["audio.proj"] = torch.zeros(2)
    tensors["resampler.query"] = torch.zeros(64, 256)
    with pytest.raises(ArtifactError) as caught:
        _check(tmp_path, tensors, skeleton)
    message = str(caught.value)
    assert "missing: llm.lm_head.weight, vpm.post_layernorm.bias;" in message
    assert "unknown: audio.proj, llm.model.layers.7.mlp.up_proj.weight;" in message
    assert "misshapen: resampler.query is [64, 256] where the config asks for [16, 256]." in message


def test_of_many_tensors_that_do_not_fit_the_first_are_named_and_the_others_counted(skeleton):
    shapes = skeleton.stored_shapes()
    found = {f"{number}": (1,) for number in range(1, 7)} | dict(list(shapes.items())[:-5])
    with pytest.raises(ArtifactError) as caught:
        Checkpoint({}, found).check(shapes, skeleton.may_ignore)
    left = ", ".join(sorted(list(shapes)[-5:]))
    assert str(caught.value) == f"The checkpoint's tensors do not fit its config.json; missing: {left}; unknown: 1, 2, 3, 4, 5 and 1 more."


def test_a_stored_sincos_table_is_unknown(tmp_path, tensors, skeleton):
    with pytest.raises(ArtifactError, match=r"unknown: resampler\.pos_embed"):
        _check(tmp_path, tensors | {"resampler.pos_embed": torch.zeros(70, 70, 256)}, skeleton)


@pytest.mark.parametrize("present", [True, False])
def test_the_dropped_vision_layer_may_be_there_or_not(make_checkpoint, other_sizes, present):
    folder = make_checkpoint(**other_sizes)
    if present:
        stored = load_file(folder / WEIGHTS)
        layer = {name.replace(".1.", ".2."): tensor.clone() for name, tensor in stored.items() if name.startswith("vpm.encoder.layers.1.")}
        save_file(stored | layer, folder / WEIGHTS)
    model = MiniCPMV.skeleton(ModelConfig.from_folder(folder))
    Checkpoint.open(folder).check(model.stored_shapes(), model.may_ignore)


def test_a_layer_beyond_the_last_is_unknown_without_the_drop(tmp_path, tensors, skeleton):
    with pytest.raises(ArtifactError, match=r"unknown: vpm\.encoder\.layers\.3\.layer_norm1\.bias"):
        _check(tmp_path, tensors | {"vpm.encoder.layers.3.layer_norm1.bias": torch.zeros(48)}, skeleton)


def test_tied_embeddings_need_no_lm_head(make_checkpoint):
    folder = make_checkpoint(tie_word_embeddings=True)
    assert "llm.lm_head.weight" not in Checkpoint.open(folder).shapes
    model = MiniCPMV.skeleton(ModelConfig.from_folder(folder))
    Checkpoint.open(folder).check(model.stored_shapes(), model.may_ignore)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_shards_and_a_single_file_hold_the_same_whatever_the_type(make_checkpoint, modules_of, dtype):
    one = modules_of(make_checkpoint(name="one", dtype=dtype)).state_dict()
    three = modules_of(make_checkpoint(name="three", dtype=dtype, shards=3)).state_dict()
    assert one.keys() == three.keys()
    assert all(tensor.dtype == torch.float32 and torch.equal(tensor, three[name]) for name, tensor in one.items())


def test_weights_keep_their_type_unless_told_otherwise(golden, skeleton):
    Checkpoint.open(golden / "tiny_model").load(skeleton.resampler, "resampler.")
    assert {parameter.dtype for parameter in skeleton.resampler.parameters()} == {torch.bfloat16}


def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match=r"model\.safetensors is missing"):
        Checkpoint.open(tmp_path)


def test_a_file_that_is_cut_short_is_refused(golden, tmp_path):
    (tmp_path / WEIGHTS).write_bytes((golden / "tiny_model" / WEIGHTS).read_bytes()[:100_000])
    with pytest.raises(ArtifactError, match="damaged"):
        Checkpoint.open(tmp_path)


def test_a_missing_shard_is_named(make_checkpoint):
    folder = make_checkpoint(shards=3)
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"model-00002-of-00003\.safetensors is missing"):
        Checkpoint.open(folder)


def test_an_index_that_the_shards_contradict_is_refused(make_checkpoint):
    folder = make_checkpoint(shards=2)
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"]["vpm.nowhere"] = "model-00001-of-00002.safetensors"
    (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(ArtifactError, match=r"disagree about vpm\.nowhere"):
        Checkpoint.open(folder)


def test_an_index_is_held_against_the_names_that_a_model_needs_without_its_shards(tmp_path):
    def check():
        check_index(tmp_path, ["a", "b"], lambda name: name == "may")

    check()  # a single file has none
    for stated, fault in (("a b may", None), ("a b", None), ("b may.not may", "missing: a; unknown: may.not")):
        (tmp_path / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(stated.split(), "model-00001-of-00002.safetensors")}))
        with pytest.raises(ArtifactError, match=f"config.json; {fault}.$") if fault else contextlib.nullcontext():
            check()
    (tmp_path / INDEX).write_text("{}")
    with pytest.raises(ArtifactError, match=r"index\.json holds no weight_map\.$"):
        check()


def test_a_folder_is_called_by_its_name_alone(golden):
    source = Source.locate(str(golden / "tiny_model"))
    assert (source.name, source.revision) == ("tiny_model", None)


def test_a_revision_of_a_folder_is_refused(golden):
    with pytest.raises(InputError, match="revision"):
        Source.locate(str(golden / "tiny_model"), "main")


@pytest.mark.parametrize("source", ["no/such/folder", "/nowhere", "nowhere"])
def test_what_is_neither_folder_nor_hub_id_is_refused(source):
    with pytest.raises(InputError, match="neither a folder nor a Hub id"):
        Source.locate(source)


def test_a_hub_source_is_fetched_small_files_first_and_never_its_code(monkeypatch, tmp_path):
    asked = []

    def snapshot_download(repo_id, *, revision, allow_patterns, ignore_patterns, max_workers=None):
        asked.append((repo_id, revision, allow_patterns))
        return str(tmp_path / "snapshots" / "0123abc")

    monkeypatch.setattr(hub, "snapshot_download", snapshot_download)
    source = Source.locate("openbmb/MiniCPM-V-2_6", "main")
    assert (source.name, source.revision) == ("openbmb/MiniCPM-V-2_6", "0123abc")
    assert len(asked) == 1
    source.fetch_weights()
    assert asked[1] == ("openbmb/MiniCPM-V-2_6", "0123abc", ["*.safetensors"])
    assert not any(pattern.endswith((".py", "*", "safetensors")) for pattern in asked[0][2])


def test_the_card_of_a_hub_source_comes_with_its_small_files_where_it_has_one(hub, golden, tmp_path):
    hub.hub.publish("owner/bare", golden / "tiny_model", ["config.json"])
    assert {path.name for path in Source.locate("owner/bare").folder.iterdir()} == {"config.json"}
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
    hub.hub.publish("owner/name", tmp_path, ["README.md"])
    assert {path.name for path in Source.locate("owner/name").folder.iterdir()} == {"README.md"}


def test_of_weights_that_broke_off_the_whole_files_stay_and_only_the_others_are_fetched(hub, tmp_path):
    folder, there = tmp_path / "checkpoint", []
    folder.mkdir()
    shards = [f"model-{number:05}-of-00004.safetensors" for number in (1, 2, 3, 4)]
    for name in shards:
        (folder / name).write_text(name * 100)
    source = Source(tmp_path, "owner/name", hub.hub.publish("owner/name", folder, shards))
    hub.faults = [Fault("GET .*/model-00001", "slow")]  # long enough for others to be asked for meanwhile, if they were

    def watch(number, moment):
        if moment == "come" and (asked := re.search("GET .*/model-0000(.)", str(hub.log[number - 1]))):
            there.append(sum(path.suffix == "" for path in (tmp_path / "cache").glob("*/blobs/*")))
            return asked[1] in "34"  # no answer
        return None

    hub.watch = watch
    with pytest.raises(ArtifactError, match="no connection"):
        source.fetch_weights()
    assert (there[:2], set(there[2:])) == ([0, 1], {2})
    hub.watch = lambda *_: None
    hub.log.clear()
    source.fetch_weights()
    assert {request.path.rpartition("/")[2] for request in hub.asked("/resolve/")} == set(shards[2:])


def test_a_hub_source_that_cannot_be_fetched_is_one_sentence(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ArtifactError, match=r"^The model repo nobody/nothing is not in the cache, and out of reach: .*\.$"):
        Source.locate("nobody/nothing")


def test_a_mistyped_folder_is_called_one_beside_what_the_hub_says(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(ArtifactError, match=r"^There is no folder checkpoints/MiniCPM\. The model repo checkpoints/MiniCPM is not in the cache"):
        Source.locate("checkpoints/MiniCPM")
