"""The controls below the chat: what they say untouched, what each mode shows, and how worked examples come about."""

import inspect

import gradio as gr
import pytest

from ui import controls
from ui.controls import Controls
from ui.settings import _BOUNDS, settings


def test_untouched_controls_mean_the_official_defaults() -> None:
    controls = Controls()
    wishes = {name: getattr(controls, name).value for name in inspect.signature(settings).parameters if name != "wishes"}
    wishes |= {name: getattr(controls, name).value for name in _BOUNDS}
    assert settings(**wishes) == settings()
    assert settings(**{**wishes, "mode": "beams"}) == settings(mode="beams")
    assert settings(**{**wishes, "mode": "greedy"}) == settings(mode="greedy")


@pytest.mark.parametrize(
    ("mode", "shown"), [("sampling", [True, True, True, False, True]), ("greedy", [False] * 5), ("beams", [False] * 3 + [True, False])]
)
def test_each_mode_shows_what_it_makes_use_of(mode: str, shown: list[bool]) -> None:
    assert [update["visible"] if isinstance(update, dict) else update.visible for update in controls._used_by(mode)] == shown


def test_a_worked_example_becomes_two_turns_and_leaves_empty_fields() -> None:
    before = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    shots, question, answer = controls._with_shot(before, {"text": "What?", "files": ["/u/a.png"]}, "A cat.", "en")
    assert shots == [*before, {"role": "user", "content": [{"path": "/u/a.png"}, "What?"]}, {"role": "assistant", "content": "A cat."}]
    assert (question, answer) == (None, "")


@pytest.mark.parametrize(("question", "answer"), [({"text": "What?", "files": []}, " "), ({"text": "", "files": []}, "A cat."), (None, "A cat.")])
def test_an_incomplete_example_is_kept_to_be_completed(question: dict | None, answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(gr, "Warning", told.append)
    shots, kept, said = controls._with_shot([], question, answer, "en")
    assert (shots, said) == ([], answer)
    assert (kept or {"text": ""})["text"] == (question or {"text": ""})["text"]
    assert told == ["An example takes a question or a picture, and an answer."]
