"""What comes from a Hub, how patiently, and what is said of what does not come."""

import errno
import re
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import CachedRepoTreeNotFoundError

from pipeline import hub as room
from pipeline.errors import ArtifactError
from pipeline.hub import bytes_to_fetch, download, listing
from tests.hub.server import Fault, Server

REPO = "owner/name"
FILES = ("config.json", "model.bin", "model.xml")
ALL = ["*"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    for name in FILES:
        (folder / name).write_text(name * 100)
    return folder


@pytest.fixture
def published(hub: Server, folder: Path) -> Server:
    hub.hub.publish(REPO, folder, FILES)
    return hub


def _files(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_only_what_matches_comes_and_subfolders_only_by_name(published: Server, folder: Path) -> None:
    commit = published.hub.publish(REPO, folder, FILES, "int8/")
    assert set(_files(download(REPO, None, ["*.json", "model.*"]))) == set(FILES)
    downloaded = download(REPO, commit, ["int8/*.json"])
    assert downloaded.name == commit
    assert set(_files(downloaded)) == {*FILES, "int8/config.json"}


def test_all_files_of_a_repo_are_listed_whatever_was_downloaded(published: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    downloaded = download(REPO, None, ["*.json"])
    assert set(listing(REPO, downloaded)) == set(FILES)

    def get_cached_repo_tree(*_: object, **__: object) -> None:
        raise CachedRepoTreeNotFoundError

    monkeypatch.setattr(room, "get_cached_repo_tree", get_cached_repo_tree)
    assert listing(REPO, downloaded) == ["config.json"]


def test_what_is_in_the_cache_is_not_fetched_again(published: Server, folder: Path) -> None:
    download(REPO, None, ["*.json"])
    published.log.clear()
    assert _files(download(REPO, None, ALL)) == _files(folder)
    assert not published.asked("resolve.*config.json")


def _incomplete(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "cache").rglob("*.incomplete"))


def test_what_a_killed_download_left_is_gone_before_anything_is_fetched(published: Server, tmp_path: Path) -> None:
    blobs = tmp_path / "cache" / "models--owner--name" / "blobs"
    blobs.mkdir(parents=True)
    left = blobs / "0123abcd.4567.incomplete"
    left.write_bytes(b"half")
    seen: list[bool] = []
    published.watch = lambda *_: seen.append(left.exists())
    download(REPO, None, ["*.json"])
    assert set(seen) == {False}


def test_what_another_download_is_writing_stays(published: Server, folder: Path, tmp_path: Path) -> None:
    held, go_on = threading.Event(), threading.Event()

    def watch(number: int, moment: str) -> None:
        if moment == "come" and re.search("GET .*resolve.*model.bin", str(published.log[number - 1])):
            held.set()
            go_on.wait()

    published.watch = watch
    other = threading.Thread(target=download, args=(REPO, None, ["*.bin"]))
    other.start()
    held.wait()
    try:
        download(REPO, None, ["*.json"])
        assert len(_incomplete(tmp_path)) == 1
    finally:
        go_on.set()
        other.join()
    assert _files(download(REPO, None, ALL)) == _files(folder)


def test_what_would_be_fetched_is_known_before(published: Server, folder: Path) -> None:
    commit = download(REPO, None, ["*.json"]).name
    assert bytes_to_fetch(REPO, commit, ["*.json"]) == 0
    assert bytes_to_fetch(REPO, commit, ["*.bin", "*.json"]) == (folder / "model.bin").stat().st_size
    published.faults = [Fault("", "lost", times=10**6)]
    assert bytes_to_fetch(REPO, commit, ["*.bin"]) == 0


@pytest.fixture(params=["refused", "broken off"])
def cut_off(request: pytest.FixtureRequest, hub: Server, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From its call on no request gets an answer."""

    def cut() -> None:
        if request.param == "refused":
            with socket.create_server(("127.0.0.1", 0)) as free:
                monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
        hub.faults = [Fault("", "lost", times=10**6)]

    return cut


def test_the_cache_serves_without_a_network(published: Server, cut_off: Callable[[], None]) -> None:
    downloaded = download(REPO, None, ALL)
    cut_off()
    heard: list[tuple[int, int]] = []
    assert download(REPO, None, ALL) == downloaded
    assert download(REPO, downloaded.name, ALL) == downloaded
    assert download(REPO, None, ALL, lambda done, total: heard.append((done, total))) == downloaded
    assert heard == []


@pytest.mark.parametrize("before", [[], ["*.json"]], ids=["nothing", "a part"])
def test_a_cache_that_lacks_something_does_not(published: Server, cut_off: Callable[[], None], before: list[str]) -> None:
    if before:
        download(REPO, None, before)
    cut_off()
    with pytest.raises(
        ArtifactError, match=r"^The model repo owner/name is not in the cache, and out of reach: there is no connection to the Hub\.$"
    ):
        download(REPO, None, ALL)


def test_how_far_it_is_can_be_followed(published: Server, folder: Path) -> None:
    heard: list[tuple[int, int]] = []
    there = (folder / "config.json").stat().st_size
    total = sum(path.stat().st_size for path in folder.iterdir())
    download(REPO, None, ["config.json"])
    published.faults = [Fault("GET .*model.bin", 500)]
    download(REPO, None, ALL, lambda done, of: heard.append((done, of)))
    assert {of for _, of in heard} == {total}
    assert (heard[0], heard[-1]) == ((there, total), (total, total))
    heard.clear()
    download(REPO, None, ALL, lambda done, of: heard.append((done, of)))
    assert heard == [(total, total)]


@pytest.mark.parametrize(
    ("request_", "does"),
    [
        *(("GET /api/models/owner/name/revision", does) for does in (429, 503, "cut", "lost", "slow")),
        *(("GET .*/tree/", does) for does in (500, "cut", "lost")),
        *(("HEAD .*model.bin", does) for does in (429, 503, "lost")),
        *(("GET .*resolve.*model.bin", does) for does in (429, 500, "cut", "lost", "short", "slow")),
    ],
)
def test_what_passes_is_waited_for(published: Server, folder: Path, request_: str, does: int | str) -> None:
    published.faults = [Fault(request_, does)]
    assert _files(download(REPO, None, ALL)) == _files(folder)
    assert published.faults[0].times == 0


@pytest.fixture(params=[ConnectionError, TimeoutError])
def as_xet_fails(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[Exception]:
    """What the client will raise, one a call, before it fetches anything."""
    failures: list[Exception] = [request.param("dispatch failure")]
    snapshot_download = room.snapshot_download

    def failing(**wanted: Any) -> object:
        if failures:
            raise failures.pop()
        return snapshot_download(**wanted)

    monkeypatch.setattr(room, "snapshot_download", failing)
    return failures


def test_what_befalls_xet_is_waited_for(published: Server, folder: Path, as_xet_fails: list[Exception]) -> None:
    assert _files(download(REPO, None, ALL)) == _files(folder)
    assert published.waits == [1]


def test_an_xet_that_stays_away_is_no_connection(published: Server, as_xet_fails: list[Exception]) -> None:
    as_xet_fails *= len(room.WAITS) + 1
    with pytest.raises(ArtifactError, match=r"not in the cache, and out of reach: there is no connection to the Hub\.$"):
        download(REPO, None, ALL)


def test_the_waits_grow_and_end(published: Server) -> None:
    published.faults = [Fault("revision/main", 503, times=100)]
    with pytest.raises(ArtifactError, match="the Hub answers with 503 Service Unavailable"):
        download(REPO, None, ALL)
    assert published.waits == list(room.WAITS)


def test_the_hub_says_how_long_to_wait(published: Server) -> None:
    published.faults = [Fault("revision/main", 429, headers={"RateLimit": '"api";r=0;t=55'})]
    download(REPO, None, ALL)
    assert published.waits == [56]


@pytest.mark.parametrize(
    ("repo", "token", "sentence"),
    [
        ("nobody/nothing", "", "does not exist, or it is private and HF_TOKEN is not set"),
        ("owner/private", "", "does not exist, or it is private and HF_TOKEN is not set"),
        ("owner/private", "hf_other", "does not exist, or the token has no access to it"),
        ("owner/gated", "", "is gated, and access is not granted: ask for it on its page, and set HF_TOKEN to a token of that account"),
        ("owner/gated", "hf_other", "is gated, and access is not granted: ask for it on its page, and set HF_TOKEN to a token of that account"),
        ("owner/public", "hf_wrong", "OUT: the Hub does not accept the token, which is mistyped, expired or revoked"),
        ("owner/public at v9", "", "has no revision v9"),
        ("owner/busy", "", "OUT: the Hub answers with 503 Service Unavailable"),
        ("owner/busy at main", "", "OUT at revision main: the Hub answers with 503 Service Unavailable"),
        ("owner/closed", "", "is closed to this token"),
        ("owner/lacking", "", "is closed to this token (Enable access to gated repos in its settings)"),
        ("owner/far", "", "OUT: there is no connection to the Hub"),
        ("owner/short", "", "OUT: its files keep arriving broken or not at all"),
    ],
)
def test_what_cannot_be_had_is_one_plain_sentence(
    hub: Server, folder: Path, monkeypatch: pytest.MonkeyPatch, repo: str, token: str, sentence: str
) -> None:
    repo, _, revision = repo.partition(" at ")
    for name in ("public", "private", "gated", "busy", "closed", "lacking", "far", "short"):
        hub.hub.publish(f"owner/{name}", folder, FILES, private=name == "private", gated=name == "gated")
    hub.faults = [
        Fault("owner/busy", 503, times=100),
        Fault("owner/closed", 403, times=100),
        Fault("owner/lacking", 403, times=100, headers={"X-Error-Message": "Enable access to gated repos in its settings."}),
        Fault("owner/far", "lost", times=100),
        Fault("GET .*owner/short/resolve.*bin", "short", times=100),
    ]
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(ArtifactError) as caught:
        download(repo, revision or None, ALL)
    assert str(caught.value) == f"The model repo {repo} {sentence.replace('OUT', 'is not in the cache, and out of reach')}."


@pytest.mark.parametrize("repo", ["not a repo", "a/b/c"])
def test_what_is_no_hub_id_is_said_so(repo: str) -> None:
    with pytest.raises(ArtifactError, match=f"^{repo} is not a Hub id of the form OWNER/NAME.$"):
        download(repo, None, ALL)


def test_a_full_disk_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot_download(**_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(room, "snapshot_download", snapshot_download)
    with pytest.raises(ArtifactError, match=r"out of reach: No space left on device\.$"):
        download(REPO, None, ALL)


def test_nobody_is_asked_where_the_client_is_told_to_stay_offline(hub: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        ArtifactError, match=r"^The model repo owner/name is not in the cache, and out of reach at revision v9: there is no connection"
    ):
        download(REPO, "v9", ALL)
    assert (hub.log, hub.waits) == ([], [])
