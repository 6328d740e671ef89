import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conversion import workspace as room
from conversion.workspace import RECORD, kept_steps, place_of, workspace
from pipeline.artifacts import MANIFEST, File, Manifest
from pipeline.errors import InputError

IDENTITY = {"recipe": {"bits": 4}, "source": "a"}
ROOT = Path(room.__file__).parent.parent


@pytest.fixture
def earlier(output):
    output.mkdir(parents=True)
    _finish(output, "old")
    return output


@pytest.fixture
def made():
    """The labels of the steps that were done, in order."""
    return []


def _finish(folder, content):
    (folder / "model.bin").write_text(content)
    Manifest("source", None, {}, {}, {"model.bin": File.of(folder / "model.bin")}).write(folder)


def _step(made, label, fault=None):
    def make(folder):
        (folder / f"{label}.bin").write_text(f"content of {label}")
        made.append(label)
        if fault is not None:
            raise fault
        return {"label": label}

    return make


def _work(output, made, *labels, fault=None, identity=IDENTITY):
    """Do these steps, the last of them with a fault, and finish."""
    with workspace(output, identity) as work:
        results = [work.once(label, _step(made, label, fault if label == labels[-1] else None)) for label in labels]
        _finish(work.folder, "new")
    return results


def _everything(tmp_path):
    return sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))


def test_a_folder_appears_when_everything_is_in_it(tmp_path, output):
    with workspace(output, IDENTITY) as work:
        _finish(work.folder, "new")
        assert not output.exists()
    assert _everything(tmp_path) == ["models", "models/out", "models/out/manifest.json", "models/out/model.bin"]


@pytest.mark.parametrize("fault", [KeyboardInterrupt, RuntimeError, SystemExit])
def test_nothing_is_left_of_a_run_in_which_no_step_was_done(tmp_path, output, made, fault):
    with pytest.raises(fault):
        _work(output, made, "a", fault=fault)
    assert _everything(tmp_path) == ["models"]
    assert kept_steps(output) == []


@pytest.mark.parametrize("fault", [KeyboardInterrupt, RuntimeError])
def test_steps_that_are_done_are_not_done_again(tmp_path, output, made, fault):
    with pytest.raises(fault):
        _work(output, made, "a", "b", "c", fault=fault)
    assert kept_steps(output) == ["a", "b"]
    assert not output.exists()
    assert _work(output, made, "a", "b", "c") == [{"label": "a"}, {"label": "b"}, {"label": "c"}]
    assert made == ["a", "b", "c", "c"]
    assert [name for name in _everything(tmp_path) if "bin" in name] == [f"models/out/{name}.bin" for name in ("a", "b", "c", "model")]
    assert not place_of(output).exists()


@pytest.mark.parametrize(
    "damage",
    [lambda path: path.unlink(), lambda path: path.write_text("content of"), lambda path: path.write_text("CONTENT of a")],
    ids=["missing", "cut", "changed"],
)
def test_a_step_whose_files_are_not_as_it_left_them_is_done_again(output, made, damage):
    with pytest.raises(KeyboardInterrupt):
        _work(output, made, "a", "b", "c", fault=KeyboardInterrupt)
    damage(place_of(output) / "model" / "a.bin")
    _work(output, made, "a", "b", "c")
    assert made == ["a", "b", "c", "a", "c"]
    assert (output / "a.bin").read_text() == "content of a"


def test_half_a_file_of_a_killed_step_is_no_part_of_the_folder(output, made):
    with pytest.raises(KeyboardInterrupt):
        _work(output, made, "a", "b", fault=KeyboardInterrupt)
    (place_of(output) / "model" / "stray.bin").write_text("half")
    _work(output, made, "a")
    assert not (output / "stray.bin").exists()
    assert not (output / "b.bin").exists()


def test_nothing_of_another_conversion_is_mixed_in_and_what_differs_is_said(output, made, caplog):
    with pytest.raises(KeyboardInterrupt):
        _work(output, made, "a", "b", fault=KeyboardInterrupt)
    with caplog.at_level(logging.WARNING):
        _work(output, made, "b", identity=IDENTITY | {"recipe": {"bits": 8}})
    assert made == ["a", "b", "b"]
    assert not (output / "a.bin").exists()
    assert "begun anew; what is not as it was: recipe." in caplog.text


