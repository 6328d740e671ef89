"""A command and a limit of memory -> the command run within it as on a machine of that size, and the most memory that it and its children took.

What it may use, its files in the page cache included, is bounded by a control group of either version; where none can be made, only its own data is
(`RLIMIT_DATA`).
"""

import contextlib
import os
import shlex
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
GIB = 1 << 30
CONTROL_GROUPS = Path("/sys/fs/cgroup")
SAMPLE_SECONDS = 0.1


@dataclass
class Peaks:
    """GiB, the most at any sample: `anonymous` is what could not be read back from files, `resident` has the mapped files too."""

    anonymous: float = 0.0
    resident: float = 0.0

    def described(self) -> dict[str, float]:
        return {"peak_anonymous_gib": round(self.anonymous, 2), "peak_resident_gib": round(self.resident, 2)}


class Cage:
    """A bound on memory for the commands that are started in it. `means` says in words how it is held."""

    def __init__(self, limit_bytes: int, groups: Path = CONTROL_GROUPS) -> None:
        self._limit, self._group = limit_bytes, None
        for parent, file in ((groups / "memory", "memory.limit_in_bytes"), (groups, "memory.max")):
            group = parent / f"cage-{os.getpid()}"
            if not (parent / "cgroup.procs").exists():
                continue
            with contextlib.suppress(OSError):  # not allowed, or the controller is not handed down
                group.mkdir()
                try:
                    (group / file).write_text(str(limit_bytes))
                except OSError:
                    group.rmdir()
                    raise
                self._group, self.means = group, f"control group ({file})"
                return
        self.means = "RLIMIT_DATA"

    def __enter__(self) -> "Cage":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._group:
            self._group.rmdir()

    @contextlib.contextmanager
    def running(self, command: Sequence[str], environ: Mapping[str, str], **options: Any) -> Iterator[tuple[subprocess.Popen[str], Peaks]]:
        """Start the command; its peaks are complete when the block ends. A command that still runs then is told to end."""
        inside = f"echo $$ > {shlex.quote(str(self._group / 'cgroup.procs'))}" if self._group else f"ulimit -d {self._limit // 1024}"
        shell = ["/bin/sh", "-c", f'{inside} && exec "$@"', "sh"]
        process = subprocess.Popen([*shell, *command], cwd=ROOT, env={**os.environ, **environ}, text=True, **options)
        peaks, ended = Peaks(), threading.Event()
        sampler = threading.Thread(target=_sample, args=(process.pid, peaks, ended))
        sampler.start()
        try:
            yield process, peaks
        finally:
            process.terminate()
            process.wait()
            ended.set()
            sampler.join()


def _sample(pid: int, peaks: Peaks, ended: threading.Event) -> None:
    while True:
        memory = _family(pid)
        peaks.resident = max(peaks.resident, sum(resident for resident, _ in memory) / GIB)
        peaks.anonymous = max(peaks.anonymous, sum(resident - mapped for resident, mapped in memory) / GIB)
        if ended.wait(SAMPLE_SECONDS):
            return


def _family(pid: int) -> list[tuple[int, int]]:
    """Resident memory of a process and of all that it started, and how much of it is mapped from files, in bytes; nothing of what has ended."""
    found = []
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                memory = process.memory_info()
                found.append((memory.rss, memory.shared))
    return found
