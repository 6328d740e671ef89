"""From process start to a page whose model answers: seconds with the bundled model, the median of several; with --write kept for the README."""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parent.parent
TITLE = "MiniCPM-V 2.6 on OpenVINO"
GIVE_UP_S = 120
RESULT = ROOT / "bench" / "results" / "startup.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    seconds = []
    for start in range(options.starts):
        seconds.append(ready_seconds())
        print(f"start {start + 1}: {seconds[-1]:.2f} s")
    result = {"benchmark": "startup", "starts": options.starts, "median_s": round(statistics.median(seconds), 1), "max_s": round(max(seconds), 1)}
    if options.write:
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(json.dumps(result) + "\n")
    print(json.dumps(result))


def ready_seconds() -> float:
    """Start the application on a free port and ask until its page is there and its model ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environ = {**os.environ, "GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_SERVER_PORT": str(port)}
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        while process.poll() is None:
            try:
                page, health = (httpx.get(f"http://127.0.0.1:{port}{path}", timeout=5) for path in ("/", "/healthz"))
                if page.is_success and TITLE in page.text and health.is_success:
                    return time.perf_counter() - started
            except httpx.TransportError:
                pass
            if time.perf_counter() - started > GIVE_UP_S:
                raise SystemExit(f"Not ready after {GIVE_UP_S} s.")
            time.sleep(0.02)
        raise SystemExit(f"The application ended: {process.stderr.read() if process.stderr else ''}")
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()
