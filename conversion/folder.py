"""An output path -> a temporary folder beside it that takes its place once everything is in it: finished, or not there at all."""

import contextlib
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from pipeline.artifacts import MANIFEST, Manifest
from pipeline.errors import ArtifactError, InputError


def check_output(output: Path) -> None:
    """Make sure that nothing but an earlier conversion would be lost.

    Raises:
        InputError: the path is a file, or a folder with anything in it that its manifest does not list.
    """
    if not output.exists():
        return
    if not output.is_dir():
        raise InputError(f"{output} is a file; the output must be a new folder.")
    found = {path.name for path in output.iterdir()}
    if not found:
        return
    try:
        ours = {MANIFEST, *Manifest.read(output).files}
    except ArtifactError as cause:
        raise InputError(f"{output} is not empty and holds no earlier conversion; choose another folder.") from cause
    if strangers := sorted(found - ours):
        raise InputError(f"{output} holds an earlier conversion, but also {', '.join(strangers)}, which would be lost; choose another folder.")


def check_space(output: Path, needed: int) -> None:
    """Compare the bytes a conversion will write with those that are free.

    Raises:
        InputError: says both.
    """
    existing = next(parent for parent in output.resolve().parents if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise InputError(f"The conversion needs {needed / 1e9:.1f} GB of disk beside {output}, and {free / 1e9:.1f} GB are free.")


@contextlib.contextmanager
def finished_or_nothing(output: Path) -> Iterator[Path]:
    """Give a temporary folder to fill; at the end it becomes `output`, or vanishes if anything was raised, an interruption included."""
    output = output.resolve()
    partial = output.parent / f".{output.name}.partial-{secrets.token_hex(4)}"
    try:
        partial.mkdir(parents=True)
    except OSError as cause:
        raise InputError(f"{output} cannot be made: {cause.strerror}.") from cause
    try:
        yield partial
        _move_into_place(partial, output)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _move_into_place(partial: Path, output: Path) -> None:
    """A rename cannot replace a folder with files in it, so an earlier conversion steps aside first, and back if the rename fails."""
    if not (output / MANIFEST).is_file():
        partial.replace(output)
        return
    earlier = partial.with_name(partial.name.replace(".partial-", ".earlier-"))
    output.replace(earlier)
    try:
        partial.replace(output)
    except BaseException:
        earlier.replace(output)
        raise
    shutil.rmtree(earlier)
