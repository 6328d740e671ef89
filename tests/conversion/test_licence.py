import pytest

from conversion.checkpoint import Source
from conversion.licence import MAKERS, OFFICIAL, UNKNOWN, Licence
from pipeline.artifacts import CARD


@pytest.fixture
def licence(tmp_path):
    """Of a checkpoint whose card has this head."""

    def of(head, name="mine", revision=None):
        (tmp_path / CARD).write_text(f"---\n{head}\n---\nWords.\n")
        return Licence.of(Source(tmp_path, name, revision))

    return of


@pytest.mark.parametrize(
    ("link", "folder", "hub"),
    [
        ("https://example.org/terms", "https://example.org/terms", "https://example.org/terms"),
        ("LICENSE.md", None, "https://huggingface.co/owner/name/blob/abc123/LICENSE.md"),
    ],
)
def test_a_licence_of_its_own_comes_with_its_name_and_a_link_that_leads_there(licence, link, folder, hub):
    lines = {"license": "other", "license_name": "terms-1"}
    head = f"license: other\nlicense_name: terms-1\nlicense_link: {link}"
    here, there = licence(head), licence(head, "owner/name", "abc123")
    assert here.lines == lines | ({"license_link": folder} if folder else {})
    assert there.lines == lines | {"license_link": hub}
    assert there.sentence == f"[terms-1]({hub}), as the checkpoint's card states it."


@pytest.mark.parametrize("head", ["license: [", "- license", "license: null", "license: 1", "license_link: https://example.org", ""])
def test_a_head_that_cannot_be_read_or_states_none_is_no_licence(licence, head):
    assert licence(head) == licence(head, "owner/name", "abc123") == licence(head, OFFICIAL) == Licence({}, UNKNOWN)
    assert licence(head, OFFICIAL, "abc123") == Licence({"license": "apache-2.0"}, f"apache-2.0, as [its makers]({MAKERS}) state it.")


def test_what_the_official_card_states_counts_before_its_makers_word(licence):
    assert licence("license: mit", OFFICIAL, "abc123").lines == {"license": "mit"}
