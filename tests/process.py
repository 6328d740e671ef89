"""app.py in a process of its own, and a client of it."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gradio_client import Client

from tests.serving import connect, until

ROOT = Path(__file__).parent.parent


def process(script: str = "", **environ: str) -> subprocess.Popen[str]:
    """app.py, or a script in its place, with nothing but this of what the environment could say to it."""
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MODEL_", "GRADIO_")) and name not in ("DEVICE", "PORT", "CPU_CORES")
    }
    return subprocess.Popen(
        [sys.executable, *(("-c", script) if script else ("app.py",))],
        cwd=ROOT,
        env=clean | environ,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def running(tmp_path: Path, script: str = "", **environ: str) -> Iterator[tuple[subprocess.Popen[str], Client]]:
    """The process and a client of its API, as soon as there is a page. What is still running in the end was not stopped by the test."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    with process(script, PORT=port, GRADIO_SERVER_NAME="127.0.0.1", TMPDIR=str(tmp_path), CPU_CORES="2", **environ) as started:
        try:
            until(lambda: started.poll() is not None or _listens(int(port)))
            yield started, connect(f"http://127.0.0.1:{port}/")
        finally:
            started.kill()


def stopped(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Its status and what it printed, once it was told to end."""
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate()
    return process.returncode, out
