"""Real videos from the gradio package and made ones: which frames are shown, what is refused and with which words."""

import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import gradio
import numpy as np
import PIL.Image
import pytest

from pipeline.config import MediaLimits
from pipeline.errors import VideoError
from pipeline.media import Picture, Used
from pipeline.message import Video
from pipeline.video import load_video, sample_times, video_head

ASSETS = Path(gradio.__file__).parent / "media_assets"
LIMITS = MediaLimits()


def video(
    tmp_path: Path, times: list[float], size: tuple[int, int] = (64, 48), name: str = "v.mp4", frame: np.ndarray | None = None, **options
) -> Path:
    """A video whose frame at each time is `frame`, or has its index as its grey level times eight."""
    path = tmp_path / name
    with av.open(str(path), "w", **options) as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        for index, time in enumerate(times):
            shown = av.VideoFrame.from_ndarray(np.full((size[1], size[0], 3), index * 8 % 256, np.uint8) if frame is None else frame, "rgb24")
            shown.pts, shown.time_base = round(time * 1000), Fraction(1, 1000)
            container.mux(stream.encode(shown))
        container.mux(stream.encode())
    return path


def loaded(film: Video, limits: MediaLimits) -> list[Picture]:
    return list(load_video(film, limits))


def shade(image: PIL.Image.Image) -> int:
    return round(float(np.asarray(image).mean()) / 8)


@pytest.mark.parametrize(("name", "frames"), [("a.mp4", 7), ("b.mp4", 5), ("b.avi", 6), ("world.mp4", 31)])
def test_every_video_of_the_gradio_package_gives_a_frame_a_second(name: str, frames: int) -> None:
    pictures = loaded(Video(ASSETS / "videos" / name), LIMITS)
    assert [picture.time for picture in pictures] == list(range(frames))


def test_a_video_in_memory_is_the_same_video() -> None:
    path = ASSETS / "videos" / "b.mp4"
    assert loaded(Video(path.read_bytes()), LIMITS) == loaded(Video(path), LIMITS)


def test_frames_are_those_on_screen_whatever_the_rate(tmp_path: Path) -> None:
    # Nothing new between 0.9 s and 2.5 s: at 1 s and 2 s the frame of 0.9 s is on screen.
    pictures = loaded(Video(video(tmp_path, [0, 0.5, 0.9, 2.5, 3.0, 3.001, 4.2])), LIMITS)
    assert [(picture.time, shade(picture.image)) for picture in pictures] == [(0, 0), (0.9, 2), (0.9, 2), (3.001, 5), (3.001, 5)]


def test_times_count_from_the_first_frame(tmp_path: Path) -> None:
    pictures = loaded(Video(video(tmp_path, [7.0, 7.5, 8.0, 8.9])), LIMITS)
    assert [(picture.time, shade(picture.image)) for picture in pictures] == [(0, 0), (1.0, 2)]


def test_more_seconds_than_frames_are_thinned_evenly_as_officially() -> None:
    def official(count: int) -> list[int]:
        seconds = list(range(count))
        gap = count / 64
        return seconds if count <= 64 else [seconds[int(index * gap + gap / 2)] for index in range(64)]

    for count in (1, 2, 63, 64, 65, 100, 128, 601):
        assert sample_times(count - 1, LIMITS) == official(count), count
    assert sample_times(0.999, LIMITS) == [0.0, 1.0], "the clock's rounding is forgiven"


def test_limits_are_named_with_the_value_before_anything_is_decoded(tmp_path: Path) -> None:
    clip = video(tmp_path, [0, 1, 2, 3])
    with pytest.raises(VideoError, match=r"^The video is 3 s long; the limit is 2 s\.$"):
        loaded(Video(clip), MediaLimits(max_video_seconds=2))
    with pytest.raises(VideoError, match=r"^The video has 64 x 48 pixels a frame; the limit is 100 in all\.$"):
        loaded(Video(clip), MediaLimits(max_video_pixels=100))
    with pytest.raises(VideoError, match=r"^The video has more than 3 frames, which is the limit\.$"):
        loaded(Video(clip), MediaLimits(max_video_frames=3))
    with pytest.raises(
        VideoError, match=r"^With the video the conversation has 12,288 pixels in all its pictures and frames; the limit is 12,287\.$"
    ):
        loaded(Video(clip), MediaLimits(max_conversation_pixels=12_287))


