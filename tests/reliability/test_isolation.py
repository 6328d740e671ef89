"""Whoever else talks about almost the same picture in the same words: every answer is about one's own, and nothing is left behind."""

import asyncio
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import Assistant
from pipeline.artifacts import BUNDLED
from tests.reliability.visiting import COLOUR, NUMBER, READABLE, SAYABLE, Exact, Visitor, held, picture, pictures_in, rss_mib, visiting
from tests.serving import served, until

#: 200 in the long form: CONVERSATIONS=200 make trust.
CONVERSATIONS = int(os.environ.get("CONVERSATIONS", "24"))
AT_ONCE = 40  # as many as the page takes


@pytest.fixture
def exact() -> Iterator[Exact]:
    with Assistant(BUNDLED) as assistant:
        yield Exact(assistant)


@pytest.mark.timeout(0 if CONVERSATIONS > 100 else 300)
async def test_every_answer_of_many_interleaved_conversations_is_about_ones_own_picture(exact: Exact, tmp_path: Path) -> None:
    shown = list(itertools.islice(((colour, number) for number in READABLE[::2] for colour in SAYABLE), CONVERSATIONS))
    wrong: list[str] = []

    async def converse(visitor: Visitor, colour: str, number: int, room: asyncio.Semaphore) -> None:
        mine = await visitor.upload("picture.png", picture(colour, number))
        for question, right, files in ((COLOUR, colour, [mine]), (NUMBER, str(number), []), (COLOUR, colour, [])):
            async with room:
                said = await visitor.ask(question, *files)
            if said.lower() != f"{right}.":
                wrong.append(f"{colour} {number}: {said}")

    async def everybody(address: str, visit: int) -> None:
        room = asyncio.Semaphore(AT_ONCE)
        async with visiting(address) as http:
            await asyncio.gather(*(converse(Visitor(http, f"{visit}-{index}"), *one, room) for index, one in enumerate(shown)))

    with served(exact, tmp_path) as address:
        of_the_page = pictures_in(tmp_path)
        await everybody(address, 0)  # what is made once and kept is there from now on
        before, before_mib = held(), rss_mib()
        await everybody(address, 1)
        until(lambda: all(now <= then for now, then in zip(held().values(), before.values(), strict=True)))
        after, grown, uploads = held(), rss_mib() - before_mib, pictures_in(tmp_path) - of_the_page
        stats = exact.stats()
    figures = {
        "conversations": 2 * len(shown),
        "answers": 6 * len(shown),
        "wrong_answers": len(wrong),
        "blocks_leaked": stats.num_blocks - stats.num_free_blocks,
        "threads": [before["threads"], after["threads"]],
        "fds": [before["fds"], after["fds"]],
        "files_left": pictures_in(tmp_path) - of_the_page,
        "rss_growth_mib": round(grown, 1),
    }
    print(json.dumps({"isolation": figures}))
    assert wrong == []
    assert (stats.running, stats.waiting, stats.num_free_blocks) == (0, 0, stats.num_blocks)
    assert uploads == len(shown)  # equal content is kept once
    assert figures["files_left"] == 0
