"""A checkpoint -> converted, proven, published to a Hub on this machine, pulled from it by app.py and asked about a picture: time and memory of each.

python -m bench.full_size SCRATCH [--write]                    random weights at the real size; takes 40 GB of disk
python -m bench.full_size SCRATCH --layers 4 --vision-layers 4
python -m bench.full_size SCRATCH --checkpoint DIR             a checkpoint that is there

Everything but making a checkpoint runs within 16 GiB of memory. The checkpoint and the conversion stay in SCRATCH and are not made twice.
"""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gradio_client import Client, handle_file

from bench.cage import GIB, ROOT, Cage, Peaks
from bench.contenders import picture, words
from bench.make_checkpoint import LAYERS, VISION_LAYERS, make_checkpoint
from conversion.fidelity import FIDELITY
from pipeline.artifacts import Manifest
from pipeline.config import ModelConfig
from pipeline.message import Image, Message
from pipeline.processor import Processor
from tests.hub.repos import Account
from tests.hub.server import running

RESULT = ROOT / "bench" / "results" / "full_size.json"
REPO, TOKEN = "owner/minicpm-v-2.6-int4", "hf_write"
LIMIT_GIB = 16
SIDE = 1344  # of the picture: cut into nine slices beside the overview
QUESTION = "Describe the picture in detail."
CONTEXT_TOKENS = 4096
ANSWER_TOKENS = 16  # a model of random weights goes on until it is cut
Figures = dict[str, Any]


class Steps:
    """What was measured of each step, kept in a file, so that a step is not done twice."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.done: dict[str, Figures] = json.loads(file.read_text()) if file.exists() else {}

    def once(self, name: str, step: Callable[[], Figures]) -> None:
        if name not in self.done:
            self.done[name] = timed(name, step)
            self._file.write_text(json.dumps(self.done) + "\n")


def timed(name: str, step: Callable[[], Figures]) -> Figures:
    print(f"{name} ...", file=sys.stderr, flush=True)
    begun = time.perf_counter()
    figures = step()
    return {"wall_s": round(time.perf_counter() - begun, 1), **figures}


def measure(scratch: Path, checkpoint: Path | None, layers: int, vision_layers: int) -> Figures:
    """Go all the way once; the figures of each step and of each part of the model, and what was answered."""
    scratch.mkdir(parents=True, exist_ok=True)
    steps, model, source = Steps(scratch / "steps.json"), scratch / "model", checkpoint or scratch / "checkpoint"
    if checkpoint is None:
        steps.once("checkpoint", lambda: _make(source, layers, vision_layers))
    with Cage(LIMIT_GIB * GIB) as cage, tempfile.TemporaryDirectory(dir=scratch) as folder, running(Path(folder)) as hub:
        hub.hub.tokens = {TOKEN: Account("owner")}
        environ = {"HF_ENDPOINT": hub.address, "HF_HOME": f"{folder}/home", "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        _drop_from_page_cache(source)
        steps.once("conversion", lambda: _run(cage, ["convert.py", str(source), "--output", str(model)], environ))
        # The Hub begins empty, so these are done each time.
        command = ["convert.py", "--push-only", str(model), "--push-to", REPO]
        push = timed("push", lambda: _run(cage, command, {**environ, "HF_TOKEN": TOKEN}))
        serving = timed("serving", lambda: _serve(cage, scratch, model, environ))
        held_by = cage.means
    manifest, fidelity = Manifest.read(model), json.loads((model / FIDELITY).read_text())
    config = ModelConfig.from_folder(model)  # of what was converted, maybe by an earlier command
    return {
        "benchmark": "full_size",
        "cores": os.cpu_count(),
        "limit": f"{LIMIT_GIB} GiB by {held_by}",
        "layers": config.text.num_hidden_layers,
        "vision_layers": config.vision.num_hidden_layers,
        "steps": {**steps.done, "push": push, "serving": serving},
        "bytes": {name: file.size for name, file in manifest.files.items() if name.endswith(".bin")},
        "fidelity": fidelity["parts"],
    }


def _make(folder: Path, layers: int, vision_layers: int) -> Figures:
    """A folder that is there is whole: it gets its name at the end."""
    unfinished = folder.with_suffix(".partial")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    make_checkpoint(unfinished, layers, vision_layers)
    unfinished.replace(folder)
    return {"bytes": sum(path.stat().st_size for path in folder.iterdir())}


def _drop_from_page_cache(folder: Path) -> None:
    """What is cached already counts as another's memory, and the limit would not be felt."""
    for path in filter(Path.is_file, folder.iterdir()):
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _run(cage: Cage, command: Sequence[str], environ: Mapping[str, str]) -> Figures:
    """A command to its end, which must be a good one; the most memory it took."""
    with cage.running([sys.executable, *command], environ) as (process, peaks):
        if process.wait():
            raise SystemExit(f"{command[0]} ended with {process.returncode}.")
    return peaks.described()


