"""A folder pushed to a Hub on this machine by the real client: whole or not at all, and nothing twice."""

import os
import random
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from conversion.publish import Target, check_access, publish
from pipeline.artifacts import BUNDLED, CARD, LANGUAGE_MODEL, MANIFEST, REQUIRED, File, Manifest, obtain
from pipeline.errors import ArtifactError, InputError
from pipeline.hub import WAITS
from tests.hub.repos import Account
from tests.hub.server import Fault, Server

# The client's plain way of uploading still calls its HTTP library as that used to be called.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
ROOT = Path(__file__).parent.parent.parent
REPO = "owner/name"
TARGET = Target(REPO)


def _folder(folder: Path, content: str, names=REQUIRED) -> Path:
    """A model folder as far as its manifest can tell."""
    folder.mkdir()
    for name in names:
        (folder / name).write_text(f"{content} {name}")
    Manifest("source", None, {}, {}, {name: File.of(folder / name) for name in names}).write(folder)
    return folder


@pytest.fixture
def folder(tmp_path):
    return _folder(tmp_path / "model", "new")


@pytest.fixture(autouse=True)
def token(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_write")


def _pulled(branch="main"):
    obtained = obtain({"MODEL_REPO": REPO, "MODEL_REVISION": branch})
    return {path.name: path.read_bytes() for path in obtained.iterdir()}


def _contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_demo_model_comes_back_as_it_was_pushed(hub, caplog):
    caplog.set_level("INFO", logger="conversion")
    check_access(TARGET)
    publish(BUNDLED, TARGET)
    assert _pulled() == _contents(BUNDLED)
    assert list(hub.hub.repos[REPO].branches) == ["main"]
    assert not hub.hub.repos[REPO].private
    for label in ("openvino_language_model.bin (2 of 6, 1.6 MB) ...", "is published: http"):
        assert label in caplog.text


def test_the_branch_changes_in_one_commit_that_ends_with_the_manifest(hub, folder):
    publish(folder, TARGET)
    repo = hub.hub.repos[REPO]
    assert len(hub.asked("POST .*/commit/main")) == 1
    assert list(repo.files())[-1] == MANIFEST
    assert all(entry.is_lfs for path, entry in repo.files().items() if path.endswith(".bin"))


def test_a_further_push_replaces_the_earlier_one_and_leaves_other_files_alone(hub, tmp_path, folder):
    publish(_folder(tmp_path / "old", "old", (*REQUIRED, "openvino_old.bin", "old.json")), TARGET)
    (tmp_path / "notes.txt").write_text("mine")
    hub.hub.publish(REPO, tmp_path, ["notes.txt"])
    hub.hub.publish(REPO, tmp_path, ["notes.txt"], "int8/")
    publish(folder, TARGET)
    assert set(hub.hub.repos[REPO].files()) == {*REQUIRED, MANIFEST, "notes.txt", "int8/notes.txt"}
    assert _pulled() == _contents(folder) | {"notes.txt": b"mine"}


def test_a_push_of_what_is_there_changes_and_sends_nothing(hub, folder, caplog):
    caplog.set_level("INFO", logger="conversion")
    publish(folder, TARGET)
    caplog.clear()
    head, before = hub.hub.repos[REPO].branches["main"], len(hub.log)
    publish(folder, TARGET)
    assert hub.hub.repos[REPO].branches == {"main": head}
    assert not any(request.method == "PUT" or "/commit/" in request.path for request in hub.log[before:])
    assert caplog.text.count("is there already") == 4


def test_a_branch_of_ones_own_is_made_and_main_left_alone(hub, folder):
    publish(folder, Target(REPO, "v2"))
    assert hub.hub.repos[REPO].files() == {}
    assert set(hub.hub.repos[REPO].branches) == {"main", "v2"}
    assert _pulled("v2") == _contents(folder)


def test_a_private_repo_is_private_from_its_first_moment(hub, folder):
    seen = set()
    hub.watch = lambda *_: seen.update(repo.private for repo in hub.hub.repos.values())
    publish(folder, Target(REPO, private=True))
    assert seen == {True}
    assert _pulled() == _contents(folder)


def test_a_public_repo_is_not_taken_for_a_private_one(hub, folder):
    publish(folder, TARGET)
    for step in (check_access, lambda target: publish(folder, target)):
        with pytest.raises(InputError, match="owner/name exists and is public: make it private in its settings, or push without --private"):
            step(Target(REPO, private=True))


@pytest.mark.parametrize("damage", ["cut", "no manifest"])
def test_only_a_folder_that_its_manifest_vouches_for_is_pushed(hub, folder, damage):
    if damage == "cut":
        (folder / LANGUAGE_MODEL).write_text("")
    else:
        (folder / MANIFEST).unlink()
    with pytest.raises((ArtifactError, InputError), match=LANGUAGE_MODEL if damage == "cut" else "only a folder that convert.py wrote is pushed"):
        publish(folder, TARGET)
    assert hub.log == []


@pytest.fixture
def with_card(tmp_path):
    return _folder(tmp_path / "with card", "---\nlicense: mit\n---\n", (*REQUIRED, CARD))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "is missing, though the manifest lists it."),
        ("---\nlicense: [mit\n---\n", r"The front matter of .* is not in order: .*line 1, column 10.*"),
        ("---\nmit\n---\n", "The front matter of .* is not in order: repo card metadata block should be a dict."),
    ],
)
def test_a_card_that_cannot_be_read_is_refused_before_anything_is_sent(hub, with_card, text, sentence):
    if text is None:
        (with_card / CARD).unlink()
    else:
        (with_card / CARD).write_text(text)
    with pytest.raises(InputError, match=sentence):
        publish(with_card, TARGET)
    assert hub.log == []


