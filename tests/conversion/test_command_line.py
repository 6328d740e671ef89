import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from random import Random

import PIL.Image
import pytest

import conversion.job
import convert
from conversion.fidelity import Limits
from conversion.workspace import RECORD, kept_steps, place_of
from demo.calibration import COUNT
from pipeline.artifacts import BUNDLED, Manifest, obtain, verify
from pipeline.config import SliceConfig
from pipeline.errors import InputError
from pipeline.preprocess import plan

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


def test_a_least_cosine_out_of_reach_is_one_sentence_and_what_is_done_is_kept(golden, tmp_path):
    done = _run(golden / "tiny_model", "--output", tmp_path / "out", "--group-size", 32, "--min-cosine", 0.9999)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("The image encoder in int8 is too far from the checkpoint: its cosine is 0.99")
    assert kept_steps(tmp_path / "out") == ["image encoder"]


def test_both_limits_of_fidelity_reach_the_conversion(handlers, monkeypatch, golden, tmp_path):
    heard = []
    monkeypatch.setattr(conversion.job, "convert", lambda *arguments: heard.append(arguments[-1]))
    assert convert.main([str(golden / "tiny_model"), "--output", str(tmp_path / "out"), "--min-cosine", "0.5", "--max-kl", "1.5"]) == 0
    assert heard == [Limits(min_cosine=0.5, max_kl=1.5)]


@pytest.mark.parametrize("option", [("--group-size", "32"), ("--ratio", "0.8"), ("--asymmetric",)])
def test_options_of_int4_are_refused_for_other_formats(capsys, option):
    with pytest.raises(SystemExit) as caught:
        convert.main(["source", "--output", "out", "--weight-format", "int8", *option])
    assert caught.value.code == 2
    assert "are for int4, not int8" in capsys.readouterr().err


def test_calibration_pictures_come_from_a_folder_or_are_drawn(golden, tmp_path):
    named = convert._pictures(golden / "images")
    assert [picture.size for picture in named[:2]] == [(300, 200), (900, 500)]
    (tmp_path / "many").mkdir()
    for number in range(2 * COUNT + 1):
        PIL.Image.new("RGB", (number + 1, 1)).save(tmp_path / "many" / f"{number:03}.png")
    some = [picture.width for picture in convert._pictures(tmp_path / "many")]
    assert some == list(range(1, 2 * COUNT + 1, 2))
    drawn = convert._pictures(None)
    assert len(drawn) >= 50
    assert {picture.mode for picture in (*named, *drawn)} == {"RGB"}


@pytest.mark.parametrize("size", [(4000, 3000), (1344, 1345), (20000, 100)])
def test_of_calibration_pictures_no_more_is_held_than_the_model_sees(tmp_path, size):
    slices = SliceConfig()
    PIL.Image.new("RGB", size).save(tmp_path / "a.png")
    (picture,) = convert._pictures(tmp_path)
    assert picture.width * picture.height <= slices.max_slice_nums * slices.scale_resolution**2 + max(picture.size)  # sides are whole
    assert plan(picture.size, slices).tgt_sizes == plan(size, slices).tgt_sizes


def test_a_line_for_calibration_stays_one(tmp_path):
    PIL.Image.new("L", (1, 8_000_000)).save(tmp_path / "a.png")
    assert convert._pictures(tmp_path)[0].width == 1


def test_calibration_pictures_that_are_not_too_large_stay_as_they_are(tmp_path):
    picture = PIL.Image.effect_noise((1344, 1344), 50).convert("RGB")
    picture.save(tmp_path / "a.png")
    assert convert._pictures(tmp_path) == [picture]


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


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--output", "out"], "SOURCE and --output are needed, or --push-only"),
        (["source"], "SOURCE and --output are needed, or --push-only"),
        (["source", "--push-only", "out", "--push-to", "a/b"], "--push-only converts nothing"),
        (["--revision", "v1", "--push-only", "out", "--push-to", "a/b"], "--push-only converts nothing"),
        (["--max-kl", "1", "--push-only", "out", "--push-to", "a/b"], "--push-only converts nothing"),
        (["--push-only", "out"], "need --push-to"),
        (["source", "--output", "out", "--private"], "need --push-to"),
        (["source", "--output", "out", "--push-revision", "v1"], "need --push-to"),
    ],
)
def test_options_that_do_not_go_together_are_refused(capsys, arguments, sentence):
    with pytest.raises(SystemExit) as caught:
        convert.main(arguments)
    assert caught.value.code == 2
    assert sentence in capsys.readouterr().err


