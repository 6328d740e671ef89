"""Token ids as they come -> text that is never half a character and never the beginning of a stop string."""

import codecs
from collections.abc import Callable, Iterable


class TextStream:
    """Assembles one answer. What `push` returned, joined, and then `finish`, is `text`; bytes that are no character become U+FFFD."""

    def __init__(self, token_bytes: Callable[[int], bytes], stop: tuple[str, ...] = ()) -> None:
        self._token_bytes = token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stop = stop
        self._held_back = ""
        self._released: list[str] = []
        self.stopped = False

    @property
    def text(self) -> str:
        """What was released so far."""
        return "".join(self._released)

    def push(self, token_ids: Iterable[int]) -> str:
        """Take further tokens; the text that can be shown now. After a stop string there is none."""
        return self._take(self._decoder.decode(b"".join(map(self._token_bytes, token_ids))), final=False)

    def finish(self) -> str:
        """The answer has ended: the rest, with half a character replaced."""
        return self._take(self._decoder.decode(b"", final=True), final=True)

    def _take(self, text: str, *, final: bool) -> str:
        if self.stopped:
            return ""
        candidate = self._held_back + text
        found = [position for stop in self._stop if (position := candidate.find(stop)) >= 0]
        if found:
            self.stopped = True
            safe = min(found)
        else:
            safe = len(candidate) if final else len(candidate) - self._possible_stop(candidate)
        self._held_back = candidate[safe:]
        self._released.append(candidate[:safe])
        return candidate[:safe]

    def _possible_stop(self, text: str) -> int:
        """How many characters at the end may turn out to begin a stop string."""
        return max((length for stop in self._stop for length in range(1, len(stop)) if text.endswith(stop[:length])), default=0)
