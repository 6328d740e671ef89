"""A file as a client of the API names it -> what the pipeline may read: only what was uploaded, sent along, or is public."""

import base64
import binascii
from pathlib import Path

from gradio.utils import get_upload_folder

from pipeline import InputError
from ui.download import Allowance, download

NAMES = "it must be uploaded first, be a public http(s) URL, or be sent along as a data: URL"


async def source(file: object, allowed: Allowance) -> str | bytes:
    """The path or the bytes of a file. Gradio has checked what is marked as its FileData, and only that; nothing else is believed.

    Args:
        allowed: of what is to be downloaded.

    Raises:
        InputError: it is none that this client may show.
        PipelineError: the disk is full.
    """
    match file:
        case {"path": str(path)} if _was_uploaded(path):
            return path
        case str(url) if url.startswith("data:"):
            return _sent_along(url)
        case str(url) if url.startswith(("http://", "https://")):
            return str(await download(url, Path(get_upload_folder()), allowed))
    raise InputError(f"A file cannot be used: {NAMES}.")


def _was_uploaded(path: str) -> bool:
    try:
        return Path(path).resolve().is_relative_to(Path(get_upload_folder()).resolve())
    except ValueError:  # a zero byte, which no path can hold
        return False


def _sent_along(url: str) -> bytes:
    head, _, data = url.partition(",")
    if head.endswith(";base64"):
        try:
            return base64.b64decode(data, validate=True)
        except binascii.Error as cause:
            raise InputError("A data: URL is cut short or damaged.") from cause
    raise InputError("A data: URL must be in base64.")
