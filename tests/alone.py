"""Every test function, with all its parameters, in a process of its own -> those that fail without what ran before them, and a line of JSON.

    python -m tests.alone [--at-once N] [what pytest takes]

Tests are collected once. Each function then runs in a fork of that process, and fixtures of the session are made for it anew.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

import pytest


class Alone:
    """A plugin of pytest, which runs the functions instead of the session's own loop."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._said: list[str] = []
        self.functions: dict[str, list[pytest.Item]] = {}
        self.failed: list[str] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        for item in session.items:
            self.functions.setdefault(item.nodeid.split("[")[0], []).append(item)
        running: dict[int, tuple[str, tempfile.TemporaryDirectory[str]]] = {}
        for name, items in self.functions.items():
            if len(running) == self._at_once:
                self._wait(running)
            folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
            if not (process := os.fork()):
                self._run(items, Path(folder.name))
            running[process] = name, folder
        while running:
            self._wait(running)
        session.testsfailed = len(self.failed)
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._said.append(f"{report.nodeid}, {report.when}:\n{report.longreprtext}\n{report.capstdout}\n{report.capstderr}\n")

    def _run(self, items: list[pytest.Item], folder: Path) -> None:
        """In the fork, which ends here, whatever happens."""
        try:
            os.environ["PYTEST_DEBUG_TEMPROOT"] = str(folder)
            with (folder / "output").open("w", encoding="utf-8") as output:
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
                for item, following in zip(items, [*items[1:], None], strict=True):
                    item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            (folder / "failures").write_text("\n".join(self._said), encoding="utf-8")
        finally:
            os._exit(bool(self._said) or sys.exc_info()[0] is not None)

    def _wait(self, running: dict[int, tuple[str, tempfile.TemporaryDirectory[str]]]) -> None:
        process, status = os.wait()
        name, folder = running.pop(process)
        if code := os.waitstatus_to_exitcode(status):
            failures = Path(folder.name) / "failures"  # where the process came to its end
            said = (failures if failures.exists() else Path(folder.name) / "output").read_text(encoding="utf-8", errors="replace")
            print(f"\n{name} ended with {code}:\n{said}", flush=True)
            self.failed.append(name)
        folder.cleanup()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--at-once", type=int, default=1)
    options, arguments = parser.parse_known_args()
    alone = Alone(options.at_once)
    status = pytest.main(["-q", *arguments], plugins=[alone])
    print(json.dumps({"alone": {"functions": len(alone.functions), "failed": alone.failed}}))
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
