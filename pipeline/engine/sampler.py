"""Logits (answers or beams, vocabulary) float32 -> token ids: greedy, sampling and beam search as transformers' `generate` does them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.config import GenerationConfig

Scores = NDArray[np.float32]


class TokenSampler:
    """How the tokens of one answer are chosen: the best one each, or one drawn with the request's own seed."""

    def __init__(self, generation: GenerationConfig, terminators: Sequence[int]) -> None:
        self.generation, self.terminators = generation, list(terminators)
        self._random = np.random.default_rng(generation.seed)
        self._draws: list[float] = []

    def draw(self, position: int) -> float:
        """What decides the token at this position of the answer, uniform in [0, 1): the same however often and beside whatever it is asked for."""
        while len(self._draws) <= position:
            self._draws.append(float(self._random.random()))
        return self._draws[position]


class Choice(NamedTuple):
    """Of the token that comes after those `generated` of an answer."""

    sampler: TokenSampler
    generated: Sequence[int]


def next_tokens(scores: Scores, choices: Sequence[Choice]) -> list[int]:
    """The token of each choice, from the logits (choices, vocabulary) of the token before it, which are penalised where they lie."""
    generations = [choice.sampler.generation for choice in choices]
    penalise(scores, [choice.generated for choice in choices], [generation.repetition_penalty for generation in generations])
    for row, (sampler, generated) in enumerate(choices):
        if len(generated) < sampler.generation.min_new_tokens:
            scores[row, sampler.terminators] = -np.inf
    chosen = scores.argmax(axis=1)
    drawn: dict[int, list[int]] = {}
    for row, generation in enumerate(generations):
        if generation.do_sample:
            drawn.setdefault(min(generation.top_k or scores.shape[1], scores.shape[1]), []).append(row)
    # Those of one top_k together: a single one who keeps the whole vocabulary would have it sorted for everybody, and break others' ties.
    for top_k, rows in drawn.items():
        draws = np.array([choices[row].sampler.draw(len(choices[row].generated)) for row in rows])
        chosen[rows] = _drawn(scores[rows], top_k, [generations[row] for row in rows], draws)
    return [int(token) for token in chosen]


def _drawn(scores: Scores, top_k: int, generations: Sequence[GenerationConfig], draws: NDArray[np.float64]) -> NDArray[np.int64]:
    """Of each row keep the top_k best, then the smallest set of them that holds top_p of their probability, then let the draw choose."""
    temperature = np.array([generation.temperature for generation in generations])[:, None]
    top_p = np.array([generation.top_p for generation in generations])[:, None]
    best = np.sort(np.argpartition(scores, -top_k)[:, -top_k:])
    best = np.take_along_axis(best, np.argsort(-np.take_along_axis(scores, best, 1), kind="stable"), 1)
    shifted = np.take_along_axis(scores, best, 1).astype(np.float64) / temperature
    weights = np.exp(shifted - shifted[:, :1])
    totals = np.cumsum(weights, axis=1)
    before = (totals - weights) / totals[:, -1:]  # what the more likely ones hold; the likeliest stays whatever top_p is
    kept = np.cumsum(np.where((before < top_p) | (np.arange(top_k) == 0), weights, 0.0), axis=1)
    place = (kept > draws[:, None] * kept[:, -1:]).argmax(axis=1)
    return np.take_along_axis(best, place[:, None], 1)[:, 0]


@dataclass(frozen=True)
class Hypothesis:
    """A finished or live beam: its tokens (a terminator included) and the sum of their (penalised) log-probabilities."""

    token_ids: tuple[int, ...]
    logprob: float

    @property
    def score(self) -> float:
        """The mean, by which beams of different lengths compare (length_penalty 1)."""
        return self.logprob / len(self.token_ids)


