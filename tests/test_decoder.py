"""Decoding in another process: the same pixels as in this one, and whatever a file does there is one sentence here and nothing to the next file."""

import contextlib
import dataclasses
import io
import os
import select
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gradio
import PIL.Image
import pytest

from pipeline import attachments, decoder_process
from pipeline import decoder as room
from pipeline.attachments import load_all
from pipeline.config import MediaLimits, SliceConfig
from pipeline.cutting import CutPicture, Cutting
from pipeline.decoder import MAX_DECODING, MAX_HEADS, Decoder
from pipeline.errors import ImageError, InputError, Overloaded, PipelineError, VideoError
from pipeline.media import Head, Used
from pipeline.message import Image, Message, Video
from pipeline.processor import named
from pipeline.still import image_head, load_image
from pipeline.video import load_video, video_head

ROOT = Path(__file__).parent.parent
ASSETS = Path(gradio.__file__).parent / "media_assets"
LION = ASSETS / "images" / "lion.jpg"
LIMITS, CUTTING = MediaLimits(), Cutting(SliceConfig(), 9, None, 2048)
# What a file that begins with a word does to the codec, instead of the real decoding.
EVIL = decoder_process.PROGRAM.replace(
    "main()",
    """
import ctypes, os, signal, threading
from pipeline import decoder_program
decoder_program.GRACE_SECONDS = 1
honest = decoder_program.decode
def decode(kind, file, *rest):
    word = file.read(4)
    file.seek(0)
    if word == b"segv":
        ctypes.string_at(0)
    elif word == b"abrt":
        os.abort()
    elif word == b"exit":
        os._exit(3)
    elif word == b"loop":
        while True:
            pass
    elif word == b"hang":
        threading.Lock().acquire() and threading.Event().wait()
    elif word == b"hogs":
        hoard = []
        while True:
            hoard.append(bytearray(50_000_000))
    elif word == b"kill":
        os.killpg(0, signal.SIGKILL)
    elif word == b"ours":
        raise ZeroDivisionError
    yield from honest(kind, file, *rest)
decoder_program.decode = decode
main()
""",
)


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder() as decoder:
        yield decoder


@pytest.fixture
def evil(monkeypatch: pytest.MonkeyPatch) -> Iterator[Decoder]:
    """Its processes do what a file's first word says."""
    monkeypatch.setattr(decoder_process, "PROGRAM", EVIL)
    with Decoder() as decoder:
        yield decoder


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def children() -> list[str]:
    return [task for path in Path("/proc/self/task").iterdir() for task in (path / "children").read_text().split()]


def shown(pictures: Sequence[CutPicture]) -> list[object]:
    """All of some pictures, to be compared."""
    return [(picture.size, picture.time, picture.others, [piece.digest for piece in picture.slices]) for picture in pictures]


@pytest.mark.parametrize("path", sorted((ASSETS / "images").iterdir()), ids=lambda path: path.name)
def test_a_picture_has_the_same_pixels_as_in_this_process(decoder: Decoder, path: Path) -> None:
    here = shown([CUTTING.picture(load_image(Image(path), LIMITS))])
    for source in (path, str(path), path.read_bytes()):
        assert shown(decoder.load(Image(source), CUTTING, LIMITS, "Picture 1")[0]) == here


@pytest.mark.parametrize("name", ["a.mp4", "b.avi", "world.mp4"])
def test_a_video_has_the_same_frames_as_in_this_process(decoder: Decoder, name: str) -> None:
    path = ASSETS / "videos" / name
    here = shown(list(CUTTING.frames(load_video(Video(path), LIMITS))))
    for source in (path, path.read_bytes()):
        assert shown(decoder.load(Video(source), CUTTING, LIMITS, "Video 1")[0]) == here


