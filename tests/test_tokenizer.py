"""The vocabulary: what is text, what is control, and the bytes of every token."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer as Reference

from pipeline.errors import ArtifactError
from pipeline.tokenizer import Tokenizer


def test_every_special_token_but_the_exclamation_mark_is_control(tokenizer: Tokenizer, golden: Path) -> None:
    declared = json.loads((golden / "tokenizer" / "tokenizer_config.json").read_text())["added_tokens_decoder"]
    assert tokenizer.control_ids == {entry["content"]: int(token_id) for token_id, entry in declared.items() if entry["content"] != "!"}
    assert tokenizer.encode("!!") == [0, 0]


def test_terminators_are_found_by_their_strings(tokenizer: Tokenizer, golden: Path) -> None:
    assert tokenizer.terminators == (151645, 151643)
    assert Tokenizer(golden / "tiny_model").terminators == (759, 757)


@pytest.mark.parametrize("folder", ["tokenizer", "tiny_model"])
def test_every_token_decodes_as_the_reference_decodes_it(golden: Path, folder: str) -> None:
    ours, reference = Tokenizer(golden / folder), Reference.from_file(str(golden / folder / "tokenizer.json"))
    for token_id in range(reference.get_vocab_size()):
        assert ours.decode([token_id]) == reference.decode([token_id], skip_special_tokens=False)


def test_an_id_beyond_the_vocabulary_is_no_text(tokenizer: Tokenizer) -> None:
    assert tokenizer.token_bytes(10**6) == b""


def test_plain_text_encodes_as_the_reference_encodes_it(tokenizer: Tokenizer, golden: Path) -> None:
    reference = Reference.from_file(str(golden / "tokenizer" / "tokenizer.json"))
    for text in ("Hello! How  are you?\n\n1234", "你好，世界!", "cafe\u0301 na\u00efve", " \t\r\n x", "e = mc² 🙂👩‍👩‍👧"):
        assert tokenizer.encode(text) == reference.encode(text, add_special_tokens=False).ids


def test_a_broken_or_foreign_tokenizer_file_is_named(tmp_path: Path) -> None:
    for content in ("{", "[]", "{}", '{"added_tokens": []}'):
        (tmp_path / "tokenizer.json").write_text(content)
        with pytest.raises(ArtifactError, match=r"tokenizer\.json"):
            Tokenizer(tmp_path)


def test_a_control_token_that_is_not_there_is_named(tokenizer: Tokenizer) -> None:
    with pytest.raises(ArtifactError, match="'<video>'"):
        tokenizer.control_id("<video>")
