import logging

import pytest

from conversion.progress import Progress


def test_each_step_is_said_with_its_share_and_the_time_left(caplog):
    caplog.set_level(logging.INFO)
    with Progress(400, lambda: None) as progress:
        with progress.step("encoder", 100):
            pass
        with progress.step("decoder", 300):
            progress.within(0.5)
        with progress.step("configs"):
            pass
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "encoder ..."
    assert "; 25% of the weights, about 0 min left" in lines[1]
    assert lines[3].startswith("decoder: ")
    assert "left" not in lines[3] + lines[5]


@pytest.mark.parametrize("calls", [1, 2])
def test_it_asks_before_each_step_and_within_whether_to_go_on(calls):
    asked = []

    def proceed():
        asked.append(None)
        if len(asked) == calls:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Progress(10, proceed) as progress, progress.step("part", 10):
        progress.within(0.1)
    assert len(asked) == calls


def test_no_bar_is_drawn_where_there_is_no_terminal(capsys, caplog):
    caplog.set_level(logging.WARNING, "conversion")  # the lines that are logged are no bar
    with Progress(10, lambda: None) as progress, progress.step("part", 10):
        progress.within(0.5)
    assert capsys.readouterr().err == ""