def test_a_head_is_the_same_as_in_this_process(decoder: Decoder) -> None:
    film, image = Video(ASSETS / "videos" / "b.mp4"), PIL.Image.new("RGB", (4, 3))
    assert decoder.head(Image(LION), LIMITS, "It") == image_head(Image(LION), LIMITS, "It") == Head((256, 256))
    assert decoder.head(film, LIMITS, "It") == video_head(film, LIMITS)
    assert decoder.head(Image(image), LIMITS, "It") == Head((4, 3))
    for item in (Image(b"<svg/>"), film):
        with pytest.raises(InputError, match=r"^It "):
            decoder.head(item, MediaLimits(max_video_pixels=10), "It")


def test_an_image_in_memory_needs_no_other_process(decoder: Decoder) -> None:
    image = PIL.Image.new("RGB", (4, 4), "red")
    assert shown(decoder.load(Image(image), CUTTING, LIMITS, "Picture 1")[0]) == shown([CUTTING.picture(load_image(Image(image), LIMITS))])


def test_what_is_wrong_with_a_file_is_said_in_the_same_words(decoder: Decoder) -> None:
    for item, load in (
        (Image(LION.read_bytes()[:9000]), load_image),
        (Image(b"<svg/>"), load_image),
        (Image(b""), load_image),
        (Image("nowhere"), load_image),
        (Image(ASSETS), load_image),
        (Video(b"#EXTM3U\n"), load_video),
        (Video(LION), load_video),
    ):
        with pytest.raises(InputError) as here:
            list(load(item, LIMITS, "It"))
        with pytest.raises(InputError) as there:
            decoder.load(item, CUTTING, LIMITS, "It")
        assert (type(there.value), str(there.value)) == (type(here.value), str(here.value))


def test_limits_count_what_earlier_files_used(decoder: Decoder) -> None:
    with pytest.raises(ImageError, match=r"^With picture 2 the conversation has 65,546 pixels in all its .* the limit is 65,545\.$"):
        decoder.load(Image(LION), CUTTING, MediaLimits(max_conversation_pixels=65_545), "Picture 2", Used(pixels=10))
    with pytest.raises(VideoError, match=r"^With video 1 the conversation has 648,000 pixels in all its .* the limit is 647,999\.$"):
        decoder.load(Video(ASSETS / "videos" / "b.mp4"), CUTTING, MediaLimits(max_conversation_pixels=647_999), "Video 1")
    with pytest.raises(
        ImageError, match=r"^Picture 2 takes too long to decode; the limit is 20 s for a picture and 120 s for all files of a conversation\.$"
    ):
        decoder.load(Image(LION), CUTTING, LIMITS, "Picture 2", Used(seconds=120))


CRASHED = "Picture 2 cannot be read: the file is damaged, and decoding it crashed."
TOO_LONG = "Picture 2 takes too long to decode; the limit is 1 s for a picture and 120 s for all files of a conversation."
HUNGRY = "Picture 2 takes too much memory to decode; the limit is 300,000,000 bytes."


@pytest.mark.parametrize(
    ("word", "sentence"),
    [(b"segv", CRASHED), (b"abrt", CRASHED), (b"kill", CRASHED), (b"loop", TOO_LONG), (b"hang", TOO_LONG), (b"hogs", HUNGRY)],
    ids=lambda value: value.decode() if isinstance(value, bytes) else "",
)
def test_a_codec_that_fails_is_one_sentence_and_the_next_picture_is_read(evil: Decoder, word: bytes, sentence: str) -> None:
    limits = MediaLimits(max_picture_seconds=1 if sentence == TOO_LONG else 20, max_decode_bytes=300_000_000)
    with pytest.raises(ImageError) as caught:
        evil.load(Image(word), CUTTING, limits, "Picture 2")
    assert str(caught.value) == sentence
    assert shown(evil.load(Image(LION), CUTTING, LIMITS, "Picture 3")[0]) == shown([CUTTING.picture(load_image(Image(LION), LIMITS))])


