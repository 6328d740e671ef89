"""Whatever people type, and however an answer is cut into tokens."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.message import Text
from pipeline.stream import TextStream
from pipeline.tokenizer import Tokenizer

MARKS = [
    "<image>",
    "</image>",
    "<slice>",
    "</slice>",
    "<unk>",
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "(<image>./</image>)",
    "<image_id>",
    "!",
    "\n",
]
anything = st.text(st.characters(categories=None)) | st.lists(st.sampled_from(MARKS) | st.text(max_size=4), max_size=12).map("".join)
shared_fixture = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)


@shared_fixture
@given(typed=anything)
def test_typed_text_never_holds_a_control_token_and_is_never_lost(typed: str, tokenizer: Tokenizer) -> None:
    text = Text(typed).text
    ids = tokenizer.encode(text)
    assert not set(ids) & set(tokenizer.control_ids.values())
    # The tokenizer composes characters (NFC), so what comes back is the composed text.
    import unicodedata

    assert tokenizer.decode(ids) == unicodedata.normalize("NFC", text)


@given(data=st.binary(), cuts=st.lists(st.integers(1, 5)), stop=st.lists(st.text("ab", min_size=1, max_size=3), max_size=2))
def test_a_stream_shows_the_whole_text_up_to_the_first_stop_string(data: bytes, cuts: list[int], stop: list[str]) -> None:
    text = TextStream(lambda token: bytes([token]), tuple(stop))
    shown, rest = [], data
    for size in cuts:
        shown.append(text.push(rest[:size]))
        rest = rest[size:]
    shown += [text.push(rest), text.finish()]
    whole = data.decode("utf-8", "replace")
    ends = [position for one in stop if (position := whole.find(one)) >= 0]
    assert "".join(shown) == text.text == whole[: min(ends, default=len(whole))]
    assert text.stopped == bool(ends)
