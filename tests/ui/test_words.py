"""Two languages: each word is there in both, and the visitor's wish decides."""

import pytest

from ui.controls import Controls
from ui.words import PAGE, language, translations, word


@pytest.mark.parametrize(
    ("accepted", "expected"),
    [
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("zh", "zh"),
        ("en-US,en;q=0.9,zh;q=0.8", "en"),
        ("en;q=0.3, zh-TW;q=0.7", "zh"),
        ("de,fr;q=0.9,zh;q=0.2", "zh"),
        ("de", "en"),
        ("zh;q=0", "en"),
        ("", "en"),
        ("*;q=1;q=x,,;", "en"),
        ("x" * 10_000, "en"),
    ],
)
def test_the_language_is_the_one_of_ours_that_the_browser_likes_best(accepted: str, expected: str) -> None:
    assert language(accepted) == expected


def test_every_word_of_the_page_is_there_in_both_languages() -> None:
    translated = translations().translations
    assert translated["en"].keys() == translated["zh-CN"].keys() == translated["zh"].keys()
    assert len(translated["en"]) == len(PAGE)
    assert all(text.strip() for words in translated.values() for text in words.values())
    with pytest.raises(KeyError):
        word("no such word")


def test_no_value_of_a_control_is_taken_for_a_word_to_translate() -> None:
    controls = Controls()
    values = {value for radio in (controls.mode, controls.detail, controls.frames) for _, value in radio.choices}
    assert {"sampling", "auto"} <= values
    assert not values & translations().translations["en"].keys()
