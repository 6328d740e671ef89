"""A Hub repo, a revision and patterns -> its files in a local folder whose name is the commit; what the Hub refuses -> one plain sentence."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import httpx2
from huggingface_hub import constants, get_cached_repo_tree, get_token, snapshot_download
from huggingface_hub.errors import (
    CachedRepoTreeNotFoundError,
    DryRunError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import WeakFileLock, parse_ratelimit_headers, tqdm  # type: ignore[attr-defined]

from pipeline.errors import ArtifactError

logger = logging.getLogger("pipeline")

T = TypeVar("T")

#: Told the bytes that are there and those there will be, by one thread at a time.
Progress: TypeAlias = Callable[[int, int], None]

#: How the Hub's client fails; RuntimeErrors come from Xet, its other way to carry bytes.
FAILURES = (httpx2.HTTPError, OSError, RuntimeError)
#: The last two are Python's own, which Xet raises for what befalls the network.
CUT = (httpx2.TimeoutException, httpx2.NetworkError, httpx2.RemoteProtocolError, ConnectionError, TimeoutError)
BUSY = frozenset({408, 429, 500, 502, 503, 504})
#: Seconds between attempts. The client makes some of its own, but none when it asks for a revision or when a large file breaks off for good.
WAITS = (1, 2, 4, 8)


def download(repo: str, revision: str | None, patterns: Sequence[str], progress: Progress | None = None, *, one_by_one: bool = False) -> Path:
    """The files of a repo that match any of the patterns; those in the cache are not fetched, and if all are, no network is needed.

    Args:
        patterns: of whole paths; if none has a slash, files in subfolders are left alone.
        one_by_one: of a download that breaks off only whole files stay; fetched side by side, all large ones would still be unfinished by then.

    Raises:
        ArtifactError: the Hub does not give them, and they are not in its cache.
    """
    wanted = _wanted(repo, revision, patterns) | ({"max_workers": 1} if one_by_one else {})
    try:
        _drop_broken_off(repo)
        return patiently(lambda: _interruptible_snapshot(wanted, progress))
    except HFValidationError as cause:
        raise ArtifactError(f"{repo} is not a Hub id of the form OWNER/NAME.") from cause
    except FAILURES as cause:
        if _may_pass(cause) and (cached := _cached(wanted)):
            return cached
        raise ArtifactError(sentence(cause, repo, revision, "is not in the cache, and out of reach")) from cause


def bytes_to_fetch(repo: str, revision: str, patterns: Sequence[str]) -> int:
    """How much `download` would fetch; 0 where the Hub cannot be asked, which the download itself will tell.

    Args:
        patterns: as there.
    """
    try:
        plan = patiently(lambda: snapshot_download(**_wanted(repo, revision, patterns), dry_run=True))
    except (DryRunError, *FAILURES):
        return 0
    return sum(file.file_size or 0 for file in plan if file.will_download)


def _wanted(repo: str, revision: str | None, patterns: Sequence[str]) -> dict[str, Any]:
    """For the Hub's client, whose patterns would match in subfolders too."""
    wanted = {"repo_id": repo, "revision": revision, "allow_patterns": list(patterns)}
    return wanted if any("/" in pattern for pattern in patterns) else {**wanted, "ignore_patterns": ["*/*"]}


def listing(repo: str, folder: Path) -> list[str]:
    """The paths of all files that a repo has at the commit of a downloaded folder; of those in the folder, where the cache keeps no list."""
    try:
        return [file.path for file in get_cached_repo_tree(repo, revision=folder.name)]
    except CachedRepoTreeNotFoundError:
        return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]


def _drop_broken_off(repo: str) -> None:
    """Delete what downloads that were killed have left, before anything else needs the room: the client begins each anew under another name."""
    for left in _unfinished(repo):
        # The client's own lock on a file, which the system takes from a process that is killed.
        lock = Path(constants.HF_HUB_CACHE, ".locks", left.parent.parent.name, f"{left.name.partition('.')[0]}.lock")
        # Where it cannot be had, the file is still being written, or the cache is not ours to change.
        with contextlib.suppress(OSError), WeakFileLock(lock, timeout=0.1):
            left.unlink(missing_ok=True)


def _unfinished(repo: str) -> set[Path]:
    return set(Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=repo, repo_type="model")).glob("blobs/*.incomplete"))


