"""Seeds of questions that the demo model answers rightly -> the folder `examples/`: PNG pictures, an MP4, and what may be asked about them."""

import json
from pathlib import Path

from demo.episodes import Media, episode
from demo.exam import video_file

FOLDER = Path(__file__).parent.parent / "examples"
# Of scenes that training never saw, one each: three shapes, print that takes slices, two pictures, a film, and a question in Chinese.
CHOSEN = (
    ("shapes", "describe", 7000003),
    ("small-print", "small_print", 7000013),
    ("two", "multi", 7000132),
    ("film", "video", 7000008),
    ("zh", "relation", 7000012),
)


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    entries = []
    for name, skill, seed in CHOSEN:
        turn = episode(seed, "test", skill).turns[0]
        many = len(turn.media) > 1
        files = [_written(media, f"{name}-{number}" if many else name) for number, media in enumerate(turn.media, 1)]
        entries.append({"files": files, "question": turn.question, "answer": turn.answer})
    (FOLDER / "examples.json").write_text(json.dumps(entries, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _written(media: Media, name: str) -> str:
    if media.kind == "image":
        media.frames[0].save(FOLDER / f"{name}.png", optimize=True)
        return f"{name}.png"
    source = video_file(media.frames).source
    (FOLDER / f"{name}.mp4").write_bytes(source if isinstance(source, bytes) else b"")
    return f"{name}.mp4"


if __name__ == "__main__":
    main()
