"""The folder for uploads: what is too old goes, and with it what is known of it."""

import time
from pathlib import Path
from types import SimpleNamespace

from ui.uploads import drop_old


def test_what_was_deleted_is_not_remembered_either(tmp_path: Path) -> None:
    old, shown, new = (tmp_path / name / "a.png" for name in ("old", "shown", "new"))
    for path in (old, shown, new):
        path.parent.mkdir()
        path.write_bytes(b"x")
    known = {str(path) for path in (old, shown)}, {str(old), str(new)}
    page = SimpleNamespace(blocks={1: SimpleNamespace(keep_in_cache={str(shown)}), 2: object()}, temp_file_sets=known)
    now = time.time()
    drop_old(page, tmp_path, now - 60)
    assert old.exists()
    drop_old(page, tmp_path, now + 60)
    assert [path.exists() for path in (old, shown, new)] == [False, True, False]
    assert known == ({str(shown)}, set())
