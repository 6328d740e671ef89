"""Results of the benchmarks -> the figures in the README and the demo model's card, between their markers; --check: are they up to date?"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.speed_table import table as speed_table
from conversion.fidelity import table as fidelity_table
from demo.evaluate import formats_table, table

ROOT = Path(__file__).resolve().parent.parent
README, CARD, OPERATE, SPEED = (ROOT / name for name in ("README.md", "demo/model/README.md", "docs/operate.md", "docs/speed.md"))
RESULTS = ROOT / "bench" / "results"
START, END = "<!-- figures: made by `make bench` -->", "<!-- end of figures -->"


def rendered() -> dict[Path, str]:
    """Each document with the figures of the stored results."""
    names = ("startup", "accuracy", "full_size", "engine_full_size")
    startup, accuracy, full_size, speed = (json.loads((RESULTS / f"{name}.json").read_text()) for name in names)
    figures = {
        README: f"{_summary(startup, accuracy)}\n\n{_compared(speed)}",
        CARD: _measured(accuracy),
        OPERATE: _expected(full_size),
        SPEED: "\n".join([f"{_conditions(speed)}:", "", *speed_table(speed["contenders"])]),
    }
    return {document: _between_markers(document, text) for document, text in figures.items()}


def _summary(startup: dict[str, Any], accuracy: dict[str, Any]) -> str:
    kinds = ", ".join(f"{share:.1%} about {kind}" for kind, share in accuracy["kinds"].items())
    controls, starts = accuracy["controls"], startup["starts"]
    lines = [
        f"From process start to a ready page with the bundled model: **{startup['median_s']} s** (median of {starts} starts on two CPU cores).",
        "",
        f"Of {accuracy['questions']} questions about drawn scenes that its training never saw, the bundled INT4 model answers "
        f"**{accuracy['overall']:.1%}** exactly right ({kinds}); with the pictures blanked {controls['blanked']:.1%}, with them swapped "
        f"{controls['swapped']:.1%}, where guessing gets {controls['chance']:.1%}. The same questions over every format of the same weights, and of "
        f"{accuracy['formats']['fp32']['compared']} of them how often each says what the checkpoint itself says in float32, and how far the "
        "probabilities of the first token are from its:",
        "",
        *formats_table(accuracy["formats"]),
    ]
    return "\n".join(lines)


def _measured(accuracy: dict[str, Any]) -> str:
    return f"{accuracy['questions']} questions, greedy decoding, INT4:\n\n{table(accuracy)}"


def _conditions(speed: dict[str, Any]) -> str:
    return f"{speed['layers']} layers, {speed['cores']} cores, prompts of {speed['prompt_tokens']} tokens, median of {speed['runs']} runs"


def _compared(speed: dict[str, Any]) -> str:
    """Of what is told about others, the best of them."""
    ours, *others = (speed["contenders"][name] for name in ("paged", "genai", "genai batching"))

    def best(name: str, of: Callable[[list[float]], float]) -> str:
        return f"{ours[name]:.3g} ({of([other[name] for other in others if name in other]):.3g})"

    return (
        f"Speed in the real model's geometry, {speed['layers']} of its 28 layers, in brackets the better of `openvino_genai`'s two pipelines (one of "
        "them for the follow-up): seconds to read a long prompt "
        f"{best('prefill_s_1', min)} for one user and {best('prefill_s_4', min)} for four, tokens a second {best('tokens_per_s_1', max)} "
        f"for one user and {best('tokens_per_s_4', max)} for four, seconds to the first word about a picture {best('first_s', min)} and of a "
        f"follow-up {best('follow_up_s', min)} ({_conditions(speed)}; [all figures](docs/speed.md))."
    )


def _expected(result: dict[str, Any]) -> str:
    """Time and memory of each step at the real size."""
    steps = result["steps"]
    serving = steps["serving"]
    start, picture, context = serving["start"], serving["picture"], serving["context"]
    rows = [
        ("convert.py", steps["conversion"]["wall_s"], steps["conversion"]),
        ("push to a Hub on the same machine", steps["push"]["wall_s"], steps["push"]),
        ("start: pull from that Hub, check, load, warm up", serving["ready_s"], start),
        ("first words about a new picture of 1344x1344, cut into nine", picture["first_words_s"], None),
        (f"first words about it beside a question of {context['tokens']:,} tokens in all", context["first_words_s"], None),
        ("from word to word", picture["s_a_word"], None),
        ("serving all of that", None, serving),
    ]
    sizes = ", ".join(f"{name.removeprefix('openvino_').removesuffix('.bin')} {size / 1e6:,.0f}" for name, size in result["bytes"].items())
    return "\n".join(
        [
            f"One run on {result['cores']} cores, within {result['limit']}. The weights are random and of the real geometry ({result['layers']} "
            f"layers, {result['vision_layers']} in the image encoder): neither time nor memory depends on what they are. Files "
            "go to the Hub and come from it over plain HTTP here; with the real one it is Xet.",
            "",
            "| step | seconds | anonymous memory at most, GiB | with mapped files, GiB |",
            "|---|---|---|---|",
            *(f"| {name} | {'' if seconds is None else f'{seconds:,}'} | {_peaks(peaks)} |" for name, seconds, peaks in rows),
            "",
            f"Megabytes on disk: {sizes}.",
            "",
            "Each part beside the checkpoint on the same inputs (random weights are the hardest to round by cosine and error; trained ones, which "
            "are surer of their words, diverge by more nats):",
            "",
            *fidelity_table(result["fidelity"]),
        ]
    )


def _peaks(peaks: dict[str, float] | None) -> str:
    return f"{peaks['peak_anonymous_gib']} | {peaks['peak_resident_gib']}" if peaks else " | "


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
