"""A tokenizer -> which tokens begin the word for which label, in both languages."""

from collections import defaultdict

from demo.language import CHINESE, ENGLISH, Reference
from demo.scenes import COLOURS, GLYPHS, LABEL_COUNTS, RANKS, SHAPES
from pipeline.tokenizer import Tokenizer

_NAMED = {
    "shape": [Reference(shape=shape) for shape in SHAPES],
    "colour": [Reference(colour=colour) for colour in COLOURS],
    "size": [Reference(size=size) for size in ("small", "large")],
}
_ANSWERED = {  # sentences in both languages: where things are in reading order, and how many, which is the rank of the last
    "place": [[language.place((column, row)) for language in (ENGLISH, CHINESE)] for row in range(3) for column in range(3)],
    "rank": [[language.count(number) for language in (ENGLISH, CHINESE)] for number in range(1, 1 + RANKS)],
}


def lexicon(tokenizer: Tokenizer) -> dict[int, list[int]]:
    """Rows of all labels, counted through LABEL_COUNTS -> ids that stand for that label and no other; a letter stands for itself alone."""
    found: dict[int, set[int]] = defaultdict(set)
    start = 0
    for name, count in LABEL_COUNTS.items():
        for value, what in enumerate(_NAMED.get(name, ()), 1):
            found[start + value] |= {first for form in _forms(what) if len(tokenizer.decode([first := tokenizer.encode(form)[0]])) > 1}
        for value, sentences in enumerate(_ANSWERED.get(name, ()), 1):
            found[start + value] |= {tokens[0] for sentence in sentences if len(tokens := tokenizer.encode(sentence)) == 2}
        if name == "glyph":
            for value, glyph in enumerate(GLYPHS, 1):
                found[start + value] |= set(tokenizer.encode(glyph))
        start += count
    shared = {token for row, tokens in found.items() for token in tokens if any(token in others for other, others in found.items() if other != row)}
    return {row: sorted(tokens - shared) for row, tokens in found.items()}


def _forms(what: Reference) -> tuple[str, ...]:
    """Within an English sentence, of several, at its beginning, and in Chinese."""
    english = what.shape or what.colour or what.size or ""
    chinese = CHINESE.name(what).removesuffix("图形").removesuffix("的" if what.colour else "")
    return f" {english}", f" {ENGLISH.name(what, plural=True)}", english.capitalize(), chinese
