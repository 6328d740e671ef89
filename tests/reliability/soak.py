"""Hours of visitors at a page of its own -> what they met, and what the process held meanwhile: a JSON file, a plot, and a line of JSON (R10, R18).

    python -m tests.reliability.soak --hours 1 --seed 7

Each visitor is a thread with a client of the API, and begins one conversation after the other, of a kind drawn by weight.
"""

import argparse
import io
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import PIL.Image
from gradio_client import Client
from gradio_client.exceptions import AppError
from prometheus_client.parser import text_string_to_metric_families

from demo.exam import video_file
from tests.process import running
from tests.reliability.visiting import COLOUR, NUMBER, SAYABLE, picture, request, rss_mib
from tests.serving import connect, message

VISITORS, SAMPLE_SECONDS, CEILING_MIB = 4, 5.0, 16 * 1024
REPORT = Path(__file__).parents[2] / "bench" / "results"


@dataclass(frozen=True)
class Asked:
    """One request: when it was made and how long it took, in seconds, and what was wrong with it, if anything was."""

    at: float
    kind: str
    first_s: float
    whole_s: float
    wrong: str = ""


@dataclass(frozen=True)
class Sample:
    """What the process holds at a time in seconds."""

    at: float
    rss_mib: float
    threads: int
    fds: int
    kv_blocks_held: int


@dataclass
class Diary:
    """Everything that was seen."""

    began: float = field(default_factory=time.monotonic)
    asked: list[Asked] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)

    def now(self) -> float:
        return time.monotonic() - self.began


class Visitor:
    """One who comes back again and again. `files` is a folder of their own."""

    def __init__(self, address: str, seed: int, diary: Diary, files: Path) -> None:
        self._address, self._diary, self._files = address, diary, files
        self._random = np.random.default_rng(seed)
        self._client: Client = connect(address)
        files.mkdir()

    def come_until(self, over: threading.Event) -> None:
        kinds, weights = zip(*KINDS.items(), strict=True)
        share = np.array(weights) / sum(weights)
        while not over.is_set():
            kind = kinds[int(self._random.choice(len(kinds), p=share))]
            self._client.reset_session()
            try:
                getattr(self, kind)()
            except Exception as error:  # whatever it was, it is what the soak is there to find
                self._diary.asked.append(Asked(self._diary.now(), kind, 0.0, 0.0, f"{type(error).__name__}: {error}"[:200]))

    def chat(self) -> None:
        colour, number, file = self._picture()
        self._ask("chat", COLOUR, colour, file)
        self._ask("chat", NUMBER, number)
        self._ask("chat", COLOUR, colour)

    def compare(self) -> None:
        self._ask("compare", "What is the difference between the two pictures?", "", self._picture()[2], self._picture()[2])

    def video(self) -> None:
        frames = [PIL.Image.open(io.BytesIO(picture(self._one_of(SAYABLE), 11))) for _ in range(3)]
        self._ask("video", "What happens in the video?", "", self._file("film.mp4", video_file(frames).source))

    def stop(self) -> None:
        job = self._client.submit(message(COLOUR, self._picture()[2], self._picture()[2]), api_name="/chat")
        next(iter(job), None)
        job.cancel()

    def leave(self) -> None:
        """Hang up in the middle of an answer, having sent nothing else."""
        with httpx.Client(base_url=self._address, timeout=60) as http:
            event = http.post("gradio_api/call/chat", json=request(self._address, "Tell me everything.")).json()["event_id"]
            with http.stream("GET", f"gradio_api/call/chat/{event}") as stream:
                next(stream.iter_lines(), None)

    def retry(self) -> None:
        colour, _, file = self._picture()
        for _ in range(2):
            self._ask("retry", COLOUR, colour, file)
            self._client.reset_session()

    def big(self) -> None:
        pixels = self._random.integers(0, 256, (200, 300, 3), np.uint8)
        file = self._files / "big.jpg"
        PIL.Image.fromarray(pixels).resize((3000, 2000)).save(file)
        self._ask("big", "What do you see?", "", file)

    def wrong_file(self) -> None:
        content = (b"", b"not a picture", picture("red", 11)[:300])[int(self._random.integers(3))]
        try:
            self._ask("wrong_file", COLOUR, "a refusal", self._file("wrong.png", content))
        except AppError as error:
            if not str(error).startswith("Picture 1"):
                raise

    def _ask(self, kind: str, question: str, right: str, *files: Path) -> None:
        began = self._diary.now()
        job = self._client.submit(message(question, *files), api_name="/chat", mode="greedy")
        next(iter(job), None)
        first_s = self._diary.now() - began
        last: Any = job.result()
        fine = last.lower() == f"{right}." if right and isinstance(last, str) else isinstance(last, str)
        self._diary.asked.append(Asked(began, kind, first_s, self._diary.now() - began, "" if fine else f"{right!r} was called {last!r}"[:200]))

    def _picture(self) -> tuple[str, str, Path]:
        colour, number = self._one_of(SAYABLE), int(self._random.integers(11, 99))
        return colour, str(number), self._file("picture.png", picture(colour, number))

    def _file(self, name: str, content: Any) -> Path:
        path = self._files / f"{self._random.integers(2**32)}-{name}"
        path.write_bytes(content)
        return path

    def _one_of(self, things: Sequence[str]) -> str:
        return things[int(self._random.integers(len(things)))]


