"""One function for each of the Hub's endpoints that huggingface_hub uses here: a call -> an answer, or `Refused`."""

import base64
import io
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from tests.hub.repos import Account, Body, Entry, Hub, Refused, goes_to_lfs

LICENSES = ("apache-2.0", "mit")


@dataclass(frozen=True)
class Call:
    """What an endpoint gets to see of a request."""

    hub: Hub
    address: str
    account: Account | None
    headers: Mapping[str, str]
    query: dict[str, list[str]]
    body: Body

    def json(self) -> Any:
        return json.loads(self.body.all() or b"{}")


@dataclass
class Answer:
    """The body is bytes, or a file from one offset to another."""

    body: bytes | tuple[Path, int, int] = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return len(self.body) if isinstance(self.body, bytes) else self.body[2] - self.body[1]


def as_json(value: object, status: int = 200) -> Answer:
    return Answer(json.dumps(value).encode(), status, {"Content-Type": "application/json"})


def whoami(call: Call) -> Answer:
    if call.account is None:
        raise Refused(401, "Invalid username or password.")
    return as_json(call.account.described())


def create_repo(call: Call) -> Answer:
    asked = call.json()
    repo_id = f"{asked['organization']}/{asked['name']}"
    try:
        call.hub.create(repo_id, asked.get("visibility") == "private", call.account)
    except Refused as refusal:
        if refusal.status != 409:
            raise
        return as_json({"error": str(refusal), "url": f"{call.address}/{repo_id}"}, 409)
    return as_json({"url": f"{call.address}/{repo_id}"})


def validate_yaml(call: Call) -> Answer:
    """Of the Hub's many rules one: a licence is among those that it knows."""
    stated = re.search(r"^license: (.*)$", call.json()["content"], re.MULTILINE)
    if stated and stated[1] not in LICENSES:
        return Answer(f'- Error: "license" must be one of [{", ".join(LICENSES)}]'.encode(), 400)
    return as_json({"errors": [], "warnings": []})


def auth_check(call: Call, repo: str, write: str = "") -> Answer:
    call.hub.repo(repo, call.account, write=bool(write), content=True)
    return Answer(b"OK")


def model_info(call: Call, repo: str, revision: str = "main") -> Answer:
    found = call.hub.repo(repo, call.account)
    oid = found.resolve(revision)
    siblings = [{"rfilename": path} for path in found.commits[oid]]
    return as_json({"id": repo, "sha": oid, "private": found.private, "gated": "manual" if found.gated else False, "siblings": siblings})


def tree(call: Call, repo: str, revision: str) -> Answer:
    files = call.hub.repo(repo, call.account).files(revision)
    if call.query.get("recursive") == ["true"]:
        return as_json([entry.described(path) for path, entry in files.items()])
    folders = {path.partition("/")[0] for path in files if "/" in path}
    entries = [entry.described(path) for path, entry in files.items() if "/" not in path]
    return as_json(entries + [{"type": "directory", "path": name, "oid": "0" * 40} for name in sorted(folders)])


def paths_info(call: Call, repo: str, revision: str) -> Answer:
    files = call.hub.repo(repo, call.account).files(revision)
    asked = parse_qs(call.body.all().decode())["paths"]
    return as_json([files[path].described(path) for path in asked if path in files])


def create_branch(call: Call, repo: str, branch: str) -> Answer:
    found = call.hub.repo(repo, call.account, write=True)
    if branch in found.branches:
        raise Refused(409, f"Reference refs/heads/{branch} already exists")
    found.branches[branch] = found.resolve(call.json().get("startingPoint", "main"))
    return as_json({})


def delete_branch(call: Call, repo: str, branch: str) -> Answer:
    found = call.hub.repo(repo, call.account, write=True)
    if found.branches.pop(branch, None) is None:
        raise Refused(404, f"Reference refs/heads/{branch} does not exist", "RevisionNotFound")
    return as_json({})


def preupload(call: Call, repo: str, revision: str) -> Answer:
    files = call.hub.repo(repo, call.account, write=True).files(revision)
    answers = []
    for file in call.json()["files"]:
        path, mode = file["path"], "lfs" if goes_to_lfs(file["path"], file["size"]) else "regular"
        answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": files[path].etag if path in files else None})
    return as_json({"files": answers})


