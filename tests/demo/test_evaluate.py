"""The evaluator: it counts what is right, its last line is JSON, and the formats it makes are held against the checkpoint itself."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from demo.evaluate import FORMATS, compare, evaluate, main
from demo.exam import drawn
from demo.reference import Reference, agreement, first_logits
from pipeline.artifacts import BUNDLED

ROOT = Path(__file__).parent.parent.parent


def test_it_counts_right_answers_by_skill_kind_and_language(monkeypatch: pytest.MonkeyPatch) -> None:
    questions = drawn(60, 5)
    known = {id(question): question.answer for question in questions}
    monkeypatch.setattr("demo.evaluate.Assistant", _Nobody)
    monkeypatch.setattr("demo.evaluate.answers", lambda _, asked, *__: [known.get(id(question), "?") for question in asked])
    report = evaluate(BUNDLED, questions, 0)
    assert report["overall"] == 1.0
    assert set(report["skills"].values()) == set(report["kinds"].values()) == set(report["languages"].values()) == {1.0}
    assert set(report["kinds"]) == {"one picture", "several pictures", "video"}
    assert (report["controls"]["blanked"], report["controls"]["swapped"]) == (0.0, 0.0)
    assert 0 < report["controls"]["chance"] < 0.4
    assert report["small_print_without_slices"] == 1.0  # the same questions, asked with another option
    wrong = next(question for question in questions if question.skill == "video")
    known[id(wrong)] = "No idea."
    assert evaluate(BUNDLED, questions, 0)["overall"] == pytest.approx(59 / 60, abs=1e-4)
    assert evaluate(BUNDLED, questions, 0)["kinds"]["several pictures"] == 1.0


class _Nobody:
    def __init__(self, _: Path) -> None: ...

    def __enter__(self) -> "_Nobody":
        return self

    def __exit__(self, *_: object) -> None: ...


def test_the_script_prints_a_table_and_one_line_of_json_last() -> None:
    command = [sys.executable, "demo/evaluate.py", str(BUNDLED), "--questions", "15", "--seed", "2"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=True)
    report = json.loads(result.stdout.splitlines()[-1])
    assert report["questions"] == 15
    assert 0 <= report["overall"] <= 1
    assert "| **overall** |" in result.stdout


def test_a_folder_that_is_no_model_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--questions", "1"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_reference_says_what_the_uncompressed_conversion_says(golden: Path, fp32_folder: Path) -> None:
    questions, reference = drawn(15, 7)[:6], Reference(golden / "tiny_model")
    expected = [reference.answer(question, 12) for question in questions]
    logits = first_logits(fp32_folder, questions)
    for (first, _), found in zip(expected, logits, strict=True):
        np.testing.assert_allclose(found, first, atol=1e-3)
    same = agreement(expected, logits, [text for _, text in expected])
    assert (same.first_token, same.exact_answer) == (1.0, 1.0)
    assert same.kl < 1e-5
    other = agreement(expected, logits[::-1], ["?"] * len(expected))
    assert other.exact_answer == 0.0
    assert other.kl > same.kl


def test_every_format_is_measured_against_the_checkpoint() -> None:
    report = compare(BUNDLED.parent / "checkpoint", drawn(15, 1), 5)
    assert list(report) == list(FORMATS)
    sizes = [row["megabytes"] for row in report.values()]
    assert sizes[0] > sizes[1] > sizes[2] > sizes[3]
    assert report["int4"]["megabytes"] <= 6
    assert report["fp32"]["first_token"] == 1.0
    assert report["fp32"]["kl"] < report["int4"]["kl"]