def _serve(cage: Cage, scratch: Path, model: Path, environ: Mapping[str, str]) -> Figures:
    """The page with an empty cache of the Hub: seconds until it is ready, then until first words about a picture, and about it beside much text."""
    shown = scratch / "picture.png"
    picture(seed=0, side=SIDE).save(shown)
    long, tokens = _long_question(model, shown)
    with _application(cage, environ) as (address, ready_s, peaks):
        start = peaks.described()
        client = Client(address, verbose=False, analytics_enabled=False)
        return {
            "ready_s": round(ready_s, 1),
            "start": start,
            "picture": _ask(client, shown, QUESTION),
            "context": {"tokens": tokens, **_ask(client, shown, long)},
            **peaks.described(),
        }


def _long_question(model: Path, shown: Path) -> tuple[str, int]:
    """One that together with the picture fills the context, and the tokens of its prompt."""
    text = QUESTION
    processor = Processor(model)
    while (tokens := len(processor.plan([Message.user(Image(shown), text)]).prompt.input_ids)) < CONTEXT_TOKENS:
        text = f"{words(0, CONTEXT_TOKENS - tokens + 4)} {text}"
    return text, tokens


def _ask(client: Client, shown: Path, question: str) -> Figures:
    """Seconds to the first words and from word to word, and what was said."""
    begun, times, text = time.perf_counter(), [], ""
    settings = {"detail": "full", "mode": "greedy", "max_new_tokens": ANSWER_TOKENS}
    for partial in client.submit(images=[handle_file(shown)], question=question, settings=settings, api_name="/ask"):
        if partial and partial != text:
            text = partial
            times.append(time.perf_counter() - begun)
    if not text:
        raise SystemExit("Nothing was answered.")
    return {"first_words_s": round(times[0], 2), "s_a_word": round((times[-1] - times[0]) / max(len(times) - 1, 1), 3), "text": text}


@contextmanager
def _application(cage: Cage, environ: Mapping[str, str]) -> Iterator[tuple[str, float, Peaks]]:
    """Its address, the seconds it took to be ready to answer, and its peaks so far."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    environ = {**environ, "MODEL_REPO": REPO, "PORT": port, "GRADIO_SERVER_NAME": "127.0.0.1"}
    begun = time.perf_counter()
    with cage.running([sys.executable, "app.py"], environ, stderr=subprocess.PIPE) as (process, peaks):
        for line in process.stderr:
            sys.stderr.write(line)
            if "Ready on port" in line:
                break
            if " ERROR app: " in line:  # it stays, to say so on its page
                raise SystemExit("app.py has no model.")
        else:
            raise SystemExit(f"app.py ended with {process.wait()}.")
        ready_s = time.perf_counter() - begun
        reader = threading.Thread(target=process.stderr.read)  # or it stands still when the pipe is full
        reader.start()
        try:
            yield f"http://127.0.0.1:{port}", ready_s, peaks
        finally:
            process.terminate()
            reader.join()
            process.stderr.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scratch", metavar="SCRATCH", type=Path)
    parser.add_argument("--checkpoint", metavar="DIR", type=Path)
    parser.add_argument("--layers", metavar="N", type=int, default=LAYERS)
    parser.add_argument("--vision-layers", metavar="N", type=int, default=VISION_LAYERS)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    result = measure(options.scratch, options.checkpoint, options.layers, options.vision_layers)
    if options.write:
        RESULT.write_text(json.dumps(result) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