def test_a_card_that_the_hub_does_not_take_is_refused_in_its_words_before_anything_is_sent(hub, with_card):
    (with_card / CARD).write_text("---\nlicense: mine\n---\n")
    with pytest.raises(InputError, match=r'^The front matter of .*README.md is not in order: - Error: "license" must be one of .*\.$'):
        publish(with_card, TARGET)
    assert hub.hub.repos == {}
    (with_card / CARD).write_text("---\nlicense: mit\n---\nEdited.\n")
    publish(with_card, TARGET)
    assert _pulled() == _contents(with_card)


def test_a_name_that_the_client_does_not_take_is_one_sentence(hub, folder):
    with pytest.raises(InputError, match=r"^What was to be pushed to owner/a--b is refused: Cannot have -- or \.\. in repo_id: 'owner/a--b'\.$"):
        publish(folder, Target("owner/a--b"))


@pytest.mark.parametrize(
    ("token", "repo", "sentence"),
    [
        ("", REPO, "Pushing to owner/name takes a token with write access, and there is none: set HF_TOKEN, or log in with `hf auth login`."),
        ("hf_wrong", REPO, ".*: the Hub does not accept the token, which is mistyped, expired or revoked."),
        ("hf_read", REPO, "The token may not write to owner/name: pushing takes one with write access to it."),
        ("hf_read", "owner/there", "The token may not write to owner/there: .*"),
        ("hf_other", REPO, "The token may not write to owner/name: .*"),
        ("hf_other", "owner/there", "The token may not write to owner/there: .*"),
        ("hf_other", "owner/hidden", "The token may not write to owner/hidden: .*"),
        ("hf_fine", "owner/new", "The token may not write to owner/new: .*"),
        ("hf_member", "readers/new", "The token may not write to readers/new: .*"),
        ("hf_write", "owner", "owner is not a Hub id of the form OWNER/NAME."),
    ],
)
def test_a_token_that_will_not_do_is_one_sentence_before_anything_is_done(hub, folder, monkeypatch, token, repo, sentence):
    hub.hub.tokens["hf_fine"] = Account("other", "fineGrained", scopes={"other": ["repo.write"], "owner": ["repo.content.read"]})
    hub.hub.tokens["hf_member"] = Account("other", orgs={"readers": "read"})
    hub.hub.publish("owner/there", folder, REQUIRED)
    hub.hub.publish("owner/hidden", folder, REQUIRED, private=True)
    repos = set(hub.hub.repos)
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(InputError, match=f"^{sentence}$") as caught:
        check_access(Target(repo))
    assert not token or token not in str(caught.value)
    assert set(hub.hub.repos) == repos
    assert not any(request.method != "GET" for request in hub.log)


