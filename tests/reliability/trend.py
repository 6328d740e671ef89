"""What a soak saw -> its figures, with the trends of memory and of latency, and a plot of it all."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.reliability.visits import KINDS, Asked, Diary, Sample

BIN_SECONDS = 60.0
# Of the time to the first word over a run, as a share of its median: what else a shared machine does moves it by a few percent.
MOST_GROWTH = 0.1


def settled(diary: Diary) -> list[Sample]:
    """The samples since all caches have been full: what grows before is kept on purpose, up to a bound; what grows afterwards is lost.

    Where they never were, as in a short run, the later three quarters.
    """
    later = [sample for sample in diary.samples if sample.caches_full]
    return later if len(later) > 1 else [sample for sample in diary.samples if sample.at >= diary.samples[-1].at / 4]


def slope(hours: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """By how much values grow in an hour, by least squares, and half the width of its interval of 95 %.

    What is left over of neighbours is alike, so there is less to go by than there are values, by as much as their likeness says (Santer et al. 2000).
    """
    x, y = np.asarray(hours), np.asarray(values)
    (rise, start), x0 = np.polyfit(x, y, 1), x - x.mean()
    left = y - (start + rise * x)
    likeness = float(left[:-1] @ left[1:] / (left @ left)) if left.any() else 0.0
    count = max(len(x) * (1 - likeness) / (1 + likeness), 3.0) if likeness > 0 else len(x)
    return float(rise), float(2 * np.sqrt(left @ left / max(count - 2, 1.0) / (x0 @ x0)))


def figures(diary: Diary) -> dict[str, Any]:
    """What is compared with the bars."""
    samples = settled(diary)
    first, last = samples[0], diary.samples[-1]
    chats = sorted((one for one in diary.asked if one.kind == "chat" and not one.wrong and one.at >= first.at), key=lambda one: one.at)
    early, late = chats[: len(chats) // 4], chats[-(len(chats) // 4) :]
    wrong = [one for one in diary.asked if one.wrong]
    trends: dict[str, Any] = {}
    if last.at - first.at >= 5 * BIN_SECONDS:  # in less there is none
        rise, within = slope([sample.at / 3600 for sample in samples], [sample.rss_mib for sample in samples])
        trends["rss_slope_mib_per_h"] = _with_interval(rise, within)
        trends["rss_growth_mib_per_1000"] = round(
            rise * (last.at - first.at) / 3600 * 1000 / max(sum(one.at >= first.at for one in diary.asked), 1), 2
        )
        hours, seconds = _medians(chats)
        rise, within = slope(hours, seconds)
        trends["first_word_slope_s_per_h"] = _with_interval(rise, within)
        trends["first_word_growth"] = round(rise * (last.at - first.at) / 3600 / float(np.median(seconds)), 3)
    return {
        "requests": len(diary.asked),
        "errors": len(wrong),
        "first_errors": [one.wrong for one in wrong[:3]],
        "caches_full": first.caches_full,
        "settled_after_s": round(first.at),
        "requests_since": sum(one.at >= first.at for one in diary.asked),
        "rss_mib": [diary.samples[0].rss_mib, max(sample.rss_mib for sample in diary.samples), last.rss_mib],
        **trends,
        "threads": [first.threads, last.threads],
        "fds": [first.fds, last.fds],
        "kv_blocks_held_after": last.kv_blocks_held,
        "chat_s_first_quarter": _percentiles(early, lambda one: one.whole_s),
        "chat_s_last_quarter": _percentiles(late, lambda one: one.whole_s),
        "first_word_s_first_quarter": _percentiles(early, lambda one: one.first_s),
        "first_word_s_last_quarter": _percentiles(late, lambda one: one.first_s),
        "cores_busy_with_others": round(float(np.mean([sample.others_cores for sample in samples])), 2),
    }


def slower(found: dict[str, Any]) -> bool:
    """Whether figures say that first words come later and later: by more than the interval, and by enough to matter. Of a short run they do not."""
    rise, _, within = found.get("first_word_slope_s_per_h", (0, "", 0))
    return bool(rise > within and found["first_word_growth"] > MOST_GROWTH)


def _with_interval(rise: float, within: float) -> list[Any]:
    return [round(rise, 3), "+-", round(within, 3)]


def _medians(asked: Sequence[Asked]) -> tuple[list[float], list[float]]:
    """Of each minute: when, in hours, and the median time to the first word."""
    bins = [int(one.at // BIN_SECONDS) for one in asked]
    return [number * BIN_SECONDS / 3600 for number in sorted(set(bins))], [
        float(np.median([one.first_s for one, its in zip(asked, bins, strict=True) if its == number])) for number in sorted(set(bins))
    ]


def _percentiles(asked: Sequence[Asked], seconds: Callable[[Asked], float]) -> dict[str, float]:
    return {f"p{share}": round(float(np.percentile([seconds(one) for one in asked], share)), 3) for share in (50, 99)} if asked else {}


def plot(diary: Diary, found: dict[str, Any], path: Path) -> None:
    """Memory, latency and errors, what the machine did besides, and threads and descriptors, over the minutes."""
    from matplotlib.figure import Figure

    figure = Figure((9, 10), layout="constrained")
    memory, latency, others, held = figure.subplots(4, sharex=True, height_ratios=(3, 4, 1, 2))
    minutes = [sample.at / 60 for sample in diary.samples]
    memory.plot(minutes, [sample.rss_mib for sample in diary.samples])
    memory.axvline(found["settled_after_s"] / 60, color="grey", linestyle=":", label="from here on the trend is measured")
    memory.legend(loc="lower right")
    memory.set(ylabel="resident memory, MiB", ylim=(0, None), title="{requests} requests, {errors} errors, seed {seed}".format(**found))
    for kind in KINDS:
        if own := [one for one in diary.asked if one.kind == kind and not one.wrong]:
            latency.plot([one.at / 60 for one in own], [one.whole_s for one in own], ".", markersize=2, label=kind)
    if wrong := [one for one in diary.asked if one.wrong]:
        latency.plot([one.at / 60 for one in wrong], [max(one.whole_s, 0.01) for one in wrong], "rx", label="errors")
    latency.set(ylabel="whole answer, s", yscale="log")
    latency.legend(markerscale=4, ncols=4, fontsize="small")
    others.plot(minutes, [sample.others_cores for sample in diary.samples], color="grey")
    others.set(ylabel="cores busy\nwith others", ylim=(0, None))
    for name in ("threads", "fds"):
        held.plot(minutes, [getattr(sample, name) for sample in diary.samples], label={"fds": "file descriptors"}.get(name, name))
    held.set(xlabel="minutes", ylim=(0, None))
    held.legend()
    figure.savefig(path, dpi=100)
