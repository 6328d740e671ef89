"""Memory has a ceiling, and nothing is kept but what the caches may keep (R10)."""

import json
import os
import subprocess
import sys

import pytest

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
