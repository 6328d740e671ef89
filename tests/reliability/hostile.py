"""Files that visitors might send: real and made ones in every format, mutated; and those that were built to do harm."""

import io
import struct
import zlib
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path

import av
import gradio
import numpy as np
import PIL.Image
import pillow_heif
from hypothesis import strategies as st

ASSETS = Path(gradio.__file__).parent / "media_assets"
# Numbers at which sizes and counts go wrong.
EDGES = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x00FFFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]


def pictures() -> dict[str, bytes]:
    """One of each format, mode and compression that Pillow writes, and the small ones of the gradio package."""
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 4), np.uint8)
    noise[8:32, 8:40] = (200, 40, 90, 255)
    rgba = PIL.Image.fromarray(noise)
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    made = {f"{mode} {kind}": encoded(rgba.convert(mode), kind) for kind, modes in MODES.items() for mode in modes}
    grey = PIL.Image.fromarray(noise[..., :2].copy().view(np.uint16)[..., 0])
    made |= {"16 bit PNG": encoded(grey, "PNG"), "16 bit TIFF": encoded(grey, "TIFF")}
    made |= {f"{way} TIFF": encoded(rgba.convert("RGB"), "TIFF", compression=way) for way in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")}
    made["group4 TIFF"] = encoded(rgba.convert("1"), "TIFF", compression="group4")
    made["progressive JPEG"] = encoded(rgba.convert("RGB"), "JPEG", progressive=True, exif=exif)
    made["lossless WEBP"] = encoded(rgba, "WEBP", lossless=True)
    for kind in ("GIF", "PNG", "WEBP", "TIFF", "AVIF", "MPO"):
        made[f"several {kind}"] = encoded(rgba.convert("RGB"), kind, save_all=True, append_images=[rgba.convert("RGB").rotate(90)])
    file = pillow_heif.from_pillow(rgba)
    file.add_from_pillow(rgba.convert("RGB"))
    buffer = io.BytesIO()
    file.save(buffer, exif=exif.tobytes())
    made["HEIC"] = buffer.getvalue()
    return made | {path.name: path.read_bytes() for path in (ASSETS / "images").iterdir() if path.stat().st_size < 100_000}


MODES = {
    "JPEG": ["L", "RGB", "CMYK"],
    "PNG": ["1", "L", "LA", "P", "RGB", "RGBA"],
    "WEBP": ["RGB", "RGBA"],
    "GIF": ["1", "L", "P"],
    "BMP": ["1", "L", "P", "RGB", "RGBA"],
    "TIFF": ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "LAB", "I", "F"],
    "AVIF": ["RGB", "RGBA"],
}


def encoded(image: PIL.Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def videos() -> dict[str, bytes]:
    """One of each container with a codec that PyAV writes to it, and the small ones of the gradio package."""
    made = {f"{codec} {kind}": film(kind, codec) for kind, codecs in CODECS.items() for codec in codecs}
    return made | {path.name: path.read_bytes() for path in (ASSETS / "videos").iterdir() if path.stat().st_size < 400_000 and path.name != "a.mp4"}


CODECS = {
    "mp4": ["mpeg4", "libx264"],
    "mov": ["mjpeg"],
    "matroska": ["ffv1", "libx264"],
    "webm": ["libvpx", "libvpx-vp9"],
    "avi": ["mpeg4", "mjpeg"],
    "mpegts": ["mpeg2video"],
    "flv": ["flv"],
    "gif": ["gif"],
}


def film(kind: str, codec: str) -> bytes:
    """Two seconds of a bar that moves."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=kind) as container:
        stream = container.add_stream(codec, rate=Fraction(5))
        stream.width, stream.height = 64, 48
        stream.pix_fmt = {"mjpeg": "yuvj420p", "gif": "rgb8"}.get(codec, "yuv420p")
        for index in range(11):
            pixels = np.zeros((48, 64, 3), np.uint8)
            pixels[:, 4 * index : 4 * index + 8] = (255, 180, 20)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def png(width: int, height: int) -> bytes:
    """A picture that declares a size; nearly nothing follows."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


BUILT = {
    "bomb PNG": png(65_535, 65_535),
    "largest PNG": png(2**31 - 1, 2**31 - 1),
    "no pixels PNG": png(0, 0),
    "thin PNG": encoded(PIL.Image.new("RGB", (1, 30_000)), "PNG"),
    "bomb GIF": b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0, 0, 0) + b",\0\0\0\0\xff\xff\xff\xff\0\x08\1\0;",
    "bomb BMP": b"BM" + struct.pack("<IIIIiiHH6I", 54, 0, 54, 40, 65_535, 65_535, 1, 24, 0, 0, 0, 0, 0, 0),
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "HTML": b"<html><script>alert(1)</script></html>",
    "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n",
    "PDF": b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n",
    "HLS": b"#EXTM3U\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
    "concat": b"ffconcat version 1.0\nfile /etc/passwd\n",
    "DASH": b'<?xml version="1.0"?><MPD><Period><BaseURL>file:///etc/passwd</BaseURL></Period></MPD>',
    "SDP": b"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
    "zeros": bytes(4096),
    "one byte": b"\0",
    "nothing": b"",
}


def cut(data: bytes, at: int, _: int) -> bytes:
    return data[: at % (len(data) + 1)]


def cut_at_a_kilobyte(data: bytes, at: int, _: int) -> bytes:
    return data[: 1024 * (at % (len(data) // 1024 + 1))]


def written(form: str) -> Callable[[bytes, int, int], bytes]:
    """Put a number over what is there, mostly near the beginning, where headers are."""

    def write(data: bytes, at: int, value: int) -> bytes:
        number = struct.pack(form, value & (256 ** struct.calcsize(form) - 1))
        start = at % (len(data) + 1) if value % 3 == 0 else at % min(len(data) + 1, 300)
        return data[:start] + number + data[start + len(number) :]

    return write


def without(data: bytes, at: int, value: int) -> bytes:
    start = at % (len(data) + 1)
    return data[:start] + data[start + value % 5000 :]


def doubled(data: bytes, at: int, value: int) -> bytes:
    start = at % (len(data) + 1)
    return data[: start + value % 5000] + data[start:]


MUTATIONS = [cut, cut_at_a_kilobyte, without, doubled, *map(written, ("B", "B", ">H", "<H", ">I", "<I"))]


@st.composite
def hostile(draw: st.DrawFn, corpus: Mapping[str, bytes]) -> bytes:
    """A file of the corpus with up to four mutations, or the head of one with the tail of another, or noise after a known beginning."""
    names = st.sampled_from(sorted(corpus))
    data = corpus[draw(names)]
    match draw(st.integers(0, 9)):
        case 0:
            other = corpus[draw(names)]
            data = data[: draw(st.integers(0, len(data)))] + other[draw(st.integers(0, len(other))) :]
        case 1:
            data = data[: draw(st.integers(0, min(len(data), 64)))] + draw(st.binary(max_size=2000))
    value = st.sampled_from(EDGES) | st.integers(0, 2**32 - 1)
    for mutate, at, number in draw(st.lists(st.tuples(st.sampled_from(MUTATIONS), st.integers(0, 2**20), value), max_size=4)):
        data = mutate(data, at, number)
    return data