@pytest.fixture
def handlers():
    """What convert.py does with signals is undone."""
    before = {kind: signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)}
    yield
    for kind, handler in before.items():
        signal.signal(kind, handler)


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_what_is_converted_can_be_pushed_in_one_go(hub, handlers, monkeypatch, golden, tmp_path):
    asked = []
    monkeypatch.setattr(conversion.job, "convert", lambda _, output, *__: asked.extend(hub.log) or shutil.copytree(BUNDLED, output))
    monkeypatch.setenv("HF_TOKEN", "hf_write")
    source, target = (
        [str(golden / "tiny_model"), "--output", str(tmp_path / "out")],
        ["--push-to", "owner/name", "--push-revision", "v1", "--private"],
    )
    assert convert.main([*source, *target]) == 0
    assert [request.path for request in asked] == ["/api/whoami-v2", "/api/models/owner/name/auth-check/write"]
    assert hub.hub.repos["owner/name"].private
    obtained = obtain({"MODEL_REPO": "owner/name", "MODEL_REVISION": "v1"})
    assert {path.name: path.read_bytes() for path in obtained.iterdir()} == {path.name: path.read_bytes() for path in BUNDLED.iterdir()}


def test_a_failed_push_after_a_conversion_says_how_to_send_it_without_another(hub, handlers, monkeypatch, capsys, golden, tmp_path):
    def publish(*_):
        raise InputError("The Hub is away.")

    monkeypatch.setenv("HF_TOKEN", "hf_write")
    monkeypatch.setattr(conversion.job, "convert", lambda *_: None)
    monkeypatch.setattr("conversion.publish.publish", publish)
    output = tmp_path / "out"
    assert convert.main([str(golden / "tiny_model"), "--output", str(output), "--push-to", "owner/name"]) == 2
    assert capsys.readouterr().err == f"The Hub is away. The conversion is complete: --push-only {output} sends it without another.\n"
    assert convert.main(["--push-only", str(BUNDLED), "--push-to", "owner/name"]) == 2
    assert capsys.readouterr().err == "The Hub is away.\n"


def test_an_interrupted_push_says_how_to_go_on(hub, handlers, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_write")
    monkeypatch.setattr("conversion.publish.publish", lambda *_: signal.raise_signal(signal.SIGINT))
    assert convert.main(["--push-only", str(BUNDLED), "--push-to", "owner/name"]) == 130
    assert capsys.readouterr().err.endswith(f"Interrupted: --push-only {BUNDLED} goes on where it was.\n")


#: A conversion during which two models of OpenVINO's go in the order they came, and then the signal comes.
INTERRUPTED = """
import os, signal, sys, time
import numpy as np, openvino as ov
from openvino import opset13 as ops
import conversion.job, convert

def model():
    parameter = ops.parameter([1], np.float32)
    return ov.Core().compile_model(ov.Model([ops.relu(parameter)], [parameter]), "CPU")

def conversion_(*_):
    one, other = model(), model()
    del one
    del other
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)

conversion.job.convert = conversion_
sys.exit(convert.main(sys.argv[1:]))
"""


def test_a_signal_is_heard_though_openvino_took_its_stack_for_signals_away(golden, tmp_path):
    command = [sys.executable, "-c", INTERRUPTED, str(golden / "tiny_model"), "--output", str(tmp_path / "out")]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stderr) == (130, "\nInterrupted: nothing was written.\n")


