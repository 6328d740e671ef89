"""Where a model folder comes from, and that its files are what its manifest says."""

import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest

from pipeline import artifacts
from pipeline.artifacts import BUNDLED, LANGUAGE_MODEL, MANIFEST, REQUIRED, File, Manifest, locate, obtain, verify
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


def test_the_patterns_of_a_repo_without_variants_leave_subfolders_alone() -> None:
    files = ["openvino_language_model.bin", "config.json", "int8/openvino_language_model.bin", "model.safetensors", "modeling_minicpmv.py"]
    assert list(huggingface_hub.utils.filter_repo_objects(files, allow_patterns=artifacts.TOP_LEVEL)) == files[:2]


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


def test_of_a_repo_without_variants_only_what_belongs_to_a_model_comes(published: Server, folder: Path) -> None:
    (folder / "model.safetensors").write_text("large")
    published.hub.publish(REPO, folder, ["model.safetensors"])
    published.hub.publish(REPO, folder, REQUIRED, "int8/")
    obtain({"MODEL_REPO": REPO})
    assert not published.asked(r"GET .*/resolve/.*(safetensors|int8.*(xml|bin))")


@pytest.fixture(params=["refused", "broken off"])
def cut_off(request: pytest.FixtureRequest, hub: Server, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From its call on no request gets an answer."""

    def cut() -> None:
        if request.param == "refused":
            with socket.create_server(("127.0.0.1", 0)) as free:
                address = f"http://127.0.0.1:{free.getsockname()[1]}"
            monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
            monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
        hub.faults = [Fault("", "lost", times=10**6)]

    return cut


def test_the_cache_serves_without_a_network(published: Server, cut_off: Callable[[], None]) -> None:
    obtained = obtain({"MODEL_REPO": REPO})
    cut_off()
    assert obtain({"MODEL_REPO": REPO}) == obtained
    assert obtain({"MODEL_REPO": REPO, "MODEL_REVISION": obtained.name}) == obtained
    heard: list[tuple[int, int]] = []
    assert obtain({"MODEL_REPO": REPO}, lambda done, of: heard.append((done, of))) == obtained
    assert heard == []


def test_a_repo_of_another_exporter_is_accepted_and_said_to_be_unverified(hub: Server, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    hub.hub.publish(REPO, folder, REQUIRED)
    assert _names(obtain({"MODEL_REPO": REPO})) == set(REQUIRED)
    assert "used unverified" in caplog.text


def test_how_far_a_download_is_can_be_followed(published: Server, folder: Path) -> None:
    heard: list[tuple[int, int]] = []
    total = sum(path.stat().st_size for path in folder.iterdir())
    published.faults = [Fault(f"GET .*{LANGUAGE_MODEL}", 500)]
    obtain({"MODEL_REPO": REPO}, lambda done, of: heard.append((done, of)))
    assert {of for _, of in heard} == {total}
    assert heard[0] == (0, total)
    assert heard[-1] == (total, total)
    assert len(heard) > len(REQUIRED)
    heard.clear()
    obtain({"MODEL_REPO": REPO}, lambda done, of: heard.append((done, of)))
    assert heard == [(total, total)]


INFO, TREE, HEAD, GET = "GET /api/models/owner/name/revision", "GET .*/tree/", f"HEAD .*{LANGUAGE_MODEL}", f"GET .*resolve.*{LANGUAGE_MODEL}"


@pytest.mark.parametrize(
    ("request_", "does"),
    [
        *((INFO, does) for does in (429, 503, "cut", "lost", "slow")),
        *((TREE, does) for does in (500, "cut")),
        *((HEAD, does) for does in (503, "lost")),
        *((GET, does) for does in (429, 500, "cut", "lost", "short", "slow", "changed")),
    ],
)
def test_what_passes_is_waited_for(published: Server, request_: str, does: int | str) -> None:
    published.faults = [Fault(request_, does)]
    obtained = obtain({"MODEL_REPO": REPO})
    assert {name: (obtained / name).read_text() for name in REQUIRED} == {name: name for name in REQUIRED}
    assert published.faults[0].times == 0


def test_the_hub_says_how_long_to_wait(published: Server) -> None:
    published.faults = [Fault("revision/main", 429, headers={"RateLimit": '"api";r=0;t=55'})]
    obtain({"MODEL_REPO": REPO})
    assert published.waits == [56]


def _damage(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_text((folder / name).read_text()[::-1])


@pytest.mark.parametrize("names", [(LANGUAGE_MODEL,), ("config.json", MANIFEST), ("config.json", LANGUAGE_MODEL)])
def test_what_is_damaged_in_the_cache_is_fetched_again_once(published: Server, caplog: pytest.LogCaptureFixture, names: tuple[str, ...]) -> None:
    obtained = obtain({"MODEL_REPO": REPO})
    _damage(obtained, *names)
    before = len(published.log)
    assert obtain({"MODEL_REPO": REPO}) == obtained
    verify(obtained)
    assert all(len([request for request in published.log[before:] if str(request).endswith(f"GET {name}")]) <= 1 for name in names)
    assert "It is fetched again." in caplog.text


def test_a_file_that_stays_damaged_is_named(published: Server) -> None:
    published.faults = [Fault(f"GET .*/{LANGUAGE_MODEL}", "changed", times=3)]
    with pytest.raises(ArtifactError, match=rf"{LANGUAGE_MODEL} is damaged: its sha256 is not the manifest's\.$"):
        obtain({"MODEL_REPO": REPO})
    assert published.faults[0].times == 1


def test_a_damaged_file_that_cannot_be_fetched_again_is_named(published: Server, cut_off: Callable[[], None]) -> None:
    _damage(obtain({"MODEL_REPO": REPO}), LANGUAGE_MODEL)
    cut_off()
    with pytest.raises(ArtifactError, match=rf"{LANGUAGE_MODEL} is damaged: .* could not be fetched again: .* no connection to the Hub"):
        obtain({"MODEL_REPO": REPO})


def test_private_and_gated_repos_open_with_the_right_token(published: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_read")
    published.hub.repos[REPO].private = True
    obtain({"MODEL_REPO": REPO})
    published.hub.publish("else/gated", folder, [*REQUIRED, MANIFEST], gated=True, granted={"owner"})
    obtain({"MODEL_REPO": "else/gated"})


@pytest.mark.parametrize(
    ("repo", "token", "sentence"),
    [
        ("nobody/nothing", "", "nobody/nothing does not exist, or it is private and HF_TOKEN is not set"),
        ("owner/private", "", "owner/private does not exist, or it is private and HF_TOKEN is not set"),
        ("owner/private", "hf_other", "owner/private does not exist, or the token has no access to it"),
        ("owner/gated", "", "owner/gated is gated, and access is not granted: ask for it on its page, and set HF_TOKEN to a token of that account"),
        ("owner/gated", "hf_other", "owner/gated is gated, and access is not granted"),
        ("owner/name", "hf_wrong", "owner/name is out of reach.*: the Hub does not accept the token, which is mistyped, expired or revoked"),
        ("owner/name at v9", "", "owner/name has no revision v9"),
        ("owner/busy", "", "owner/busy is out of reach: the Hub answers with 503 Service Unavailable"),
        ("owner/closed", "", "owner/closed is closed to this token"),
        ("owner/far", "", "owner/far is out of reach: there is no connection to the Hub, and the cache does not hold it"),
        ("owner/short", "", "owner/short is out of reach: its files keep arriving broken or not at all"),
    ],
)
def test_what_cannot_be_had_is_one_plain_sentence(
    published: Server, folder: Path, monkeypatch: pytest.MonkeyPatch, repo: str, token: str, sentence: str
) -> None:
    repo, _, revision = repo.partition(" at ")
    for name, properties in (("private", {"private": True}), ("gated", {"gated": True}), ("short", {}), ("busy", {}), ("closed", {}), ("far", {})):
        published.hub.publish(f"owner/{name}", folder, [*REQUIRED, MANIFEST], **properties)
    published.faults = [
        Fault("owner/busy", 503, times=100),
        Fault("owner/closed", 403, times=100),
        Fault("owner/far", "lost", times=100),
        Fault(f"GET .*owner/short.*{LANGUAGE_MODEL}", "short", times=100),
    ]
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(ArtifactError, match=rf"^The model repo {sentence}") as caught:
        obtain({"MODEL_REPO": repo, "MODEL_REVISION": revision})
    assert str(caught.value).endswith(".")
    assert str(caught.value).count(".") - repo.count(".") <= 1
    assert not token or token not in str(caught.value)


@pytest.mark.parametrize("repo", ["not a repo", "a/b/c"])
def test_what_is_no_hub_id_is_said_so(repo: str) -> None:
    with pytest.raises(ArtifactError, match=f"^{repo} is not a Hub id of the form OWNER/NAME"):
        obtain({"MODEL_REPO": repo})


def test_nothing_can_be_had_where_the_client_is_told_to_stay_offline(monkeypatch: pytest.MonkeyPatch, hub: Server) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ArtifactError, match=r"^The model repo owner/name is out of reach at revision v9: there is no connection"):
        obtain({"MODEL_REPO": REPO, "MODEL_REVISION": "v9"})
    assert hub.log == []