@pytest.mark.parametrize(
    ("account", "repo"),
    [
        (Account("owner"), "owner/new"),
        (Account("owner"), "owner/there"),
        (Account("other", orgs={"owner": "write"}), "owner/new"),
        (Account("other", "fineGrained", scopes={"owner": ["repo.write"]}), "owner/new"),
        (Account("other", "fineGrained", scopes={"owner/there": ["repo.write"]}), "owner/there"),
    ],
)
def test_a_token_that_will_do_is_accepted_and_does(hub, folder, account, repo):
    hub.hub.tokens["hf_write"] = account
    hub.hub.publish("owner/there", folder, REQUIRED)
    check_access(Target(repo))
    publish(folder, Target(repo))
    assert MANIFEST in hub.hub.repos[repo].files()


@pytest.mark.parametrize("does", [429, 503, "lost", "cut"])
def test_each_request_may_fail_once(hub, tmp_path, folder, does):
    publish(_folder(tmp_path / "old", "old", (*REQUIRED, "old.json")), TARGET)
    check_access(TARGET)
    asked = len(hub.log)
    publish(_folder(tmp_path / "middle", "middle"), TARGET)
    patterns = {re.sub("[0-9a-f]{12,}", "[0-9a-f]+", f"^{request}$") for request in hub.log[asked - 2 :]}
    assert len(patterns) > 12
    hub.faults = [Fault(pattern, does) for pattern in patterns]
    check_access(TARGET)
    publish(folder, TARGET)
    assert [fault.pattern for fault in hub.faults if fault.times] == []
    assert _pulled() == _contents(folder)


@pytest.mark.parametrize(
    ("request_", "does", "sentence"),
    [
        ("PUT /lfs/", 503, "the Hub answers with 503 Service Unavailable"),
        ("POST .*/commit/main", 500, "the Hub answers with 500 Internal Server Error"),
        ("", "lost", "there is no connection to the Hub"),
    ],
)
def test_a_hub_that_stays_away_is_one_sentence_and_the_branch_stays_as_it_was(hub, tmp_path, folder, request_, does, sentence):
    publish(_folder(tmp_path / "old", "old"), TARGET)
    hub.faults = [Fault(request_, does, times=10**6)]
    with pytest.raises(InputError, match=rf"^The model repo owner/name is out of reach at revision main: {sentence}\.$"):
        publish(folder, TARGET)
    hub.faults = []
    assert _pulled() == _contents(tmp_path / "old")


@pytest.mark.parametrize("error", [ConnectionError, TimeoutError])
def test_an_xet_that_fails_is_waited_for_and_then_no_connection(hub, folder, monkeypatch, error):
    asked = []

    def create_commit(*_, **__):
        asked.append(None)
        raise error("dispatch failure")

    monkeypatch.setattr(HfApi, "create_commit", create_commit)
    with pytest.raises(InputError, match=r"^The model repo owner/name is out of reach at revision main: there is no connection to the Hub\.$"):
        publish(folder, TARGET)
    assert len(asked) == len(WAITS) + 1


def test_two_pushes_at_once_do_not_mix(hub, tmp_path, folder):
    other = _folder(tmp_path / "other", "other")

    def meanwhile(number, moment):
        if hub.log[number - 1].method == "PUT" and moment == "done":
            hub.watch = lambda *_: None
            publish(other, TARGET)

    hub.watch = meanwhile
    publish(folder, TARGET)
    assert _pulled() == _contents(folder)
    assert list(hub.hub.repos[REPO].branches) == ["main"]
    commits = [files for files in hub.hub.repos[REPO].commits.values() if MANIFEST in files]
    assert [{path: entry.sha256 for path, entry in files.items()} for files in commits] == [
        {path.name: File.of(path).sha256 for path in pushed.iterdir()} for pushed in (other, folder)
    ]


