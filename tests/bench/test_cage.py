"""A command in a cage is bounded in memory, by whichever means there is, and what it took is known."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.cage import GIB, Cage

TAKE = "import time; taken = bytearray({size}); taken[::4096] = b'x' * len(taken[::4096]); print('taken', flush=True)"


@pytest.fixture(params=["as this machine can", "without control groups"])
def groups(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Path]:
    return {} if request.param == "as this machine can" else {"groups": tmp_path}


def _taking(cage: Cage, size: int) -> tuple[int, str, float, float]:
    command = [sys.executable, "-c", TAKE.format(size=size) + "; input()"]
    with cage.running(command, {}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as (process, peaks):
        said = process.stdout.readline()
        while said and peaks.anonymous < size / GIB:
            time.sleep(0.01)
        process.communicate("\n")
    return process.returncode, said, peaks.anonymous, peaks.resident


def test_what_fits_runs_and_its_peak_is_seen(groups: dict[str, Path]) -> None:
    with Cage(GIB, **groups) as cage:
        status, said, anonymous, resident = _taking(cage, GIB // 4)
    assert (status, said) == (0, "taken\n")
    assert 0.25 < anonymous < 0.4
    assert anonymous < resident


def test_what_does_not_fit_ends(groups: dict[str, Path]) -> None:
    with Cage(GIB // 4, **groups) as cage:
        status, said, _, resident = _taking(cage, GIB // 2)
    assert status in (1, -signal.SIGKILL)
    assert said == ""
    assert resident < 0.3


def test_without_control_groups_it_is_said(tmp_path: Path) -> None:
    with Cage(GIB, tmp_path) as cage:
        assert cage.means == "RLIMIT_DATA"
    assert list(tmp_path.iterdir()) == []
