"""A model folder -> how fast the engine is, beside the stateful path and openvino_genai on the same folder; medians of runs in which all take turns.

python -m bench.engine [--model DIR] [--runs N] [--write]
python -m bench.engine --full-size [--layers N]      random weights of the real model's geometry
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench.contenders import CONTENDERS
from bench.make_checkpoint import VISION_LAYERS, make_checkpoint
from bench.speed_table import USERS, table
from conversion.checkpoint import Source
from conversion.compress import Recipe
from conversion.job import convert
from pipeline.artifacts import BUNDLED, verify

ROOT = Path(__file__).resolve().parent.parent
BUILT = ROOT / "bench" / "built"
CROWDS, ARRIVALS = 4, 3  # a run: decoding waits for memory alone, and is slowed the most by whatever else the machine does


class Process:
    """One contender, loaded; it does one thing at a time, and waits without using a core."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        command = [sys.executable, "-m", "bench.contenders", name, str(folder)]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.load_s = self._read()["load_s"]

    def do(self, name: str, **arguments: int) -> dict[str, Any] | None:
        self._process.stdin.write(json.dumps([name, arguments]) + "\n")
        self._process.stdin.flush()
        return self._read()

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()

    def _read(self) -> Any:
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended with {self._process.wait()}.")
        return json.loads(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=BUNDLED)
    parser.add_argument("--full-size", action="store_true")
    parser.add_argument("--layers", type=int, default=28, help="of the full-size language model")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=32, help="of each answer of a crowd")
    parser.add_argument("--prompt-tokens", type=int, default=700, help="of who arrives")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    folder = _full_size(options.layers) if options.full_size else options.model
    side = 672 if options.full_size else 504  # a picture cut into three, and into nine
    result = {"benchmark": "engine", "model": folder.name, "cores": os.cpu_count(), "runs": options.runs, "prompt_tokens": options.prompt_tokens}
    if options.full_size:
        result["layers"] = options.layers
    result["contenders"] = measure(folder, side, options)
    for line in table(result["contenders"]):
        print(line)
    if options.write:
        name = "engine_full_size.json" if options.full_size else "engine.json"
        (ROOT / "bench" / "results" / name).write_text(json.dumps(result) + "\n")
    print(json.dumps(result))


def measure(folder: Path, side: int, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Every figure of each contender, the median of its runs; in each run all take their turn."""
    # As a server does before it starts. It reads every file: else whoever first uses a row of the embedding table fetches it from the disk for all.
    verify(folder)
    processes = [Process(name, folder) for name in CONTENDERS]
    found: dict[str, dict[str, list[float]]] = {process.name: defaultdict(list) for process in processes}
    for run in range(options.runs):
        processes.append(processes.pop(0))  # each begins a run
        for task, suffix, arguments in _tasks(1000 * (run + 1), side, options):
            for process in processes:
                figures = process.do(task, **arguments) or {}
                for name, value in (delays(figures) if task == "arrival" and figures else figures).items():
                    found[process.name][name + suffix].append(value)
    result = {}
    for process in sorted(processes, key=lambda process: list(CONTENDERS).index(process.name)):
        memory = process.do("memory") or {}
        medians = {name: round(statistics.median(values), 4) for name, values in found[process.name].items()}
        result[process.name] = {"load_s": round(process.load_s, 2), **medians, **{name: round(value) for name, value in memory.items()}}
        process.close()
    return result


def _tasks(seed: int, side: int, options: argparse.Namespace) -> Iterator[tuple[str, str, dict[str, int]]]:
    """What each does in a run: the task, what its figures' names end in, and its arguments."""
    yield "chat", "", {"seed": seed, "side": side}
    for users in USERS:
        own = seed + 10 * users
        yield "prompts", f"_{users}", {"seed": own + 500, "users": users, "prompt_tokens": options.prompt_tokens // users}
        for turn in range(CROWDS):
            yield "crowd", f"_{users}", {"seed": own + 100 * turn, "users": users, "tokens": options.tokens}
    for turn in range(ARRIVALS):
        yield "arrival", "", {"seed": seed + 600 + 20 * turn, "prompt_tokens": options.prompt_tokens}


def delays(figure: dict[str, Any]) -> dict[str, float]:
    """What others wait for a token before and while somebody's prompt is read, and what that costs who came."""
    quiet, during = ({share: float(np.percentile(figure[name], share)) for share in (50, 99)} for name in ("quiet_s", "during_s"))
    return {
        "itl_p50_s": quiet[50],
        "itl_p99_s": quiet[99],
        "itl_p50_beside_a_prompt_s": during[50],
        "itl_p99_beside_a_prompt_s": during[99],
        "itl_p99_ratio": during[99] / quiet[99],
        "ttft_ratio": figure["beside_s"] / figure["alone_s"],
    }


def _full_size(layers: int) -> Path:
    """A model folder of the real geometry with random weights: speed does not depend on what the weights are."""
    folder = BUILT / f"{layers}-layers"
    if not folder.exists():
        BUILT.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=BUILT) as checkpoint:
            make_checkpoint(Path(checkpoint), layers, VISION_LAYERS)
            convert(Source.locate(checkpoint), folder, Recipe("int4"))
    return folder


if __name__ == "__main__":
    main()
