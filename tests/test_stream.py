"""Text as it comes: whole characters, no half stop string, nothing lost."""

import pytest

from pipeline.stream import TextStream


def stream(*stop: str) -> TextStream:
    """Tokens are single bytes."""
    return TextStream(lambda token: bytes([token]), stop)


def pieces(text: TextStream, data: bytes) -> list[str]:
    return [*(text.push([byte]) for byte in data), text.finish()]


def test_a_character_is_shown_once_all_its_bytes_are_there() -> None:
    assert pieces(stream(), "é🙂好".encode()) == ["", "é", "", "", "", "🙂", "", "", "好", ""]


def test_bytes_that_are_no_character_are_replaced_as_in_the_whole() -> None:
    data = b"a\xff\xe5\xa5b\xf0\x9f"
    text = stream()
    assert "".join(pieces(text, data)) == data.decode("utf-8", "replace") == text.text


def test_the_answer_ends_before_a_stop_string_spread_over_tokens() -> None:
    text = stream("User:")
    assert "".join(pieces(text, b"Yes. User: no")) == "Yes. "
    assert text.stopped


def test_what_only_looked_like_a_stop_string_is_shown_after_all() -> None:
    text = stream("END", "###")
    assert pieces(text, b"E#NDEN") == ["", "E", "#N", "D", "", "", "EN"]
    assert not text.stopped


def test_the_earliest_of_several_stop_strings_counts() -> None:
    text = stream("second", "first")
    assert text.push(b"a first and a second") == "a "
    assert text.push(b"more") == ""


def test_the_first_of_a_stop_string_that_comes_twice_counts() -> None:
    assert stream("User:").push(b"Yes. User: no. User: yes.") == "Yes. "


@pytest.mark.parametrize("text", ["", "a", "ab", "aab", "aaaab"])
def test_overlapping_beginnings_are_found(text: str) -> None:
    expected = text.partition("aab")[0]
    assert "".join(pieces(stream("aab"), text.encode())) == expected
