"""Real files from the gradio package and made ones: what is read, what is refused and with which words."""

import io
import struct
from fractions import Fraction
from pathlib import Path

import av
import gradio
import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest

from pipeline.config import MediaLimits
from pipeline.errors import ImageError, InputError, VideoError
from pipeline.media import load_image, load_video, sample_times
from pipeline.message import Image, Video

ASSETS = Path(gradio.__file__).parent / "media_assets"
LIMITS = MediaLimits()


def encoded(image: PIL.Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def video(tmp_path: Path, times: list[float], size: tuple[int, int] = (64, 48), name: str = "v.mp4", codec: str = "mpeg4") -> Path:
    """A video whose frame at each time has its index as its grey level times eight."""
    path = tmp_path / name
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        for index, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((size[1], size[0], 3), index * 8, np.uint8), "rgb24")
            frame.pts, frame.time_base = round(time * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def shade(image: PIL.Image.Image) -> int:
    return round(float(np.asarray(image).mean()) / 8)


@pytest.mark.parametrize("path", sorted((ASSETS / "images").iterdir()), ids=lambda path: path.name)
def test_every_picture_of_the_gradio_package_is_read_by_path_bytes_and_in_memory(path: Path) -> None:
    by_path = load_image(Image(path), LIMITS).image
    assert by_path.mode == "RGB"
    assert by_path == load_image(Image(path.read_bytes()), LIMITS).image == load_image(Image(str(path)), LIMITS).image
    with PIL.Image.open(path) as opened:
        assert by_path == load_image(Image(opened), LIMITS).image


@pytest.mark.parametrize(("name", "frames"), [("a.mp4", 7), ("b.mp4", 5), ("b.avi", 6), ("world.mp4", 31)])
def test_every_video_of_the_gradio_package_gives_a_frame_a_second(name: str, frames: int) -> None:
    pictures = load_video(Video(ASSETS / "videos" / name), LIMITS)
    assert [picture.time for picture in pictures] == list(range(frames))


def test_a_video_in_memory_is_the_same_video() -> None:
    path = ASSETS / "videos" / "b.mp4"
    assert load_video(Video(path.read_bytes()), LIMITS) == load_video(Video(path), LIMITS)


def test_frames_are_those_on_screen_whatever_the_rate(tmp_path: Path) -> None:
    # Nothing new between 0.9 s and 2.5 s: at 1 s and 2 s the frame of 0.9 s is on screen.
    pictures = load_video(Video(video(tmp_path, [0, 0.5, 0.9, 2.5, 3.0, 3.001, 4.2])), LIMITS)
    assert [(picture.time, shade(picture.image)) for picture in pictures] == [(0, 0), (0.9, 2), (0.9, 2), (3.001, 5), (3.001, 5)]


def test_times_count_from_the_first_frame(tmp_path: Path) -> None:
    pictures = load_video(Video(video(tmp_path, [7.0, 7.5, 8.0, 8.9])), LIMITS)
    assert [(picture.time, shade(picture.image)) for picture in pictures] == [(0, 0), (1.0, 2)]


def test_more_seconds_than_frames_are_thinned_evenly_as_officially() -> None:
    def official(count: int) -> list[int]:
        seconds = list(range(count))
        gap = count / 64
        return seconds if count <= 64 else [seconds[int(index * gap + gap / 2)] for index in range(64)]

    for count in (1, 2, 63, 64, 65, 100, 128, 601):
        assert sample_times(count - 1, LIMITS) == official(count), count
    assert sample_times(0.999, LIMITS) == [0.0, 1.0], "the clock's rounding is forgiven"


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


def test_sixteen_bits_become_eight_without_clipping() -> None:
    image = PIL.Image.fromarray(np.full((4, 4), 0x8000, np.uint16))
    assert load_image(Image(encoded(image, "PNG")), LIMITS).image.getpixel((0, 0)) == (128, 128, 128)


def test_other_modes_become_rgb() -> None:
    for mode, kind in (("CMYK", "JPEG"), ("P", "PNG"), ("1", "PNG"), ("L", "BMP"), ("RGB", "WEBP"), ("RGB", "TIFF"), ("RGB", "AVIF"), ("P", "GIF")):
        assert load_image(Image(encoded(PIL.Image.new(mode, (5, 3)), kind)), LIMITS).image.mode == "RGB"


def test_of_an_animation_the_first_frame_is_shown() -> None:
    frames = [PIL.Image.new("RGB", (8, 8), colour) for colour in ("blue", "red")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert load_image(Image(data), LIMITS).image.getpixel((0, 0)) == (0, 0, 255)


PHOTO = (ASSETS / "images" / "lion.jpg").read_bytes()
REFUSED_PICTURES = {
    "": "Picture 2 is empty: it has 0 bytes.",
    "cut": "Picture 2 cannot be read: the file is damaged or cut short.",
    "text": "Picture 2 is not a picture in a known format (JPEG, PNG, WEBP, GIF, BMP, TIFF, AVIF).",
    "eps": "Picture 2 is not a picture in a known format (JPEG, PNG, WEBP, GIF, BMP, TIFF, AVIF).",
}
DATA = {"": b"", "cut": PHOTO[:9000], "text": b"<svg/>" * 99, "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"}


@pytest.mark.parametrize("kind", DATA)
def test_a_picture_that_cannot_be_used_gets_one_plain_sentence(kind: str) -> None:
    with pytest.raises(ImageError) as caught:
        load_image(Image(DATA[kind]), LIMITS, "Picture 2")
    assert str(caught.value) == REFUSED_PICTURES[kind]


def test_limits_are_named_with_the_value_before_anything_is_decoded(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"^The picture has 256 x 256 pixels; the limit is 1,000 pixels in all\.$"):
        load_image(Image(PHOTO[:9000]), MediaLimits(max_image_pixels=1000))
    with pytest.raises(ImageError, match=r"^The picture has 18,489 bytes; the limit is 1,000\.$"):
        load_image(Image(PHOTO), MediaLimits(max_file_bytes=1000))
    clip = video(tmp_path, [0, 1, 2, 3])
    with pytest.raises(VideoError, match=r"^The video is 3 s long; the limit is 2 s\.$"):
        load_video(Video(clip), MediaLimits(max_video_seconds=2))
    with pytest.raises(VideoError, match=r"^The video has 64 x 48 pixels a frame; the limit is 100 in all\.$"):
        load_video(Video(clip), MediaLimits(max_video_pixels=100))


def test_a_video_that_takes_too_long_to_decode_is_given_up() -> None:
    with pytest.raises(VideoError, match=r"^The video takes too long to decode; the limit is 0 s\.$"):
        load_video(Video(ASSETS / "videos" / "b.mp4"), MediaLimits(max_decode_seconds=0))


def test_a_bomb_that_declares_more_than_pillow_allows_is_refused() -> None:
    bomb = bytearray(encoded(PIL.Image.new("1", (8, 8)), "BMP"))
    bomb[18:26] = (60000).to_bytes(4, "little") * 2
    with pytest.raises(ImageError, match="pixels"):
        load_image(Image(bytes(bomb)), LIMITS)


def test_a_file_that_is_gone_is_missed_in_plain_words(tmp_path: Path) -> None:
    for load, item in ((load_image, Image(tmp_path / "gone")), (load_video, Video(tmp_path / "gone"))):
        with pytest.raises(InputError, match="is missing: there is no such file, or it was deleted meanwhile"):
            load(item, LIMITS)


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    playlist, script = tmp_path / "p.m3u8", tmp_path / "s.mp4"
    playlist.write_text(f"#EXTM3U\n#EXTINF:10,\n{ASSETS / 'videos' / 'b.mp4'}\n#EXT-X-ENDLIST\n")
    script.write_text(f"ffconcat version 1.0\nfile {ASSETS / 'videos' / 'b.mp4'}\n")
    for path in (playlist, script, ASSETS / "audio" / "cantina.wav", ASSETS / "images" / "lion.jpg"):
        with pytest.raises(VideoError, match=r"^The video cannot be read: the file is damaged or in an unsupported format\.$"):
            load_video(Video(path), LIMITS)
    with pytest.raises(VideoError):
        load_video(Video((ASSETS / "videos" / "b.mp4").read_bytes()[:9000]), LIMITS)


def test_a_film_without_a_picture_track_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(VideoError, match=r"^The video has no picture track\.$"):
        load_video(Video(path), LIMITS)
