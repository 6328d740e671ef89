"""A model folder -> the same four tests of each way to serve it: `bench/results/peers.jsonl`, a line for each test and way. `make peers`.

Every way is compared with itself: a wrong answer is another one than it gives to the same question when it has no cache, nobody stopped it, or nobody
else is there. Each runs in a process of its own, so that a crash is a figure too.
"""

import argparse
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from demo.episodes import episode
from pipeline.errors import InputError
from tests.reliability import hostile
from tests.reliability.peers import Genai, Notebook, Ours

ROOT = Path(__file__).resolve().parent.parent.parent
RESULTS = ROOT / "bench" / "results" / "peers.jsonl"
WAYS = {"ours": Ours, "openvino_genai": Genai, "the notebook's way": Notebook}
DESCRIBE, LONG = "Describe the picture.", "What do you see? Tell me everything."
SIZE = (240, 160)
HOSTILE_FILES, MOST_SECONDS = 100, 1800


def scenes(count: int) -> list[PIL.Image.Image]:
    """Pictures of one size, so that prompts about them are equal but for what they show."""
    shown = (episode(seed, "train", "colour", most=3).turns[0].media[0].frames[0] for seed in range(count))
    return [PIL.Image.fromarray(np.asarray(image)).convert("RGB").resize(SIZE) for image in shown]


def png(image: PIL.Image.Image) -> bytes:
    return hostile.encoded(image, "PNG")


def cache(way: type[Ours] | type[Genai], folder: Path) -> dict[str, Any]:
    """Ten pictures under the same words, each shown twice, and once with a pixel changed; the same without a cache."""
    files = []
    for image in scenes(10):
        changed = image.copy()
        red, *others = changed.getpixel((120, 80))
        changed.putpixel((120, 80), (red ^ 1, *others))
        files += [png(image), png(image), png(changed)]
    answers = [[served.visitor().say(DESCRIBE, file) for file in files] for served in (way(folder), way(folder, cache=False))]
    return {"answers": len(files), "wrong": sum(cached != alone for cached, alone in zip(*answers, strict=True))}


def cancel(way: Callable[[Path], Any], folder: Path) -> dict[str, Any]:
    """A conversation whose second question is stopped after so many pieces goes on as if it had never been asked."""
    served = way(folder)
    wrong, freed = 0, []
    pictures = [png(image) for image in scenes(6)]
    for index, picture in enumerate(pictures):
        never, stopped = served.visitor(), served.visitor()
        never.say("What is in the picture?", picture)
        expected = never.say(DESCRIBE)
        stopped.say("What is in the picture?", picture)
        stopped.say(LONG, stop_after=(1, 4, 16)[index % 3])
        freed.append(1000 * stopped.freed_s)
        wrong += stopped.say(DESCRIBE) != expected
    return {"stopped": len(pictures), "wrong_next_answers": wrong, "free_ms": {"p50": round(float(np.median(freed))), "most": round(max(freed))}}


def crowd(way: Callable[[Path], Any], folder: Path) -> dict[str, Any]:
    """Visitors who each show a picture and then ask about it again: everybody's first question, then everybody's second."""
    served = way(folder)
    figures: dict[str, Any] = {}
    pictures = [png(image) for image in scenes(8)]
    alone = []
    for picture in pictures:
        visitor = served.visitor()
        alone.append((visitor.say("What is in the picture?", picture), visitor.say(DESCRIBE)))
    for count in (2, 8):
        visitors = [served.visitor() for _ in range(count)]
        first = [visitor.say("What is in the picture?", picture) for visitor, picture in zip(visitors, pictures, strict=False)]
        second = [visitor.say(DESCRIBE) for visitor in visitors]
        own = alone[:count]
        figures[f"{count}_visitors"] = {
            "answers": 2 * count,
            "wrong": sum(a != b for a, (b, _) in zip(first, own, strict=True)) + sum(a != b for a, (_, b) in zip(second, own, strict=True)),
            "about_anothers_picture": sum(
                answer != mine[1] and answer in [theirs[1] for theirs in own] for answer, mine in zip(second, own, strict=True)
            ),
        }
    return figures