#: How often each kind of visit is made.
KINDS = {"chat": 40, "compare": 15, "video": 8, "stop": 10, "leave": 10, "retry": 8, "big": 3, "wrong_file": 6}


def soak(seconds: float, seed: int, visitors: int, folder: Path) -> tuple[dict[str, Any], Diary]:
    """Let visitors come for so long; the figures, and all that was seen. `folder` takes their files and the page's."""
    uploads = folder / "tmp"
    uploads.mkdir(parents=True)
    with running(uploads) as (process, client):
        drained = [threading.Thread(target=pipe.read, daemon=True) for pipe in (process.stdout, process.stderr) if pipe]
        people = [Visitor(client.src, seed * 1000 + number, Diary(), folder / str(number)) for number in range(visitors)]
        people[0].chat()  # the model is there
        diary, over = Diary(), threading.Event()
        for visitor in people:
            visitor._diary = diary
        threads = [*drained, *(threading.Thread(target=visitor.come_until, args=(over,), daemon=True) for visitor in people)]
        for thread in threads:
            thread.start()
        while diary.now() < seconds:
            diary.samples.append(_sample(client.src, process.pid, diary))
            over.wait(min(SAMPLE_SECONDS, max(seconds - diary.now(), 0.0)))
        over.set()
        until = time.monotonic() + 120
        for thread in threads[len(drained) :]:
            thread.join(max(until - time.monotonic(), 0.0))
        diary.asked += [Asked(diary.now(), "all", 0.0, 0.0, "a visitor still waits") for thread in threads[len(drained) :] if thread.is_alive()]
        while (last := _sample(client.src, process.pid, diary)).kv_blocks_held and diary.now() < seconds + 120:
            threading.Event().wait(0.1)
        diary.samples.append(last)
        process.terminate()
        status = process.wait(60)
    return {**_figures(diary), "seconds": round(seconds), "seed": seed, "visitors": visitors, "exit_status": status}, diary


def _sample(address: str, pid: int, diary: Diary) -> Sample:
    books = {one.name: one.value for family in text_string_to_metric_families(httpx.get(f"{address}metrics").text) for one in family.samples}
    held = int(books["kv_blocks"] - books["kv_blocks_free"])
    proc = Path(f"/proc/{pid}")
    return Sample(round(diary.now(), 1), round(rss_mib(pid), 1), len(list((proc / "task").iterdir())), len(list((proc / "fd").iterdir())), held)


