"""Steps and how many weights each deals with -> a line for each on the logger, with the share done and the time left; on a terminal a bar as well."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from typing import Self

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

logger = logging.getLogger("conversion")


class Progress:
    """Also asks before each step whether to go on.

    Args:
        total: weights that all steps together deal with.
        proceed: called before each step and between a step's own; what it raises ends the run.
    """

    def __init__(self, total: int, proceed: Callable[[], None]) -> None:
        self._proceed = proceed
        self._begin = time.monotonic()
        self._total, self._done = total, 0
        self._before, self._weights = 0, 0  # of the present step
        # On standard error, and not at all where that is no terminal.
        self._bar = tqdm(total=total, unit=" weights", unit_scale=True, disable=None, leave=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    @contextlib.contextmanager
    def step(self, label: str, weights: int = 0) -> Iterator[None]:
        self._proceed()
        logger.info("%s ...", label)
        begin = time.monotonic()
        self._bar.set_description(label)
        self._before, self._weights = self._done, weights
        with logging_redirect_tqdm():
            yield
            self._advance(self._before + weights)
            logger.info("%s: %.1f s%s", label, time.monotonic() - begin, self._outlook() if weights else "")

    def within(self, share: float) -> None:
        """So much of the present step is done, from 0 to 1."""
        self._proceed()
        self._advance(self._before + int(share * self._weights))

    def _advance(self, done: int) -> None:
        self._bar.update(done - self._done)
        self._done = done

    def _outlook(self) -> str:
        left = (time.monotonic() - self._begin) * (self._total / self._done - 1)
        return f"; {self._done / self._total:.0%} of the weights, about {left / 60:.0f} min left" if self._done < self._total else ""
