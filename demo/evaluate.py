"""A model folder -> how many of its answers about pictures are right, skill by skill, beside controls; the last line is one of JSON.

python demo/evaluate.py MODEL_FOLDER [--questions N] [--seed S]
python demo/evaluate.py MODEL_FOLDER --source CHECKPOINT          every format of it, each against the checkpoint itself
python demo/evaluate.py MODEL_FOLDER --pictures FOLDER            pictures and questions of one's own, for a real model

`questions.json` in that folder is a list of {"question", "answer", and "images" (file names) or "video", and maybe "skill"}; an answer counts if it
is the one that is stored, to the letter.
"""

import argparse
import asyncio
import dataclasses
import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from demo.exam import Question, blanked, chance, drawn, stored, swapped
from pipeline.assistant import Assistant
from pipeline.config import GenerationConfig
from pipeline.errors import PipelineError
from pipeline.processor import Options

MAX_NEW_TOKENS = 64
KINDS = {"multi": "several pictures", "video": "video"}  # of skills; all others are about one picture
FORMATS = {
    "fp32": ("fp32", None),
    "fp16": ("fp16", None),
    "int8": ("int8", None),
    "int4": ("int4", None),
    "int4, int8-ptq vision": ("int4", "int8-ptq"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        questions = stored(options.pictures) if options.pictures else drawn(options.questions, options.seed)
        if not questions:
            raise PipelineError("There are no questions.")
        report = evaluate(options.folder, questions, options.seed)
        if options.source:
            report["formats"] = compare(options.source, questions, options.compared)
    except PipelineError as error:
        print(error, file=sys.stderr)
        return 2
    print(table(report))
    print(json.dumps(report, ensure_ascii=False))
    return 0


def evaluate(folder: Path, questions: Sequence[Question], seed: int) -> dict[str, Any]:
    """Accuracies from 0 to 1, with the controls: pictures blanked, pictures swapped, and small print without slices."""
    controls = {"blanked": blanked(questions), "swapped": swapped(questions, seed)}
    small = [question for question in questions if question.skill == "small_print"]
    with Assistant(folder) as assistant:
        right = _right(questions, answers(assistant, questions))
        report = {"questions": len(questions), "seed": seed, **_accuracies(questions, right)}
        report["controls"] = {
            name: _accuracies(control, _right(control, answers(assistant, control)))["overall"] for name, control in controls.items() if control
        }
        report["controls"]["chance"] = round(chance(questions), 4)
        if small:
            unsliced = _right(small, answers(assistant, small, Options(max_slice_nums=1)))
            report["small_print_without_slices"] = round(sum(unsliced) / len(small), 4)
    return report


def compare(source: Path, questions: Sequence[Question], compared: int) -> dict[str, dict[str, Any]]:
    """Convert a checkpoint to each format, and measure each: accuracy on all questions, agreement on `compared` of them. Takes torch and NNCF."""
    from conversion.checkpoint import Source
    from conversion.compress import Recipe
    from conversion.job import convert
    from demo.calibration import pictures
    from demo.reference import Reference, agreement, first_logits

    reference = Reference(source)
    count = min(compared, len(questions))
    some = [questions[index * len(questions) // count] for index in range(count)]
    expected = [reference.answer(question, MAX_NEW_TOKENS) for question in some]
    report = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, (weight_format, vision_format) in FORMATS.items():
            folder = Path(scratch) / name.replace(" ", "_").replace(",", "")
            convert(Source.locate(str(source)), folder, Recipe(weight_format, vision_format=vision_format), pictures() if vision_format else ())
            with Assistant(folder) as assistant:
                given = answers(assistant, questions)
            same = {id(question): answer for question, answer in zip(questions, given, strict=True)}
            near = agreement(expected, first_logits(folder, some), [same[id(question)] for question in some])
            accuracies = _accuracies(questions, _right(questions, given))
            size = sum(path.stat().st_size for path in folder.iterdir())
            report[name] = {
                **accuracies,
                **{key: round(value, 5) for key, value in dataclasses.asdict(near).items()},
                "compared": count,
                "megabytes": round(size / 1e6, 1),
            }
    return report


def answers(assistant: Assistant, questions: Sequence[Question], options: Options | None = None) -> list[str]:
    """Greedy answers, one after the other."""
    generation = GenerationConfig(do_sample=False, repetition_penalty=1.0, max_new_tokens=MAX_NEW_TOKENS)

    async def all_of_them() -> list[str]:
        return [(await assistant.answer(question.messages, generation, options)).text for question in questions]

    return asyncio.run(all_of_them())


def _right(questions: Sequence[Question], given: Sequence[str]) -> list[bool]:
    return [answer.strip() == question.answer for question, answer in zip(questions, given, strict=True)]


def _accuracies(questions: Sequence[Question], right: Sequence[bool]) -> dict[str, Any]:
    groups: dict[str, dict[str, list[bool]]] = {"skills": defaultdict(list), "kinds": defaultdict(list), "languages": defaultdict(list)}
    for question, truth in zip(questions, right, strict=True):
        groups["skills"][question.skill].append(truth)
        groups["kinds"][KINDS.get(question.skill, "one picture")].append(truth)
        if question.language:
            groups["languages"][question.language].append(truth)
    shares = {name: {key: round(sum(truths) / len(truths), 4) for key, truths in group.items()} for name, group in groups.items()}
    return {"overall": round(sum(right) / len(right), 4), **shares}


def table(report: dict[str, Any]) -> str:
    """Markdown."""
    lines = ["| skill | right |", "|---|---|"]
    lines += [f"| {name} | {share:.1%} |" for name, share in {**report["skills"], **report["kinds"], **report["languages"]}.items()]
    lines += [f"| **overall** | **{report['overall']:.1%}** |"]
    lines += [f"| control: {name} | {share:.1%} |" for name, share in report["controls"].items()]
    if "small_print_without_slices" in report:
        lines.append(f"| small_print without slices | {report['small_print_without_slices']:.1%} |")
    if "formats" in report:
        lines += ["", *formats_table(report["formats"])]
    return "\n".join(lines)


def formats_table(formats: dict[str, dict[str, Any]]) -> list[str]:
    """The last three columns are of `compared` of the questions, and the divergence is that of the first token."""
    lines = ["| weights | MB | right | same first token | same answer | KL, nats |", "|---|---|---|---|---|---|"]
    for name, row in formats.items():
        lines.append(
            f"| {name} | {row['megabytes']} | {row['overall']:.1%} | {row['first_token']:.1%} | {row['exact_answer']:.1%} | {row['kl']:.4f} |"
        )
    return lines


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="MODEL_FOLDER", type=Path, help="a converted folder")
    parser.add_argument("--questions", metavar="N", type=int, default=2000, help="of drawn scenes, as many of each skill (default: 2000)")
    parser.add_argument("--seed", metavar="S", type=int, default=0, help="of the drawn scenes")
    parser.add_argument("--source", metavar="CHECKPOINT", type=Path, help="compare all formats of this checkpoint with it")
    parser.add_argument("--compared", metavar="N", type=int, default=300, help="questions that the checkpoint itself is asked (default: 300)")
    parser.add_argument("--pictures", metavar="FOLDER", type=Path, help="ask what questions.json in it says instead of drawn scenes")
    return parser


if __name__ == "__main__":
    sys.exit(main())
