"""The sampler against transformers' own `generate` on a small random Qwen2, and by its distribution."""

import numpy as np
import pytest

from pipeline.config import GenerationConfig
from pipeline.engine.sampler import BeamSearch, Choice, TokenSampler, next_tokens, penalise

TERMINATORS = (3, 7)
VOCABULARY = 24


@pytest.fixture(scope="module")
def model():
    """A language model whose answers of random length often end: the terminators are made likely."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(5)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        initializer_range=0.35,
    )
    model = Qwen2ForCausalLM(config).eval()
    model.generation_config.pad_token_id = 0
    return model


def logits_after(model, prompt: list[int], beams: list[tuple[int, ...]]) -> np.ndarray:
    import torch

    with torch.inference_mode():
        return model(torch.tensor([[*prompt, *beam] for beam in beams])).logits[:, -1].numpy()


def reference(model, prompt: list[int], **options) -> list[int]:
    """transformers, given embeddings as the official code gives them, so that it returns and penalises new tokens only."""
    import torch

    embeds = model.get_input_embeddings()(torch.tensor([prompt]))
    mask = torch.ones(1, len(prompt), dtype=torch.long)
    with torch.inference_mode():
        return model.generate(inputs_embeds=embeds, attention_mask=mask, eos_token_id=list(TERMINATORS), **options)[0].tolist()


def beam_search(model, prompt: list[int], generation: GenerationConfig) -> tuple[list[int], list[tuple[int, ...]]]:
    """The answer, and what was agreed on after each step."""
    search, agreed = BeamSearch(generation, TERMINATORS), []
    for _ in range(generation.max_new_tokens):
        search.step(logits_after(model, prompt, [beam.token_ids for beam in search.live]))
        agreed.append(search.agreed())
        if search.done:
            break
    return list(search.best().token_ids), agreed


THE_PENALTY_SEES_NEW_TOKENS = pytest.mark.filterwarnings("ignore:Passing `repetition_penalty` with `inputs_embeds`:UserWarning")


@THE_PENALTY_SEES_NEW_TOKENS
@pytest.mark.parametrize("num_beams", [2, 3, 5])
@pytest.mark.parametrize("penalty", [1.0, 1.2])
def test_beams_equal_those_of_transformers_also_when_answers_end_early(model, num_beams: int, penalty: float) -> None:
    ended, random = 0, np.random.default_rng(0)
    for length in (1, 2, 5, 12, 20, 20, 20, 20):
        prompt = random.integers(8, VOCABULARY, 4).tolist()
        generation = GenerationConfig.beams(num_beams=num_beams, repetition_penalty=penalty, max_new_tokens=length)
        ours, agreed = beam_search(model, prompt, generation)
        theirs = reference(model, prompt, do_sample=False, num_beams=num_beams, repetition_penalty=penalty, max_new_tokens=length)
        assert ours == theirs[: len(ours)]
        assert set(theirs[len(ours) :]) <= {0}, "the rest is padding"
        assert all(tuple(ours[: len(prefix)]) == prefix for prefix in agreed), "what was shown early must stay"
        ended += ours[-1] in TERMINATORS
    assert ended, "no answer ended early: the test would not see a wrong ending"


@THE_PENALTY_SEES_NEW_TOKENS
@pytest.mark.parametrize("penalty", [1.0, 1.3])
@pytest.mark.parametrize("min_new_tokens", [0, 6])
def test_greedy_equals_that_of_transformers(model, penalty: float, min_new_tokens: int) -> None:
    prompt, generated = [9, 12, 20], []
    generation = GenerationConfig.greedy(repetition_penalty=penalty, min_new_tokens=min_new_tokens, max_new_tokens=15)
    sampler = TokenSampler(generation, TERMINATORS)
    while len(generated) < 15 and not set(generated) & set(TERMINATORS):
        generated += next_tokens(logits_after(model, prompt, [tuple(generated)]), [Choice(sampler, generated)])
    theirs = reference(model, prompt, do_sample=False, repetition_penalty=penalty, min_new_tokens=min_new_tokens, max_new_tokens=15)
    assert generated == theirs
    assert len(generated) >= min_new_tokens


@pytest.mark.parametrize(("top_k", "top_p", "temperature"), [(0, 1.0, 1.0), (4, 1.0, 0.7), (0, 0.5, 1.3), (5, 0.8, 0.7), (3, 0.0, 1.0)])
def test_draws_follow_the_distribution_of_transformers(top_k: int, top_p: float, temperature: float) -> None:
    import torch
    from transformers.generation.logits_process import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    logits = np.random.default_rng(1).normal(size=VOCABULARY).astype(np.float32) * 2
    scores = TemperatureLogitsWarper(temperature)(None, torch.tensor(logits)[None])
    scores = TopKLogitsWarper(top_k)(None, scores) if top_k else scores
    expected = TopPLogitsWarper(top_p)(None, scores).softmax(-1)[0].numpy()
    sampler = TokenSampler(GenerationConfig(top_k=top_k, top_p=top_p, temperature=temperature, repetition_penalty=1.0, seed=2), TERMINATORS)
    draws = 20_000
    positions = [Choice(sampler, range(position)) for position in range(draws)]
    counts = np.bincount(next_tokens(np.tile(logits, (draws, 1)), positions), minlength=VOCABULARY)
    assert set(np.flatnonzero(counts)) <= set(np.flatnonzero(expected))
    # Five standard deviations of a binomial count.
    assert np.all(np.abs(counts - draws * expected) <= 5 * np.sqrt(draws * expected * (1 - expected)) + 1)


def test_the_same_seed_draws_the_same_tokens_and_another_seed_others() -> None:
    logits = np.zeros((30, VOCABULARY), np.float32)

    def draw(seed: int) -> list[int]:
        sampler = TokenSampler(GenerationConfig(seed=seed, top_k=0, top_p=1.0, repetition_penalty=1.0), TERMINATORS)
        return next_tokens(logits, [Choice(sampler, range(position)) for position in range(30)])

    assert draw(1) == draw(1) != draw(2)


def test_the_penalty_divides_positive_scores_and_multiplies_negative_ones_once() -> None:
    scores = np.array([[2.0, -2.0, 3.0]] * 2, np.float32)
    penalise(scores, [[0, 1, 1, 0], [2]], [2.0, 3.0])
    assert scores.tolist() == [[1.0, -4.0, 3.0], [2.0, -2.0, 1.0]]


@pytest.mark.parametrize(("top_k", "temperature"), [(1, 1.0), (5, 1.0), (20, 2.0)])
def test_what_is_drawn_from_equal_scores_is_the_same_in_any_company(top_k: int, temperature: float) -> None:
    """Scores of a coarse type tie at the border of what is kept."""
    scores = np.random.default_rng(0).normal(0, 2, (200, 500)).round().astype(np.float32)
    generation = GenerationConfig(top_k=top_k, temperature=temperature, top_p=1.0, seed=3, repetition_penalty=1.0)
    everything = GenerationConfig(top_k=0, seed=4)
    alone, beside = TokenSampler(generation, ()), TokenSampler(generation, ())
    other = TokenSampler(everything, ())
    for step, row in enumerate(scores):
        generated = [0] * step
        expected = next_tokens(row[None].copy(), [Choice(alone, generated)])
        assert next_tokens(np.stack([row, row]), [Choice(other, generated), Choice(beside, generated)])[1:] == expected


def test_an_answer_is_chosen_alone_as_in_company() -> None:
    random = np.random.default_rng(4)
    generations = [
        GenerationConfig(seed=1, top_k=5),
        GenerationConfig(seed=2, top_k=0, top_p=0.9, temperature=1.5),
        GenerationConfig.greedy(repetition_penalty=1.3),
        GenerationConfig(seed=3, top_k=1, min_new_tokens=4),
        GenerationConfig.greedy(min_new_tokens=40),
    ]
    together, alone = ([TokenSampler(generation, TERMINATORS) for generation in generations] for _ in range(2))
    answers: list[list[int]] = [[] for _ in generations]
    for _ in range(60):
        logits = 3 * random.normal(size=(len(generations), VOCABULARY)).astype(np.float32)
        tokens = next_tokens(logits.copy(), [Choice(*pair) for pair in zip(together, answers, strict=True)])
        assert tokens == [next_tokens(logits[row : row + 1], [Choice(sampler, answers[row])])[0] for row, sampler in enumerate(alone)]
        for answer, token in zip(answers, tokens, strict=True):
            answer.append(token)
    assert len({tuple(answer) for answer in answers}) == len(answers)
