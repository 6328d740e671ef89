"""Files as they are opened, and what all of a conversation's files may take together: each limit at it and one beyond it."""

import io
from pathlib import Path

import av
import numpy as np
import PIL.Image
import pillow_heif
import pytest

from pipeline.config import MediaLimits
from pipeline.errors import ImageError, VideoError
from pipeline.media import Used, check_pixels, decode_seconds, file_size, kind_by_content, opened, out_of_memory, out_of_time
from pipeline.message import Image, Video

LIMITS = MediaLimits(max_file_bytes=5, max_conversation_pixels=1000, max_decode_seconds=60.0, max_picture_seconds=20.0, max_decode_bytes=1234)


def test_a_file_of_the_largest_size_is_read_and_a_byte_more_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"12345")
    for source in (b"12345", tmp_path / "a.png"):
        with opened(Image(source), LIMITS, "Picture 1") as file:
            assert file.read() == b"12345"
    with pytest.raises(ImageError, match=r"^Picture 1 has 6 bytes; the limit is 5\.$"), opened(Image(b"123456"), LIMITS, "Picture 1"):
        pass
    with pytest.raises(VideoError, match=r"^Video 2 is empty: it has 0 bytes\.$"), opened(Video(b""), LIMITS, "Video 2"):
        pass


def test_a_file_that_cannot_be_opened_though_it_was_just_there_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> None:
        raise PermissionError("not yours")

    (tmp_path / "a.png").write_bytes(b"12345")
    monkeypatch.setattr(Path, "open", gone)
    with (
        pytest.raises(ImageError, match=r"^Picture 1 is missing: there is no such file, or it was deleted meanwhile\.$") as caught,
        opened(Image(tmp_path / "a.png"), LIMITS, "Picture 1"),
    ):
        pass
    assert isinstance(caught.value.__cause__, PermissionError)


@pytest.mark.parametrize("source", ["nothing-here.png", "a\0b.png", "."])
def test_what_is_no_regular_file_is_missing(source: str) -> None:
    with pytest.raises(VideoError, match=r"^Video 1 is missing"):
        file_size(Video(Path(source)), "Video 1")


def test_an_image_in_memory_has_no_bytes_and_is_no_file() -> None:
    image = Image(PIL.Image.new("RGB", (4, 4)))
    assert file_size(image, "Picture 1") == 0
    with pytest.raises(TypeError), opened(image, LIMITS, "Picture 1"):
        pass


def picture(kind: str) -> bytes:
    file, image = io.BytesIO(), PIL.Image.new("RGB", (64, 48), "red")
    if kind == "HEIC":
        pillow_heif.from_pillow(image).save(file)
    else:
        image.save(file, kind)
    return file.getvalue()


def film(container: str, codec: str) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(3):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), "rgb24")))
        output.mux(stream.encode())
    return file.getvalue()


PICTURES = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "AVIF", "HEIC")
FILMS = ("mp4", "mov", "3gp", "matroska", "webm", "avi", "flv", "ogg", "mpeg", "mpegts")
CODECS = {"flv": "flv", "webm": "libvpx", "ogg": "libvpx", "mpeg": "mpeg1video"}


@pytest.mark.parametrize("kind", PICTURES)
def test_a_picture_is_known_by_its_content(kind: str, tmp_path: Path) -> None:
    (tmp_path / "named.mp4").write_bytes(picture(kind))
    assert kind_by_content(tmp_path / "named.mp4") is Image


@pytest.mark.parametrize("container", FILMS)
def test_a_film_is_known_by_its_content(container: str, tmp_path: Path) -> None:
    (tmp_path / "named.jpg").write_bytes(film(container, CODECS.get(container, "mpeg4")))
    assert kind_by_content(str(tmp_path / "named.jpg")) is Video


@pytest.mark.parametrize(
    "content", [picture("GIF"), b"", b"GIF", b"nothing of the kind", bytes(300)], ids=["gif", "empty", "short", "words", "zeros"]
)
def test_what_may_be_either_or_is_neither_is_not_known_by_its_content(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "it").write_bytes(content)
    assert kind_by_content(tmp_path / "it") is None


@pytest.mark.parametrize("path", ["nothing-here.png", "a\0b.png", "/dev/zero", "."])
def test_nothing_is_known_of_what_is_no_file(path: str) -> None:
    assert kind_by_content(path) is None


def test_pixels_count_with_those_of_the_files_before() -> None:
    check_pixels(ImageError, 400, LIMITS, Used(pixels=600), "Picture 2")
    sentence = r"^With picture 2 the conversation has 1,001 pixels in all its pictures and frames; the limit is 1,000\.$"
    with pytest.raises(ImageError, match=sentence):
        check_pixels(ImageError, 401, LIMITS, Used(pixels=600), "Picture 2")


@pytest.mark.parametrize(
    ("quick", "used", "left"), [(True, 0.0, 20.0), (True, 45.0, 15.0), (True, 70.0, 0.0), (False, 0.0, 60.0), (False, 59.5, 0.5), (False, 70.0, 0.0)]
)
def test_a_file_is_decoded_for_what_those_before_it_left_and_a_picture_for_less(quick: bool, used: float, left: float) -> None:
    assert decode_seconds(quick, LIMITS, Used(seconds=used)) == left


def test_sentences_about_time_and_memory_name_the_limits() -> None:
    assert out_of_memory("Video 1", LIMITS) == "Video 1 takes too much memory to decode; the limit is 1,234 bytes."
    assert out_of_time("Picture 3", LIMITS) == (
        "Picture 3 takes too long to decode; the limit is 20 s for a picture and 60 s for all files of a conversation."
    )
