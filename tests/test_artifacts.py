"""Where a model folder comes from, and that its files are what its manifest says."""

import shutil
from pathlib import Path

import huggingface_hub
import pytest

from pipeline import artifacts
from pipeline.artifacts import BUNDLED, LANGUAGE_MODEL, MANIFEST, REQUIRED, File, Manifest, locate, verify
from pipeline.errors import ArtifactError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Every required file, with its own name as its content, and a manifest."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name in REQUIRED:
        (folder / name).write_text(name)
    Manifest("owner/name", "abc", {"weight_format": "int4"}, {"openvino": "1"}, {name: File.of(folder / name) for name in REQUIRED}).write(folder)
    return folder


def test_a_folder_as_its_manifest_says_is_accepted(folder: Path) -> None:
    verify(folder)
    assert Manifest.read(folder).source == "owner/name"


def test_a_manifest_is_read_back_as_it_was_written(folder: Path) -> None:
    manifest = Manifest.read(folder)
    manifest.write(folder)
    assert Manifest.read(folder) == manifest


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda path: path.write_text(path.read_text()[:-1]), r"has \d+ bytes; the manifest says \d+"),
        (lambda path: path.write_text(path.read_text()[:-1] + "X"), "is damaged: its sha256 is not the manifest's"),
    ],
    ids=["cut", "changed"],
)
def test_a_damaged_file_is_named(folder: Path, damage, sentence: str) -> None:
    damage(folder / LANGUAGE_MODEL)
    with pytest.raises(ArtifactError, match=f"{LANGUAGE_MODEL} {sentence}"):
        verify(folder)


def test_missing_files_are_named(folder: Path) -> None:
    (folder / LANGUAGE_MODEL).unlink()
    with pytest.raises(ArtifactError, match=f"lacks {LANGUAGE_MODEL}"):
        verify(folder)


def test_a_further_file_of_the_manifest_is_missed_too(folder: Path) -> None:
    (folder / "extra.json").write_text("{}")
    manifest = Manifest.read(folder)
    Manifest(manifest.source, None, {}, {}, manifest.files | {"extra.json": File.of(folder / "extra.json")}).write(folder)
    (folder / "extra.json").unlink()
    with pytest.raises(ArtifactError, match=r"extra\.json is missing"):
        verify(folder)


@pytest.mark.parametrize(
    "content",
    [
        "{}",
        '{"format": 2, "files": {}, "source": "", "revision": null, "recipe": {}, "versions": {}}',
        '{"files": [], "source": ""}',
        '{"files": {"a": {}}}',
        "[]",
        "{",
    ],
)
def test_a_manifest_that_is_not_understood_is_refused(folder: Path, content: str) -> None:
    (folder / MANIFEST).write_text(content)
    with pytest.raises(ArtifactError, match=MANIFEST.replace(".", r"\.")):
        verify(folder)


def test_a_folder_of_another_exporter_is_accepted_and_said_to_be_unverified(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / MANIFEST).unlink()
    verify(folder)
    assert "used unverified" in caplog.text


def test_without_a_wish_it_is_the_bundled_demo_and_that_one_is_whole() -> None:
    assert locate({}) == locate({"MODEL_DIR": "", "MODEL_REPO": ""}) == BUNDLED
    verify(BUNDLED)
    assert (BUNDLED / MANIFEST).is_file()


def test_a_folder_can_be_named(folder: Path) -> None:
    assert locate({"MODEL_DIR": str(folder)}) == folder
    with pytest.raises(ArtifactError, match=r"nowhere does not exist"):
        locate({"MODEL_DIR": str(folder / "nowhere")})


def test_of_several_variants_one_must_be_named(folder: Path, tmp_path: Path) -> None:
    for variant in ("int4", "int8"):
        shutil.copytree(folder, tmp_path / "both" / variant)
    both = str(tmp_path / "both")
    assert locate({"MODEL_DIR": both, "MODEL_VARIANT": "int8"}) == tmp_path / "both" / "int8"
    with pytest.raises(ArtifactError, match="set MODEL_VARIANT to one of int4, int8"):
        locate({"MODEL_DIR": both})
    with pytest.raises(ArtifactError, match=r"MODEL_VARIANT=fp16 is not in .*; it holds int4, int8"):
        locate({"MODEL_DIR": both, "MODEL_VARIANT": "fp16"})


def test_a_variant_of_nothing_is_refused() -> None:
    with pytest.raises(ArtifactError, match="MODEL_VARIANT=int8 needs a MODEL_DIR or MODEL_REPO"):
        locate({"MODEL_VARIANT": "int8"})


def test_a_repo_is_downloaded_at_its_revision_and_only_the_wanted_variant(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(folder, tmp_path / "snapshot" / "int4")
    asked = []

    def download(repo: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((repo, revision, allow_patterns))
        return str(tmp_path / "snapshot")

    monkeypatch.setattr(artifacts, "snapshot_download", download)
    environ = {"MODEL_REPO": "owner/name", "MODEL_REVISION": "v1", "MODEL_VARIANT": "int4"}
    assert locate(environ) == tmp_path / "snapshot" / "int4"
    monkeypatch.setattr(artifacts, "snapshot_download", lambda *_, **__: str(folder))
    assert locate({"MODEL_REPO": "owner/name"}) == folder
    assert asked == [("owner/name", "v1", ["int4/*"])]


def test_the_patterns_of_a_repo_without_variants_leave_subfolders_alone() -> None:
    files = ["openvino_language_model.bin", "config.json", "int8/openvino_language_model.bin", "model.safetensors", "modeling_minicpmv.py"]
    assert list(huggingface_hub.utils.filter_repo_objects(files, allow_patterns=artifacts.TOP_LEVEL)) == files[:2]


@pytest.mark.parametrize("repo", ["owner/name", "not a repo", "a/b/c"])
def test_a_repo_that_cannot_be_had_is_one_plain_sentence(repo: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ArtifactError, match=rf"^The model repo {repo} at revision v9 cannot be had: .*\.$"):
        locate({"MODEL_REPO": repo, "MODEL_REVISION": "v9"})
