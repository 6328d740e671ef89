"""The command line from outside: what it prints, where, and how it ends."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gradio
import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
ASSETS = Path(gradio.__file__).parent / "media_assets"
TEXTS = json.loads((ROOT / "tests" / "golden" / "tiny_texts.json").read_text())


def run(*arguments: object, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline", *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", env={**os.environ, **environ}, check=False, timeout=120
    )


def printed(*arguments: object, **environ: str) -> tuple[str, dict[str, Any]]:
    """What came before the JSON document on the last line, and that document."""
    result = run(*arguments, **environ)
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.rstrip("\n").rpartition("\n")
    return lines[0], json.loads(lines[2])


def question(golden: Path, case: str) -> list[object]:
    image, text = TEXTS[case]["msgs"][0]["content"]
    return ["--image", golden / "images" / f"{image['image']}.png", "--text", text["text"]]


@pytest.mark.parametrize("case", ["single0", "single1", "single2"])
def test_ask_prints_the_golden_greedy_and_beam_texts(fp32_folder: Path, golden: Path, case: str) -> None:
    common = ["ask", "--model", fp32_folder, *question(golden, case), "--max-new-tokens", 24]
    greedy, beams = run(*common, "--greedy"), run(*common, "--beams", 3)
    assert greedy.stdout.strip() == TEXTS[case]["greedy_decode"][0].strip()
    assert beams.stdout.strip() == TEXTS[case]["chat_beam_text"]
    assert greedy.stderr == beams.stderr == ""


def test_ask_ends_with_one_json_document(fp32_folder: Path, golden: Path) -> None:
    text, document = printed("ask", "--model", fp32_folder, *question(golden, "single1"), "--greedy", "--max-new-tokens", 24, "--json")
    data = np.load(golden / "tiny_single1.npz")
    assert text.strip() == document["text"] == TEXTS["single1"]["greedy_decode"][0].strip()
    assert document["token_ids"] == data["greedy_ids"][0].tolist()
    assert (document["finish_reason"], document["prompt_tokens"], document["image_tokens"], document["cached_tokens"]) == ("length", 108, 48, 0)
    assert set(document["timings"]) == {"load_s", "vision_s", "ttft_s", "decode_tps"}
    assert 0 < document["timings"]["vision_s"] <= document["timings"]["ttft_s"]
    assert document["peak_rss_mib"] > 50


def test_ask_says_beside_the_answer_what_of_an_animation_the_model_was_shown(fp32_folder: Path) -> None:
    result = run("ask", "--model", fp32_folder, "--image", ASSETS / "images" / "screenshot.gif", "--text", "?", "--greedy", "--max-new-tokens", 2)
    assert (result.returncode, result.stderr) == (0, "Picture 1 has several frames or pages; only the first is shown to the model.\n")
    assert result.stdout.strip()


@pytest.mark.parametrize("case", ["single0", "single1", "single2"])
def test_explain_prints_the_golden_ids_bounds_and_sizes(golden: Path, case: str) -> None:
    data = np.load(golden / f"tiny_{case}.npz")
    _, document = printed("explain", "--model", golden / "tiny_model", *question(golden, case), "--json")
    assert document["prompt"] == TEXTS[case]["prompt"]
    assert document["input_ids"] == data["input_ids"][0].tolist()
    assert document["image_bound"] == data["image_bound_cat"].tolist()
    assert [size for picture in document["pictures"] for size in picture["tgt_sizes"]] == data["tgt_sizes_cat"].tolist()
    assert (document["prompt_tokens"], document["image_tokens"]) == (len(document["input_ids"]), 16 * len(document["image_bound"]))


def test_explain_needs_the_json_files_only_and_shows_grids(golden: Path, tmp_path: Path) -> None:
    for name in ("config.json", "preprocessor_config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((golden / "tiny_model" / name).read_bytes())
    image = ["--image", golden / "images" / "b_900x500.png"]
    _, document = printed("explain", "--model", tmp_path, *image, *image, "--max-slices", 4, "--text", "Compare.", "--json")
    picture = {
        "size": [900, 500],
        "grid": [2, 1],
        "overview_size": [602, 336],
        "refined_size": [840, 476],
        "tgt_sizes": [[24, 43], [34, 30], [34, 30]],
        "tokens": 48,
        "frame_time_s": None,
    }
    assert document["pictures"] == [picture, picture]


def test_explain_shows_when_each_frame_of_a_video_is(golden: Path) -> None:
    _, document = printed("explain", "--model", golden / "tiny_model", "--video", ASSETS / "videos" / "world.mp4", "--text", "What?", "--json")
    assert [picture["frame_time_s"] for picture in document["pictures"]] == list(range(31))
    assert "<image_id>" not in document["prompt"]


def test_a_history_is_the_turns_before(golden: Path, tmp_path: Path) -> None:
    image = str(golden / "images" / "c_448x448.png")
    turns = [{"role": "user", "content": [{"image": image}, {"text": "What?"}]}, {"role": "assistant", "content": [{"text": "A field."}]}]
    (tmp_path / "history.json").write_text(json.dumps(turns))
    model = ["--model", golden / "tiny_model", "--history", tmp_path / "history.json", "--system", "Be brief."]
    _, document = printed("explain", *model, "--text", "Why?", "--json")
    expected = "".join(
        [
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n<image_id>0</image_id><image>",
            "<unk>" * 16,
            "</image>\nWhat?<|im_end|>\n<|im_start|>assistant\nA field.<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n",
        ]
    )
    assert document["prompt"] == expected


@pytest.mark.parametrize("path", [ASSETS / "images" / "lion.jpg", ASSETS / "videos" / "b.mp4"], ids=["photograph", "video"])
def test_a_photograph_and_a_video_are_answered_by_the_bundled_model(path: Path) -> None:
    kind = "--video" if path.suffix == ".mp4" else "--image"
    _, document = printed("ask", kind, path, "--text", "What is this?", "--seed", 1, "--max-new-tokens", 8, "--json")
    assert document["finish_reason"] in ("length", "stop")
    assert document["token_ids"]
    assert document["image_tokens"] > 0


def test_the_same_seed_gives_the_same_answer(golden: Path, fp32_folder: Path) -> None:
    # The golden model is never sure of anything.
    common = ["ask", "--model", fp32_folder, *question(golden, "single0"), "--max-new-tokens", 12]
    one, same, other = (run(*common, "--seed", seed).stdout for seed in (1, 1, 2))
    assert one == same != other


@pytest.mark.parametrize(
    ("arguments", "environ", "sentence"),
    [
        (["--image", "nowhere.png", "--text", "?"], {}, "Picture 1 is missing: there is no such file, or it was deleted meanwhile."),
        ([], {}, "The conversation is empty."),
        (["--text", "a", "--beams", "99"], {}, "num_beams is 99; it must be from 1 to 16."),
        (["--text", "a", "--history", "nowhere.json"], {}, "The history nowhere.json cannot be read: No such file or directory."),
        (["--text", "a", "--model", "nowhere"], {}, "The model folder nowhere does not exist."),
        (["--text", "a"], {"DEVICE": "NPU"}, "DEVICE=NPU cannot run this model"),
        (["--text", "a"], {"MODEL_DIR": "nowhere"}, "The model folder nowhere does not exist."),
    ],
)
def test_a_user_s_error_is_one_sentence_and_status_two(arguments: list[str], environ: dict[str, str], sentence: str) -> None:
    result = run("ask", *arguments, **environ)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(sentence)
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "content",
    ["{", "{}", "[1]", '[{"role": "user"}]', '[{"role": "user", "content": [{"sound": "a"}]}]', '[{"role": "user", "content": [{"text": 1}]}]'],
)
def test_a_history_of_another_form_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "history.json").write_text(content)
    result = run("explain", "--history", tmp_path / "history.json", "--text", "a", "--json")
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