def test_what_is_at_its_limits_is_read(tmp_path: Path) -> None:
    clip = video(tmp_path, [0, 1, 2, 3])
    limits = MediaLimits(max_video_seconds=3, max_video_pixels=64 * 48, max_video_frames=4, max_conversation_pixels=4 * 64 * 48)
    assert [picture.time for picture in loaded(Video(clip), limits)] == [0, 1, 2, 3]


def test_looks_are_as_many_a_second_as_allowed(tmp_path: Path) -> None:
    assert sample_times(1.999, MediaLimits(frames_per_second=2)) == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert sample_times(4, MediaLimits(frames_per_second=0.5)) == [0.0, 2.0, 4.0]
    pictures = loaded(Video(video(tmp_path, [0, 0.5, 1.0, 1.5])), MediaLimits(frames_per_second=2))
    assert [(picture.time, shade(picture.image)) for picture in pictures] == [(0, 0), (0.5, 1), (1.0, 2), (1.5, 3)]


@pytest.mark.parametrize("look", [video_head, load_video])
def test_every_sentence_calls_a_film_what_its_sender_knows_it_as(tmp_path: Path, look: Callable[..., object]) -> None:
    def refusal(content: bytes, limits: MediaLimits = LIMITS) -> str:
        with pytest.raises(VideoError) as caught:
            list(look(Video(content), limits, "Video 2"))  # type: ignore[call-overload]
        return str(caught.value)

    clip = video(tmp_path, [0, 1]).read_bytes()
    assert refusal(b"") == "Video 2 is empty: it has 0 bytes."
    assert refusal(b"no film") == "Video 2 cannot be read: the file is damaged or in an unsupported format."
    assert refusal((ASSETS / "audio" / "cantina.wav").read_bytes()).startswith("Video 2 ")
    assert refusal(clip, MediaLimits(max_picture_seconds=0)) == (
        "Video 2 takes too long to decode; the limit is 0 s for a picture and 120 s for all files of a conversation."
    )
    assert refusal(clip, MediaLimits(max_video_pixels=100)) == "Video 2 has 64 x 48 pixels a frame; the limit is 100 in all."


