"""An output path -> an unfinished folder beside it that keeps what is done over interruptions, and takes the output's place once all of it is."""

import contextlib
import fcntl
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from pipeline.artifacts import MANIFEST, File
from pipeline.errors import InputError

logger = logging.getLogger("conversion")

RECORD = "record.json"


class Workspace:
    """`folder` is the model folder in the making; a record beside it lists the steps that are done, and their files with size and sha256.

    What the record does not list is no part of the folder: a step that was killed while it wrote begins anew.
    """

    def __init__(self, place: Path, identity: Mapping[str, Any], steps: dict[str, dict[str, Any]]) -> None:
        self.folder = place / "model"
        self.steps = steps
        self._place = place
        self._identity = identity

    @classmethod
    def open(cls, place: Path, identity: Mapping[str, Any]) -> Self:
        """Go on from what an earlier run with the same `identity` left whole; anything else is removed.

        Args:
            identity: all that decides what the steps give, as JSON values.
        """
        work = cls(place, identity, _recorded(place / RECORD, identity))
        work.folder.mkdir(exist_ok=True)
        for label in [label for label in work.steps if not work._is_whole(label)]:
            del work.steps[label]
        for path in work.folder.iterdir():
            if path.name not in work.files:
                path.unlink()
        return work

    @property
    def files(self) -> dict[str, File]:
        """Those of the steps that are done."""
        return {name: File(**file) for step in self.steps.values() for name, file in step["files"].items()}

    def once(self, label: str, make: Callable[[Path], Any]) -> Any:
        """What `make(folder)` returns, a JSON value: from the record if it is there, else now.

        Args:
            make: writes new files into the folder.
        """
        if label not in self.steps:
            before = set(self.folder.iterdir())
            result = make(self.folder)
            files = {path.name: asdict(File.of(path)) for path in sorted(set(self.folder.iterdir()) - before)}
            self.steps[label] = {"files": files, "result": result}
            self._write_record()
        return self.steps[label]["result"]

    def _is_whole(self, label: str) -> bool:
        paths = {self.folder / name: File(**file) for name, file in self.steps[label]["files"].items()}
        return all(path.is_file() and File.of(path) == file for path, file in paths.items())

    def _write_record(self) -> None:
        written = self._place / f"{RECORD}.new"
        written.write_text(json.dumps({"identity": self._identity, "steps": self.steps}, indent=1) + "\n", encoding="utf-8")
        written.replace(self._place / RECORD)


@contextlib.contextmanager
def workspace(output: Path, identity: Mapping[str, Any]) -> Iterator[Workspace]:
    """Open the workspace beside an output; at the end its folder becomes the output, whole.

    If anything is raised, an interruption included, the steps that are done stay for the next run, and the output as it was.

    Raises:
        InputError: the place cannot be written, or another process is at work there.
    """
    place, output = place_of(output), output.resolve()
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as cause:
        raise InputError(f"{output} cannot be made: {cause.strerror}.") from cause
    with _locked(place, output):
        try:
            _put_back(output)
            work = Workspace.open(place, identity)
            yield work
            _move_into_place(work.folder, output)
        except BaseException:
            if not kept_steps(output):
                shutil.rmtree(place, ignore_errors=True)
            raise
        shutil.rmtree(place)


def place_of(output: Path) -> Path:
    """Where the workspace of an output is: hidden, beside it."""
    output = output.resolve()
    return output.parent / f".{output.name}.partial"


def kept_steps(output: Path) -> list[str]:
    """What an unfinished conversion to this output has done so far."""
    return list(_read(place_of(output) / RECORD)["steps"])


def _recorded(record: Path, identity: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    stored = _read(record)
    if stored["steps"] and (changed := sorted(name for name, value in identity.items() if stored["identity"].get(name) != value)):
        logger.warning("An unfinished conversion is begun anew; what is not as it was: %s.", ", ".join(changed))
        record.unlink()
        return {}
    return stored["steps"]


def _read(record: Path) -> dict[str, Any]:
    """Of a record that is not there, or that a machine which went down has left empty: nothing is done yet."""
    try:
        return json.loads(record.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {"identity": {}, "steps": {}}


@contextlib.contextmanager
def _locked(place: Path, output: Path) -> Iterator[None]:
    """Hold the place for this process alone; the system lets go of it if the process is killed."""
    handle = os.open(place, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as cause:
            raise InputError(f"Another process is converting to {output}.") from cause
        yield
    finally:
        os.close(handle)


def _move_into_place(folder: Path, output: Path) -> None:
    """A rename cannot replace a folder with files in it, so an earlier conversion steps aside first, and back if the rename fails."""
    if not (output / MANIFEST).is_file():
        folder.replace(output)
        return
    output.replace(_earlier(output))
    try:
        folder.replace(output)
    except BaseException:
        _put_back(output)
        raise
    shutil.rmtree(_earlier(output))


def _put_back(output: Path) -> None:
    """After a run that was killed between the two renames, or the last of them and its end."""
    if not _earlier(output).exists():
        return
    if output.exists():
        shutil.rmtree(_earlier(output))
    else:
        _earlier(output).replace(output)


def _earlier(output: Path) -> Path:
    return output.parent / f".{output.name}.earlier"
