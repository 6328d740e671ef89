"""What `mutmut run` left behind -> how many changes of each file the tests noticed, as a line of JSON and in bench/results/mutants.json."""

import json
import sys
import tomllib
from pathlib import Path

from mutmut.stats import status_by_exit_code

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results" / "mutants.json"
NOTICED = {"killed", "timeout"}  # one that never ends is noticed too


def scores() -> dict[str, dict[str, int]]:
    """Of each file that is changed: how many changes there are and how many were noticed.

    Raises:
        SystemExit: some have not been tried.
    """
    files = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mutmut"]["only_mutate"]
    found = {}
    for file in files:
        statuses = [status_by_exit_code[code] for code in json.loads((ROOT / "mutants" / f"{file}.meta").read_text())["exit_code_by_key"].values()]
        if "not checked" in statuses:
            raise SystemExit(f"Of {file} {statuses.count('not checked')} changes have not been tried: run mutmut again.")
        found[file] = {"changes": len(statuses), "noticed": sum(status in NOTICED for status in statuses)}
    return found


if __name__ == "__main__":
    found = scores()
    line = json.dumps(found)
    RESULTS.write_text(line + "\n")
    print(line)
    sys.exit(int(any(score["noticed"] < 0.9 * score["changes"] for score in found.values())))
