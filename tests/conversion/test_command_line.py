import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import convert
from pipeline.artifacts import verify

ROOT = Path(convert.__file__).parent


def _run(*arguments):
    command = [sys.executable, "convert.py", *map(str, arguments)]
    return subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_a_checkpoint_is_converted_with_its_progress_on_standard_error(golden, tmp_path):
    done = _run(golden / "tiny_model", "--output", tmp_path / "out", "--group-size", 32)
    assert done.returncode == 0
    assert done.stdout == ""
    for label in ("image encoder", "resampler", "token embedding", "language model", "tokenizer", "manifest"):
        assert label in done.stderr
    assert "Warning" not in done.stderr
    verify(tmp_path / "out")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("GOLDEN", "--output", "OUT"), "32 would do."),
        (("/no/such/folder", "--output", "OUT"), "neither a folder nor a Hub id"),
        (("GOLDEN", "--output", "GOLDEN", "--group-size", "32"), "holds no earlier conversion"),
    ],
)
def test_a_users_error_is_one_sentence_and_status_2(golden, tmp_path, arguments, sentence):
    places = {"GOLDEN": golden / "tiny_model", "OUT": tmp_path / "out"}
    done = _run(*(places.get(argument, argument) for argument in arguments))
    assert done.returncode == 2
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", [("--group-size", "32"), ("--ratio", "0.8"), ("--asymmetric",)])
def test_options_of_int4_are_refused_for_other_formats(capsys, option):
    with pytest.raises(SystemExit) as caught:
        convert.main(["source", "--output", "out", "--weight-format", "int8", *option])
    assert caught.value.code == 2
    assert "are for int4, not int8" in capsys.readouterr().err


def test_calibration_pictures_come_from_a_folder_or_are_drawn(golden, tmp_path):
    named = convert._pictures(golden / "images")
    assert [picture.size for picture in named[:2]] == [(300, 200), (900, 500)]
    drawn = convert._pictures(None)
    assert len(drawn) >= 50
    assert {picture.mode for picture in (*named, *drawn)} == {"RGB"}


@pytest.mark.parametrize(("folder", "sentence"), [("missing", "is not a folder of pictures."), ("broken", "is not a picture in a known format")])
def test_calibration_pictures_that_cannot_be_read_are_one_sentence(golden, tmp_path, folder, sentence):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"no picture")
    chosen = ("--group-size", 32, "--vision-format", "int8-ptq", "--calibration", tmp_path / folder)
    done = _run(golden / "tiny_model", "--output", tmp_path / "out", *chosen)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1


def test_calibration_pictures_are_refused_where_nothing_is_calibrated(capsys):
    with pytest.raises(SystemExit) as caught:
        convert.main(["source", "--output", "out", "--calibration", "pictures"])
    assert caught.value.code == 2
    assert "--calibration is for --vision-format int8-ptq" in capsys.readouterr().err


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing(golden, tmp_path, kind):
    command = [sys.executable, "convert.py", str(golden / "tiny_model"), "--output", str(tmp_path / "out"), "--weight-format", "fp32"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        while not list(tmp_path.iterdir()):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(kind)
        _, stderr = process.communicate()
    assert process.returncode == 130
    assert stderr.endswith("Interrupted: nothing was written.\n")
    assert list(tmp_path.iterdir()) == []