def test_a_download_that_is_interrupted_ends_at_once_and_leaves_no_unfinished_file(hub, golden, tmp_path):
    source, held, go_on = golden / "tiny_model", threading.Event(), threading.Event()
    hub.hub.publish("owner/name", source, [path.name for path in source.iterdir()])

    def watch(number, moment):
        if moment == "come" and re.search("GET .*/model.safetensors", str(hub.log[number - 1])) and not held.is_set():
            held.set()
            go_on.wait()

    hub.watch = watch
    # Unless it ends before, it asks for the file again after a minute.
    client = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DOWNLOAD_TIMEOUT": "60"}
    command = [sys.executable, "convert.py", "owner/name", "--output", str(tmp_path / "out"), "--group-size", "32"]
    with subprocess.Popen(command, cwd=ROOT, env=os.environ | client, stderr=subprocess.PIPE, text=True) as process:
        while not held.wait(0.1):
            assert process.poll() is None
        assert list((tmp_path / "home").rglob("*.incomplete"))
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate()
    go_on.set()
    assert len(hub.asked("GET .*/model.safetensors")) == 1
    assert (process.returncode, stderr.splitlines()[-1]) == (130, "Interrupted: nothing was written.")
    assert not list((tmp_path / "home").rglob("*.incomplete"))


def test_the_fallback_is_refused_where_nothing_could_fall_back(capsys):
    with pytest.raises(SystemExit) as caught:
        convert.main(["source", "--output", "out", "--ptq-fallback"])
    assert caught.value.code == 2
    assert "--ptq-fallback is for --vision-format int8-ptq" in capsys.readouterr().err


@pytest.mark.parametrize(("kind", "awaited"), [(signal.SIGINT, "model"), (signal.SIGTERM, RECORD)])
def test_an_interrupted_run_says_what_it_keeps_and_the_same_command_goes_on(golden, tmp_path, fp32_folder, kind, awaited):
    output = tmp_path / "out"
    command = [sys.executable, "convert.py", str(golden / "tiny_model"), "--output", str(output), "--weight-format", "fp32"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        while not (place_of(output) / awaited).exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(kind)
        _, stderr = process.communicate()
    assert process.returncode == 130
    kept = kept_steps(output)
    said = f"kept for the next run of the same command: {', '.join(kept)}" if kept else "nothing was written"
    assert stderr.splitlines()[-1] == f"Interrupted: {said}."
    assert len(kept) >= (awaited == RECORD)
    assert place_of(output).exists() == bool(kept)
    assert not output.exists()
    done = _run(golden / "tiny_model", "--output", output, "--weight-format", "fp32")
    assert done.returncode == 0
    assert (f"Done by an earlier run, and whole: {', '.join(kept)}." in done.stderr) == bool(kept)
    assert Manifest.read(output) == Manifest.read(fp32_folder)


@pytest.mark.timeout(900)  # a dozen runs of the command
def test_killed_at_ten_random_moments_it_always_goes_on_to_the_same_bytes(golden, tmp_path, fp32_folder):
    output, random, kills = tmp_path / "out", Random(5), 0
    command = [sys.executable, "convert.py", str(golden / "tiny_model"), "--output", str(output), "--weight-format", "fp32"]
    begun = time.perf_counter()
    subprocess.run(command, check=True, cwd=ROOT, stderr=subprocess.DEVNULL)
    seconds = time.perf_counter() - begun
    shutil.rmtree(output)
    while kills < 10:
        with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE) as process:
            try:
                process.communicate(timeout=random.uniform(0, seconds))
            except subprocess.TimeoutExpired:
                process.kill()
        if process.returncode == 0:  # it was quicker, and there is nothing to go on from
            assert Manifest.read(output) == Manifest.read(fp32_folder)
            shutil.rmtree(output)
        else:
            assert process.returncode == -signal.SIGKILL
            kills += 1
            if output.exists():  # killed at its very end
                verify(output)
    assert _run(golden / "tiny_model", "--output", output, "--weight-format", "fp32").returncode == 0
    assert Manifest.read(output) == Manifest.read(fp32_folder)
    verify(output)
    assert list(tmp_path.iterdir()) == [output]
