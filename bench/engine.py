"""A model folder -> how fast the engine is, beside the stateful path and openvino_genai on the same folder; medians of alternating runs.

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
from pathlib import Path
from typing import Any

import numpy as np

from bench.contenders import CONTENDERS
from bench.make_checkpoint import VISION_LAYERS, make_checkpoint
from bench.speed_table import USERS, table
from conversion.checkpoint import Source
from conversion.compress import Recipe
from conversion.job import convert
from pipeline.artifacts import BUNDLED

ROOT = Path(__file__).resolve().parent.parent
BUILT = ROOT / "bench" / "built"


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
    processes = [Process(name, folder) for name in CONTENDERS]
    found: dict[str, dict[str, list[float]]] = {process.name: defaultdict(list) for process in processes}
    for run in range(options.runs):
        seed = 1000 * (run + 1)
        for process in processes:
            for name, value in (process.do("chat", seed=seed, side=side) or {}).items():
                found[process.name][name].append(value)
        for users in USERS:
            for process in processes:
                if figure := process.do("prompts", seed=seed + 500 + 10 * users, users=users, prompt_tokens=options.prompt_tokens // users):
                    found[process.name][f"prefill_s_{users}"].append(figure["seconds"])
            for process in processes:
                if figure := process.do("crowd", seed=seed + 10 * users, users=users, tokens=options.tokens):
                    found[process.name][f"tokens_per_s_{users}"].append(figure["tokens_per_s"])
        for process in processes:
            if figure := process.do("arrival", seed=seed + 100, prompt_tokens=options.prompt_tokens):
                for name, value in delays(figure).items():
                    found[process.name][name].append(value)
    result = {}
    for process in processes:
        memory = process.do("memory") or {}
        medians = {name: round(statistics.median(values), 4) for name, values in found[process.name].items()}
        result[process.name] = {"load_s": round(process.load_s, 2), **medians, **{name: round(value) for name, value in memory.items()}}
        process.close()
    return result


def delays(figure: dict[str, Any]) -> dict[str, float]:
    """What others wait for a token before and while somebody's prompt is read, and what that costs who came."""
    quiet, during = ({share: float(np.percentile(figure[name], share)) for share in (50, 99)} for name in ("quiet_s", "during_s"))
    return {
        "itl_p50_s": quiet[50],
        "itl_p99_s": quiet[99],
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
