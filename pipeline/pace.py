"""The times that answers took -> how fast this machine is at present: seconds a slice, a prompt token, and until somebody's turn."""

import statistics
from collections import deque

# How much the newest answer counts: after five of them a busy hour is known of.
WEIGHT = 0.25
# A prompt with fewer new tokens than this says more about everything around it than about the pace of reading.
TELLING_TOKENS = 32
# Of the newest answers the middle one tells how long those will take that are waited for.
REMEMBERED = 32


class Pace:
    """What it tells is None before the first answer. Any thread may ask."""

    def __init__(self) -> None:
        self.slice_seconds: float | None = None
        self.token_seconds: float | None = None
        self._answer_seconds: deque[float] = deque(maxlen=REMEMBERED)

    def learn(self, slices: int, vision_s: float, tokens: int, reading_s: float | None) -> None:
        """Take one answer's times into account.

        Args:
            slices: encoded in `vision_s`.
            tokens: of its prompt, without those from the cache, read in `reading_s`; None where it was not read to its end.
        """
        if slices:
            self.slice_seconds = _moved(self.slice_seconds, vision_s / slices)
        if reading_s is not None and tokens >= TELLING_TOKENS:
            self.token_seconds = _moved(self.token_seconds, reading_s / tokens)

    def answered(self, seconds: float) -> None:
        """An answer took so long from the beginning of its turn to its end."""
        self._answer_seconds.append(seconds)

    def until_turn(self, ahead: int, together: int) -> float | None:
        """Seconds until it is somebody's turn who has `ahead` requests ahead, of which so many are computed together."""
        if not (took := tuple(self._answer_seconds)):
            return None
        return max(ahead - together + 1, 1) * statistics.median(took) / together

    def seconds(self, slices: int, tokens: int) -> float | None:
        """Until the first words of such a prompt; None while it is not known."""
        if self.token_seconds is None or (slices and self.slice_seconds is None):
            return None
        return slices * (self.slice_seconds or 0.0) + tokens * self.token_seconds


def _moved(before: float | None, now: float) -> float:
    return now if before is None else before + WEIGHT * (now - before)