def test_another_push_in_between_is_not_overwritten_blindly(hub, tmp_path, folder):
    (tmp_path / "notes.txt").write_text("mine")
    hub.hub.publish(REPO, tmp_path, ["notes.txt"])

    def meanwhile(number, moment):
        if hub.log[number - 1].path.endswith(f"/preupload/{TARGET.branch}") and moment == "come":
            hub.hub.publish(REPO, tmp_path, ["notes.txt"])

    hub.watch = meanwhile
    with pytest.raises(InputError, match="The branch main of owner/name was changed by someone else meanwhile: push again"):
        publish(folder, TARGET)
    hub.watch = lambda *_: None
    publish(folder, TARGET)
    assert MANIFEST in hub.hub.repos[REPO].files()


class Killer:
    """Starts pushes and kills them at a request: when it has come, or when it is done and not answered."""

    def __init__(self, hub: Server, folder: Path, home: Path) -> None:
        self._hub, self._folder = hub, folder
        client = {"HF_ENDPOINT": hub.address, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        self._environ = os.environ | client | {"HF_TOKEN": "hf_write"}
        self.stored: list[str] = []  # the path of each upload that arrived whole

    def push(self, kill: tuple[int | str, str] | None = None) -> bool:
        """Whether it came to its end; `kill` has a request's number in this push, or the end of its path."""
        begin = len(self._hub.log)
        command = [sys.executable, "convert.py", "--push-only", str(self._folder), "--push-to", REPO]
        with subprocess.Popen(command, cwd=ROOT, env=self._environ, stderr=subprocess.PIPE, text=True) as process:

            def watch(number: int, moment: str) -> bool:
                request = self._hub.log[number - 1]
                if moment == "done" and request.method == "PUT" and process.poll() is None:
                    self.stored.append(request.path)
                if kill not in ((number - begin, moment), (f"/{'/'.join(request.path.split('/')[-2:])}", moment)):
                    return False
                process.send_signal(signal.SIGKILL)
                process.wait()
                return True

            self._hub.watch = watch
            _, stderr = process.communicate()
        self._hub.watch = lambda *_: None
        assert process.returncode in (0, -signal.SIGKILL), stderr
        return process.returncode == 0


def test_killed_at_any_moment_a_push_goes_on_and_nobody_sees_half_of_it(hub, tmp_path):
    old = _folder(tmp_path / "old", "old", (*REQUIRED, "old.json"))
    new = _folder(tmp_path / "new", "new", (*REQUIRED, *(f"openvino_{number}.bin" for number in range(6))))
    weights = [path.name for path in new.glob("*.bin")]
    publish(old, TARGET)
    killer = Killer(hub, new, tmp_path / "home")
    # First come drawn moments (pytest-randomly prints their seed), none late enough for two weights, and then those around the step that shows.
    drawn = [(random.randrange(3, 11), random.choice(["come", "done"])) for _ in range(8)]
    assert len(drawn) < len(weights)
    seen = []
    for moment in (*drawn, ("/commit/main", "come"), ("/commit/main", "done")):
        assert not killer.push(moment)
        pulled = _pulled()
        assert pulled in (_contents(old), _contents(new))
        seen.append(pulled == _contents(new))
    assert seen == [False] * 9 + [True]
    assert killer.push()
    assert _pulled() == _contents(new)
    assert list(hub.hub.repos[REPO].branches) == ["main"]
    assert len(killer.stored) == len(set(killer.stored)) == len(weights)


def test_the_command_line_refuses_before_it_converts(hub, golden, tmp_path):
    client = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": "hf_read", "HF_HUB_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, "convert.py", str(golden / "tiny_model"), "--output", str(tmp_path / "out"), "--push-to", REPO]
    done = subprocess.run(command, check=False, cwd=ROOT, env=os.environ | client, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "The token may not write to owner/name: pushing takes one with write access to it.\n"
    assert not (tmp_path / "out").exists()
