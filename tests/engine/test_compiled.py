"""The parts of a folder on a device: what cannot be had is named, and the token embedding is the official one."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.artifacts import LANGUAGE_MODEL
from pipeline.config import EngineConfig
from pipeline.engine.compiled import Compiler, Embedder
from pipeline.errors import ArtifactError, InputError


def test_embeds_of_ids_equal_the_official_ones(fp32_folder: Path, golden: Path) -> None:
    embedder = Embedder(Compiler(fp32_folder, EngineConfig(device="CPU")))
    data = np.load(golden / "tiny_text_only.npz")
    np.testing.assert_allclose(embedder.embed(data["input_ids"][0].tolist()), data["inputs_embeds"][0], atol=1e-6)


def test_a_device_that_is_not_there_is_named(fp32_folder: Path) -> None:
    with pytest.raises(InputError, match=r"^DEVICE=GPU\.7 is not on this machine; OpenVINO finds .*CPU.*\.$"):
        Compiler(fp32_folder, EngineConfig(device="GPU.7"))


def test_a_damaged_part_is_named(fp32_folder: Path, tmp_path: Path) -> None:
    for path in fp32_folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / LANGUAGE_MODEL).write_text("<net")
    with pytest.raises(ArtifactError, match=LANGUAGE_MODEL):
        Compiler(tmp_path, EngineConfig(device="CPU")).compiled(LANGUAGE_MODEL)
