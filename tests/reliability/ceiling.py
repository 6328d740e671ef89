"""Chats about large and small pictures, with words and videos between -> what the process that answers them held, as a line of JSON (R10).

    python -m tests.reliability.ceiling --chats 1000

First the caches are filled, which are small so that this takes seconds; after that nothing should be held that was not held before.
"""

import argparse
import asyncio
import io
import json
import resource

import numpy as np
import PIL.Image

from demo.exam import video_file
from pipeline import Assistant, EngineConfig, GenerationConfig, Image, Message, Text
from pipeline.artifacts import BUNDLED
from tests.reliability.visiting import COLOUR, picture, rss_mib

KV_CACHE_BYTES, VISION_CACHE_BYTES = 8_000_000, 8 * 2**20
AT_ONCE, MIB = 4, 2**20


def chat(random: np.random.Generator) -> list[Message]:
    """One in three is about a picture of twelve megapixels that nobody has seen, one about a small one; and there are videos and mere words."""
    match int(random.integers(6)):
        case 0 | 1:
            pixels, file = random.integers(0, 256, (200, 300, 3), np.uint8), io.BytesIO()
            PIL.Image.fromarray(pixels).resize((4200, 2800), PIL.Image.Resampling.NEAREST).save(file, "JPEG")
            return [Message.user(Image(file.getvalue()), Text("What do you see?"))]
        case 2 | 3:
            return [Message.user(Image(picture("red", int(random.integers(11, 99)))), Text(COLOUR))]
        case 4:
            frames = [PIL.Image.fromarray(random.integers(0, 256, (224, 224, 3), np.uint8)) for _ in range(3)]
            return [Message.user(video_file(frames), Text("What happens?"))]
        case _:
            return [Message.user(f"{random.integers(10**6)} " * 40)]


async def answered(assistant: Assistant, chats: int, random: np.random.Generator) -> None:
    room = asyncio.Semaphore(AT_ONCE)

    async def one() -> None:
        async with room:
            await assistant.answer(chat(random), GenerationConfig.greedy(max_new_tokens=16))

    await asyncio.gather(*(one() for _ in range(chats)))


async def measured(assistant: Assistant, chats: int) -> dict[str, object]:
    """Memory of this process in MiB, and of the two caches, beside what they may have."""
    random, warm, loaded = np.random.default_rng(10), 0, rss_mib()
    while (books := assistant.stats()).vision_cache_bytes < VISION_CACHE_BYTES - MIB or not books.block_evictions:
        await answered(assistant, 2 * AT_ONCE, random)
        warm += 2 * AT_ONCE
    before = rss_mib()
    await answered(assistant, chats, random)
    grown, books = rss_mib() - before, assistant.stats()
    return {
        "chats": chats,
        "chats_before": warm,
        "rss_loaded_mib": round(loaded, 1),
        "rss_max_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "rss_growth_mib": round(grown, 1),
        "vision_cache_mib": [round(books.vision_cache_bytes / MIB, 2), VISION_CACHE_BYTES / MIB],
        "kv_mib": [round(books.kv_cache_bytes / MIB, 2), round(KV_CACHE_BYTES / MIB, 2)],
        "kv_blocks_held_after": books.num_blocks - books.num_free_blocks,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chats", type=int, default=1000)
    chats = parser.parse_args().chats
    engine = EngineConfig(device="CPU", threads=2, kv_cache_bytes=KV_CACHE_BYTES, vision_cache_bytes=VISION_CACHE_BYTES)
    with Assistant(BUNDLED, engine) as assistant:
        found = asyncio.run(measured(assistant, chats))
    decoder_max_mib = round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024, 1)  # of those that have ended
    print(json.dumps({"R10": {**found, "decoder_max_mib": decoder_max_mib}}))


if __name__ == "__main__":
    main()
