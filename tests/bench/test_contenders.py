"""What the benchmark of the engine asks of ours can be answered, and takes time."""

import pytest

from bench.contenders import CONTENDERS
from bench.engine import delays
from pipeline.artifacts import BUNDLED


@pytest.mark.parametrize("name", ["paged", "stateful"])
def test_each_question_of_the_benchmark_is_answered_with_figures(name: str) -> None:
    contender = CONTENDERS[name](BUNDLED)
    try:
        chat = contender.chat(seed=1, side=100)
        assert 0 < chat["follow_up_s"] < chat["first_s"]
        assert contender.prompts(seed=2, users=1, prompt_tokens=100)["prefill_s"] > 0
        assert contender.crowd(seed=3, users=1, tokens=8)["tokens_per_s"] > 0
        arrival = contender.arrival(seed=4, prompt_tokens=100)
        assert (arrival is None) == (name == "stateful")
        if arrival:
            assert delays(arrival)["ttft_ratio"] > 0
    finally:
        contender._assistant.close()
