"""What is to be done with a conversation's files -> done in a thread beside the event loop, small conversations not behind large ones."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from pipeline.errors import EngineDead, InputError, Overloaded, PipelineError
from pipeline.message import Message, Video

T = TypeVar("T")

# Few at a time: the slices of a conversation may take hundreds of megabytes, and the process that decodes its files more than a gigabyte.
THREADS = 2
# A video may take two minutes to read, and so may many pictures. So few pictures take seconds at worst, and have a thread of their own.
FEW_PICTURES = 4


class Readers:
    """The threads that read files; decoding takes seconds at worst and must not hold up other people's streams, nor words wait for files.

    Args:
        patience_seconds: how long files may wait for a thread.
    """

    def __init__(self, patience_seconds: float) -> None:
        self._patience_seconds = patience_seconds
        self._for_any = ThreadPoolExecutor(THREADS, thread_name_prefix="reader")
        self._for_few = ThreadPoolExecutor(1, thread_name_prefix="quick-reader")
        self._closed = threading.Event()

    async def run(self, messages: Sequence[Message], work: Callable[[], T]) -> T:
        """What `work` gives for these messages, and raises.

        Raises:
            EngineDead: closed meanwhile; who waits for a thread is told at once.
            Overloaded: others' files keep the threads for too long.
        """
        loop, begun = asyncio.get_running_loop(), asyncio.Event()

        def unless_closed() -> T:
            with suppress(RuntimeError):  # the loop was closed, and nobody waits any more
                loop.call_soon_threadsafe(begun.set)
            if self._closed.is_set():
                raise EngineDead("The model was shut down.")
            try:
                return work()
            except InputError:
                raise
            except PipelineError as cause:
                if self._closed.is_set():
                    raise EngineDead("The model was shut down.") from cause
                raise

        try:
            done = loop.run_in_executor(self._pool(messages), unless_closed)
        except RuntimeError as cause:  # a pool takes no more after `close`
            raise EngineDead("The model was shut down.") from cause
        try:
            async with asyncio.timeout(self._patience_seconds):
                await begun.wait()
        except TimeoutError as cause:
            raise Overloaded("The files waited too long for their turn to be read: please try again in a while.") from cause
        else:
            return await done
        finally:
            done.cancel()

    def close(self) -> None:
        """Take no more; what is under way ends as its files are let go."""
        self._closed.set()
        for pool in (self._for_any, self._for_few):
            pool.shutdown(wait=False)

    def _pool(self, messages: Sequence[Message]) -> ThreadPoolExecutor | None:
        """None is the event loop's own."""
        media = [item for message in messages for item in message.media]
        if not media:
            return None
        return self._for_any if len(media) > FEW_PICTURES or any(isinstance(item, Video) for item in media) else self._for_few
