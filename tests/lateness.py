"""A running event loop -> how late a coroutine in it is that wakes every 50 ms, and how late another process is, as the machine is to both."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

TICK_SECONDS = 0.05
#: What a person does not notice.
BOUND_SECONDS = 0.1
# As in the process that is measured, the loop's thread shares its interpreter with one that computes, and either may have to wait for a processor.
CONTROL = f"""
import asyncio, sys, threading
async def tick(loop, over):
    worst, count = 0.0, 0
    print("ticks", flush=True)
    while not over.is_set():
        due = loop.time() + {TICK_SECONDS}
        await asyncio.sleep({TICK_SECONDS})
        worst = max(worst, loop.time() - due)
    print(worst, flush=True)
async def main():
    over = threading.Event()
    def burn():
        while not over.is_set():
            sum(range(1000))
    threading.Thread(target=burn, daemon=True).start()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    await tick(asyncio.get_running_loop(), over)
asyncio.run(main())
"""


@dataclass
class Lateness:
    """Seconds. `machine` is the most that the other process was late at the same time, known at the end."""

    ticks: list[float] = field(default_factory=list)
    machine: float = 0.0

    @property
    def is_noticed(self) -> bool:
        """The loop was late by more than the bound and what the machine explains."""
        return max(self.ticks) > BOUND_SECONDS + self.machine


@asynccontextmanager
async def lateness() -> AsyncIterator[Lateness]:
    """Measured for as long as the context lasts."""
    found, loop = Lateness(), asyncio.get_running_loop()

    async def tick() -> None:
        while True:
            due = loop.time() + TICK_SECONDS
            await asyncio.sleep(TICK_SECONDS)
            found.ticks.append(loop.time() - due)

    control = await asyncio.create_subprocess_exec(sys.executable, "-I", "-c", CONTROL, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert control.stdin
    assert control.stdout
    await control.stdout.readline()
    ticking = asyncio.create_task(tick())
    try:
        yield found
    finally:
        ticking.cancel()
        out, _ = await control.communicate(b"")
        found.machine = float(out)
