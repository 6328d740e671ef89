"""An output path -> may a conversion be written there: is anything in its way, and is there room for it and its download (bytes)."""

import logging
import shutil
from pathlib import Path

from conversion.workspace import place_of
from pipeline.artifacts import MANIFEST, Manifest
from pipeline.errors import ArtifactError, InputError

logger = logging.getLogger("conversion")


def check_output(output: Path) -> None:
    """Make sure that nothing but an earlier conversion would be lost.

    Raises:
        InputError: the path is a file, a mount point, or a folder with anything in it that its manifest does not list.
    """
    if output.resolve().is_mount():  # the finished folder takes its place, and could not
        raise InputError(f"{output} is a mount point; choose a folder in it.")
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


def check_space(output: Path, needed: int, cache: Path, download: int) -> None:
    """Say how many bytes a conversion will write and how many are free, and compare them. What an interrupted one has written is not needed again.

    Args:
        download: bytes that come to the disk of `cache` before.

    Raises:
        InputError: too few are free.
    """
    existing = next(parent for parent in output.resolve().parents if parent.exists())
    needed = max(needed - sum(path.stat().st_size for path in place_of(output).rglob("*") if path.is_file()), 0)
    if not download:
        _compare("The conversion needs", needed, f"beside {output}", existing)
    elif cache.stat().st_dev == existing.stat().st_dev:
        _compare("The download and the conversion need", download + needed, f"beside {output}", existing)
    else:
        _compare("The download needs", download, f"in {cache}", cache)
        _compare("The conversion needs", needed, f"beside {output}", existing)


def _compare(need: str, size: int, place: str, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < size:
        raise InputError(f"{need} {size / 1e9:.1f} GB of disk {place}, and {free / 1e9:.1f} GB are free.")
    logger.info("%s %.1f GB of disk %s; %.1f GB are free.", need, size / 1e9, place, free / 1e9)
