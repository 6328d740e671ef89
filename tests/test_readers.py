"""Threads for files: photographs do not wait behind films, and whoever still waits when the server stops is told."""

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from pipeline.errors import EngineDead, ImageError, Overloaded, PipelineError
from pipeline.message import Image, Message, Video
from pipeline.readers import FEW_PICTURES, THREADS, Readers

PATIENCE = 60.0
FILM, PHOTO, WORDS = ([Message.user(*media, "?")] for media in ([Video(b"")], [Image(b"")], []))
MANY = [Message.user(*[Image(b"")] * (FEW_PICTURES + 1), "?")]


class Held:
    """Readers all of whose threads for films are busy until they are released."""

    def __init__(self) -> None:
        self.readers, self.release = Readers(PATIENCE), threading.Event()
        self._begun = threading.Semaphore(0)
        self.films: list[asyncio.Task[object]] = []

    def read(self) -> str:
        self._begun.release()
        assert self.release.wait(60)
        raise PipelineError("It was not read.")

    async def fill(self) -> None:
        self.films = [asyncio.create_task(self.readers.run(FILM, self.read)) for _ in range(THREADS)]
        for _ in self.films:
            assert await asyncio.to_thread(self._begun.acquire, timeout=60)


@pytest.fixture
async def held() -> AsyncIterator[Held]:
    held = Held()
    await held.fill()
    yield held
    held.release.set()
    await asyncio.gather(*held.films, return_exceptions=True)
    held.readers.close()


@pytest.mark.parametrize("messages", [PHOTO, WORDS])
async def test_photographs_and_words_do_not_wait_for_films(held: Held, messages: list[Message]) -> None:
    async with asyncio.timeout(60):
        assert await held.readers.run(messages, lambda: "read") == "read"


@pytest.mark.parametrize("messages", [FILM, MANY])
async def test_films_and_many_pictures_wait_for_a_thread_of_theirs(held: Held, messages: list[Message]) -> None:
    waiting = asyncio.create_task(held.readers.run(messages, lambda: "read"))
    assert await held.readers.run(PHOTO, lambda: "read") == "read"
    assert not waiting.done()
    held.release.set()
    assert await waiting == "read"


async def test_who_waits_for_a_thread_for_too_long_is_told_and_reads_nothing(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    monkeypatch.setattr(held.readers, "_patience_seconds", 0.01)
    with pytest.raises(Overloaded, match=r"^The files waited too long for their turn to be read: please try again in a while\.$"):
        await held.readers.run(FILM, lambda: read.append("all"))
    monkeypatch.setattr(held.readers, "_patience_seconds", PATIENCE)
    assert await held.readers.run(PHOTO, lambda: "read") == "read"
    held.release.set()
    assert await held.readers.run(FILM, lambda: "read") == "read"
    assert read == []


async def test_who_leaves_while_waiting_for_a_thread_has_nothing_read(held: Held) -> None:
    read: list[str] = []
    waiting = asyncio.create_task(held.readers.run(FILM, lambda: read.append("all")))
    assert await held.readers.run(PHOTO, lambda: "read") == "read"
    waiting.cancel()
    await asyncio.wait({waiting})
    assert await held.readers.run(PHOTO, lambda: "read") == "read"
    held.release.set()
    assert await held.readers.run(FILM, lambda: "read") == "read"
    assert waiting.cancelled()
    assert read == []


async def test_who_leaves_as_their_turn_comes_has_left() -> None:
    """Python 3.11's `wait_for` takes a cancellation in that very moment for none."""
    readers, begun, release = Readers(PATIENCE), threading.Event(), threading.Event()

    def read() -> None:
        begun.set()
        assert release.wait(60)

    reading = asyncio.create_task(readers.run(PHOTO, read))
    await asyncio.sleep(0)
    assert begun.wait(60)  # without giving the loop its turn
    reading.cancel()
    await asyncio.wait({reading})
    release.set()
    assert reading.cancelled()
    readers.close()


async def test_who_waits_for_a_thread_when_the_server_stops_is_told_and_reads_nothing(held: Held) -> None:
    read: list[str] = []
    waiting = asyncio.create_task(held.readers.run(FILM, lambda: read.append("all")))
    await asyncio.sleep(0)
    held.readers.close()
    held.release.set()
    for task in (waiting, *held.films):
        with pytest.raises(EngineDead, match=r"^The model was shut down\.$"):
            await task
    with pytest.raises(EngineDead, match="was shut down"):
        await held.readers.run(PHOTO, lambda: read.append("all"))
    assert read == []


async def test_what_is_wrong_with_a_file_is_said_as_it_is() -> None:
    readers = Readers(PATIENCE)

    def refuse() -> None:
        readers.close()
        raise ImageError("Picture 1 is empty.")

    with pytest.raises(ImageError, match="Picture 1 is empty"):
        await readers.run(PHOTO, refuse)
