"""Memory has a ceiling, and nothing is kept but what the caches may keep (R10)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.config import EngineConfig, MediaLimits
from pipeline.cutting import MANY_FRAMES
from pipeline.decoder import MAX_DECODING, MAX_HEADS
from pipeline.decoder_program import HEAD_BYTES
from pipeline.engine import model_runner
from pipeline.readers import FEW_PICTURES, THREADS
from tests.process import ROOT
from tests.reliability.soak import CEILING_MIB, MOST_GROWTH_MIB_PER_1000

#: 1,000 in the long form: CHATS=1000 make trust.
CHATS = int(os.environ.get("CHATS", "24"))
# OpenVINO prepares itself for every size of slice that it meets.
OF_EVER_OTHER_SIZES = """
import itertools, json
import numpy as np
from pipeline.artifacts import BUNDLED
from pipeline.config import EngineConfig, ModelConfig
from pipeline.engine.compiled import Compiler
from pipeline.preprocess import Slice
from tests.reliability.visiting import rss_mib
config = ModelConfig.from_folder(BUNDLED)
vision = Compiler(BUNDLED, EngineConfig(device="CPU")).vision(config, 0)
patch = config.slices.patch_size
held = []
for count, (rows, columns) in enumerate(itertools.product(range(12, 30), range(12, 30))):
    if count % 100 == 0:
        held.append(rss_mib())
    vision.encode_batch([Slice(np.zeros((rows * patch, columns * patch, 3), np.uint8), config.slices)])
print(json.dumps({"R10 sizes": {"sizes": 300, "growth_of_each_hundred_mib": [round(after - before) for before, after in itertools.pairwise(held)]}}))
"""
# The largest conversations that are let in, read at the same time by the threads that read: films in 4K, and pictures of a hundred megapixels.
# And what would be larger once it is cut, because each of a film's frames, however small, is enlarged to be shown.
LARGEST = """
import dataclasses, io, json, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import PIL.Image
from pipeline import Image, InputError, Message, Processor, Video
from pipeline.artifacts import BUNDLED
from pipeline.config import SliceConfig
from pipeline.decoder import Decoder
from pipeline.readers import FEW_PICTURES, THREADS
from tests.reliability.visiting import begin_peak, peak_mib, rss_mib
from tests.test_video import video
tiny, film = (Video(video(Path(sys.argv[1]), list(range(64)), size, f"{size[0]}.mp4")) for size in ((16, 16), (4096, 2304)))
file = io.BytesIO()
PIL.Image.new("RGB", (10_000, 10_000)).save(file, "PNG", compress_level=1)
with Decoder() as decoder, ThreadPoolExecutor(THREADS + 1) as threads:
    processor = Processor(BUNDLED, reader=decoder)
    processor.config = dataclasses.replace(processor.config, slices=SliceConfig())  # of the real model

    def read(*media):
        try:
            return len(processor.plan([Message.user(*media, "What is shown?")]).slices)
        except InputError as error:
            return str(error)

    def at_once(*conversations):
        begin_peak()
        before = rss_mib()
        return list(threads.map(lambda media: read(*media), conversations)), round(peak_mib() - before)

    slices, grown = at_once(*[[film]] * THREADS, [Image(file.getvalue())] * FEW_PICTURES)
    refused, tiny_grown = at_once(*[[tiny] * 50] * THREADS)
    pixels = 64 * THREADS * 4096 * 2304 + FEW_PICTURES * 10**8
    found = {"pixels": pixels, "slices": sum(slices), "peak_growth_mib": grown, "of_tiny_films_mib": tiny_grown, "tiny_films": sorted({*refused})}
print(json.dumps({"R10 reading": found}))
"""
GIB, HIDDEN_SIZE = 2**30, 3584  # of the real model
# Of a conversation: the limit, and one film more, by which it is found to be reached, of 16 frames in three slices and the others in one.
LARGEST_SLICES = MediaLimits().max_conversation_slices + MediaLimits().max_frames + 2 * MANY_FRAMES


@pytest.mark.timeout(0 if CHATS > 100 else 300)
def test_after_many_large_pictures_a_process_holds_what_it_held_before() -> None:
    """In a process of its own: what other tests left would be used again and hide what is lost."""
    command = [sys.executable, "-m", "tests.reliability.ceiling", "--chats", str(CHATS)]
    line = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
    print(line)
    found = json.loads(line)["R10"]
    assert found["rss_max_mib"] < CEILING_MIB
    assert found["rss_growth_mib"] < MOST_GROWTH_MIB_PER_1000 * max(CHATS / 1000, 1.0)
    for held, most in (found["vision_cache_mib"], found["kv_mib"]):
        assert most - 1 < held <= most
    assert found["kv_blocks_held_after"] == 0


def test_pictures_of_ever_other_sizes_leave_less_and_less_behind() -> None:
    line = subprocess.run([sys.executable, "-c", OF_EVER_OTHER_SIZES], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    print(line)
    first, _, third = json.loads(line)["R10 sizes"]["growth_of_each_hundred_mib"]
    assert third < first / 3


def test_the_largest_conversations_at_once_are_read_within_what_their_slices_take(tmp_path: Path) -> None:
    """As pictures they would be 6.2 GiB."""
    line = subprocess.run([sys.executable, "-c", LARGEST, str(tmp_path)], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    print(line)
    found = json.loads(line)["R10 reading"]
    assert found["slices"] == 64 * THREADS + 10 * FEW_PICTURES
    assert found["peak_growth_mib"] < 400
    assert found["of_tiny_films_mib"] * 2**20 < THREADS * LARGEST_SLICES * 3 * 448**2 * 1.2
    assert found["tiny_films"] == [
        "With video 9 the conversation has 576 slices of pictures and frames; the limit is 512: send fewer, or start a new conversation."
    ]


def test_the_worst_of_everything_at_once_fits_into_a_small_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the real model was measured to hold, and every limit reached: 16 GiB, the Space's free hardware."""
    monkeypatch.setattr(model_runner, "memory_bytes_here", lambda: CEILING_MIB * 2**20)
    limits, engine = MediaLimits(), EngineConfig()
    measured = json.loads((ROOT / "bench" / "results" / "full_size.json").read_text())["steps"]["serving"]["peak_anonymous_gib"]
    gib = {
        "process": measured,
        "kv": model_runner.kv_cache_bytes_here() / GIB,
        "embeds": (engine.max_running * engine.max_prompt_tokens * HIDDEN_SIZE * 4 + engine.vision_cache_bytes) / GIB,
        "waiting": engine.max_picture_bytes / GIB,
        "reading": (THREADS * LARGEST_SLICES + 10 * FEW_PICTURES) * limits.max_slice_patches * 3 * 14**2 / GIB,
        "decoding": (MAX_DECODING * limits.max_decode_bytes + MAX_HEADS * HEAD_BYTES) / GIB,
    }
    print(json.dumps({"R10 worst": {**{name: round(value, 2) for name, value in gib.items()}, "sum_gib": round(sum(gib.values()), 2)}}))
    assert sum(gib.values()) < CEILING_MIB / 1024
