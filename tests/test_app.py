"""The process: what it serves, and how it starts and ends."""

import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from gradio_client.exceptions import AppError

import app
from pipeline import PipelineError
from pipeline.artifacts import BUNDLED
from tests.hub.server import Server
from tests.process import process, running, stopped
from tests.serving import PHOTO, message


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({"CPU_CORES": "many"}, "CPU_CORES is 'many'; it must be a whole number from 0 to 1024."),
        ({"PORT": "-1"}, "The port is '-1'; it must be a whole number from 1 to 65535."),
        ({"DEVICE": "TPU"}, "DEVICE=TPU is unknown"),
    ],
)
def test_a_wrong_setting_is_found_before_anything_is_served(environ: dict[str, str], sentence: str) -> None:
    with pytest.raises(PipelineError, match=f"^{re.escape(sentence)}"):
        app._serve(environ)


def test_a_wrong_setting_ends_the_process_with_one_sentence_and_status_2() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with process(PORT=str(port), GRADIO_SERVER_NAME="127.0.0.1") as started:
            out, err = started.communicate()
    assert (started.returncode, out, err) == (2, "", f"The page cannot be served at 127.0.0.1:{port}: the port is taken or not allowed.\n")


def test_zero_gpu_hardware_finds_what_it_starts_a_space_for() -> None:
    """It patches PyTorch where that is installed; a Space has none."""
    script = "import sys; sys.modules['torch'] = None; import app; from spaces.zero.decorator import decorated_cache; print(len(decorated_cache) > 0)"
    environ = {**os.environ, "SPACES_ZERO_GPU": "true", "SPACES_ZERO_DEVICE_API_URL": "http://127.0.0.1:9"}
    done = subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(app.__file__).parent, env=environ, capture_output=True, text=True)
    assert done.stdout == "True\n"


def test_the_process_says_when_it_is_ready_serves_and_leaves_no_uploads_behind(tmp_path: Path) -> None:
    with running(tmp_path) as (process, client):
        job = client.submit(message("What is this?", PHOTO), api_name="/chat")
        ready = next(line for line in process.stderr if "Ready" in line)
        next(iter(job))
        uploaded = list(tmp_path.glob("uploads-*/*/cheetah1.jpg"))
        job.cancel()
        assert stopped(process) == (0, "")
    assert re.search(r"Ready on port \d+, \d+\.\d s after the process started\.$", ready.strip())
    assert uploaded
    assert "demo_notice" in str(client.config["components"])
    assert not list(tmp_path.glob("uploads-*"))


@pytest.fixture
def held(hub: Server, tmp_path: Path) -> Iterator[tuple[dict[str, str], threading.Event]]:
    """What makes a process pull the bundled model from a Hub, and what lets the Hub give the largest file out of its hands."""
    hub.hub.publish("owner/name", BUNDLED, [path.name for path in BUNDLED.iterdir()])
    go_on = threading.Event()
    largest = r"^GET .*/openvino_language_model\.bin$"
    hub.watch = lambda number, when: when == "come" and re.search(largest, str(hub.log[number - 1])) and not go_on.wait(120)
    yield {"MODEL_REPO": "owner/name", "HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}, go_on
    go_on.set()


def test_the_page_is_there_before_the_model_and_who_asks_meanwhile_hears_how_far_it_is(
    held: tuple[dict[str, str], threading.Event], tmp_path: Path
) -> None:
    environ, go_on = held
    with running(tmp_path, **environ) as (process, client):
        told = []
        for item in (job := client.submit(message("Who are you?"), api_name="/chat")):
            told.append(item)
            if "downloading" in str(item):
                go_on.set()
        assert stopped(process) == (0, "")
    titles = [item["metadata"]["title"] for item in told if isinstance(item, dict)]
    assert any(re.fullmatch(r"Starting: downloading \d\.\d of 5\.\d MB", title) for title in titles)
    assert told[-1] == job.result()
    assert isinstance(told[-1], str)


def test_a_process_that_is_told_to_end_does_not_wait_for_a_download(held: tuple[dict[str, str], threading.Event], tmp_path: Path) -> None:
    environ, go_on = held
    with running(tmp_path, **environ) as (process, client):
        next(item for item in client.submit(message("Hi"), api_name="/chat") if "downloading" in str(item))
        assert stopped(process) == (0, "")
    assert not go_on.is_set()


def test_without_a_model_the_process_stays_and_says_what_to_do(tmp_path: Path) -> None:
    with running(tmp_path, MODEL_DIR="/nowhere") as (process, client):
        with pytest.raises(AppError, match=r"^The model folder /nowhere does not exist\. Correct MODEL_DIR in the environment"):
            client.predict(message("Hi"), api_name="/chat")
        assert "The model folder /nowhere does not exist." in process.stderr.readline()
        assert stopped(process) == (0, "")
