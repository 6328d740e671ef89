"""Real pictures from the gradio package and made ones: what is read, what is refused and with which words."""

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import gradio
import numpy as np
import PIL.Image
import PIL.ImageOps
import pillow_heif
import pytest

from pipeline.config import MediaLimits
from pipeline.errors import ImageError
from pipeline.media import Head
from pipeline.message import Image
from pipeline.still import image_head, load_image

ASSETS = Path(gradio.__file__).parent / "media_assets"
LIMITS = MediaLimits()


def encoded(image: PIL.Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("path", sorted((ASSETS / "images").iterdir()), ids=lambda path: path.name)
def test_every_picture_of_the_gradio_package_is_read_by_path_bytes_and_in_memory(path: Path) -> None:
    by_path = load_image(Image(path), LIMITS).image
    assert by_path.mode == "RGB"
    assert by_path == load_image(Image(path.read_bytes()), LIMITS).image == load_image(Image(str(path)), LIMITS).image
    with PIL.Image.open(path) as opened:
        assert by_path == load_image(Image(opened), LIMITS).image


def test_a_lying_picture_is_turned_as_the_camera_was_held() -> None:
    image = PIL.Image.new("RGB", (40, 20), "red")
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    assert load_image(Image(encoded(image, "JPEG", exif=exif)), LIMITS).image.size == (20, 40)


@pytest.mark.parametrize(
    ("orientation", "corner"), [(1, (0, 0)), (2, (1, 0)), (3, (1, 1)), (4, (0, 1)), (5, (0, 0)), (6, (1, 0)), (7, (1, 1)), (8, (0, 1))]
)
def test_each_way_to_hold_a_camera_puts_the_corner_where_it_belongs(orientation: int, corner: tuple[int, int]) -> None:
    image = PIL.Image.new("RGB", (40, 20), "black")
    image.paste("white", (0, 0, 10, 10))
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    upright = load_image(Image(encoded(image, "PNG", exif=exif)), LIMITS).image
    with PIL.Image.open(io.BytesIO(encoded(image, "PNG", exif=exif))) as opened:
        expected = PIL.ImageOps.exif_transpose(opened)
    assert (upright.size, upright.tobytes()) == (expected.size, expected.tobytes())
    at = tuple(side - 3 if end else 3 for side, end in zip(upright.size, corner, strict=True))
    assert upright.getpixel(at) == (255, 255, 255)


def test_odd_notes_of_the_camera_do_not_spoil_a_picture_that_is_in_order() -> None:
    exif = PIL.Image.Exif()
    exif[0x0112], exif[0x011A] = 6, 72.0
    data = bytearray(encoded(PIL.Image.new("RGB", (40, 20), "red"), "JPEG", exif=exif))
    data[data.index(b"Exif") + 29] = 0  # another type for the resolution, which cannot be written back
    with PIL.Image.open(io.BytesIO(bytes(data))) as opened, pytest.raises(struct.error):
        PIL.ImageOps.exif_transpose(opened)
    assert load_image(Image(bytes(data)), LIMITS).image.size == (20, 40)


def test_what_is_no_picture_in_memory_is_refused() -> None:
    with pytest.raises(ImageError):
        load_image(Image(PIL.Image.new("RGB", (0, 0))), LIMITS)
    with pytest.raises(ImageError, match="the limit is 10 pixels"):
        load_image(Image(PIL.Image.new("RGB", (4, 4))), MediaLimits(max_image_pixels=10))


def test_what_is_transparent_is_white() -> None:
    for image, kind in ((PIL.Image.new("RGBA", (4, 4), (0, 0, 0, 0)), "PNG"), (PIL.Image.new("LA", (4, 4), (0, 0)), "PNG")):
        assert load_image(Image(encoded(image, kind)), LIMITS).image.getpixel((1, 1)) == (255, 255, 255)


def test_large_pictures_are_laid_on_white_as_exactly_as_small_ones() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (700, 40, 4), np.uint8)
    image = PIL.Image.fromarray(noise)
    whole = PIL.Image.alpha_composite(PIL.Image.new("RGBA", image.size, "white"), image).convert("RGB")
    assert load_image(Image(encoded(image, "PNG")), LIMITS).image.tobytes() == whole.tobytes()


def test_sixteen_bits_become_eight_without_clipping() -> None:
    image = PIL.Image.fromarray(np.full((4, 4), 0x8000, np.uint16))
    assert load_image(Image(encoded(image, "PNG")), LIMITS).image.getpixel((0, 0)) == (128, 128, 128)


