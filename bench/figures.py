"""Results of the benchmarks -> the figures in the README and the demo model's card, between their markers; --check: are they up to date?"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from demo.evaluate import formats_table, table

ROOT = Path(__file__).resolve().parent.parent
README, CARD = ROOT / "README.md", ROOT / "demo" / "model" / "README.md"
RESULTS = ROOT / "bench" / "results"
START, END = "<!-- figures: made by `make bench` -->", "<!-- end of figures -->"


def rendered() -> dict[Path, str]:
    """Each document with the figures of the stored results."""
    startup, accuracy = (json.loads((RESULTS / name).read_text()) for name in ("startup.json", "accuracy.json"))
    return {README: _between_markers(README, _summary(startup, accuracy)), CARD: _between_markers(CARD, _measured(accuracy))}


def _summary(startup: dict[str, Any], accuracy: dict[str, Any]) -> str:
    kinds = ", ".join(f"{share:.1%} about {kind}" for kind, share in accuracy["kinds"].items())
    controls, starts = accuracy["controls"], startup["starts"]
    lines = [
        f"From process start to a ready page with the bundled model: **{startup['median_s']} s** (median of {starts} starts on two CPU cores).",
        "",
        f"Of {accuracy['questions']} questions about drawn scenes that its training never saw, the bundled INT4 model answers "
        f"**{accuracy['overall']:.1%}** exactly right ({kinds}); with the pictures blanked {controls['blanked']:.1%}, with them swapped "
        f"{controls['swapped']:.1%}, where guessing gets {controls['chance']:.1%}. The same questions over every format of the same weights, and how "
        "often each says what the checkpoint itself says in float32:",
        "",
        *formats_table(accuracy["formats"]),
    ]
    return "\n".join(lines)


def _measured(accuracy: dict[str, Any]) -> str:
    return f"{accuracy['questions']} questions, greedy decoding, INT4:\n\n{table(accuracy)}"


def _between_markers(document: Path, figures: str) -> str:
    head, _, rest = document.read_text().partition(START)
    return f"{head}{START}\n{figures}\n{END}{rest.partition(END)[2]}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    documents = rendered()
    if parser.parse_args().check:
        return int(any(text != path.read_text() for path, text in documents.items()))
    for path, text in documents.items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
