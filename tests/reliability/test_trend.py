"""What a soak's figures make of memory that grows: a leak is told from a cache that fills."""

import numpy as np
import pytest

from tests.reliability.trend import figures, slope, slower
from tests.reliability.visits import Asked, Diary, Sample

MINUTES = 60


def day(leak_mib_per_h: float, full_after: int) -> Diary:
    """An hour in which caches fill with 200 MiB until they are full, noise comes and goes, and so much is lost."""
    random, noise = np.random.default_rng(1), 0.0
    diary = Diary(began=0.0)
    for at in range(0, MINUTES * 60, 5):
        noise = 0.9 * noise + random.normal(0, 1)
        kept = 200 * min(at / 60 / full_after, 1.0)
        rss_mib = 400 + kept + leak_mib_per_h * at / 3600 + noise
        diary.samples.append(Sample(at, at, rss_mib, threads=20, fds=20, kv_blocks_held=0, caches_full=at >= 60 * full_after, others_cores=0.0))
        diary.asked.append(Asked(at, "chat", 0.2 + random.random() / 10, 0.3))
    return diary


def trend(diary: Diary) -> tuple[float, float]:
    rise, _, within = figures(diary)["rss_slope_mib_per_h"]
    return rise, within


def test_a_cache_that_fills_is_no_trend() -> None:
    rise, within = trend(day(leak_mib_per_h=0, full_after=15))
    assert abs(rise) < within < 20


def test_a_leak_is_one_however_much_noise_is_over_it() -> None:
    rise, within = trend(day(leak_mib_per_h=60, full_after=15))
    assert rise - within > 0
    assert rise == pytest.approx(60, abs=within)


def test_neighbours_that_are_alike_make_the_interval_wider() -> None:
    random = np.random.default_rng(2)
    hours, apart = list(np.linspace(0, 1, 400)), random.normal(0, 1, 400)
    alike = np.convolve(apart, np.ones(20) / 20**0.5, "same")  # as wide apart, but twenty in a row together
    assert slope(hours, list(alike))[1] > 2 * slope(hours, list(apart))[1]


def test_latency_that_grows_is_a_trend_and_what_went_wrong_is_counted() -> None:
    diary = day(leak_mib_per_h=0, full_after=15)
    diary.asked = [Asked(at, "chat", 0.2 + at / 3600, 0.3 + at / 3600) for at in range(0, 3600, 5)] + [Asked(1.0, "big", 0.0, 0.0, "lost")]
    found = figures(diary)
    rise, _, within = found["first_word_slope_s_per_h"]
    assert rise - within > 0.9
    assert (found["errors"], found["first_errors"], found["settled_after_s"]) == (1, ["lost"], 900)
    assert found["first_word_s_last_quarter"]["p99"] > found["first_word_s_first_quarter"]["p99"] + 0.4


@pytest.mark.parametrize(
    ("later_s_per_h", "noise_s", "verdict"),
    [
        pytest.param(0.2, 0.05, True, id="ever later"),
        pytest.param(0.0, 0.05, False, id="as ever"),
        pytest.param(-0.1, 0.05, False, id="ever sooner"),
        pytest.param(0.02, 0.001, False, id="certain, but too little to matter"),
        pytest.param(0.2, 3.0, False, id="much, but no more than chance"),
    ],
)
def test_the_verdict_is_about_latency_that_surely_grows_and_by_much(later_s_per_h: float, noise_s: float, verdict: bool) -> None:
    random, diary = np.random.default_rng(3), day(leak_mib_per_h=0, full_after=15)
    diary.asked = [Asked(at, "chat", 0.4 + later_s_per_h * at / 3600 + random.normal(0, noise_s), 1.0) for at in range(0, 3600, 5)]
    found = figures(diary)
    assert slower(found) is verdict


def test_a_short_run_has_no_trend_and_is_not_slower() -> None:
    diary = day(leak_mib_per_h=0, full_after=15)
    diary.samples, diary.asked = diary.samples[:24], diary.asked[:24]
    assert not slower(figures(diary))
