"""Where a model folder comes from, and that its files are what its manifest says."""

import errno
import shutil
from pathlib import Path

import pytest

from pipeline.artifacts import BUNDLED, CARD, LANGUAGE_MODEL, MANIFEST, REQUIRED, File, Manifest, locate, obtain, verify
from pipeline.errors import ArtifactError
from tests.hub.server import Fault, Server

REPO = "owner/name"


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


def test_a_card_that_was_edited_or_dropped_since_stops_nobody(folder: Path) -> None:
    (folder / CARD).write_text("# A model")
    manifest = Manifest.read(folder)
    manifest.files[CARD] = File.of(folder / CARD)
    manifest.write(folder)
    (folder / CARD).write_text("# A model, with a word from its owner")
    verify(folder)
    (folder / CARD).unlink()
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


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "sub/file", ".."])
def test_a_manifest_cannot_name_files_outside_its_folder(folder: Path, name: str) -> None:
    (folder / MANIFEST).write_text((folder / MANIFEST).read_text().replace('"config.json"', f'"{name}"'))
    with pytest.raises(ArtifactError, match="is not a manifest this version understands"):
        verify(folder)


def test_a_folder_that_cannot_be_written_to_is_used(folder: Path) -> None:
    for path in (*folder.iterdir(), folder):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = {path: path.stat().st_mtime_ns for path in (*folder.iterdir(), folder)}
    assert obtain({"MODEL_DIR": str(folder)}) == folder
    assert {path: path.stat().st_mtime_ns for path in (*folder.iterdir(), folder)} == before


def test_a_damaged_folder_of_ones_own_is_refused_and_left_alone(folder: Path) -> None:
    (folder / "config.json").write_text("else")
    with pytest.raises(ArtifactError, match=r"config\.json has 4 bytes"):
        obtain({"MODEL_DIR": str(folder), "MODEL_REPO": REPO})
    assert (folder / "config.json").read_text() == "else"


# From here on the model lies on a Hub.


@pytest.fixture
def published(hub: Server, folder: Path) -> Server:
    hub.hub.publish(REPO, folder, [*REQUIRED, MANIFEST])
    return hub


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_repo_is_obtained_at_its_revision_and_only_the_wanted_variant(hub: Server, folder: Path) -> None:
    first = hub.hub.publish(REPO, folder, [*REQUIRED, MANIFEST], "int4/")
    hub.hub.publish(REPO, folder, [*REQUIRED, MANIFEST], "int8/")
    obtained = obtain({"MODEL_REPO": REPO, "MODEL_REVISION": first, "MODEL_VARIANT": "int4"})
    assert obtained.parts[-2:] == (first, "int4")
    assert _names(obtained) == {*REQUIRED, MANIFEST}
    assert _names(obtained.parent) == {"int4"}
    assert not hub.asked("int8")


def test_of_a_repo_with_several_variants_one_must_be_named_too(hub: Server, folder: Path) -> None:
    for variant in ("int4", "int8"):
        hub.hub.publish(REPO, folder, REQUIRED, f"{variant}/")
    with pytest.raises(ArtifactError, match=f"^{REPO} holds several variants; set MODEL_VARIANT to one of int4, int8"):
        obtain({"MODEL_REPO": REPO})
    with pytest.raises(ArtifactError, match=f"^MODEL_VARIANT=fp16 is not in {REPO}; it holds int4, int8"):
        obtain({"MODEL_REPO": REPO, "MODEL_VARIANT": "fp16"})
    assert not hub.asked("resolve")


def test_of_a_repo_without_variants_only_what_belongs_to_a_model_comes(published: Server, folder: Path) -> None:
    for name in ("model.safetensors", "modeling_minicpmv.py"):
        (folder / name).write_text("large")
        published.hub.publish(REPO, folder, [name])
    published.hub.publish(REPO, folder, REQUIRED, "int8/")
    assert _names(obtain({"MODEL_REPO": REPO})) == {*REQUIRED, MANIFEST}


