import logging
import shutil
from pathlib import Path

import pytest

from conversion import folder as room
from conversion.folder import check_output, check_space
from conversion.workspace import place_of
from pipeline.artifacts import File, Manifest
from pipeline.errors import InputError


@pytest.fixture
def earlier(output):
    output.mkdir(parents=True)
    (output / "model.bin").write_text("old")
    Manifest("source", None, {}, {}, {"model.bin": File.of(output / "model.bin")}).write(output)
    return output


@pytest.fixture
def three_gigabytes(monkeypatch):
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100e9, 97e9, 3e9))


def test_a_new_an_empty_and_a_converted_folder_are_fine(output, earlier, tmp_path):
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "new", tmp_path / "empty", earlier):
        check_output(path)


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


def test_a_mount_point_which_could_not_be_replaced_is_refused_at_once():
    with pytest.raises(InputError, match=r"^/proc is a mount point; choose a folder in it\.$"):
        check_output(Path("/proc"))


def test_a_disk_too_small_is_told_with_both_numbers(three_gigabytes, output, tmp_path):
    with pytest.raises(InputError, match=r"needs 16\.2 GB .* 3\.0 GB are free"):
        check_space(output, 16_200_000_000, tmp_path, 0)


def test_what_is_needed_and_what_is_free_are_said_first(three_gigabytes, output, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    check_space(output, 2_000_000_000, tmp_path, 0)
    assert "needs 2.0 GB of disk" in caplog.text
    assert "3.0 GB are free" in caplog.text


def test_a_download_to_the_same_disk_counts(three_gigabytes, output, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    check_space(output, 1_000_000_000, tmp_path, 2_000_000_000)
    assert "The download and the conversion need 3.0 GB of disk" in caplog.text
    with pytest.raises(InputError, match=r"need 3\.1 GB of disk beside .* 3\.0 GB are free"):
        check_space(output, 1_000_000_000, tmp_path, 2_100_000_000)


def test_a_download_to_another_disk_is_told_of_by_itself(three_gigabytes, output):
    check_space(output, 2_000_000_000, Path("/proc"), 2_000_000_000)
    with pytest.raises(InputError, match=r"The download needs 3\.1 GB of disk in /proc, and 3\.0 GB are free"):
        check_space(output, 2_000_000_000, Path("/proc"), 3_100_000_000)
    with pytest.raises(InputError, match=r"The conversion needs 3\.1 GB"):
        check_space(output, 3_100_000_000, Path("/proc"), 2_000_000_000)


def test_what_an_interrupted_conversion_has_written_is_not_needed_again(three_gigabytes, output, tmp_path):
    place_of(output).mkdir(parents=True)
    with (place_of(output) / "part.bin").open("wb") as stream:
        stream.truncate(1_000_000_000)
    check_space(output, 4_000_000_000, tmp_path, 0)
    with pytest.raises(InputError, match=r"needs 3\.1 GB"):
        check_space(output, 4_100_000_000, tmp_path, 0)