@pytest.mark.parametrize("word", [b"ours", b"exit"])
def test_a_fault_of_ours_is_not_blamed_on_the_file(evil: Decoder, word: bytes) -> None:
    with pytest.raises(PipelineError, match=r"^Picture 2 was not read: the decoder failed\.$") as caught:
        evil.load(Image(word), CUTTING, LIMITS, "Picture 2")
    assert not isinstance(caught.value, InputError)
    assert evil.load(Image(LION), CUTTING, LIMITS, "Picture 3")[0]


def test_a_program_that_does_not_start_is_a_fault_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_process, "PROGRAM", "import nowhere_to_be_found")
    with Decoder() as decoder, pytest.raises(PipelineError, match="the decoder failed"):
        decoder.load(Image(LION), CUTTING, LIMITS, "Picture 1")


def test_the_real_codecs_get_no_more_memory_than_the_limit(decoder: Decoder) -> None:
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (6000, 6000)).save(buffer, "PNG", compress_level=1)
    with pytest.raises(ImageError, match=r"^Picture 1 takes too much memory to decode; the limit is 120,000,000 bytes\.$"):
        decoder.load(Image(buffer.getvalue()), CUTTING, MediaLimits(max_decode_bytes=120_000_000), "Picture 1")
    assert decoder.load(Image(LION), CUTTING, LIMITS, "Picture 2")[0]


def test_a_process_that_the_system_ended_meanwhile_is_replaced(decoder: Decoder) -> None:
    assert decoder.load(Image(LION), CUTTING, LIMITS, "Picture 1")[0]
    before = descriptors()
    decoder._idle[-1].kill()
    decoder._idle[-1]._popen.wait()
    assert decoder.load(Image(LION), CUTTING, LIMITS, "Picture 1")[0]
    assert descriptors() == before


def test_who_leaves_while_a_file_is_decoded_waits_no_longer(evil: Decoder) -> None:
    cancelled, errors = threading.Event(), []

    def wait() -> None:
        try:
            evil.load(Image(b"loop"), CUTTING, LIMITS, "Picture 1", cancelled=cancelled)
        except PipelineError as error:
            errors.append(str(error))

    thread = threading.Thread(target=wait)
    thread.start()
    cancelled.set()
    thread.join(60)
    assert errors == ["Picture 1 is not wanted any more."]
    assert evil.load(Image(LION), CUTTING, LIMITS, "Picture 2")[0]


def test_callers_at_the_same_time_do_not_wait_for_each_other(evil: Decoder) -> None:
    cancelled = threading.Event()

    def wait() -> None:
        with contextlib.suppress(PipelineError):
            evil.load(Image(b"hang"), CUTTING, LIMITS, "It", cancelled=cancelled)

    stuck = [threading.Thread(target=wait) for _ in "ab"]
    for thread in stuck:
        thread.start()
    assert evil.load(Image(LION), CUTTING, LIMITS, "Picture 1")[0]
    assert all(thread.is_alive() for thread in stuck)
    cancelled.set()
    for thread in stuck:
        thread.join(60)


def test_there_are_never_more_processes_than_stated_and_who_waits_for_one_may_leave(evil: Decoder) -> None:
    hold, leave = threading.Event(), threading.Event()
    outcomes: list[str] = []

    def wait(cancelled: threading.Event) -> None:
        with pytest.raises(PipelineError) as caught:
            evil.load(Image(b"hang"), CUTTING, LIMITS, "It", cancelled=cancelled)
        outcomes.append(str(caught.value))

    stuck = [threading.Thread(target=wait, args=(hold,)) for _ in range(MAX_DECODING)]
    for thread in stuck:
        thread.start()
    while len(evil._busy) < MAX_DECODING:
        assert all(thread.is_alive() for thread in stuck)
    leave.set()
    wait(leave)
    assert outcomes == ["It is not wanted any more."]
    assert len(evil._busy) == MAX_DECODING
    hold.set()
    for thread in stuck:
        thread.join(60)
    assert len(outcomes) == MAX_DECODING + 1


