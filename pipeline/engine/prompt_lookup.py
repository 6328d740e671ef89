"""The tokens of a conversation -> what may come next: what followed the last ones where they stood before (prompt lookup decoding, Saxena 2023)."""

from collections.abc import Sequence

from pipeline.engine.sequence import Key


def looked_up(keys: Sequence[Key], count: int) -> list[int]:
    """What followed the latest earlier occurrence of the last three tokens, or else of the last two; at most `count` tokens, none of a picture."""
    for length in (3, 2):
        last = keys[-length:]
        for start in range(len(keys) - length - 1, -1, -1):
            if keys[start : start + length] == last:
                return _tokens(keys[start + length : start + length + count])
    return []


def _tokens(keys: Sequence[Key]) -> list[int]:
    """Those before the first that is not one."""
    tokens: list[int] = []
    for key in keys:
        if not isinstance(key, int):
            break
        tokens.append(key)
    return tokens
