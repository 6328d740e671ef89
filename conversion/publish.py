"""A finished model folder -> a branch of a Hub repo, which changes in one step; a push that was stopped goes on where it was."""

import contextlib
import logging
import re
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi, ModelCard
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, RepositoryNotFoundError

from pipeline.artifacts import CARD, MANIFEST, File, Manifest, verify
from pipeline.errors import ArtifactError, InputError
from pipeline.hub import FAILURES, patiently, sentence

logger = logging.getLogger("conversion")

MAIN = "main"


@dataclass(frozen=True)
class Target:
    """Where to push; `private` is what the repo must be if it exists, and becomes if not."""

    repo: str
    branch: str = MAIN
    private: bool = False

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", self.repo):
            raise InputError(f"{self.repo} is not a Hub id of the form OWNER/NAME.")


def check_access(target: Target) -> None:
    """Make sure that the token of this machine may push, before there is anything to push.

    Raises:
        InputError: there is no token, it is a wrong one, or it may not write there; or the repo is public and should not be.
    """
    api = HfApi()
    with _plainly(target):
        try:
            account = patiently(api.whoami)
        except LocalTokenNotFoundError as cause:
            needs = f"Pushing to {target.repo} takes a token with write access, and there is none"
            raise InputError(f"{needs}: set HF_TOKEN, or log in with `hf auth login`.") from cause
        try:
            patiently(lambda: api.auth_check(target.repo, write=True))
        except HfHubHTTPError as cause:
            is_new = isinstance(cause, RepositoryNotFoundError)
            if (is_new and not _may_create(account, target.repo)) or cause.response.status_code == 403:
                raise InputError(f"The token may not write to {target.repo}: pushing takes one with write access to it.") from cause
            if not is_new:
                raise
        else:
            _check_private(api, target)


def publish(folder: Path, target: Target) -> None:
    """Push what the folder's manifest lists. Until the last step the branch is what it was, and then it is all of the new model.

    The weights go to a branch of their own, a commit each: what is there when a push is stopped is not sent again by the next. The last step is
    one commit that takes them from there, adds the small files and the manifest, and drops what an earlier push had and this one has not.

    Raises:
        ArtifactError: the folder is not what its manifest says.
        InputError: the Hub does not take it.
    """
    verify(folder)
    if not (folder / MANIFEST).is_file():
        raise InputError(f"{folder} has no {MANIFEST}: only a folder that convert.py wrote is pushed.")
    files = Manifest.read(folder).files
    weights = [name for name in files if name.endswith(".bin")]
    # Named after what is pushed: another push at the same time cannot put its weights among these.
    staging = f"incoming-{target.branch}-{File.of(folder / MANIFEST).sha256[:12]}"
    api = HfApi()
    with _plainly(target):
        if CARD in files:
            _check_card(folder / CARD)
        patiently(lambda: api.create_repo(target.repo, private=target.private or None, exist_ok=True))
        _check_private(api, target)
        if target.branch != MAIN:
            patiently(lambda: api.create_branch(target.repo, branch=target.branch, exist_ok=True))
        patiently(lambda: api.create_branch(target.repo, branch=staging, revision=target.branch, exist_ok=True))
        there = _contents(api, target, staging)
        for number, name in enumerate(weights, 1):
            label = f"{name} ({number} of {len(weights)}, {files[name].size / 1e6:,.1f} MB)"
            if there.get(name) == files[name].sha256:
                logger.info("%s is there already.", label)
                continue
            logger.info("%s ...", label)
            begin = time.monotonic()
            patiently(lambda name=name: _send(api, folder, name, target, staging))
            logger.info("%s: %.1f s", label, time.monotonic() - begin)
        released = patiently(lambda: _release(api, folder, files.keys() - set(weights), weights, target, staging))
        patiently(lambda: _clear(api, target, staging))
    logger.info("%s is published: %s", folder, released.commit_url)


