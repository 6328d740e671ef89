"""Results of the benchmarks -> the figures in the README, between their markers; with --check only says whether they are up to date."""

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
RESULTS = ROOT / "bench" / "results"
START, END = "<!-- figures: made by `make bench` -->", "<!-- end of figures -->"


def rendered() -> str:
    """The README with the figures of the stored results."""
    startup = json.loads((RESULTS / "startup.json").read_text())
    seconds, starts = startup["median_s"], startup["starts"]
    figures = f"From process start to a ready page with the bundled model: **{seconds} s** (median of {starts} starts on two CPU cores)."
    head, _, rest = README.read_text().partition(START)
    return f"{head}{START}\n{figures}\n{END}{rest.partition(END)[2]}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    if parser.parse_args().check:
        return int(rendered() != README.read_text())
    README.write_text(rendered())
    return 0


if __name__ == "__main__":
    sys.exit(main())