def _cached(wanted: dict[str, Any]) -> Path | None:
    """The client itself turns to its cache when no connection can be made, but not when one breaks off."""
    try:
        return Path(snapshot_download(**wanted, local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def _interruptible_snapshot(wanted: dict[str, Any], progress: Progress | None) -> Path:
    """In a thread that an interruption leaves behind, without the files that it has begun: the client would end the downloads under way first."""
    others = _unfinished(wanted["repo_id"])
    outcome: Future[Path] = Future()

    def fetch() -> None:
        try:
            outcome.set_result(_snapshot(wanted, progress))
        except BaseException as error:  # raised in the thread that waits
            outcome.set_exception(error)

    try:
        threading.Thread(target=fetch, daemon=True).start()
        return outcome.result()
    except KeyboardInterrupt:
        for begun in _unfinished(wanted["repo_id"]) - others:
            begun.unlink(missing_ok=True)
        raise


def _snapshot(wanted: dict[str, Any], progress: Progress | None) -> Path:
    if progress is None:
        return Path(snapshot_download(**wanted))
    try:
        plan = snapshot_download(**wanted, dry_run=True)
    except DryRunError:  # the Hub cannot be asked; perhaps the cache has everything
        return Path(snapshot_download(**wanted))
    there = sum(file.file_size or 0 for file in plan if not file.will_download)
    total = sum(file.file_size or 0 for file in plan)
    progress(there, total)
    return Path(snapshot_download(**wanted, tqdm_class=_reporting(progress, there, total)))


def _reporting(progress: Progress, there: int, total: int) -> type[tqdm]:
    """The client's own progress bar, which also tells us."""
    lock = threading.Lock()

    class Reporting(tqdm):
        def __init__(self, *arguments: Any, name: str | None = None, **options: Any) -> None:
            self._counts_bytes_of_files = name == "huggingface_hub.snapshot_download"  # others count files, or bytes on the wire
            super().__init__(*arguments, name=name, **options)  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> bool | None:
            nonlocal there
            if self._counts_bytes_of_files and n:
                with lock:
                    there += int(n)
                    progress(there, total)
            shown: bool | None = super().update(n)
            return shown

    return Reporting


def patiently(action: Callable[[], T]) -> T:
    """Do it, and again after a wait when the Hub was busy or the line was cut; the last failure is raised."""
    for seconds in WAITS:
        try:
            return action()
        except FAILURES as error:
            if not _may_pass(error):
                raise
            wait = max(seconds, _asked_to_wait(error))
            logger.warning("The Hub failed (%s); trying again in %d s.", _kind(error), wait)
        time.sleep(wait)
    return action()


def sentence(error: Exception, repo: str, revision: str | None = None, out_of_reach: str = "is out of reach") -> str:
    """What a failure of the Hub's client means, for a person."""
    error = _root(error)
    if revision:
        out_of_reach += f" at revision {revision}"
    match error:
        case GatedRepoError():  # a kind of the next one
            fact = "is gated, and access is not granted: ask for it on its page, and set HF_TOKEN to a token of that account"
        case RepositoryNotFoundError():
            fact = f"does not exist, or {'the token has no access to it' if get_token() else 'it is private and HF_TOKEN is not set'}"
        case RevisionNotFoundError():
            fact = f"has no revision {revision}"
        case HfHubHTTPError() if error.response.status_code == 401:
            fact = f"{out_of_reach}: the Hub does not accept the token, which is mistyped, expired or revoked"
        case HfHubHTTPError() if error.response.status_code == 403:
            fact = f"is closed to this token{_in_its_words(error)}"
        case HfHubHTTPError():
            fact = f"{out_of_reach}: the Hub answers with {_kind(error)}{_in_its_words(error)}"
        case httpx2.TransportError() | LocalEntryNotFoundError() | ConnectionError() | TimeoutError():
            fact = f"{out_of_reach}: there is no connection to the Hub"
        case OSError(strerror=str(strerror)):
            fact = f"{out_of_reach}: {strerror}"
        case _:
            fact = f"{out_of_reach}: its files keep arriving broken or not at all"
    return f"The model repo {repo} {fact}."


def _in_its_words(error: HfHubHTTPError) -> str:
    """What the Hub itself says of its refusal, such as which permission a token lacks."""
    said = " ".join((error.server_message or "").split()).removesuffix(".")
    return f" ({said})" if said else ""


def _may_pass(error: Exception) -> bool:
    """Whether the same request may succeed later."""
    error = _root(error)
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in BUSY
    if isinstance(error, OfflineModeIsEnabled):  # a ConnectionError
        return False
    # A bare OSError is the client's own: a file arrived with another size than announced.
    return isinstance(error, (*CUT, RuntimeError)) or (type(error) is OSError and error.errno is None)


def _asked_to_wait(error: Exception) -> int:
    """Seconds until the Hub's limit of requests is lifted."""
    error = _root(error)
    limit = parse_ratelimit_headers(error.response.headers) if isinstance(error, HfHubHTTPError) else None
    return limit.reset_in_seconds + 1 if limit and not limit.remaining else 0


def _kind(error: Exception) -> str:
    error = _root(error)
    if isinstance(error, HfHubHTTPError):
        return f"{error.response.status_code} {error.response.reason_phrase}"
    return type(error).__name__


def _root(error: Exception) -> Exception:
    """What the client wrapped: it says "not in the cache" where the network was down, and RuntimeError around any failed upload."""
    while isinstance(error, (LocalEntryNotFoundError, RuntimeError)) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return error
