"""Where a model comes from (a folder, a Hub repo at a revision, the bundled demo) -> a local folder whose files are what its manifest says."""

import dataclasses
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx2
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError

from pipeline.config import read_json
from pipeline.errors import ArtifactError

logger = logging.getLogger("pipeline")

BUNDLED = Path(__file__).resolve().parent.parent / "demo" / "model" / "int4"

LANGUAGE_MODEL = "openvino_language_model.xml"
TEXT_EMBEDDINGS = "openvino_text_embeddings_model.xml"
VISION_EMBEDDINGS = "openvino_vision_embeddings_model.xml"
RESAMPLER = "openvino_resampler_model.xml"
TOKENIZER = "openvino_tokenizer.xml"
DETOKENIZER = "openvino_detokenizer.xml"
MANIFEST = "manifest.json"

#: What the pipeline opens. The tokenizer as IR is for other readers of the folder.
REQUIRED = (
    *(name for xml in (LANGUAGE_MODEL, TEXT_EMBEDDINGS, VISION_EMBEDDINGS, RESAMPLER) for name in (xml, xml.replace(".xml", ".bin"))),
    "config.json",
    "preprocessor_config.json",
    "tokenizer.json",
)

#: Of a repo without variants. A pattern matches a whole path, and that of a variant's large file begins with the variant's name.
TOP_LEVEL = ["openvino_*", "*.json", "*.jinja", "*.txt"]


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
            return cls(files=files, **values)
        except (KeyError, TypeError, ValueError, AttributeError) as cause:
            raise ArtifactError(f"{folder / MANIFEST} is not a manifest this version understands.") from cause

    def write(self, folder: Path) -> None:
        (folder / MANIFEST).write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n", encoding="utf-8")


def locate(environ: Mapping[str, str]) -> Path:
    """The model folder that the environment asks for; files of a Hub repo are downloaded, or taken from its cache.

    MODEL_DIR names a folder, MODEL_REPO a Hub repo (at MODEL_REVISION); without either it is the bundled demo. MODEL_VARIANT names the
    subfolder to use where a folder or repo holds several.

    Raises:
        ArtifactError: there is no such folder or repo, or it holds several variants and none was named.
    """
    variant = environ.get("MODEL_VARIANT", "")
    if environ.get("MODEL_DIR"):
        folder = Path(environ["MODEL_DIR"])
    elif environ.get("MODEL_REPO"):
        folder = download(environ["MODEL_REPO"], environ.get("MODEL_REVISION") or None, [f"{variant}/*"] if variant else TOP_LEVEL)
    elif variant:
        raise ArtifactError(f"MODEL_VARIANT={variant} needs a MODEL_DIR or MODEL_REPO that holds it.")
    else:
        return BUNDLED
    if not folder.is_dir():
        raise ArtifactError(f"The model folder {folder} does not exist.")
    variants = sorted(path.parent.name for path in folder.glob(f"*/{LANGUAGE_MODEL}"))
    if variant and variant not in variants:
        raise ArtifactError(f"MODEL_VARIANT={variant} is not in {folder}; it holds {', '.join(variants) or 'a single model'}.")
    if variants and not variant and not (folder / LANGUAGE_MODEL).is_file():
        raise ArtifactError(f"{folder} holds several variants; set MODEL_VARIANT to one of {', '.join(variants)}.")
    return folder / variant


def download(repo: str, revision: str | None, patterns: Sequence[str]) -> Path:
    """The files of a Hub repo that match any of the patterns, in a folder whose name is the commit.

    Raises:
        ArtifactError: the Hub does not give them, and they are not in its cache.
    """
    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=list(patterns)))
    except (HFValidationError, httpx2.HTTPError, OSError) as cause:  # the Hub's own errors are OSErrors
        at = f" at revision {revision}" if revision else ""
        raise ArtifactError(f"The model repo {repo}{at} cannot be had: it does not exist, is private, or the network is down.") from cause


def verify(folder: Path) -> None:
    """Compare every file with the manifest; a folder without one (made by another exporter) is only checked to be complete.

    Raises:
        ArtifactError: names the first file that is missing, cut or changed.
    """
    missing = [name for name in REQUIRED if not (folder / name).is_file()]
    if missing:
        raise ArtifactError(f"{folder} is not a complete model folder; it lacks {', '.join(missing)}.")
    if not (folder / MANIFEST).is_file():
        logger.warning("The model folder has no manifest: its files are used unverified.")
        return
    for name, expected in Manifest.read(folder).files.items():
        path = folder / name
        if not path.is_file():
            raise ArtifactError(f"{path} is missing, though the manifest lists it.")
        if (size := path.stat().st_size) != expected.size:
            raise ArtifactError(f"{path} has {size:,} bytes; the manifest says {expected.size:,}.")
        if File.of(path) != expected:
            raise ArtifactError(f"{path} is damaged: its sha256 is not the manifest's.")
