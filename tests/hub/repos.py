"""What a Hub keeps: accounts by token, repos with branches of commits, and contents on disk under their sha256, checked as they come in."""

import hashlib
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

CHUNK = 1 << 20
#: Of the Hub's own list in a new repo's .gitattributes, those that matter here. Anything larger than 10 MB goes the same way.
LFS_SUFFIXES = (".bin", ".safetensors")
LFS_BYTES = 10_000_000


class Refused(Exception):
    """An answer that is no success: its status, and the headers by which the client tells one refusal from another."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}


@dataclass(frozen=True)
class Account:
    """Who a token belongs to and what it may do: role "read", "write" or "fineGrained" with `scopes` (an owner or a repo -> permissions)."""

    name: str
    role: str = "write"
    orgs: dict[str, str] = field(default_factory=dict)  # name -> role in it
    scopes: dict[str, list[str]] = field(default_factory=dict)

    def may_write(self, repo_id: str) -> bool:
        owner = repo_id.partition("/")[0]
        if self.role == "fineGrained":
            return any("repo.write" in self.scopes.get(name, []) for name in (owner, repo_id))
        return self.role == "write" and (owner == self.name or self.orgs.get(owner) in ("admin", "write"))

    def described(self) -> dict[str, Any]:
        token: dict[str, Any] = {"displayName": "a token", "role": self.role}
        if self.role == "fineGrained":
            token["fineGrained"] = {
                "global": [],
                "scoped": [{"entity": {"type": "user", "name": name}, "permissions": granted} for name, granted in self.scopes.items()],
            }
        orgs = [{"type": "org", "name": name, "roleInOrg": role} for name, role in self.orgs.items()]
        return {"type": "user", "name": self.name, "orgs": orgs, "auth": {"type": "access_token", "accessToken": token}}


@dataclass(frozen=True)
class Entry:
    """One file of a commit."""

    size: int
    sha256: str
    is_lfs: bool
    blob_id: str

    @property
    def etag(self) -> str:
        return self.sha256 if self.is_lfs else self.blob_id

    def described(self, path: str) -> dict[str, Any]:
        values = {"type": "file", "path": path, "size": self.size, "oid": self.blob_id}
        return values | ({"lfs": {"oid": self.sha256, "size": self.size, "pointerSize": 134}} if self.is_lfs else {})


@dataclass
class Repo:
    private: bool = False
    gated: bool = False
    granted: set[str] = field(default_factory=set)  # accounts
    branches: dict[str, str] = field(default_factory=dict)  # name -> commit
    commits: dict[str, dict[str, Entry]] = field(default_factory=dict)  # by their ids, files by their paths

    def commit(self, files: dict[str, Entry], branch: str) -> str:
        """Move a branch to a new commit, in one step."""
        parent = self.branches.get(branch)
        oid = hashlib.sha1(repr((parent, len(self.commits), sorted(files.items()))).encode(), usedforsecurity=False).hexdigest()
        self.commits[oid] = files
        self.branches[branch] = oid
        return oid

    def resolve(self, revision: str) -> str:
        oid = self.branches.get(revision, revision)
        if oid not in self.commits:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return oid

    def files(self, revision: str = "main") -> dict[str, Entry]:
        return self.commits[self.resolve(revision)]


class Body:
    """What is left to read of a request's body, in bytes."""

    def __init__(self, stream: BinaryIO, left: int) -> None:
        self._stream, self.left = stream, left

    def read(self, size: int) -> bytes:
        data = self._stream.read(min(size, self.left))
        self.left = self.left - len(data) if data else 0
        return data

    def all(self) -> bytes:
        """The rest of it.

        Raises:
            Refused: the client stopped in the middle.
        """
        size, data = self.left, self.read(self.left)
        if len(data) < size:
            raise Refused(400, f"{size - len(data)} bytes are missing")
        return data

    def skip(self) -> None:
        while self.read(CHUNK):
            pass