ORANGE = (255, 128, 0)
# A colour of each mode, and what is seen of it: what is half transparent on white.
COLOURS = {
    "RGB": (ORANGE, ORANGE, ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "AVIF")),
    "RGBA": ((*ORANGE, 128), (255, 191, 127), ("PNG", "WEBP", "TIFF", "AVIF")),
    "CMYK": ((0, 127, 255, 0), ORANGE, ("JPEG", "TIFF")),
    "YCbCr": ((152, 42, 201), ORANGE, ("JPEG",)),
    "L": (100, (100, 100, 100), ("PNG", "JPEG", "BMP", "GIF", "TIFF")),
    "LA": ((100, 128), (177, 177, 177), ("PNG", "TIFF")),
    "I;16": (0x6432, (100, 100, 100), ("PNG", "TIFF")),
    "1": (1, (255, 255, 255), ("PNG", "BMP", "GIF", "TIFF")),
}  # fmt: skip


@pytest.mark.parametrize(("mode", "kind"), [(mode, kind) for mode, (_, _, kinds) in COLOURS.items() for kind in kinds])
def test_every_mode_keeps_its_colours_in_rgb(mode: str, kind: str) -> None:
    colour, seen, _ = COLOURS[mode]
    image = PIL.Image.new(mode, (16, 16), colour)
    read = load_image(Image(encoded(image, kind, quality=100)), LIMITS).image
    assert read.mode == "RGB"
    assert abs(np.asarray(read, int) - seen).max() < 5


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
@pytest.mark.parametrize(("options", "seen"), [({}, ORANGE), ({"transparency": 0}, ORANGE), ({"transparency": 1}, (255, 255, 255))])
def test_a_colour_of_a_palette_is_that_colour_unless_it_is_the_transparent_one(kind: str, options: dict[str, int], seen: tuple[int, ...]) -> None:
    image = PIL.Image.new("P", (5, 3), 1)
    image.putpalette([0, 0, 0, *ORANGE])
    assert load_image(Image(encoded(image, kind, **options)), LIMITS).image.getcolors() == [(15, seen)]


def heif(image: PIL.Image.Image, *others: PIL.Image.Image, **options) -> bytes:
    buffer = io.BytesIO()
    file = pillow_heif.from_pillow(image)
    for other in others:
        file.add_from_pillow(other)
    file.save(buffer, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF", "AVIF", "HEIC"])
def test_of_several_frames_or_pages_the_first_is_shown_and_the_others_are_known_of(kind: str) -> None:
    blue, red = (PIL.Image.new("RGB", (16, 16), colour) for colour in ("blue", "red"))
    two = heif(blue, red) if kind == "HEIC" else encoded(blue, kind, save_all=True, append_images=[red])
    picture, alone = (load_image(Image(data), LIMITS) for data in (two, heif(blue) if kind == "HEIC" else encoded(blue, kind)))
    assert picture.others
    assert not alone.others
    assert abs(np.asarray(picture.image, int) - (0, 0, 255)).max() < 9


def test_the_special_versions_that_phones_hide_in_a_photograph_are_not_spoken_of() -> None:
    frames = [PIL.Image.new("RGB", (8, 8), colour) for colour in ("blue", "red")]
    assert not load_image(Image(encoded(frames[0], "MPO", save_all=True, append_images=frames[1:])), LIMITS).others


def test_damage_behind_the_first_frame_does_not_matter() -> None:
    frames = [PIL.Image.effect_noise((64, 64), 90 + index) for index in range(2)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert load_image(Image(data[:-900]), LIMITS).image == load_image(Image(data), LIMITS).image


def test_photographs_of_telephones_are_read_upright_and_by_content() -> None:
    with PIL.Image.open(ASSETS / "images" / "tower.jpg") as opened:
        photo = opened.convert("RGB")
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    read = load_image(Image(heif(photo, quality=95)), LIMITS).image
    turned = load_image(Image(heif(photo, quality=95, exif=exif.tobytes())), LIMITS).image
    assert (read.mode, read.size, turned.size) == ("RGB", photo.size, photo.size[::-1])
    assert abs(np.asarray(read, int) - np.asarray(photo, int)).mean() < 4
    assert abs(np.asarray(turned.rotate(90, expand=True), int) - np.asarray(photo, int)).mean() < 4
    clear = load_image(Image(heif(PIL.Image.new("RGBA", (16, 16), (0, 0, 0, 0)), quality=-1)), LIMITS).image
    assert clear.getpixel((3, 3)) == (255, 255, 255)
    with pytest.raises(ImageError, match="the limit is 100 pixels in all"):
        load_image(Image(heif(photo)), MediaLimits(max_image_pixels=100))


def test_reading_photographs_of_telephones_changes_nothing_for_others() -> None:
    with pytest.raises(PIL.UnidentifiedImageError):
        PIL.Image.open(io.BytesIO(heif(PIL.Image.new("RGB", (16, 16)))))


PHOTO = (ASSETS / "images" / "lion.jpg").read_bytes()
REFUSED_PICTURES = {
    "": "Picture 2 is empty: it has 0 bytes.",
    "cut": "Picture 2 cannot be read: the file is damaged or cut short.",
    "text": "Picture 2 is not a picture in a known format (JPEG, PNG, WEBP, GIF, BMP, TIFF, AVIF, HEIC).",
    "eps": "Picture 2 is not a picture in a known format (JPEG, PNG, WEBP, GIF, BMP, TIFF, AVIF, HEIC).",
}
DATA = {"": b"", "cut": PHOTO[:9000], "text": b"<svg/>" * 99, "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"}


@pytest.mark.parametrize("kind", DATA)
def test_a_picture_that_cannot_be_used_gets_one_plain_sentence(kind: str) -> None:
    with pytest.raises(ImageError) as caught:
        load_image(Image(DATA[kind]), LIMITS, "Picture 2")
    assert str(caught.value) == REFUSED_PICTURES[kind]


def test_limits_are_named_with_the_value_before_anything_is_decoded() -> None:
    with pytest.raises(ImageError, match=r"^The picture has 256 x 256 pixels; the limit is 1,000 pixels in all\.$"):
        load_image(Image(PHOTO[:9000]), MediaLimits(max_image_pixels=1000))
    with pytest.raises(ImageError, match=r"^The picture has 18,489 bytes; the limit is 1,000\.$"):
        load_image(Image(PHOTO), MediaLimits(max_file_bytes=1000))


def test_what_is_at_its_limits_is_read() -> None:
    image = PIL.Image.new("RGB", (40, 20))
    assert load_image(Image(encoded(image, "PNG")), MediaLimits(max_image_pixels=800, max_conversation_pixels=800)).image.size == (40, 20)
    assert load_image(Image(PIL.Image.new("RGB", (1, 1))), LIMITS).image.size == (1, 1)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "HEIC"])
