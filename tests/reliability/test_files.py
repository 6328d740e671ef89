"""Hostile files through the process that decodes: each is read or refused in one sentence, within the limits (R14, R15).

Five hundred files by default. `make fuzz` reads as many as FUZZ_FILES says, chosen by FUZZ_SEED.
"""

import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping

import hypothesis
import pytest
from hypothesis import strategies as st

from pipeline.config import MediaLimits, SliceConfig
from pipeline.cutting import CutPicture, Cutting
from pipeline.decoder import Decoder
from pipeline.decoder_program import GRACE_SECONDS
from pipeline.errors import InputError
from pipeline.message import Image, Video
from tests.reliability import hostile

FILES, SEED = int(os.environ.get("FUZZ_FILES", "500")), int(os.environ.get("FUZZ_SEED", "0"))
LIMITS = MediaLimits(max_decode_bytes=600_000_000, max_image_pixels=30_000_000, max_decode_seconds=60)
CUTTING = Cutting(SliceConfig(), 9, None, LIMITS.max_slice_patches)
# What every process has before it decodes anything: the interpreter and the libraries.
BASE_BYTES = 150_000_000


class Tally:
    """Has files decoded and counts what became of them."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self.counts: Counter[str] = Counter()
        self.slowest_s = 0.0
        self.latest_s = 0.0

    def read(self, item: Image | Video) -> list[CutPicture] | str | None:
        """The pictures, the sentence of a refusal, or None when neither came."""
        started = time.perf_counter()
        self.counts["files"] += 1
        try:
            pictures, _ = self.decoder.load(item, CUTTING, LIMITS, "It")
        except InputError as refusal:
            self.counts["refused"] += 1
            self.counts["crashed"] += "crashed" in str(refusal)
            return str(refusal)
        except Exception as error:  # that there is none is what is tested
            self.counts["unhandled"] += 1
            hypothesis.note(f"{error!r} from {error.__cause__!r}")
            return None
        finally:
            self.slowest_s = max(self.slowest_s, time.perf_counter() - started)
        self.counts["accepted"] += 1
        self.latest_s = max([self.latest_s, *(picture.time or 0.0 for picture in pictures)])
        return pictures

    def report(self, name: str, max_seconds: float) -> None:
        figures = {key: self.counts[key] for key in ("files", "accepted", "refused", "crashed", "unhandled")}
        peak = {"peak_mib": round(self.decoder.peak_kib / 1024), "slowest_ms": round(1000 * self.slowest_s)}
        print(json.dumps({name: {**figures, **peak, "seconds_decoded": self.latest_s, "seed": SEED}}))
        assert self.counts["unhandled"] == 0
        assert 1024 * self.decoder.peak_kib <= LIMITS.max_decode_bytes + BASE_BYTES
        assert self.latest_s <= LIMITS.max_video_seconds
        assert self.slowest_s <= max_seconds + GRACE_SECONDS


@pytest.fixture
def tally() -> Iterator[Tally]:
    with Decoder() as decoder:
        yield Tally(decoder)


def check(outcome: list[CutPicture] | str | None) -> None:
    assert outcome is not None, "neither pictures nor a sentence"
    if isinstance(outcome, str):
        assert outcome.startswith("It ")
        assert outcome.endswith(".")
        assert "\n" not in outcome
    else:
        assert outcome
        for picture in outcome:
            width, height = picture.size
            assert 0 < width * height <= LIMITS.max_image_pixels
            assert 0 < len(picture.slices) <= 10
            for piece in picture.slices:
                rows, columns = piece.tgt_size
                assert piece.pixels.shape == (14 * rows, 14 * columns, 3)
                assert rows * columns <= LIMITS.max_slice_patches


def read_all(tally: Tally, corpus: Mapping[str, bytes], kind: type[Image] | type[Video], files: int) -> None:
    """Each of the corpus, each that was built to do harm, one of the corpus cut at every kilobyte, and mutated ones."""
    for data in corpus.values():
        assert isinstance(tally.read(kind(data)), list)
    for data in hostile.BUILT.values():
        check(tally.read(kind(data)))
    name = "tower.jpg" if kind is Image else "muted_b.mp4"
    data = (hostile.ASSETS / ("images" if kind is Image else "videos") / name).read_bytes()
    for end in range(1024, min(len(data), 60 * 1024), 1024):
        check(tally.read(kind(data[:end])))

    @hypothesis.seed(SEED)
    @hypothesis.settings(max_examples=max(files - tally.counts["files"], 1), database=None, deadline=None, phases=[hypothesis.Phase.generate])
    @hypothesis.given(st.data())
    def read(data: st.DataObject) -> None:
        check(tally.read(kind(data.draw(hostile.hostile(corpus)))))

    read()


@pytest.mark.timeout(0 if FILES > 500 else 300)
def test_hostile_pictures_are_read_or_refused_in_one_sentence(tally: Tally) -> None:
    try:
        read_all(tally, hostile.pictures(), Image, FILES * 3 // 5)
    finally:
        tally.report("R14", LIMITS.max_picture_seconds)


@pytest.mark.timeout(0 if FILES > 500 else 300)
def test_hostile_videos_are_read_or_refused_in_one_sentence(tally: Tally) -> None:
    try:
        read_all(tally, hostile.videos(), Video, FILES * 2 // 5)
    finally:
        tally.report("R15", LIMITS.max_decode_seconds)
