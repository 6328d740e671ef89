"""The Hub of the tests, asked by the real client: what it must get right for the other tests to mean something."""

import hashlib
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi, snapshot_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

from tests.hub.repos import Account
from tests.hub.server import Fault, Server

# The client's plain way of uploading still calls its HTTP library as that used to be called.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
REPO = "owner/name"


@pytest.fixture
def api(hub: Server, monkeypatch: pytest.MonkeyPatch) -> HfApi:
    monkeypatch.setenv("HF_TOKEN", "hf_write")
    return HfApi()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "weights.bin").write_bytes(bytes(range(256)) * 5000)
    (folder / "config.json").write_text("{}")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_comes_back_as_it_was_uploaded(api: HfApi, folder: Path) -> None:
    api.create_repo(REPO)
    api.upload_folder(repo_id=REPO, folder_path=folder)
    assert contents(Path(snapshot_download(REPO))) == contents(folder)


def test_large_files_are_sent_once_and_small_ones_in_the_commit(api: HfApi, hub: Server, folder: Path) -> None:
    api.create_repo(REPO)
    for message in ("first", "again"):
        api.upload_folder(repo_id=REPO, folder_path=folder, commit_message=message)
    assert [request.size for request in hub.asked("PUT")] == [1_280_000]
    assert len(hub.asked("POST .*/commit/main")) == 1
    assert {path: entry.is_lfs for path, entry in hub.hub.repos[REPO].files().items()} == {
        "weights.bin": True,
        "config.json": False,
        "README.md": False,
    }


def test_an_upload_that_is_not_what_was_announced_is_refused(api: HfApi, hub: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    api.create_repo(REPO)
    addition = CommitOperationAdd("weights.bin", folder / "weights.bin")
    addition.upload_info.sha256 = hashlib.sha256(b"else").digest()
    with pytest.raises(RuntimeError, match=r"weights\.bin"):
        api.create_commit(REPO, [addition], commit_message="wrong")
    assert hub.hub.repos[REPO].files() == {}


def test_branches_copies_and_deletions(api: HfApi, hub: Server, folder: Path) -> None:
    api.create_repo(REPO)
    api.create_branch(REPO, branch="side")
    api.upload_folder(repo_id=REPO, folder_path=folder, revision="side")
    assert hub.hub.repos[REPO].files() == {}
    copy = CommitOperationCopy("weights.bin", "weights.bin", src_revision="side")
    api.create_commit(REPO, [copy, CommitOperationAdd("config.json", b"{}")], commit_message="merge")
    api.create_commit(REPO, [CommitOperationDelete("config.json")], commit_message="delete")
    api.delete_branch(REPO, branch="side")
    assert list(hub.hub.repos[REPO].files()) == ["weights.bin"]
    assert [entry.path for entry in api.list_repo_tree(REPO)] == ["weights.bin"]
    with pytest.raises(RevisionNotFoundError):
        api.model_info(REPO, revision="side")
    with pytest.raises(HfHubHTTPError, match="412"):
        api.create_commit(REPO, [CommitOperationAdd("a", b"a")], commit_message="late", parent_commit="0" * 40)


def test_tokens_decide_who_may_read_and_write(api: HfApi, hub: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.hub.tokens["hf_fine"] = Account("other", "fineGrained", scopes={REPO: ["repo.write"]})
    api.create_repo(REPO, private=True)
    monkeypatch.delenv("HF_TOKEN")
    for token, error in ((None, RepositoryNotFoundError), ("hf_other", RepositoryNotFoundError), ("hf_wrong", HfHubHTTPError)):
        with pytest.raises(error):
            HfApi(token=token).model_info(REPO)
    reader, writer_of_one = HfApi(token="hf_read"), HfApi(token="hf_fine")  # noqa: S106
    assert reader.model_info(REPO).private
    with pytest.raises(HfHubHTTPError, match="403"):
        reader.auth_check(REPO, write=True)
    with pytest.raises(HfHubHTTPError, match="403"):
        reader.create_repo("owner/new")
    with pytest.raises(RepositoryNotFoundError):
        writer_of_one.auth_check(REPO, write=True)
    hub.hub.repos[REPO].private = False
    writer_of_one.auth_check(REPO, write=True)


def test_a_gated_repo_is_listed_but_not_given(api: HfApi, hub: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.hub.publish(REPO, folder, ["config.json"], gated=True)
    for token in (None, "hf_other"):
        monkeypatch.setenv("HF_TOKEN", token or "")
        assert HfApi().model_info(REPO).gated == "manual"
        with pytest.raises(GatedRepoError):
            snapshot_download(REPO)
    hub.hub.repos[REPO].granted = {"other"}
    snapshot_download(REPO)


@pytest.mark.parametrize("does", [503, 429, "cut", "slow"])
def test_the_client_overcomes_what_passes(api: HfApi, hub: Server, folder: Path, does: int | str) -> None:
    hub.hub.publish(REPO, folder, ["weights.bin"])
    hub.faults = [Fault("(HEAD|GET) .*resolve.*bin" if does == 503 else "GET .*resolve.*bin", does)]
    assert contents(Path(snapshot_download(REPO))) == {"weights.bin": (folder / "weights.bin").read_bytes()}
    assert hub.faults[0].times == 0
    if does == "cut":
        assert len(hub.asked("GET .*resolve.*bin")) == 2


@pytest.mark.parametrize("does", ["short", "changed"])
def test_the_client_sees_that_a_file_is_short_and_not_that_it_is_changed(hub: Server, folder: Path, does: str) -> None:
    hub.hub.publish(REPO, folder, ["weights.bin"])
    hub.faults = [Fault("GET .*resolve.*bin", does)]
    if does == "short":
        with pytest.raises(OSError, match="Consistency check failed"):
            snapshot_download(REPO)
    else:
        assert contents(Path(snapshot_download(REPO))) != {"weights.bin": (folder / "weights.bin").read_bytes()}
