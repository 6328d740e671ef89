"""A tokenizer -> which tokens begin the word for which label, in both languages."""

from collections import defaultdict

from demo.language import Language, Reference
from demo.scenes import COLOURS, GLYPHS, LABEL_COUNTS, SHAPES
from pipeline.tokenizer import Tokenizer

_NAMED = {
    "shape": [Reference(shape=shape) for shape in SHAPES],
    "colour": [Reference(colour=colour) for colour in COLOURS],
    "size": [Reference(size=size) for size in ("small", "large")],
}


def lexicon(tokenizer: Tokenizer) -> dict[int, list[int]]:
    """Rows of all labels, counted through LABEL_COUNTS -> ids that stand for that label and no other; a letter stands for itself alone."""
    found: dict[int, set[int]] = defaultdict(set)
    start = 0
    for name, count in LABEL_COUNTS.items():
        for value, what in enumerate(_NAMED.get(name, ()), 1):
            found[start + value] |= {first for form in _forms(what) if len(tokenizer.decode([first := tokenizer.encode(form)[0]])) > 1}
        if name == "glyph":
            for value, glyph in enumerate(GLYPHS, 1):
                found[start + value] |= set(tokenizer.encode(glyph))
        start += count
    shared = {token for row, tokens in found.items() for token in tokens if any(token in others for other, others in found.items() if other != row)}
    return {row: sorted(tokens - shared) for row, tokens in found.items()}


def _forms(what: Reference) -> tuple[str, ...]:
    """Within an English sentence, at its beginning, and in Chinese."""
    english = what.shape or what.colour or what.size or ""
    chinese = Language("zh").name(what).removesuffix("图形").removesuffix("的" if what.colour else "")
    return f" {english}", english.capitalize(), chinese