def test_the_demo_model_comes_from_a_hub_as_it_is(hub: Server) -> None:
    hub.hub.publish(REPO, BUNDLED, _names(BUNDLED))
    obtained = obtain({"MODEL_REPO": REPO})
    assert {path.name: path.read_bytes() for path in obtained.iterdir()} == {path.name: path.read_bytes() for path in BUNDLED.iterdir()}


def test_a_repo_of_another_exporter_is_accepted_and_said_to_be_unverified(hub: Server, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    hub.hub.publish(REPO, folder, REQUIRED)
    assert _names(obtain({"MODEL_REPO": REPO})) == set(REQUIRED)
    assert "used unverified" in caplog.text


def test_a_repo_that_is_no_model_is_asked_for_once(hub: Server, folder: Path) -> None:
    hub.hub.publish(REPO, folder, [name for name in REQUIRED if name != LANGUAGE_MODEL])
    with pytest.raises(ArtifactError, match=f"is not a complete model folder; it lacks {LANGUAGE_MODEL}"):
        obtain({"MODEL_REPO": REPO})
    assert len(hub.asked("GET .*/revision/main")) == 1


def test_how_far_a_download_is_can_be_followed(published: Server) -> None:
    heard: list[tuple[int, int]] = []
    obtained = obtain({"MODEL_REPO": REPO}, lambda done, total: heard.append((done, total)))
    total = sum(path.stat().st_size for path in obtained.iterdir())
    assert (heard[0], heard[-1]) == ((0, total), (total, total))


def _damage(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_text((folder / name).read_text()[::-1])


@pytest.mark.parametrize("names", [(LANGUAGE_MODEL,), ("config.json", MANIFEST), ("config.json", LANGUAGE_MODEL)])
def test_what_is_damaged_in_the_cache_is_fetched_again_once(published: Server, caplog: pytest.LogCaptureFixture, names: tuple[str, ...]) -> None:
    obtained = obtain({"MODEL_REPO": REPO})
    _damage(obtained, *names)
    published.log.clear()
    assert obtain({"MODEL_REPO": REPO}) == obtained
    verify(obtained)
    assert sorted(request.path.rpartition("/")[2] for request in published.asked("GET .*/resolve/")) == sorted(names)
    assert all(f"{obtained / name}" in caplog.text for name in names)
    assert "It is fetched again." in caplog.text


def test_a_file_that_arrives_changed_is_fetched_again_once_and_then_named(published: Server) -> None:
    published.faults = [Fault(f"GET .*/{LANGUAGE_MODEL}", "changed")]
    obtain({"MODEL_REPO": REPO})
    published.hub.publish("owner/worse", BUNDLED, _names(BUNDLED))
    published.faults = [Fault(f"GET .*/{LANGUAGE_MODEL}", "changed", times=3)]
    with pytest.raises(ArtifactError, match=rf"{LANGUAGE_MODEL} is damaged: its sha256 is not the manifest's\.$"):
        obtain({"MODEL_REPO": "owner/worse"})
    assert published.faults[0].times == 1


def test_a_damaged_file_that_cannot_be_fetched_again_is_named(published: Server) -> None:
    _damage(obtain({"MODEL_REPO": REPO}), LANGUAGE_MODEL)
    published.faults = [Fault("", "lost", times=10**6)]
    with pytest.raises(ArtifactError, match=rf"{LANGUAGE_MODEL} is damaged: .* It could not be fetched again: .* no connection to the Hub"):
        obtain({"MODEL_REPO": REPO})


def test_a_damaged_file_in_a_cache_that_cannot_be_changed_is_named(published: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    _damage(obtain({"MODEL_REPO": REPO}), LANGUAGE_MODEL)

    def unlink(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", unlink)
    with pytest.raises(ArtifactError, match=rf"{LANGUAGE_MODEL} is damaged, and the cache it lies in cannot be changed: Read-only file system"):
        obtain({"MODEL_REPO": REPO})


def test_private_and_gated_repos_open_with_the_right_token(published: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_read")
    published.hub.repos[REPO].private = True
    obtain({"MODEL_REPO": REPO})
    published.hub.publish("else/gated", folder, [*REQUIRED, MANIFEST], gated=True, granted={"owner"})
    obtain({"MODEL_REPO": "else/gated"})