def _check_card(path: Path) -> None:
    """People may edit the card; the Hub looks at it again in the last step, and by then all weights would be sent.

    Raises:
        InputError: it is not there, or its front matter is not what the Hub takes.
    """
    if not path.is_file():
        raise InputError(f"{path} is missing, though the manifest lists it.")
    try:
        patiently(ModelCard.load(path).validate)
    except FAILURES:
        raise
    except Exception as cause:  # the client's ValueError, or one of YAML's own
        raise InputError(f"The front matter of {path} is not in order: {_in_a_line(cause)}.") from cause


def _send(api: HfApi, folder: Path, name: str, target: Target, staging: str) -> None:
    api.create_commit(target.repo, [CommitOperationAdd(name, folder / name)], commit_message=f"Add {name}", revision=staging)


def _release(api: HfApi, folder: Path, small: set[str], weights: list[str], target: Target, staging: str) -> CommitInfo:
    """The step that readers of the branch see. Done twice, the second time changes nothing."""
    head = patiently(lambda: api.model_info(target.repo, revision=target.branch).sha)
    stale = _earlier(api, target, head) - {*small, *weights, MANIFEST}
    operations = [
        *(CommitOperationDelete(name) for name in sorted(stale)),
        *(CommitOperationCopy(name, name, src_revision=staging) for name in weights),
        *(CommitOperationAdd(name, folder / name) for name in (*sorted(small), MANIFEST)),
    ]
    return api.create_commit(target.repo, operations, commit_message="Publish a conversion to OpenVINO", revision=target.branch, parent_commit=head)


def _clear(api: HfApi, target: Target, staging: str) -> None:
    try:
        api.delete_branch(target.repo, branch=staging)
    except HfHubHTTPError as error:
        if error.response.status_code != 404:  # an attempt before this one did it, and its answer was lost
            raise


def _contents(api: HfApi, target: Target, revision: str) -> dict[str, str | None]:
    """The files at the top of the repo, and the sha256 of those that are stored as large ones."""
    entries = patiently(lambda: list(api.list_repo_tree(target.repo, revision=revision)))
    return {entry.path: lfs.sha256 if (lfs := getattr(entry, "lfs", None)) else None for entry in entries}


def _earlier(api: HfApi, target: Target, head: str) -> set[str]:
    """What is left of an earlier push."""
    present = _contents(api, target, head).keys()
    if MANIFEST not in present:
        return set()
    with tempfile.TemporaryDirectory() as folder:
        patiently(lambda: api.hf_hub_download(target.repo, MANIFEST, revision=head, local_dir=folder))
        try:
            return present & Manifest.read(Path(folder)).files.keys()
        except ArtifactError:  # it was not made here, so nothing of it is ours to delete
            return set()


def _check_private(api: HfApi, target: Target) -> None:
    if target.private and not patiently(lambda: api.model_info(target.repo)).private:
        raise InputError(f"{target.repo} exists and is public: make it private in its settings, or push without --private.")


def _may_create(account: dict[str, Any], repo: str) -> bool:
    """Whether a new repo can be made with the token, as far as the Hub tells of it."""
    owner = repo.partition("/")[0]
    token = account.get("auth", {}).get("accessToken", {})
    if token.get("role") == "fineGrained":
        scopes = token.get("fineGrained", {}).get("scoped", [])
        return any(scope["entity"].get("name") == owner and "repo.write" in scope["permissions"] for scope in scopes)
    owners = {account["name"], *(org["name"] for org in account.get("orgs", []) if org.get("roleInOrg") != "read")}
    return token.get("role") != "read" and owner in owners


@contextlib.contextmanager
def _plainly(target: Target) -> Iterator[None]:
    """A failure of the Hub becomes one sentence."""
    try:
        yield
    except HfHubHTTPError as cause:
        if cause.response.status_code == 412:
            raise InputError(f"The branch {target.branch} of {target.repo} was changed by someone else meanwhile: push again.") from cause
        raise InputError(sentence(cause, target.repo, target.branch)) from cause
    except FAILURES as cause:
        raise InputError(sentence(cause, target.repo, target.branch)) from cause
    except ValueError as cause:  # the client's own word for what the Hub would not take, or did not
        raise InputError(f"What was to be pushed to {target.repo} is refused: {_in_a_line(cause)}.") from cause


def _in_a_line(error: Exception) -> str:
    return " ".join(str(error).split()).removesuffix(".")
