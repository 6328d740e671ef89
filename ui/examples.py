"""The folder `examples/` -> messages that load with a click. `make examples` draws its pictures anew."""

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent.parent / "examples"


def examples() -> list[dict[str, Any]]:
    """Each with its "text" and its "files"."""
    entries = json.loads((FOLDER / "examples.json").read_text(encoding="utf-8"))
    return [{"text": entry["question"], "files": [str(FOLDER / name) for name in entry["files"]]} for entry in entries]
