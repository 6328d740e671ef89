"""Half a minute of what `make soak` does for hours."""

import json
from pathlib import Path

from tests.reliability.soak import CEILING_MIB, soak
from tests.reliability.trend import plot
from tests.reliability.visits import KINDS


def test_visitors_of_every_kind_meet_no_error_and_leave_nothing_behind(tmp_path: Path) -> None:
    figures, diary = soak(20, seed=7, visitors=3, folder=tmp_path / "soak")
    plot(diary, figures, tmp_path / "soak.png")
    assert (tmp_path / "soak.png").stat().st_size > 0
    print(json.dumps({"R18 in short": figures}))
    assert figures["errors"] == 0, figures["first_errors"]
    assert (figures["visitors_who_still_wait"], figures["kv_blocks_held_after"], figures["exit_status"]) == ([], 0, 0)
    assert figures["rss_mib"][1] < CEILING_MIB
    assert diary.kinds.keys() == KINDS.keys()
    for begun, ended in (figures["threads"], figures["fds"]):
        assert ended <= begun + 5