@pytest.mark.parametrize("head", [True, False])
def test_memory_that_runs_out_is_told_with_the_name_and_the_limit(tmp_path: Path, head: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def runs_out(*_: object) -> None:
        raise MemoryError

    clip = Video(video(tmp_path, [0, 1]))
    monkeypatch.setattr("pipeline.video._last_time" if head else "pipeline.video._picture", runs_out)
    with pytest.raises(VideoError, match=r"^Video 2 takes too much memory to decode; the limit is 1,500,000,000 bytes\.$"):
        list(load_video(clip, LIMITS, "Video 2"))


def test_the_seconds_that_other_files_took_are_gone(tmp_path: Path) -> None:
    clip = Video(video(tmp_path, [0, 1]))
    with pytest.raises(VideoError, match="takes too long to decode"):
        list(load_video(clip, LIMITS, "Video 2", Used(seconds=LIMITS.max_decode_seconds)))


@pytest.mark.parametrize(("name", "index", "other"), [("b.avi", b"idx1", b"JUNK"), ("b.mp4", b"stss", b"skip")])
def test_an_index_that_is_damaged_or_gone_is_done_without(name: str, index: bytes, other: bytes) -> None:
    whole = (ASSETS / "videos" / name).read_bytes()
    assert index in whole
    assert loaded(Video(whole.replace(index, other)), LIMITS) == loaded(Video(whole), LIMITS)


@pytest.mark.parametrize("table", [b"stco", b"stsz", b"stsc", b"stts"])
def test_without_what_tells_where_its_frames_are_a_film_is_refused_in_a_sentence(tmp_path: Path, table: bytes) -> None:
    whole = video(tmp_path, [0, 1]).read_bytes()
    with pytest.raises(VideoError, match=r"^The video (cannot be read|has no frames|has no picture track)"):
        loaded(Video(whole.replace(table, b"skip")), LIMITS)


def test_pixels_are_counted_of_the_frames_that_come_and_not_of_those_that_the_head_promises(tmp_path: Path) -> None:
    small, large = (
        video(tmp_path, times, size, name).read_bytes() for name, times, size in (("a.ts", [0, 1], (32, 32)), ("b.ts", [2, 3, 4, 5], (320, 240)))
    )
    growing = Video(small + large)
    assert video_head(growing, LIMITS).size == (32, 32)
    shown = loaded(growing, LIMITS)
    assert {picture.image.size for picture in shown} == {(32, 32), (320, 240)}
    pixels = sum(picture.image.width * picture.image.height for picture in shown)
    assert loaded(growing, MediaLimits(max_conversation_pixels=pixels)) == shown
    with pytest.raises(VideoError, match=rf"the conversation has {pixels:,} pixels in all its pictures and frames; the limit is {pixels - 1:,}\.$"):
        loaded(growing, MediaLimits(max_conversation_pixels=pixels - 1))


@pytest.mark.parametrize("look", [video_head, loaded])
def test_a_part_of_a_film_without_its_key_frame_is_damaged_and_no_fault_of_ours(tmp_path: Path, look: Callable[..., object]) -> None:
    path = tmp_path / "part.ts"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        noise = np.random.default_rng(0)
        frames = [av.VideoFrame.from_ndarray(noise.integers(0, 255, (48, 64, 3), np.uint8), "rgb24") for _ in range(20)]
        packets = [packet for frame in [*frames, None] for packet in stream.encode(frame)]
        container.mux([packet for packet in packets if not packet.is_keyframe])
    with pytest.raises(VideoError, match=r"^The video cannot be read: the file is damaged or cut short\.$"):
        look(Video(path), LIMITS)


def test_a_video_that_takes_too_long_to_decode_is_given_up() -> None:
    with pytest.raises(
        VideoError, match=r"^The video takes too long to decode; the limit is 20 s for a picture and 0 s for all files of a conversation\.$"
    ):
        loaded(Video(ASSETS / "videos" / "b.mp4"), MediaLimits(max_decode_seconds=0))


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    playlist, script = tmp_path / "p.m3u8", tmp_path / "s.mp4"
    playlist.write_text(f"#EXTM3U\n#EXTINF:10,\n{ASSETS / 'videos' / 'b.mp4'}\n#EXT-X-ENDLIST\n")
    script.write_text(f"ffconcat version 1.0\nfile {ASSETS / 'videos' / 'b.mp4'}\n")
    for path in (playlist, script, ASSETS / "audio" / "cantina.wav", ASSETS / "images" / "lion.jpg"):
        with pytest.raises(VideoError, match=r"^The video cannot be read: the file is damaged or in an unsupported format\.$"):
            loaded(Video(path), LIMITS)
    with pytest.raises(VideoError):
        loaded(Video((ASSETS / "videos" / "b.mp4").read_bytes()[:9000]), LIMITS)


def test_a_film_without_a_picture_track_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(VideoError, match=r"^The video has no picture track\.$"):
        loaded(Video(path), LIMITS)


def box(data: bytes, kind: bytes) -> int:
    """Where the content of an MP4 box begins."""
    return data.index(kind) + 4


def patched(path: Path, kind: bytes, offset: int, content: bytes) -> bytes:
    data = bytearray(path.read_bytes())
    start = box(bytes(data), kind) + offset
    data[start : start + len(content)] = content
    return bytes(data)


@pytest.mark.parametrize(("turn", "corner"), [((1, 0, 0, 1), (0, 0)), ((0, 1, -1, 0), (1, 0)), ((-1, 0, 0, -1), (1, 1)), ((0, -1, 1, 0), (0, 1))])
def test_a_video_is_turned_as_the_camera_was_held(tmp_path: Path, turn: tuple[int, int, int, int], corner: tuple[int, int]) -> None:
    marked = np.zeros((48, 64, 3), np.uint8)
    marked[:16, :16] = 255
    path = video(tmp_path, [0], frame=marked)
    a, b, c, d = (value * 0x10000 for value in turn)
    (picture,) = loaded(Video(patched(path, b"tkhd", 40, struct.pack(">iiiiii", a, b, 0, c, d, 0))), LIMITS)
    assert picture.image.size == ((64, 48) if turn[0] else (48, 64))
    at = tuple(side - 5 if end else 4 for side, end in zip(picture.image.size, corner, strict=True))
    assert min(picture.image.getpixel(at)) > 200
    assert sum(np.asarray(picture.image)[..., 0].ravel() > 128) < 400


def test_an_odd_turn_is_none(tmp_path: Path) -> None:
    matrix = struct.pack(">iiiiii", 46341, 46341, 0, -46341, 46341, 0)
    (picture,) = loaded(Video(patched(video(tmp_path, [0]), b"tkhd", 40, matrix)), LIMITS)
    assert picture.image.size == (64, 48)


def test_no_header_is_believed_about_the_length(tmp_path: Path) -> None:
    path = video(tmp_path, [0, 1, 2])
    for seconds in (0, 36_000):
        lying = patched(path, b"mvhd", 16, struct.pack(">I", 1000 * seconds))
        assert [picture.time for picture in loaded(Video(lying), LIMITS)] == [0, 1, 2]


def test_hours_are_refused_and_so_is_a_frame_of_8k(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"^The video is 36000 s long; the limit is 600 s\.$"):
        loaded(Video(video(tmp_path, [0, 36_000])), LIMITS)
    large = video(tmp_path, [0], size=(7680, 4320))
    with pytest.raises(VideoError, match=r"^The video has 7680 x 4320 pixels a frame; the limit is 9,437,184 in all\.$"):
        loaded(Video(large), LIMITS)


def test_frames_that_are_larger_than_their_header_says_are_refused(tmp_path: Path) -> None:
    small, large = video(tmp_path, [0, 1, 2]).read_bytes(), video(tmp_path, [0, 1, 2], size=(640, 480)).read_bytes()
    with pytest.raises(VideoError, match="640 x 480"):
        loaded(Video(patched(tmp_path / "v.mp4", b"mp4v", 24, struct.pack(">HH", 64, 48))), MediaLimits(max_video_pixels=4000))
    assert len(small) < len(large)


def test_a_recording_that_was_never_finished_has_no_length_and_is_read(tmp_path: Path) -> None:
    path = video(tmp_path, [0, 0.5, 1, 1.5, 2], name="live.mkv", options={"live": "1"})
    with av.open(str(path)) as container:
        assert container.duration is None
    assert [picture.time for picture in loaded(Video(path), LIMITS)] == [0, 1, 2]


def test_the_cover_of_a_song_is_no_film(tmp_path: Path) -> None:
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container:
        sound, cover = container.add_stream("aac", rate=44100), container.add_stream("mjpeg")
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), "rgb24")))
        container.mux(cover.encode())
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 44100
        container.mux(sound.encode(frame))
        container.mux(sound.encode())
    with pytest.raises(VideoError, match=r"^The video has no picture track\.$"):
        loaded(Video(path), LIMITS)


def test_what_a_video_says_about_another_file_is_not_followed(tmp_path: Path) -> None:
    """An MP4 may hold only the index of frames that are in another file."""
    path = video(tmp_path, [0, 1])
    data = path.read_bytes()
    entry = b"\0\0\0\x0curl \0\0\0\1"
    assert entry in data
    elsewhere = str(path).encode() + b"\0"
    reference = struct.pack(">I", 12 + len(elsewhere)) + b"url \0\0\0\0" + elsewhere
    moved = bytearray(data.replace(entry, reference))
    for kind in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"):
        at = moved.index(kind) - 4
        moved[at : at + 4] = struct.pack(">I", struct.unpack(">I", moved[at : at + 4])[0] + len(reference) - len(entry))
    mdat = moved.index(b"mdat") - 4
    size = struct.unpack(">I", moved[mdat : mdat + 4])[0]
    del moved[mdat : mdat + size]
    with pytest.raises(VideoError):
        loaded(Video(bytes(moved)), LIMITS)