def _figures(diary: Diary) -> dict[str, Any]:
    """What is compared with the bars; of memory and latency the trend, once what is made at first is there."""
    settled = [sample for sample in diary.samples if sample.at >= diary.samples[-1].at / 4]
    chats = sorted((one for one in diary.asked if one.kind == "chat" and not one.wrong), key=lambda one: one.at)
    quarters = [chats[: len(chats) // 4], chats[-(len(chats) // 4) :]]
    wrong = [one for one in diary.asked if one.wrong]
    hours, rss = [sample.at / 3600 for sample in settled], [sample.rss_mib for sample in settled]
    trend: dict[str, Any] = {}
    if diary.samples[-1].at > 300:  # in less there is none
        (slope, _), spread = np.polyfit(hours, rss, 1, cov=True)
        grown = (rss[-1] - rss[0]) * 1000 / sum(one.at >= settled[0].at for one in diary.asked)
        trend["rss_slope_mib_per_h"] = [round(float(slope), 1), "+-", round(2 * float(spread[0, 0]) ** 0.5, 1)]
        trend["rss_growth_mib_per_1000"] = round(grown, 1)
    return {
        "requests": len(diary.asked),
        "errors": len(wrong),
        "first_errors": [one.wrong for one in wrong[:3]],
        "rss_mib": [diary.samples[0].rss_mib, max(sample.rss_mib for sample in diary.samples), diary.samples[-1].rss_mib],
        **trend,
        "threads": [settled[0].threads, settled[-1].threads],
        "fds": [settled[0].fds, settled[-1].fds],
        "kv_blocks_held_after": diary.samples[-1].kv_blocks_held,
        "chat_s_first_quarter": _percentiles(quarters[0]),
        "chat_s_last_quarter": _percentiles(quarters[1]),
        "first_word_s_first_quarter": _percentiles(quarters[0], lambda one: one.first_s),
        "first_word_s_last_quarter": _percentiles(quarters[1], lambda one: one.first_s),
    }


def _percentiles(asked: Sequence[Asked], seconds: Callable[[Asked], float] = lambda one: one.whole_s) -> dict[str, float]:
    return {f"p{share}": round(float(np.percentile([seconds(one) for one in asked], share)), 3) for share in (50, 99)} if asked else {}


def plot(diary: Diary, figures: dict[str, Any], path: Path) -> None:
    """Memory, latency, and threads and descriptors over the minutes."""
    from matplotlib.figure import Figure

    figure = Figure((9, 8), layout="constrained")
    memory, latency, held = figure.subplots(3, sharex=True)
    minutes = [sample.at / 60 for sample in diary.samples]
    memory.plot(minutes, [sample.rss_mib for sample in diary.samples])
    title = "{requests} requests, {errors} errors, seed {seed}".format(**figures)
    memory.set(ylabel="resident memory, MiB", ylim=(0, None), title=title)
    for kind in KINDS:
        if own := [one for one in diary.asked if one.kind == kind and not one.wrong]:
            latency.plot([one.at / 60 for one in own], [one.whole_s for one in own], ".", markersize=2, label=kind)
    latency.set(ylabel="whole answer, s", yscale="log")
    latency.legend(markerscale=4, ncols=4, fontsize="small")
    for name in ("threads", "fds"):
        held.plot(minutes, [getattr(sample, name) for sample in diary.samples], label={"fds": "file descriptors"}.get(name, name))
    held.set(xlabel="minutes", ylim=(0, None))
    held.legend()
    figure.savefig(path, dpi=100)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--visitors", type=int, default=VISITORS)
    options = parser.parse_args()
    print(f"Seed {options.seed}: {options.visitors} visitors for {options.hours * 60:.0f} minutes.", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        figures, diary = soak(options.hours * 3600, options.seed, options.visitors, Path(folder) / "soak")
    (REPORT / "soak.json").write_text(json.dumps({"figures": figures, "samples": [asdict(one) for one in diary.samples]}) + "\n")
    plot(diary, figures, REPORT / "soak.png")
    print(json.dumps({"R18": figures}))
    return int(bool(figures["errors"] or figures["kv_blocks_held_after"] or figures["rss_mib"][1] > CEILING_MIB))


if __name__ == "__main__":
    sys.exit(main())
