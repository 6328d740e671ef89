"""A test that needs another before it passes beside it, and is found by `make alone`; so is one that ends its process."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
TESTS = """
import os
import pytest

seen = []

def test_first():
    seen.append(1)

def test_second():
    assert seen, "nobody came first"

@pytest.mark.parametrize("number", [1, 2])
def test_in_turn(number, tmp_path):
    seen.append(number)
    assert seen == list(range(1, number + 1)) and str(tmp_path).startswith(os.environ["PYTEST_DEBUG_TEMPROOT"])

def test_end():
    os._exit(3)
"""


def test_what_passes_only_after_others_is_found_and_so_is_what_ends_its_process(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(TESTS)
    command = [sys.executable, "-m", "tests.alone", "--at-once", "2", "-p", "no:randomly", "-c", str(ROOT / "pyproject.toml"), str(tmp_path)]
    ran = subprocess.run(command, cwd=ROOT, env=dict(os.environ, TMPDIR=str(tmp_path)), capture_output=True, text=True, timeout=120, check=False)
    found = json.loads(ran.stdout.splitlines()[-1])["alone"]
    assert found["functions"] == 4
    assert {name.split("::")[1] for name in found["failed"]} == {"test_second", "test_end"}
    assert ran.returncode == 1
    assert "nobody came first" in ran.stdout
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("tmp")] == [], "folders of files that nobody deleted"