@pytest.mark.parametrize("content", ["", "{", '{"identity"'])
def test_a_record_that_a_fallen_machine_left_empty_means_that_nothing_is_done(output, made, content):
    with pytest.raises(KeyboardInterrupt):
        _work(output, made, "a", "b", fault=KeyboardInterrupt)
    (place_of(output) / RECORD).write_text(content)
    assert kept_steps(output) == []
    _work(output, made, "a")
    assert made == ["a", "b", "a"]


def test_the_record_names_the_steps_their_files_and_what_they_are_for(output, made):
    with pytest.raises(KeyboardInterrupt):
        _work(output, made, "a", "b", fault=KeyboardInterrupt)
    record = json.loads((place_of(output) / RECORD).read_text())
    assert record["identity"] == IDENTITY
    assert record["steps"]["a"]["files"].keys() == {"a.bin"}


def test_an_earlier_conversion_is_replaced(tmp_path, earlier):
    with workspace(earlier, IDENTITY) as work:
        _finish(work.folder, "new")
        assert (earlier / "model.bin").read_text() == "old"
    assert (earlier / "model.bin").read_text() == "new"
    assert _everything(tmp_path) == ["models", "models/out", "models/out/manifest.json", "models/out/model.bin"]


def test_an_earlier_conversion_survives_an_interrupted_run(earlier, made):
    with pytest.raises(KeyboardInterrupt):
        _work(earlier, made, "a", "b", fault=KeyboardInterrupt)
    assert (earlier / "model.bin").read_text() == "old"


def test_an_earlier_conversion_survives_a_rename_that_fails(monkeypatch, tmp_path, earlier):
    rename = Path.replace

    def failing(self, target):
        if self.name == "model":
            raise OSError("no")
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises(OSError, match="no"), workspace(earlier, IDENTITY) as work:
        _finish(work.folder, "new")
    assert (earlier / "model.bin").read_text() == "old"
    assert _everything(tmp_path) == ["models", "models/out", "models/out/manifest.json", "models/out/model.bin"]


@pytest.mark.parametrize("moved", [False, True], ids=["before the new one is in its place", "after"])
def test_a_run_killed_while_it_replaces_an_earlier_conversion_loses_neither(tmp_path, earlier, made, moved):
    aside = earlier.with_name(".out.earlier")
    earlier.replace(aside)
    if moved:
        shutil.copytree(aside, earlier)
        (earlier / "model.bin").write_text("newer")
    with pytest.raises(KeyboardInterrupt):
        _work(earlier, made, "a", fault=KeyboardInterrupt)
    assert (earlier / "model.bin").read_text() == ("newer" if moved else "old")
    assert not aside.exists()


def test_an_empty_folder_is_filled(output):
    output.mkdir(parents=True)
    with workspace(output, IDENTITY) as work:
        _finish(work.folder, "new")
    assert (output / MANIFEST).is_file()


def test_the_target_of_a_link_is_filled(tmp_path, earlier):
    link = tmp_path / "link"
    link.symlink_to(earlier)
    with workspace(link, IDENTITY) as work:
        _finish(work.folder, "new")
    assert link.is_symlink()
    assert (earlier / "model.bin").read_text() == "new"


def test_two_processes_do_not_write_to_one_output(output, made):
    code = "import sys; from pathlib import Path; from conversion.workspace import workspace\nwith workspace(Path(sys.argv[1]), {}): pass"
    with workspace(output, IDENTITY) as work:
        other = subprocess.run([sys.executable, "-c", code, str(output)], cwd=ROOT, capture_output=True, text=True, check=False)
        work.once("a", _step(made, "a"))
        _finish(work.folder, "new")
    assert f"InputError: Another process is converting to {output}." in other.stderr
    assert (output / "a.bin").is_file()


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be made: Not a directory"), workspace(tmp_path / "file" / "out", IDENTITY):
        pass
