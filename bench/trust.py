"""The lines of JSON that the tests of reliability print, and the soak's -> docs/trust.md: what is promised, what was measured, by which test."""

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
LINES, HOSTILE, SOAK, PEERS, MUTANTS = (
    RESULTS / name for name in ("reliability.jsonl", "hostile_files.jsonl", "soak.json", "peers.jsonl", "mutants.json")
)
PAGE = ROOT / "docs" / "trust.md"
START, END = "<!-- figures: made by `make trust` -->", "<!-- end of figures -->"

#: By the name in the line, in the order of the table.
PROMISES = {
    "R1": "Who leaves in the middle of an answer frees what it held within a step, and nobody else's answer changes.",
    "R2": "Who leaves at any other moment frees everything, and the next answer is as if they had never asked.",
    "R3 Stop": "Stop in a browser frees the engine in 300 ms while words come, before the next slice or chunk while those are computed.",
    "R3": "Who is gone frees the engine in two seconds; a connection that hangs or crawls holds nothing longer than its answer takes.",
    "R4": "What is taken over from the cache gives the very tokens that computing it anew gives, wherever the cache ends.",
    "R4 logits": "Nor do the logits from which tokens are chosen: they differ by less than 0.0001 (tiny model, float32).",
    "R4 under eviction": "Also in a pool so small that blocks are always evicted.",
    "R5": "Another picture under the same words, or one with a single pixel changed, is never taken for the first.",
    "isolation": "Of many conversations at once about almost the same picture, every answer is about one's own, and nothing is left behind.",
    "R6": "Whatever arrives, ends, forks or gives way, the books of blocks are right and every token is computed from what came before it.",
    "R7": "Order and company change no answer.",
    "paged and stateful": "The engine gives the tokens of the one-at-a-time reference: words, pictures, turns, a video; alone, together, cached.",
    "event loop": "Beside a step that takes seconds the loop that serves everybody is never a tenth of a second later than the machine.",
    "prompt lookup": "Guessing ahead changes no answer.",
    "R8": "A long prompt takes its share of a step; short ones do not wait for the whole of it.",
    "R9": "More than there is room for is served or refused in a sentence; nothing hangs.",
    "R10": "Large pictures, small ones, videos and words: once the caches are full, a process holds no more afterwards than before.",
    "R10 sizes": "Pictures of ever other sizes leave less and less behind.",
    "R10 reading": "The largest conversations that are let in, three at once, are read in little more memory than their slices take.",
    "R10 worst": "Every limit reached at once beside the real model takes less than the 16 GiB of a Space: GiB of each.",
    "R11": "Endless answers in a pool of ten blocks end, and every block is free afterwards.",
    "R12": "A model that fails tells everybody, and answers the next rightly.",
    "R12 the thread dies": "An engine that cannot go on is made again; `/healthz` says so meanwhile.",
    "R13 SIGTERM": "Told to stop, the process tells those who wait at once, lets answers under way end or tells those it cuts, and exits with 0.",
    "R13 SIGKILL while answering": "Killed, it leaves no visitor's file that the next start does not delete.",
    "R13 SIGKILL in a download": "Killed in a download, it starts again, and keeps no half file.",
    "disk full at an upload": "A full disk is one sentence to whoever uploads (status 507), and leaves nothing that a later upload does not delete.",
    "disk full in a download": "A full disk in a download is one sentence on the page.",
    "clock jumps": "Clocks that jump by a day either way, and empty files, change no answer.",
    "doors: files": "No file but uploads can be read, or shown to the model, by any path.",
    "doors: other servers": "The server asks no inner address for a visitor.",
    "doors: internal functions": "The page's own functions, which anybody can call, do nothing privileged whatever they are given.",
    "doors: closed": "What the page has no use for of Gradio's own addresses is closed.",
    "doors: scripts": "What a browser would run is served to be saved, not to be shown.",
    "doors: others' files": "No address tells of another visitor's upload, and its path cannot be guessed; who is told can fetch it until it goes.",
    "doors: forged histories": "A forged history brings in no role and no file.",
    "doors: too much": "Bodies and uploads over the limit are refused with 413 before they are taken in.",
    "doors: names and parts": "What Gradio would hold or remember for anybody is refused: parts that are no file, sessions' names of any length.",
    "doors: broken off": "An upload that breaks off leaves nothing behind.",
    "doors: uploads go": "Uploads go in time, also where Gradio's own deleting has ended; the pictures of the page stay.",
    "doors: slow bodies": "Bodies that never end hold up nobody, and are given up.",
    "doors: a flood": "Requests beyond the queue are refused, and the page stays.",
    "doors: visitors": "Of thousands of visitors the latest 1,000 are remembered, at some 90 kB each.",
    "doors: odd headers": "Odd headers are answered or refused, never a fault, and open a page on one's own machine (localhost) to no other site.",
    "R14": "Any picture at all is read or refused in a sentence, within limits of time and memory.",
    "R15": "Any video, too.",
    "R16": "Whatever is written, by whichever door, holds no special token for the model; too much of it is refused in a sentence.",
    "R16 doors": "Nor does what comes over HTTP: messages, files' names, system prompts, roles, histories and examples, by `/chat`, `/ask` and MCP.",
    "R16 reading": "A long text holds up nobody while it is read.",
    "R16 shown": "An answer that is HTML runs no script in a visitor's browser, and fetches nothing from elsewhere.",
    "R17": "Any body at all to the API is answered or refused; never a fault of the server.",
    "R19": "A new process gives the same answers.",
    "R18 in short": "Half a minute of the soak.",
}

