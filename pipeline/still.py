"""An open picture file, or an image in memory -> one upright RGB image (height, width, 3) 8 bit. Limits are checked before any pixel is decoded."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np
import PIL.ExifTags
import PIL.Image
from PIL.Image import Transpose
from pillow_heif import HeifImageFile
from pillow_heif import is_supported as is_heif

from pipeline.config import MediaLimits
from pipeline.errors import ImageError
from pipeline.media import Head, Picture, Used, check_pixels, opened, out_of_memory
from pipeline.message import Image

# By content, not by name: what else Pillow would open either starts another program (EPS) or is no photograph.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
TURNS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
# Rows that are laid on white at a time, so that a large picture is not held four times.
BAND = 256


def load_image(image: Image, limits: MediaLimits, name: str = "The picture", used: Used | None = None) -> Picture:
    """Decode a still picture, the first frame or page of several. `name` is what the sentence of an error calls it.

    Raises:
        ImageError: unreadable, of an unsupported format, or over a limit.
    """
    used = used or Used()
    if isinstance(image.source, PIL.Image.Image):
        with _in_plain_words(name, limits):
            return _picture(image.source, limits, name, used)
    with opened(image, limits, name) as file:
        return decode_image(file, limits, name, used)


def image_head(image: Image, limits: MediaLimits, name: str) -> Head:
    """What is known of a still picture before any pixel is decoded.

    Raises:
        ImageError: unreadable, or of an unsupported format.
    """
    if isinstance(image.source, PIL.Image.Image):
        return Head(image.source.size)
    with opened(image, limits, name) as file:
        return read_image_head(file, limits, name)


def read_image_head(file: BinaryIO, limits: MediaLimits, name: str) -> Head:
    """The same for an open file."""
    with _in_plain_words(name, limits), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with _opened(file) as image:
            return Head(image.size)


def decode_image(file: BinaryIO, limits: MediaLimits, name: str, used: Used) -> Picture:
    """The same for an open file."""
    # Pillow warns of large pictures, for which our own limit counts, and of odd metadata, which does not matter.
    with _in_plain_words(name, limits), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with _opened(file) as image:
            return _picture(image, limits, name, used)


def _opened(file: BinaryIO) -> PIL.Image.Image:
    try:
        return PIL.Image.open(file, formats=FORMATS)
    except PIL.UnidentifiedImageError:
        file.seek(0)
        if not is_heif(file):
            raise
        # Not a plugin that is registered, which would change what Pillow opens everywhere in the process.
        return HeifImageFile(file)  # type: ignore[no-untyped-call]


@contextmanager
def _in_plain_words(name: str, limits: MediaLimits) -> Iterator[None]:
    try:
        yield
    except ImageError:
        raise
    except PIL.UnidentifiedImageError as cause:
        raise ImageError(f"{name} is not a picture in a known format ({', '.join(FORMATS)}, HEIC).") from cause
    except PIL.Image.DecompressionBombError as cause:
        raise ImageError(f"{name} has too many pixels; the limit is {limits.max_image_pixels:,} in all.") from cause
    except MemoryError as cause:
        raise ImageError(out_of_memory(name, limits)) from cause
    except Exception as cause:  # Pillow's decoders raise a dozen kinds on damaged files
        raise ImageError(f"{name} cannot be read: the file is damaged or cut short.") from cause


def _picture(image: PIL.Image.Image, limits: MediaLimits, name: str, used: Used) -> Picture:
    width, height = image.size
    if not 0 < width * height <= limits.max_image_pixels:
        raise ImageError(f"{name} has {width} x {height} pixels; the limit is {limits.max_image_pixels:,} pixels in all.")
    check_pixels(ImageError, width * height, limits, used, name)
    image.load()  # some formats keep the camera's notes behind the pixels
    upright = _upright(image)
    return Picture(upright, others=_has_others(image))


def _upright(image: PIL.Image.Image) -> PIL.Image.Image:
    """Turn as the camera was held, reduce 16 bits to 8, lay what is transparent on white, and drop the rest of what a file can hold."""
    # Of the camera's notes only this one is read: the others may be odd in a picture that is quite in order.
    turn = TURNS.get(image.getexif().get(PIL.ExifTags.Base.Orientation, 1))
    image = image if turn is None else image.transpose(turn)
    if image.mode.startswith("I;16"):
        image = PIL.Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        return _on_white(image)
    # What was turned is a copy already.
    return image if turn is not None and image.mode == "RGB" else image.convert("RGB")


def _on_white(image: PIL.Image.Image) -> PIL.Image.Image:
    width, height = image.size
    result = PIL.Image.new("RGB", image.size)
    for top in range(0, height, BAND):
        band = image.crop((0, top, width, min(top + BAND, height))).convert("RGBA")
        result.paste(PIL.Image.alpha_composite(PIL.Image.new("RGBA", band.size, "white"), band).convert("RGB"), (0, top))
    return result


def _has_others(image: PIL.Image.Image) -> bool:
    """Whether a file holds further frames or pages. The further pictures in a JPEG are smaller or special versions of the first."""
    try:
        return image.format != "MPO" and bool(getattr(image, "is_animated", False))
    except Exception:  # what comes after a picture that was read may be damaged
        return False
