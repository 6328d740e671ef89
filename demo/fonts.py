"""An index of FONTS and a size in pixels -> a font, and how high and how wide its glyphs are. Only fonts that the requirements bring along."""

from collections.abc import Iterator
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageFont

# Pillow's own, and three that come with Gradio's page.
FONTS = ("", "KaTeX_SansSerif-Bold", "KaTeX_Main-Bold", "KaTeX_Typewriter-Regular")


@lru_cache(maxsize=512)
def font(index: int, size: int) -> ImageFont.FreeTypeFont:
    """One of FONTS at a size in pixels.

    Raises:
        FileNotFoundError: the installed Gradio brings no such font.
    """
    if not FONTS[index]:
        own = ImageFont.load_default(size)
        if isinstance(own, ImageFont.FreeTypeFont):
            return own
        raise FileNotFoundError("Pillow was built without FreeType, which its own scalable font needs.")
    for path in _gradio_fonts():
        if path.name.startswith(f"{FONTS[index]}."):
            return ImageFont.truetype(path, size)
    raise FileNotFoundError(f"Gradio brings no font {FONTS[index]}.")


def _gradio_fonts() -> Iterator[Path]:
    package = find_spec("gradio")
    for folder in (package.submodule_search_locations or ()) if package else ():
        yield from (Path(folder) / "templates").rglob("KaTeX_*.ttf")


@lru_cache(maxsize=len(FONTS))
def capital(index: int) -> float:
    """Height of a capital, as a fraction of the font's size."""
    top, bottom = (font(index, 200).getbbox("H", anchor="ls")[side] for side in (1, 3))
    return (bottom - top) / 200


@lru_cache(maxsize=4096)
def advances(index: int, text: str) -> tuple[float, ...]:
    """Width of each glyph in heights of a capital."""
    return tuple(font(index, 200).getlength(glyph) / (200 * capital(index)) for glyph in text)
