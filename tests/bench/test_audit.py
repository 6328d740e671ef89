"""The audit: only a database that is out of reach excuses it."""

import json
import socket
import subprocess
import venv
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import requests
from pip_audit._service import PyPIService

from bench import audit


class Database(BaseHTTPRequestHandler):
    """Answers with the status that it is asked for."""

    def do_GET(self) -> None:
        self.send_response(int(self.path[1:]))
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def database() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Database) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


class Elsewhere(requests.Session):
    """Asks another address, whichever it is told."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self._address = address

    def get(self, *, url: str, timeout: float) -> requests.Response:  # type: ignore[override]
        assert "pip-audit" in url
        return super().get(self._address, timeout=timeout)


def reachable(address: str) -> bool:
    database = PyPIService(timeout=10)
    database.session = Elsewhere(address)
    return audit.reachable(database)


def test_a_database_that_answers_is_there_whatever_is_wrong_with_it_and_one_that_knows_nothing_is_none(database: str) -> None:
    assert {status: reachable(f"{database}{status}") for status in (200, 404, 403, 500)} == {200: True, 404: False, 403: True, 500: True}


def test_no_connection_is_no_database_and_a_false_certificate_is_a_fault(database: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert not reachable(f"http://127.0.0.1:{port}/200")
    assert reachable(f"{database}200".replace("http", "https"))


@pytest.mark.parametrize(("there", "found", "status"), [(True, 1, 1), (True, 0, 0), (False, 1, 0)], ids=["wrong", "well", "nobody to ask"])
def test_it_fails_as_pip_audit_does_where_there_is_a_database(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, there: bool, found: int, status: int
) -> None:
    ran: list[str] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        ran.append(command[2])
        if command[2] == "cyclonedx_py":
            audit.SBOM.write_text('{"components": [{}, {}, {}]}')
            return subprocess.CompletedProcess(command, 0)
        assert command[-1] == str(tmp_path / "lib" / "python3.11" / "site-packages")
        return subprocess.CompletedProcess(command, found)

    (tmp_path / "lib" / "python3.11" / "site-packages").mkdir(parents=True)
    monkeypatch.setattr(audit, "ENVIRONMENT", tmp_path)
    monkeypatch.setattr(audit, "SBOM", tmp_path / "build" / "sbom.json")
    monkeypatch.setattr(audit, "reachable", lambda _: there)
    monkeypatch.setattr(subprocess, "run", run)
    assert audit.main() == status
    assert ran == (["cyclonedx_py", "pip_audit"] if there else ["cyclonedx_py"])
    *told, last = capsys.readouterr().out.splitlines()
    assert json.loads(last) == {"audit": {"components": 3, "audited": there, "status": status}}
    assert told == ([] if there else ["Not audited: the database cannot be reached."])


def test_an_environment_that_is_not_there_is_not_found_free_of_faults(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not enough values"):
        audit.audited(tmp_path)


def test_what_an_environment_is_made_of_is_written_and_counted(tmp_path: Path) -> None:
    venv.create(tmp_path, with_pip=False)
    [packages] = tmp_path.glob("lib/python3*/site-packages")
    for name in ("one", "two"):
        (packages / f"{name}-1.0.dist-info").mkdir()
        (packages / f"{name}-1.0.dist-info" / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    sbom = tmp_path / "build" / "sbom.json"
    assert audit.components(tmp_path, sbom) == 2
    assert [component["name"] for component in json.loads(sbom.read_text())["components"]] == ["one", "two"]
