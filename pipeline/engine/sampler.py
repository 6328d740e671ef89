"""logits (vocabulary,) or (beams, vocabulary) float32 -> token ids: greedy, sampling and beam search as transformers' `generate` does them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.config import GenerationConfig

Scores = NDArray[np.float32]


class TokenSampler:
    """Chooses the tokens of one answer: the best one, or one drawn with the request's own seed."""

    def __init__(self, generation: GenerationConfig, terminators: Sequence[int]) -> None:
        self._generation = generation
        self._terminators = list(terminators)
        self._random = np.random.default_rng(generation.seed)

    def next_token(self, logits: Scores, generated: Sequence[int]) -> int:
        """The token after those `generated`, from the logits (vocabulary,) of the last of them."""
        generation = self._generation
        scores = penalised(logits, generated, generation.repetition_penalty)
        if len(generated) < generation.min_new_tokens:
            scores[self._terminators] = -np.inf
        if not generation.do_sample:
            return int(np.argmax(scores))
        scores /= np.float32(generation.temperature)
        return self._drawn(scores)

    def _drawn(self, scores: Scores) -> int:
        """Keep the top_k best, then the smallest set of them that holds top_p of their probability, then draw."""
        generation = self._generation
        top_k = min(generation.top_k or len(scores), len(scores))
        best = np.argpartition(scores, -top_k)[-top_k:]
        best = best[np.argsort(-scores[best], kind="stable")]
        probabilities = _softmax(scores[best].astype(np.float64))
        before = np.cumsum(probabilities) - probabilities  # what the more likely ones hold; the likeliest stays whatever top_p is
        nucleus = np.where((before < generation.top_p) | (np.arange(len(best)) == 0), probabilities, 0.0)
        return int(self._random.choice(best, p=nucleus / nucleus.sum()))


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
        totals = np.stack([beam.logprob + self._log_probabilities(row, beam) for beam, row in zip(self.live, logits, strict=True)])
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

    def _log_probabilities(self, logits: Scores, beam: Hypothesis) -> Scores:
        scores = penalised(_log_softmax(logits), beam.token_ids, self._generation.repetition_penalty)
        if len(beam.token_ids) < self._generation.min_new_tokens:
            scores[self._terminators] = -np.inf
        return scores

    def _set_aside(self, beam: Hypothesis) -> None:
        """Keep the best `num_beams` of those that have ended."""
        self._finished.append(beam)
        if len(self._finished) > self._generation.num_beams:
            self._finished.remove(min(self._finished, key=lambda one: one.score))


def penalised(scores: Scores, generated: Sequence[int], penalty: float) -> Scores:
    """A copy of the scores, those of generated tokens divided by the penalty where positive, multiplied where negative (CTRL, arXiv:1909.05858)."""
    result = scores.astype(np.float32)
    if penalty != 1 and generated:
        seen = np.unique(np.asarray(generated))
        result[seen] = np.where(result[seen] < 0, result[seen] * np.float32(penalty), result[seen] / np.float32(penalty))
    return result


def _log_softmax(logits: Scores) -> Scores:
    shifted = logits - logits.max()
    return np.asarray(shifted - np.log(np.exp(shifted).sum(dtype=np.float32)), np.float32)


def _softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    weights: NDArray[np.float64] = np.exp(scores - scores.max())
    return np.asarray(weights / weights.sum())