def hostile_pictures() -> list[bytes]:
    """One of each kind, those that were built to do harm, and mutated ones: always the same hundred."""
    corpus = hostile.pictures()
    files, kinds, random = [*corpus.values(), *hostile.BUILT.values()], list(corpus.values()), np.random.default_rng(0)
    while len(files) < HOSTILE_FILES:
        data = kinds[random.integers(len(kinds))]
        for _ in range(random.integers(1, 4)):
            mutate = hostile.MUTATIONS[random.integers(len(hostile.MUTATIONS))]
            data = mutate(data, int(random.integers(2**20)), int(random.choice(hostile.EDGES)))
        files.append(data)
    return files[:HOSTILE_FILES]


def outcomes(way: Callable[[Path], Any], folder: Path, first: int) -> Iterator[dict[str, Any]]:
    """What a visitor who shows each of them gets: an answer, a sentence, or an exception that nobody turned into one; and memory above the start."""
    served = way(folder)
    served.visitor().say(DESCRIBE, png(scenes(1)[0]))
    before = _peak_mib()
    for file in hostile_pictures()[first:]:
        try:
            served.visitor().say(DESCRIBE, file)
            outcome = "answered"
        except InputError:
            outcome = "refused in a sentence"
        except Exception as error:  # what is counted
            outcome = f"unhandled: {type(error).__name__}"
        decoding = served.assistant._decoder.peak_kib / 1024 if isinstance(served, Ours) else 0
        yield {"outcome": outcome, "peak_mib": round(_peak_mib() - before + decoding)}


def hostile_files(way: str, folder: Path) -> dict[str, Any]:
    """The outcomes of all, over as many processes as it takes."""
    counts: Counter[str] = Counter()
    most = 0
    while (done := counts.total()) < HOSTILE_FILES:
        process = _started(folder, "hostile", way, str(done))
        try:
            output, _ = process.communicate(timeout=MOST_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
        for line in output.splitlines():
            found = json.loads(line)
            counts[found["outcome"]] += 1
            most = max(most, found["peak_mib"])
        if counts.total() < HOSTILE_FILES:
            counts[f"process ended with {process.returncode}"] += 1
    return {"files": HOSTILE_FILES, **dict(counts.most_common()), "memory_above_start_mib": most}


TESTS: dict[str, tuple[str, ...]] = {
    "cache": ("ours", "openvino_genai"),
    "cancel": ("ours", "openvino_genai", "the notebook's way"),
    "crowd": ("ours", "openvino_genai", "the notebook's way"),
    "hostile": ("ours", "the notebook's way"),
}


def _peak_mib() -> float:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def _started(folder: Path, *asked: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "tests.reliability.side_by_side", str(folder), *asked], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


def _figures(test: str, way: str, folder: Path) -> dict[str, Any]:
    if test == "hostile":
        return hostile_files(way, folder)
    process = _started(folder, test, way)
    output, _ = process.communicate(timeout=MOST_SECONDS)
    return json.loads(output) if process.returncode == 0 else {"process ended with": process.returncode}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("asked", nargs="*", help="a test, a way and maybe the first file: what one process does")
    options = parser.parse_args()
    match options.asked:
        case ["hostile", way, first]:
            for outcome in outcomes(WAYS[way], options.folder, int(first)):
                print(json.dumps(outcome), flush=True)
        case [test, way]:
            print(json.dumps({"cache": cache, "cancel": cancel, "crowd": crowd}[test](WAYS[way], options.folder)))
        case _:
            lines = [{"test": test, "way": way, "figures": _figures(test, way, options.folder)} for test, ways in TESTS.items() for way in ways]
            RESULTS.write_text("".join(json.dumps(line) + "\n" for line in lines))
            print(*map(json.dumps, lines), sep="\n")


if __name__ == "__main__":
    main()