class Hub:
    """The whole state; every method is called with `lock` held, except those that move contents."""

    def __init__(self, folder: Path) -> None:
        self.lock = threading.RLock()
        self.tokens: dict[str, Account] = {}
        self.repos: dict[str, Repo] = {}
        self._folder = folder

    def account(self, token: str | None) -> Account | None:
        if token is None:
            return None
        if token not in self.tokens:
            raise Refused(401, "Invalid credentials in Authorization header")
        return self.tokens[token]

    def create(self, repo_id: str, private: bool, account: Account | None) -> None:
        if account is None:
            raise Refused(401, "Invalid username or password.")
        if not account.may_write(repo_id):
            raise Refused(403, f"You don't have the rights to create a model under the namespace of {repo_id}")
        if repo_id in self.repos:
            raise Refused(409, "You already created this model repo")
        self.repos[repo_id] = Repo(private)
        self.repos[repo_id].commit({}, "main")

    def repo(self, repo_id: str, account: Account | None, write: bool = False, content: bool = False) -> Repo:
        """A repo that the account may read, write, or read the content of.

        Raises:
            Refused: in the Hub's own words.
        """
        repo = self.repos.get(repo_id)
        owns = account is not None and (repo_id.partition("/")[0] in (account.name, *account.orgs))
        if repo is None or (repo.private and not owns):
            raise Refused(401 if account is None else 404, "Repository not found", "RepoNotFound")
        if content and repo.gated and not owns and (account is None or account.name not in repo.granted):
            raise Refused(401 if account is None else 403, "Access to model is restricted", "GatedRepo")
        if write and (account is None or not account.may_write(repo_id)):
            raise Refused(401 if account is None else 403, "You don't have the rights to write to this repo")
        return repo

    def content(self, sha256: str) -> Path:
        return self._folder / sha256

    def store(self, stream: BinaryIO | Body, size: int, expected: str | None = None) -> str:
        """Keep exactly `size` bytes, if they come and are what they should be; their sha256.

        Raises:
            Refused: 400.
        """
        digest, partial = hashlib.sha256(), self._folder / f"partial-{threading.get_ident()}"
        with partial.open("wb") as file:
            while missing := size - file.tell():
                if not (chunk := stream.read(min(missing, CHUNK))):
                    partial.unlink()
                    raise Refused(400, f"{missing} bytes are missing")
                digest.update(chunk)
                file.write(chunk)
        if expected not in (None, digest.hexdigest()):
            partial.unlink()
            raise Refused(400, "The content does not have the announced sha256")
        partial.replace(self.content(digest.hexdigest()))
        return digest.hexdigest()

    def entry(self, sha256: str, is_lfs: bool) -> Entry:
        """The file of a commit whose content has been stored."""
        path = self.content(sha256)
        if not path.is_file():
            raise Refused(400, f"LFS object {sha256} was never uploaded")
        size = path.stat().st_size
        blob = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode() if is_lfs else path.read_bytes()
        return Entry(size, sha256, is_lfs, hashlib.sha1(f"blob {len(blob)}\0".encode() + blob, usedforsecurity=False).hexdigest())

    def publish(self, repo_id: str, folder: Path, names: Iterable[str], prefix: str = "", branch: str = "main", **properties: Any) -> str:
        """Put files of a folder into a repo without a client; the commit."""
        with self.lock:
            repo = self.repos.setdefault(repo_id, Repo())
            for name, value in properties.items():
                setattr(repo, name, value)
            files = dict(repo.files(branch)) if branch in repo.branches else {}
            for name in names:
                with (folder / name).open("rb") as stream:
                    files[prefix + name] = self.entry(self.store(stream, (folder / name).stat().st_size), goes_to_lfs(name, 0))
            return repo.commit(files, branch)


def goes_to_lfs(path: str, size: int) -> bool:
    return path.endswith(LFS_SUFFIXES) or size > LFS_BYTES


def copied(body: bytes | tuple[Path, int, int]) -> Iterator[bytes]:
    """Bytes as they are, or those of a file from one offset to another in pieces."""
    if isinstance(body, bytes):
        yield body
        return
    path, start, end = body
    with path.open("rb") as file:
        file.seek(start)
        while (left := end - file.tell()) > 0:
            yield file.read(min(left, CHUNK))
