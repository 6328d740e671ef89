"""The process: what it serves, and how it starts and ends."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import app
from pipeline import PipelineError
from pipeline.artifacts import BUNDLED
from tests.serving import PHOTO, connect, message

ROOT = Path(app.__file__).parent


def _process(**environ: str) -> subprocess.Popen[str]:
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MODEL_", "GRADIO_")) and name not in ("DEVICE", "PORT", "CPU_CORES")
    }
    return subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=clean | environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({"CPU_CORES": "many"}, "CPU_CORES is 'many'; it must be a whole number from 0 to 1024."),
        ({"PORT": "-1"}, "The port is '-1'; it must be a whole number from 1 to 65535."),
        ({"DEVICE": "TPU"}, "DEVICE=TPU is unknown"),
        ({"MODEL_DIR": "/nowhere/model"}, "The model folder /nowhere/model does not exist."),
    ],
)
def test_a_wrong_setting_is_found_before_the_model_is_loaded(environ: dict[str, str], sentence: str) -> None:
    with pytest.raises(PipelineError, match=f"^{re.escape(sentence)}"):
        app._serve(environ)


def test_a_folder_that_is_not_what_its_manifest_says_is_never_served(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(BUNDLED, tmp_path / "model"))
    with (folder / "openvino_resampler_model.bin").open("r+b") as weights:
        weights.write(b"else")
    with pytest.raises(PipelineError, match=r"openvino_resampler_model\.bin is damaged"):
        app._serve({"MODEL_DIR": str(folder)})


def test_a_wrong_setting_ends_the_process_with_one_sentence_and_status_2() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with _process(PORT=str(port), GRADIO_SERVER_NAME="127.0.0.1") as process:
            out, err = process.communicate()
    assert (process.returncode, out, err) == (2, "", f"The page cannot be served at 127.0.0.1:{port}: the port is taken or not allowed.\n")


def test_the_process_says_when_it_is_ready_serves_and_leaves_no_uploads_behind(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    with _process(PORT=port, GRADIO_SERVER_NAME="127.0.0.1", TMPDIR=str(tmp_path), CPU_CORES="2") as process:
        ready = process.stderr.readline()
        client = connect(f"http://127.0.0.1:{port}/")
        job = client.submit(message("What is this?", PHOTO), api_name="/chat")
        next(iter(job))
        uploaded = list(tmp_path.glob("uploads-*/*/cheetah1.jpg"))
        description = str(client.config["components"])
        job.cancel()
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate()
    assert re.search(rf"Ready on port {port}, \d+\.\d s after the process started\.$", ready.strip())
    assert uploaded
    assert "it knows only drawn scenes" in description
    assert (process.returncode, out) == (0, "")
    assert not list(tmp_path.glob("uploads-*"))
