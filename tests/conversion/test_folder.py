import shutil
from pathlib import Path

import pytest

from conversion import folder as room
from conversion.folder import check_output, check_space, finished_or_nothing
from pipeline.artifacts import MANIFEST, File, Manifest
from pipeline.errors import InputError


def _fill(folder, content="new"):
    (folder / "model.bin").write_text(content)
    Manifest("source", None, {}, {}, {"model.bin": File.of(folder / "model.bin")}).write(folder)


def _interrupted(output, fault):
    with finished_or_nothing(output) as folder:
        _fill(folder)
        raise fault


@pytest.fixture
def output(tmp_path):
    return tmp_path / "models" / "out"


@pytest.fixture
def earlier(output):
    output.mkdir(parents=True)
    _fill(output, "old")
    return output


def _everything(tmp_path):
    return sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))


def test_a_folder_appears_when_everything_is_in_it(tmp_path, output):
    with finished_or_nothing(output) as folder:
        _fill(folder)
        assert not output.exists()
    assert _everything(tmp_path) == ["models", "models/out", "models/out/manifest.json", "models/out/model.bin"]


@pytest.mark.parametrize("fault", [KeyboardInterrupt, RuntimeError, SystemExit])
def test_nothing_is_left_of_an_interrupted_run(tmp_path, output, fault):
    with pytest.raises(fault):
        _interrupted(output, fault)
    assert _everything(tmp_path) == ["models"]


def test_an_earlier_conversion_is_replaced(tmp_path, earlier):
    check_output(earlier)
    with finished_or_nothing(earlier) as folder:
        _fill(folder)
        assert (earlier / "model.bin").read_text() == "old"
    assert (earlier / "model.bin").read_text() == "new"
    assert _everything(tmp_path) == ["models", "models/out", "models/out/manifest.json", "models/out/model.bin"]


def test_an_earlier_conversion_survives_an_interrupted_run(earlier):
    with pytest.raises(KeyboardInterrupt):
        _interrupted(earlier, KeyboardInterrupt)
    assert (earlier / "model.bin").read_text() == "old"


def test_an_earlier_conversion_survives_a_rename_that_fails(monkeypatch, tmp_path, earlier):
    rename = Path.replace

    def failing(self, target):
        if ".partial-" in self.name:
            raise OSError("no")
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises(OSError, match="no"), finished_or_nothing(earlier) as folder:
        _fill(folder)
    assert (earlier / "model.bin").read_text() == "old"
    assert _everything(tmp_path) == ["models", "models/out", "models/out/manifest.json", "models/out/model.bin"]


def test_an_empty_folder_is_filled(output):
    output.mkdir(parents=True)
    check_output(output)
    with finished_or_nothing(output) as folder:
        _fill(folder)
    assert (output / MANIFEST).is_file()


def test_the_target_of_a_link_is_filled(tmp_path, earlier):
    link = tmp_path / "link"
    link.symlink_to(earlier)
    with finished_or_nothing(link) as folder:
        _fill(folder)
    assert link.is_symlink()
    assert (earlier / "model.bin").read_text() == "new"


def test_other_peoples_files_are_never_replaced(tmp_path, earlier):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "diary.txt").write_text("mine")
    with pytest.raises(InputError, match="holds no earlier conversion"):
        check_output(tmp_path / "notes")
    with pytest.raises(InputError, match="is a file"):
        check_output(tmp_path / "notes" / "diary.txt")
    shutil.copy(tmp_path / "notes" / "diary.txt", earlier)
    with pytest.raises(InputError, match=r"diary\.txt"):
        check_output(earlier)


def test_a_disk_too_small_is_told_with_both_numbers(monkeypatch, output):
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100e9, 97e9, 3e9))
    check_space(output, 2_000_000_000)
    with pytest.raises(InputError, match=r"needs 16\.2 GB .* 3\.0 GB are free"):
        check_space(output, 16_200_000_000)
