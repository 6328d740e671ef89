import numpy as np
import pytest

from conversion.fidelity import MAX_KL, MIN_COSINE, Limits, compare, compare_logits, table
from pipeline.errors import InputError

GOOD = {"format": "int4", "cosine": 0.99, "relative_error": 0.1, "top_1": 0.9, "kl": 0.01}


def _random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def test_the_same_is_as_near_as_can_be():
    outputs = [_random(1, 5, 8), _random(1, 7, 8)]
    assert compare(outputs, outputs) == {"cosine": 1.0, "relative_error": 0.0}
    assert compare_logits(outputs, outputs) == {"cosine": 1.0, "relative_error": 0.0, "tokens": 12, "top_1": 1.0, "kl": 0.0}


def test_the_worst_input_counts():
    one, other = np.array([[3.0, 4.0]], np.float32), np.array([[4.0, 3.0]], np.float32)
    assert compare([one, one], [one, other]) == {"cosine": 0.96, "relative_error": round(2**0.5 / 5, 5)}


def test_a_scale_that_is_off_shows_in_the_error_alone():
    outputs = [_random(1, 5, 8)]
    assert compare(outputs, [outputs[0] * 2]) == {"cosine": 1.0, "relative_error": 1.0}


def test_the_divergence_is_that_of_the_found_distribution_from_the_expected_one_and_logits_may_be_shifted():
    expected, found = np.log([[[0.5, 0.5], [0.25, 0.75]]]).astype(np.float32), np.log([[[0.25, 0.75], [0.25, 0.75]]]).astype(np.float32)
    figures = compare_logits([expected], [found + np.float32(100)])
    assert figures["kl"] == pytest.approx((0.5 * np.log(2) + 0.5 * np.log(2 / 3)) / 2, abs=1e-4)
    assert figures["top_1"] == 0.5


def test_a_part_within_its_limits_has_no_shortfall():
    assert Limits().shortfall("language model", GOOD) is None
    assert Limits().shortfall("resampler", {"format": "fp16", "cosine": 0.9995, "relative_error": 0.01}) is None


@pytest.mark.parametrize(
    ("figures", "sentence"),
    [
        ({"cosine": 0.5}, "The language model in int4 is too far from the checkpoint: its cosine is 0.500000, and the limit is 0.8."),
        ({"kl": 2.0}, "The language model in int4 is too far from the checkpoint: it diverges by 2.0000 nats, and the limit is 0.75."),
        ({"cosine": float("nan")}, "The language model in int4 is too far from the checkpoint: its cosine is nan, and the limit is 0.8."),
        ({"kl": float("nan")}, "The language model in int4 is too far from the checkpoint: it diverges by nan nats, and the limit is 0.75."),
    ],
)
def test_a_shortfall_is_one_sentence_with_the_part_the_value_and_the_limit(figures, sentence):
    assert Limits().shortfall("language model", GOOD | figures) == sentence


def test_the_least_cosine_can_be_set_for_all_parts():
    assert Limits(0.995).shortfall("language model", GOOD).endswith("its cosine is 0.990000, and the limit is 0.995.")
    assert Limits(0.4).shortfall("language model", GOOD | {"cosine": 0.5}) is None


def test_the_greatest_divergence_can_be_set_in_every_format():
    assert Limits(max_kl=0.005).shortfall("language model", GOOD).endswith("it diverges by 0.0100 nats, and the limit is 0.005.")
    assert Limits(max_kl=2.5).shortfall("language model", GOOD | {"kl": 2.0}) is None
    assert [Limits(max_kl=0.0).of(weight_format)["kl"] for weight_format in MAX_KL] == [0.0] * len(MAX_KL)
    assert Limits(max_kl=2.5).of("int4")["cosine"] == MIN_COSINE["int4"]


def test_an_output_of_nothing_or_of_no_numbers_is_too_far():
    for bad in (np.zeros((1, 4), np.float32), np.full((1, 4), np.nan, np.float32)):
        with np.errstate(invalid="ignore"):
            figures = {"format": "fp32", **compare([_random(1, 4)], [bad])}
        assert Limits().shortfall("resampler", figures) is not None


def test_finer_formats_are_held_to_more():
    assert MIN_COSINE["fp32"] > MIN_COSINE["fp16"] > MIN_COSINE["int8"] > MIN_COSINE["int8-ptq"] > MIN_COSINE["int4"]
    assert MAX_KL["fp32"] < MAX_KL["fp16"] < MAX_KL["int8"] < MAX_KL["int4"]


@pytest.mark.parametrize("least", [1.1, -2.0, float("nan")])
def test_an_impossible_limit_is_refused(least):
    with pytest.raises(InputError, match=r"from -1 to 1"):
        Limits(least)


@pytest.mark.parametrize("greatest", [-0.1, float("nan"), float("inf")])
def test_an_impossible_divergence_is_refused(greatest):
    with pytest.raises(InputError, match=rf"^The greatest divergence is {greatest} nats; it must be a number from 0 on\.$"):
        Limits(max_kl=greatest)


def test_the_table_has_a_row_for_each_part():
    lines = table({"resampler": {"format": "int8", "cosine": 0.999, "relative_error": 0.01}, "language model": GOOD})
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2:] == ["| resampler | int8 | 0.999000 | 0.0100 | - | - |", "| language model | int4 | 0.990000 | 0.1000 | 90.0% | 0.0100 |"]