def test_the_head_of_a_picture_tells_its_size_and_nothing_is_decoded(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(*_: object) -> None:
        raise AssertionError("it was decoded")

    file, image = io.BytesIO(), PIL.Image.new("RGB", (40, 20), "red")
    pillow_heif.from_pillow(image).save(file) if kind == "HEIC" else image.save(file, kind)
    monkeypatch.setattr(PIL.Image.Image, "load", decode)
    assert image_head(Image(file.getvalue()), LIMITS, "Picture 2") == Head((40, 20))
    assert image_head(Image(image), LIMITS, "Picture 2") == Head((40, 20))


@pytest.mark.parametrize("look", [image_head, load_image])
def test_every_sentence_calls_a_picture_what_its_sender_knows_it_as(look: Callable[..., object]) -> None:
    def refusal(content: bytes, limits: MediaLimits = LIMITS) -> str:
        with pytest.raises(ImageError) as caught:
            look(Image(content), limits, "Picture 2")
        return str(caught.value)

    png = encoded(PIL.Image.new("RGB", (40, 20)), "PNG")
    assert refusal(b"") == "Picture 2 is empty: it has 0 bytes."
    assert refusal(b"no picture") == "Picture 2 is not a picture in a known format (JPEG, PNG, WEBP, GIF, BMP, TIFF, AVIF, HEIC)."
    assert refusal(png, MediaLimits(max_file_bytes=10)) == f"Picture 2 has {len(png):,} bytes; the limit is 10."
    bomb = png[:16] + struct.pack(">II", 65_535, 65_535) + png[24:]
    assert refusal(bomb[:29] + struct.pack(">I", zlib.crc32(bomb[12:29])) + bomb[33:]).startswith("Picture 2 has too many pixels; the limit is ")


def test_a_picture_in_memory_is_called_so_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def runs_out(*_: object) -> None:
        raise MemoryError

    with pytest.raises(ImageError, match=r"^Picture 2 has 40 x 20 pixels; the limit is 10 pixels in all\.$"):
        load_image(Image(PIL.Image.new("RGB", (40, 20))), MediaLimits(max_image_pixels=10), "Picture 2")
    monkeypatch.setattr(PIL.Image.Image, "convert", runs_out)
    with pytest.raises(ImageError, match=r"^Picture 2 takes too much memory to decode; the limit is 1,500,000,000 bytes\.$"):
        load_image(Image(PIL.Image.new("L", (40, 20))), LIMITS, "Picture 2")


def test_a_bomb_that_declares_more_than_pillow_allows_is_refused() -> None:
    bomb = bytearray(encoded(PIL.Image.new("1", (8, 8)), "BMP"))
    bomb[18:26] = (60000).to_bytes(4, "little") * 2
    with pytest.raises(ImageError, match="pixels"):
        load_image(Image(bytes(bomb)), LIMITS)


def test_a_file_that_is_gone_is_missed_in_plain_words(tmp_path: Path) -> None:
    for source in (tmp_path / "gone", tmp_path, "a\0b", "\udc80"):
        with pytest.raises(ImageError, match="is missing: there is no such file, or it was deleted meanwhile"):
            load_image(Image(source), LIMITS)


def test_nobody_waits_for_what_is_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ImageError, match=r"^The picture is missing"):
        load_image(Image(tmp_path / "pipe"), LIMITS)
