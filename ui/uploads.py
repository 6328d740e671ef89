"""A folder for what visitors upload, which goes with this process; what a process left that was killed goes when the next one starts."""

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX, LOCK = "uploads-", ".lock"


@contextmanager
def uploads_folder() -> Iterator[Path]:
    """The folder, for as long as it is needed. The system drops its lock when a process ends, however it ends."""
    _clear()
    with tempfile.TemporaryDirectory(prefix=PREFIX) as name, (Path(name) / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield Path(name)


def _clear() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            with (folder / LOCK).open() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # in use, another user's, or not one of ours
            continue
        shutil.rmtree(folder, ignore_errors=True)


def drop_broken_off(folder: Path, before: float) -> None:
    """Delete uploads that broke off and were last written `before` that time; whole ones are moved out of this folder into one of their own."""
    for path in folder.glob("tmp*"):
        try:
            if path.is_file() and path.stat().st_mtime < before:
                path.unlink()
        except FileNotFoundError:  # it became whole meanwhile
            continue