#: By the name of the test in `tests/reliability/side_by_side.py`, in the order of its table.
SIDE_BY_SIDE = {
    "cache": "Ten pictures under the same words, each shown twice and once with one pixel changed: answers that differ from those without a cache.",
    "cancel": "The second question of a conversation is stopped under way: next answers that differ from those in which it was never asked, "
    "and milliseconds until nothing is computed for it any more.",
    "crowd": "Visitors who each show a picture and ask twice, in turn: answers that differ from those given to each alone.",
    "hostile": "A fixed hundred of the hostile pictures: what becomes of them, and the most memory above that at the start.",
}


def rendered() -> str:
    """The page with the figures of the stored results."""
    head, _, rest = PAGE.read_text().partition(START)
    return f"{head}{START}\n{_table()}\n\n{_side_by_side()}\n\n{_mutants()}\n\n{_soak()}\n{END}{rest.partition(END)[2]}"


def _table() -> str:
    found: dict[str, list[tuple[str, Any]]] = {name: [] for name in PROMISES}
    entries = [json.loads(line) for line in LINES.read_text().splitlines()]
    entries += [{"test": "make fuzz", "line": json.loads(line)} for line in HOSTILE.read_text().splitlines()]
    for entry in entries:
        for name, figures in entry["line"].items():
            found.setdefault(name, []).append((entry["test"], figures))
    if lacking := [name for name in PROMISES if not found[name]]:
        raise SystemExit(f"No test has measured {', '.join(lacking)}.")
    rows = ["| | promise | measured | held by |", "|---|---|---|---|"]
    for name, measured in found.items():
        if name in PROMISES:
            figures = "; ".join(dict.fromkeys(_words(figures) for _, figures in measured))
            tests = "; ".join(dict.fromkeys(f"`{test.partition('[')[0].rpartition('/')[2]}`" for test, _ in measured))
            rows.append(f"| {name if name.startswith('R') else ''} | {PROMISES[name]} | {figures} | {tests} |")
    return "\n".join(rows)


def _side_by_side() -> str:
    measured: dict[str, dict[str, str]] = {}
    for entry in map(json.loads, PEERS.read_text().splitlines()):
        measured.setdefault(entry["way"], {})[entry["test"]] = _words(entry["figures"])
    rows = ["The same tests of other ways to serve the same model, by `make peers`:", ""]
    rows += [f"| | {' | '.join(measured)} |", "|---" * (len(measured) + 1) + "|"]
    rows += [f"| {words} | {' | '.join(way.get(test, 'not run') for way in measured.values())} |" for test, words in SIDE_BY_SIDE.items()]
    return "\n".join(rows)


def _mutants() -> str:
    """How well the tests would notice a change of what must never be wrong."""
    if not MUTANTS.exists():
        return "How many changes of the code its tests notice has not been measured to the end yet: `make mutants`."
    scores = json.loads(MUTANTS.read_text())
    told = "; ".join(f"`{file}` {score['noticed']} of {score['changes']}" for file, score in scores.items())
    return f"Changes of the code, one at a time, that its tests notice (`make mutants`): {told}."


def _words(figures: Any) -> str:
    if isinstance(figures, dict):
        return ", ".join(f"{name.replace('_', ' ')} {_words(value)}" for name, value in figures.items() if value != [])
    if isinstance(figures, list):
        return " / ".join(map(_words, figures)).replace(" / +- / ", " ± ")
    return str(figures)


def _soak() -> str:
    if not SOAK.exists():
        return "The soak has not been run to its end yet: `make soak`."
    figures = json.loads(SOAK.read_text())["figures"]
    return "\n".join(
        [
            f"The soak ran for {figures['seconds'] / 60:.0f} minutes with {figures['visitors']} visitors: {_words(figures)}.",
            "",
            "![Memory, latency, threads and descriptors over the minutes](../bench/results/soak.png)",
        ]
    )


def main() -> int:
    text = rendered()
    if "--check" in sys.argv:
        return int(text != PAGE.read_text())
    PAGE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
