"""Hours of visitors at a page of its own -> what they met, and what the process held meanwhile: a JSON file, a plot, and a line of JSON (R10, R18).

    python -m tests.reliability.soak --hours 1 --seed 7

Each visitor is a thread with a client of the API, and begins one conversation after the other, of a kind drawn by weight. The server's caches are
small, so that they are full within minutes: what it holds afterwards should grow no more, whatever their size.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from tests.process import running
from tests.reliability.trend import figures, plot, slower
from tests.reliability.visiting import rss_mib
from tests.reliability.visits import Diary, Sample, Visitor
from tests.serving import until

VISITORS, SAMPLE_SECONDS = 4, 5.0
CEILING_MIB, MOST_GROWTH_MIB_PER_1000 = 16 * 1024, 20
KV_CACHE_BYTES, VISION_CACHE_BYTES, SESSIONS = 20_000_000, 16 * 2**20, 200
KEEP_SECONDS, LOOK_SECONDS = 120, 30  # of uploads, and of what is known of them
# Gradio itself remembers 2,000 sessions' queues of messages, 3 KiB each, and 10,000 requests.
APP = f"""
import functools
import gradio.queueing
of_sessions = gradio.queueing.LRUCache
gradio.queueing.LRUCache = lambda _: of_sessions({SESSIONS})
import app, ui.cost, ui.server, ui.uploads
ui.server.MAX_SESSIONS = {SESSIONS}
ui.uploads.KEEP_SECONDS, ui.uploads.LOOK_SECONDS = {KEEP_SECONDS}, {LOOK_SECONDS}
app.EngineConfig = functools.partial(app.EngineConfig, kv_cache_bytes={KV_CACHE_BYTES}, vision_cache_bytes={VISION_CACHE_BYTES})
ui.cost.EngineConfig = app.EngineConfig
app.main()
"""
REPORT = Path(__file__).parents[2] / "bench" / "results"


class Watch:
    """Looks at the server again and again."""

    def __init__(self, http: httpx.Client, pid: int, diary: Diary) -> None:
        self._http, self._process, self._diary = http, psutil.Process(pid), diary
        self._before = (time.monotonic(), self._others())

    def sample(self) -> Sample:
        """What it holds now, which the diary takes too."""
        books = {one.name: one.value for family in text_string_to_metric_families(self._http.get("metrics").text) for one in family.samples}
        full = (
            self._diary.visits >= SESSIONS
            and books["vision_cache_bytes"] > VISION_CACHE_BYTES - 2**18  # less than a slice of any model is missing
            and books["prefix_cache_evictions_total"] > 0  # a block is overwritten only if all have been written to
        )
        (then, spent), self._before = self._before, (time.monotonic(), self._others())
        sample = Sample(
            at=round(self._diary.now(), 1),
            visits=self._diary.visits,
            rss_mib=round(rss_mib(self._process.pid), 1),
            threads=self._process.num_threads(),
            fds=self._process.num_fds(),
            kv_blocks_held=int(books["kv_blocks"] - books["kv_blocks_free"]),
            caches_full=full,
            others_cores=round(max(self._before[1] - spent, 0.0) / max(self._before[0] - then, 1e-9), 2),
        )
        self._diary.samples.append(sample)
        return sample

    def _others(self) -> float:
        """Seconds of processors that others have spent so far."""
        machine = psutil.cpu_times()
        mine = 0.0
        for process in (psutil.Process(), self._process, *self._process.children(recursive=True)):
            try:
                mine += sum(process.cpu_times()[:4])  # with what its ended children spent
            except psutil.NoSuchProcess:
                continue
        return sum(machine[:8]) - machine.idle - machine.iowait - mine


def soak(seconds: float, seed: int, visitors: int, folder: Path) -> tuple[dict[str, Any], Diary]:
    """Let visitors come for so long; the figures, and all that was seen. `folder` takes their files and the page's."""
    uploads = folder / "tmp"
    uploads.mkdir(parents=True)
    with running(uploads, APP, GRADIO_ANALYTICS_MAX_EVENTS=str(SESSIONS)) as (process, client), httpx.Client(base_url=client.src, timeout=60) as http:
        for pipe in filter(None, (process.stdout, process.stderr)):
            threading.Thread(target=pipe.read, daemon=True).start()
        until(lambda: http.get("healthz").is_success)
        diary = Diary()
        people = [Visitor(client.src, seed * 1000 + number, diary, folder / str(number)) for number in range(visitors)]
        watch = Watch(http, process.pid, diary)
        waits = _come(people, lambda: watch.sample().at >= seconds, lambda: seconds - diary.now())
        until(lambda: not watch.sample().kv_blocks_held or diary.now() > seconds + 120)
        process.terminate()
        status = process.wait(60)
    found = {**figures(diary), "visitors_who_still_wait": waits, "seconds": round(seconds), "seed": seed, "visitors": visitors, "exit_status": status}
    return found, diary


def _come(people: list[Visitor], over: Callable[[], bool], left: Callable[[], float]) -> list[str]:
    """Everybody comes until it is over, which is looked for every few seconds; at what those are who still wait two minutes later."""
    ends = threading.Event()
    threads = [threading.Thread(target=visitor.come_until, args=(ends,), daemon=True) for visitor in people]
    for thread in threads:
        thread.start()
    while not over():
        ends.wait(max(min(SAMPLE_SECONDS, left()), 0.0))
    ends.set()
    latest = time.monotonic() + 120
    for thread in threads:
        thread.join(max(latest - time.monotonic(), 0.0))
    return [visitor.visit for visitor, thread in zip(people, threads, strict=True) if thread.is_alive()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--visitors", type=int, default=VISITORS)
    options = parser.parse_args()
    print(f"Seed {options.seed}: {options.visitors} visitors for {options.hours * 60:.0f} minutes.", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        found, diary = soak(options.hours * 3600, options.seed, options.visitors, Path(folder) / "soak")
    samples = ",\n".join(json.dumps(list(asdict(sample).values())) for sample in diary.samples)
    head = json.dumps({"figures": found, "columns": list(Sample.__dataclass_fields__)})
    (REPORT / "soak.json").write_text(f'{head[:-1]}, "samples": [\n{samples}\n]}}\n')
    plot(diary, found, REPORT / "soak.png")
    print(json.dumps({"R18": found}))
    (rise, _, within), growth = found.get("rss_slope_mib_per_h", (0, "", 0)), found.get("rss_growth_mib_per_1000", 0)
    leaks = rise > within and growth > MOST_GROWTH_MIB_PER_1000
    gathers = any(last > first + 5 for first, last in (found["threads"], found["fds"]))
    unsettled = options.hours >= 0.5 and not found["caches_full"]  # then nothing would be known of its memory
    bad = gathers + unsettled + found["errors"] + len(found["visitors_who_still_wait"]) + found["kv_blocks_held_after"] + found["exit_status"]
    return int(bool(bad or leaks or slower(found) or found["rss_mib"][1] > CEILING_MIB))


if __name__ == "__main__":
    sys.exit(main())