class BeamSearch:
    """Beam search over one prompt (transformers' defaults: length_penalty 1, early_stopping false, one sequence returned).

    Each step takes the logits of every live beam and keeps the `num_beams` best continuations; those that end with a terminator among the
    `num_beams` best candidates are set aside as finished. The penalty is applied to log-probabilities, as there, and they are not normalised again.
    """

    def __init__(self, generation: GenerationConfig, terminators: Sequence[int]) -> None:
        self._generation = generation
        self._terminators = list(terminators)
        self._finished: list[Hypothesis] = []
        self._best_total = 0.0
        self.live: list[Hypothesis] = [Hypothesis((), 0.0)]

    def step(self, logits: Scores) -> list[int]:
        """Continue the live beams by one token, from logits (live beams, vocabulary).

        Returns:
            For each beam now live, which of the former rows it continues: the `beam_idx` of the next step.
        """
        width = self._generation.num_beams
        totals = np.array([[beam.logprob] for beam in self.live], np.float32) + self._log_probabilities(logits)
        # With this many candidates, `width` of them go on even if every beam offers every terminator.
        count = min(max(2, 1 + len(self._terminators)) * width, totals.size)
        flat = totals.reshape(-1)
        candidates = np.argpartition(flat, -count)[-count:]
        candidates = candidates[np.argsort(-flat[candidates], kind="stable")]
        beam_idx: list[int] = []
        live: list[Hypothesis] = []
        for rank, candidate in enumerate(candidates):
            row, token = divmod(int(candidate), totals.shape[1])
            beam = Hypothesis((*self.live[row].token_ids, token), float(flat[candidate]))
            if token in self._terminators:
                if rank < width:
                    self._set_aside(beam)
            elif len(live) < width:
                live.append(beam)
                beam_idx.append(row)
        self.live = live
        self._best_total = float(flat[candidates[0]])
        return beam_idx

    @property
    def done(self) -> bool:
        """Whether no live beam can still beat the finished ones, judged by its score so far."""
        if len(self._finished) < self._generation.num_beams:
            return False
        return min(beam.score for beam in self._finished) >= self._best_total / len(self.live[0].token_ids)

    def agreed(self) -> tuple[int, ...]:
        """What every live and finished beam starts with: however the search goes on, the answer starts with it too."""
        first, *others = [beam.token_ids for beam in (*self.live, *self._finished)]
        length = 0
        while length < len(first) and all(other[length : length + 1] == first[length : length + 1] for other in others):
            length += 1
        return first[:length]

    def best(self) -> Hypothesis:
        """The answer: the best of the finished beams, and of the live ones too unless the search is done."""
        if not self.done:
            for beam in self.live:
                self._set_aside(beam)
        return max(self._finished, key=lambda beam: beam.score)

    def _log_probabilities(self, logits: Scores) -> Scores:
        """Of every token after each of the live beams (live beams, vocabulary)."""
        penalty, tokens = self._generation.repetition_penalty, [beam.token_ids for beam in self.live]
        scores = _log_softmax(logits)
        penalise(scores, tokens, [penalty] * len(tokens))
        if len(tokens[0]) < self._generation.min_new_tokens:
            scores[:, self._terminators] = -np.inf
        return scores

    def _set_aside(self, beam: Hypothesis) -> None:
        """Keep the best `num_beams` of those that have ended."""
        self._finished.append(beam)
        if len(self._finished) > self._generation.num_beams:
            self._finished.remove(min(self._finished, key=lambda one: one.score))


def penalise(scores: Scores, generated: Sequence[Sequence[int]], penalties: Sequence[float]) -> None:
    """Of the scores (answers, vocabulary), divide those of an answer's own tokens by its penalty where positive, multiply them where negative
    (CTRL, arXiv:1909.05858).
    """
    for row, (tokens, penalty) in enumerate(zip(generated, penalties, strict=True)):
        if penalty != 1 and tokens:
            seen = np.unique(np.asarray(tokens))
            of_seen = scores[row, seen]
            scores[row, seen] = np.where(of_seen < 0, of_seen * np.float32(penalty), of_seen / np.float32(penalty))


def _log_softmax(logits: Scores) -> Scores:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True, dtype=np.float32)), np.float32)
