"""Where a model comes from (a folder, a Hub repo at a revision, the bundled demo) -> a local folder whose files are what its manifest says."""

import dataclasses
import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pipeline.config import read_json
from pipeline.errors import ArtifactError
from pipeline.hub import Progress, download, listing

logger = logging.getLogger("pipeline")

BUNDLED = Path(__file__).resolve().parent.parent / "demo" / "model" / "int4"

LANGUAGE_MODEL = "openvino_language_model.xml"
TEXT_EMBEDDINGS = "openvino_text_embeddings_model.xml"
VISION_EMBEDDINGS = "openvino_vision_embeddings_model.xml"
RESAMPLER = "openvino_resampler_model.xml"
TOKENIZER = "openvino_tokenizer.xml"
DETOKENIZER = "openvino_detokenizer.xml"
MANIFEST = "manifest.json"
CARD = "README.md"

#: What the pipeline opens. The tokenizer as IR is for other readers of the folder.
REQUIRED = (
    *(name for xml in (LANGUAGE_MODEL, TEXT_EMBEDDINGS, VISION_EMBEDDINGS, RESAMPLER) for name in (xml, xml.replace(".xml", ".bin"))),
    "config.json",
    "preprocessor_config.json",
    "tokenizer.json",
)

#: Of a repo without variants.
TOP_LEVEL = ["openvino_*", "*.json", "*.jinja", "*.txt", CARD]


@dataclass(frozen=True)
class File:
    """Size in bytes and sha256 in hexadecimal of one file."""

    size: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Self:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256")
        return cls(path.stat().st_size, digest.hexdigest())


@dataclass(frozen=True)
class Manifest:
    """What a converted folder holds and how it was made; `files` has every file but the manifest itself."""

    source: str
    revision: str | None
    recipe: dict[str, Any]
    versions: dict[str, str]
    files: dict[str, File]
    format: int = 1

    @classmethod
    def read(cls, folder: Path) -> Self:
        values = read_json(folder / MANIFEST)
        try:
            files = {name: File(int(entry["size"]), str(entry["sha256"])) for name, entry in values.pop("files").items()}
            if values.pop("format") != cls.format:
                raise ValueError("another format")
            if any(name != Path(name).name or name == ".." for name in files):
                raise ValueError("a file outside the folder")
            return cls(files=files, **values)
        except (KeyError, TypeError, ValueError, AttributeError) as cause:
            raise ArtifactError(f"{folder / MANIFEST} is not a manifest this version understands.") from cause

    def write(self, folder: Path) -> None:
        (folder / MANIFEST).write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n", encoding="utf-8")


def obtain(environ: Mapping[str, str], progress: Progress | None = None) -> Path:
    """The model folder that the environment asks for, every file of it as its manifest says.

    What is damaged in the Hub's cache is fetched again, once.

    Args:
        progress: for a Hub repo: told the bytes that are there and those there will be, while they come.

    Raises:
        ArtifactError: there is no such model, it is incomplete, or a file is not what the manifest says.
    """
    folder = locate(environ, progress)
    from_hub = bool(environ.get("MODEL_REPO") and not environ.get("MODEL_DIR"))
    fetched_again: set[str] = set()
    while True:
        try:
            verify(folder)
        except ArtifactError as damage:
            faults = dict(_faults(folder)) if from_hub and (folder / MANIFEST).is_file() else {}
            if not faults or fetched_again & faults.keys():
                raise
            for name, fault in faults.items():
                logger.warning("%s It is fetched again.", fault)
                _forget(folder / name)
            fetched_again |= faults.keys()
            try:
                folder = locate(environ, progress)
            except ArtifactError as cause:
                raise ArtifactError(f"{damage} It could not be fetched again: {cause}") from cause
        else:
            return folder


def locate(environ: Mapping[str, str], progress: Progress | None = None) -> Path:
    """The model folder that the environment asks for; files of a Hub repo are downloaded, or taken from its cache, as they are.

    MODEL_DIR names a folder, MODEL_REPO a Hub repo (at MODEL_REVISION); without either it is the bundled demo. MODEL_VARIANT names the
    subfolder to use where a folder or repo holds several.

    Raises:
        ArtifactError: there is no such folder or repo, or it holds several variants and none was named.
    """
    variant, where = environ.get("MODEL_VARIANT", ""), environ.get("MODEL_DIR") or environ.get("MODEL_REPO")
    if not where:
        if variant:
            raise ArtifactError(f"MODEL_VARIANT={variant} needs a MODEL_DIR or MODEL_REPO that holds it.")
        return BUNDLED
    if environ.get("MODEL_DIR"):
        folder = Path(where)
        if not folder.is_dir():
            raise ArtifactError(f"The model folder {folder} does not exist.")
        files = [path.relative_to(folder).as_posix() for path in folder.glob(f"*/{LANGUAGE_MODEL}")]
    else:
        folder = download(where, environ.get("MODEL_REVISION") or None, [f"{variant}/*"] if variant else TOP_LEVEL, progress)
        files = listing(where, folder)
    variants = sorted(path.removesuffix(f"/{LANGUAGE_MODEL}") for path in files if path.endswith(f"/{LANGUAGE_MODEL}"))
    if variant and variant not in variants:
        raise ArtifactError(f"MODEL_VARIANT={variant} is not in {where}; it holds {', '.join(variants) or 'a single model'}.")
    if variants and not variant and not (folder / LANGUAGE_MODEL).is_file():
        raise ArtifactError(f"{where} holds several variants; set MODEL_VARIANT to one of {', '.join(variants)}.")
    return folder / variant


def verify(folder: Path) -> None:
    """Compare every file with the manifest; a folder without one (made by another exporter) is only checked to be complete.

    Raises:
        ArtifactError: names the first file that is missing, cut or changed.
    """
    check_complete(folder)
    if not (folder / MANIFEST).is_file():
        logger.warning("The model folder has no manifest: its files are used unverified.")
        return
    for _, fault in _faults(folder):
        raise fault


def check_complete(folder: Path) -> None:
    """Look for every file that the pipeline opens, and into none.

    Raises:
        ArtifactError: names all that are missing.
    """
    missing = [name for name in REQUIRED if not (folder / name).is_file()]
    if missing:
        raise ArtifactError(f"{folder} is not a complete model folder; it lacks {', '.join(missing)}.")


def _faults(folder: Path) -> Iterator[tuple[str, ArtifactError]]:
    """The name of each file that is not what the manifest says, and what is wrong with it."""
    try:
        files = Manifest.read(folder).files
    except ArtifactError as error:
        yield MANIFEST, error
        return
    for name, expected in files.items():
        if name == CARD:  # people edit it on the Hub, and nothing here reads it
            continue
        path = folder / name
        if not path.is_file():
            yield name, ArtifactError(f"{path} is missing, though the manifest lists it.")
        elif (size := path.stat().st_size) != expected.size:
            yield name, ArtifactError(f"{path} has {size:,} bytes; the manifest says {expected.size:,}.")
        elif File.of(path) != expected:
            yield name, ArtifactError(f"{path} is damaged: its sha256 is not the manifest's.")


def _forget(path: Path) -> None:
    """Take a file out of the Hub's cache, where its name in a snapshot is a link to its content."""
    try:
        for part in (path.resolve(), path):
            part.unlink(missing_ok=True)
    except OSError as cause:
        raise ArtifactError(f"{path} is damaged, and the cache it lies in cannot be changed: {cause.strerror}.") from cause