def test_who_waits_for_a_process_too_long_is_not_told_that_the_file_was_at_fault(evil: Decoder) -> None:
    hold = threading.Event()

    def wait() -> None:
        with pytest.raises(PipelineError):
            evil.load(Image(b"hang"), CUTTING, LIMITS, "It", cancelled=hold)

    stuck = [threading.Thread(target=wait) for _ in range(MAX_DECODING)]
    for thread in stuck:
        thread.start()
    while len(evil._busy) < MAX_DECODING:
        assert all(thread.is_alive() for thread in stuck)
    short = dataclasses.replace(LIMITS, max_decode_seconds=0.1)
    for limits, used in ((short, Used()), (LIMITS, Used(waited=LIMITS.max_decode_seconds))):  # the files of a conversation share their patience
        with pytest.raises(Overloaded, match=r"^Picture 2 waited too long for its turn to be read: please try again in a while\.$"):
            evil.load(Image(LION), CUTTING, limits, "Picture 2", used)
    hold.set()
    for thread in stuck:
        thread.join(60)


def test_a_file_may_be_decoded_as_long_as_if_its_conversation_had_not_waited_for_others(evil: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """All the time that a conversation may take passes before its first file's turn comes."""
    now, asked = 0.0, Counter[str]()

    def clock() -> float:
        asked[threading.current_thread().name] += 1
        return now

    monkeypatch.setattr(room, "clock", clock)
    monkeypatch.setattr(attachments, "clock", clock)
    film = Video(ASSETS / "videos" / "b.mp4")
    files = named([Message.user(Image(LION), film)])

    def hang() -> None:
        with pytest.raises(ImageError, match="takes too long"):
            evil.load(Image(b"hang"), CUTTING, LIMITS, "It")

    with ThreadPoolExecutor() as others, ThreadPoolExecutor(1, "waiting") as own:
        stuck = [others.submit(hang) for _ in range(MAX_DECODING)]
        while len(evil._busy) < MAX_DECODING:
            assert not any(one.done() for one in stuck)
        waiting = own.submit(load_all, files, CUTTING, LIMITS, evil)
        while asked["waiting_0"] < 4:  # it looks for its turn
            assert not waiting.done()
        now = LIMITS.max_decode_seconds
        for one in stuck:
            one.result(60)
        assert [len(pictures) for pictures in waiting.result(60)] == [1, len(list(load_video(film, LIMITS)))]


@pytest.mark.parametrize("item", [Image(b"hang"), Video(b"hang")])
def test_the_head_of_any_file_is_read_in_the_time_of_a_picture(evil: Decoder, item: Image | Video) -> None:
    with pytest.raises(InputError, match="takes too long to decode; the limit is 0 s for a picture"):
        evil.head(item, dataclasses.replace(LIMITS, max_picture_seconds=0.1), "It")


def test_heads_and_files_do_not_wait_for_each_other(evil: Decoder) -> None:
    cancelled = threading.Event()

    def decode() -> None:
        with pytest.raises(PipelineError, match="not wanted any more"):
            evil.load(Image(b"hang"), CUTTING, LIMITS, "It", cancelled=cancelled)

    def look() -> None:
        with pytest.raises(InputError, match="takes too long"):
            evil.head(Image(b"hang"), dataclasses.replace(LIMITS, max_picture_seconds=5), "It")

    with ThreadPoolExecutor() as others:
        stuck = [others.submit(decode) for _ in range(MAX_DECODING)]
        while len(evil._busy) < MAX_DECODING:
            assert not any(one.done() for one in stuck)
        assert evil.head(Image(LION), LIMITS, "It") == Head((256, 256))
        cancelled.set()
        for one in stuck:
            one.result(60)
        looking = [others.submit(look) for _ in range(2 * MAX_DECODING)]
        while not evil._busy:
            assert not any(one.done() for one in looking)
        assert evil.load(Image(LION), CUTTING, LIMITS, "It")[0]
        assert len(evil._busy) == MAX_HEADS
        assert not all(one.done() for one in looking)
        evil.close()
        for one in looking:
            assert one.exception(60) is None or isinstance(one.exception(60), PipelineError)


@pytest.mark.parametrize("item", [Image(b"hogs"), Video(b"hogs")])
def test_the_head_of_any_file_is_read_in_less_memory_than_a_picture(evil: Decoder, item: Image | Video) -> None:
    with pytest.raises(InputError, match=r"^It takes too much memory to decode; the limit is 1,000,000,000 bytes\.$"):
        evil.head(item, LIMITS, "It")


def test_the_head_of_the_largest_webp_is_read(decoder: Decoder) -> None:
    """Memory for all of its pixels is set aside even for that."""
    file = io.BytesIO()
    PIL.Image.new("RGB", (9200, 9200)).save(file, "WEBP", lossless=True, quality=0, method=0)
    assert decoder.head(Image(file.getvalue()), LIMITS, "It") == Head((9200, 9200))


def test_a_picture_that_is_too_thin_is_refused_by_its_name(decoder: Decoder) -> None:
    file = io.BytesIO()
    PIL.Image.new("RGB", (1, 20_000)).save(file, "PNG")
    with pytest.raises(ImageError, match=r"^Picture 2 has 1 x 20000 pixels, too long and thin: "):
        decoder.load(Image(file.getvalue()), CUTTING, LIMITS, "Picture 2")


def test_closing_tells_who_waits_and_leaves_no_process_and_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_process, "PROGRAM", EVIL)
    before, had = descriptors(), children()
    decoder, errors = Decoder(), []

    def wait() -> None:
        with pytest.raises(PipelineError) as caught:
            decoder.load(Image(b"hang"), CUTTING, LIMITS, "Picture 1")
        errors.append(str(caught.value))

    thread = threading.Thread(target=wait)
    for item in (Image(LION), Image(LION.read_bytes()), Image(b"segv"), Image(b"kill"), Video(b"no"), Video(ASSETS / "videos" / "b.mp4")):
        with contextlib.suppress(InputError):
            decoder.load(item, CUTTING, LIMITS, "It")
    thread.start()
    while not decoder._busy:
        assert thread.is_alive()
    decoder.close()
    thread.join(60)
    assert errors == ["Picture 1 was not read: the decoder was shut down."]
    with pytest.raises(PipelineError, match="shut down"):
        decoder.load(Image(LION), CUTTING, LIMITS, "Picture 1")
    decoder.close()
    assert (descriptors(), children()) == (before, had)


def test_nothing_outlives_a_process_that_is_killed_while_it_has_a_file_decoded() -> None:
    program = """
import sys
sys.path[:] = sys.argv[3:]
from pipeline import decoder, decoder_process
from pipeline.config import MediaLimits, SliceConfig
from pipeline.cutting import Cutting
from pipeline.message import Image
decoder_process.PROGRAM = sys.argv[1]
it = decoder.Decoder()
cutting = Cutting(SliceConfig(), 9, None, 2048)
it.load(Image(sys.argv[2]), cutting, MediaLimits(), "It")
print(it._idle[0]._popen.pid, flush=True)
it.load(Image(b"hang"), cutting, MediaLimits(max_decode_seconds=3), "It")
"""
    command = [sys.executable, "-c", program, EVIL, str(LION), str(ROOT), *filter(None, sys.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as asking:
        assert asking.stdout
        decoding = int(asking.stdout.readline())
        while not (forked := Path(f"/proc/{decoding}/task/{decoding}/children").read_text()):
            assert asking.poll() is None
        ends = [os.pidfd_open(pid) for pid in (decoding, int(forked))]
        asking.kill()
    for end in ends:
        assert select.select([end], [], [], 60)[0], "it lives on"
        os.close(end)