def lfs_batch(call: Call, repo: str) -> Answer:
    call.hub.repo(repo, call.account, write=True)
    objects = call.json()["objects"]
    for wanted in objects:
        if not call.hub.content(wanted["oid"]).is_file():
            url = f"{call.address}/lfs/{wanted['oid']}"
            wanted["actions"] = {"upload": {"href": url}, "verify": {"href": f"{url}/verify"}}
    return as_json({"transfer": "basic", "objects": objects})


def lfs_upload(call: Call, oid: str) -> Answer:
    call.hub.store(call.body, call.body.left, oid)
    return Answer()


def lfs_verify(call: Call, oid: str) -> Answer:
    asked = call.json()
    if asked["oid"] != oid or call.hub.entry(oid, is_lfs=True).size != asked["size"]:
        raise Refused(400, "The object has another size")
    return as_json({})


def commit(call: Call, repo: str, revision: str) -> Answer:
    lines = [json.loads(line) for line in call.body.all().splitlines()]
    found = call.hub.repo(repo, call.account, write=True)
    if revision not in found.branches:
        raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
    files = dict(found.files(revision))
    for line in lines:
        _apply(call.hub, line["key"], line["value"], files, found.branches[revision])
    oid = found.commit(files, revision)
    return as_json({"success": True, "commitOid": oid, "commitUrl": f"{call.address}/{repo}/commit/{oid}"})


def _apply(hub: Hub, key: str, value: dict[str, Any], files: dict[str, Entry], head: str) -> None:
    """One line of a commit."""
    match key:
        case "header":
            if value.get("parentCommit", head) != head:
                raise Refused(412, "A commit has happened since. Please refresh and try again.")
        case "file":
            content = base64.b64decode(value["content"])
            files[value["path"]] = hub.entry(hub.store(io.BytesIO(content), len(content)), is_lfs=False)
        case "lfsFile":
            files[value["path"]] = hub.entry(value["oid"], is_lfs=True)
        case "deletedFile":
            if files.pop(value["path"], None) is None:
                raise Refused(404, "A file with this name doesn't exist", "EntryNotFound")
        case _:
            raise Refused(400, f"{key} is not an operation")


def resolve(call: Call, repo: str, revision: str, path: str) -> Answer:
    found = call.hub.repo(repo, call.account, content=True)
    oid = found.resolve(revision)
    if path not in found.commits[oid]:
        raise Refused(404, "Entry not found", "EntryNotFound")
    entry = found.commits[oid][path]
    headers = {"X-Repo-Commit": oid, "ETag": f'"{entry.etag}"', "Accept-Ranges": "bytes"}
    if entry.is_lfs:
        headers |= {"X-Linked-Etag": f'"{entry.sha256}"', "X-Linked-Size": str(entry.size)}
    start = int(call.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
    if start:
        headers["Content-Range"] = f"bytes {start}-{entry.size - 1}/{entry.size}"
    return Answer((call.hub.content(entry.sha256), start, entry.size), 206 if start else 200, headers)


_MODEL = r"/api/models/(?P<repo>[^/]+/[^/]+)"
_REVISION = "(?P<revision>[^/]+)"
_BRANCH = "(?P<branch>[^/]+)"
_OID = "(?P<oid>[0-9a-f]{64})"
ENDPOINTS: tuple[tuple[str, Callable[..., Answer]], ...] = (
    ("GET /api/whoami-v2", whoami),
    ("POST /api/repos/create", create_repo),
    ("POST /api/validate-yaml", validate_yaml),
    (f"GET {_MODEL}", model_info),
    (f"GET {_MODEL}/revision/{_REVISION}", model_info),
    (f"GET {_MODEL}/auth-check", auth_check),
    (f"GET {_MODEL}/auth-check/(?P<write>write)", auth_check),
    (f"GET {_MODEL}/tree/{_REVISION}", tree),
    (f"POST {_MODEL}/paths-info/{_REVISION}", paths_info),
    (f"POST {_MODEL}/branch/{_BRANCH}", create_branch),
    (f"DELETE {_MODEL}/branch/{_BRANCH}", delete_branch),
    (f"POST {_MODEL}/preupload/{_REVISION}", preupload),
    (f"POST {_MODEL}/commit/{_REVISION}", commit),
    (r"POST /(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch", lfs_batch),
    (f"PUT /lfs/{_OID}", lfs_upload),
    (f"POST /lfs/{_OID}/verify", lfs_verify),
    (rf"(?:GET|HEAD) /(?P<repo>[^/]+/[^/]+)/resolve/{_REVISION}/(?P<path>.+)", resolve),
)
