"""What torch and IR give for the same inputs -> figures of how near they are; figures and limits -> a verdict in one sentence, and a table."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError

Array: TypeAlias = NDArray[np.float32]
#: Of one part, as JSON values.
Figures: TypeAlias = dict[str, Any]

FIDELITY = "fidelity.json"

#: What each format reaches: the least cosine, for which random weights are the hardest to round, and the greatest mean divergence in nats, which is
#: greater with trained ones: they are surer of their words.
MIN_COSINE = {"fp32": 0.9999, "fp16": 0.999, "int8": 0.99, "int8-ptq": 0.97, "int4": 0.8}
MAX_KL = {"fp32": 0.001, "fp16": 0.01, "int8": 0.05, "int4": 0.75}


@dataclass(frozen=True)
class Limits:
    """How far from the checkpoint a part may be.

    Of the language model's own figures the divergence counts. How often it agrees on the likeliest token is only told: where a model is undecided,
    as one with random weights always is, that says little.

    Args:
        min_cosine: for every part; None is the least that its format should reach.
        max_kl: of the language model, in nats; None is the most that its format should come to.
    """

    min_cosine: float | None = None
    max_kl: float | None = None

    def __post_init__(self) -> None:
        if self.min_cosine is not None and not -1.0 <= self.min_cosine <= 1.0:
            raise InputError(f"The least cosine is {self.min_cosine}; it must be from -1 to 1.")
        if self.max_kl is not None and not 0.0 <= self.max_kl < math.inf:
            raise InputError(f"The greatest divergence is {self.max_kl} nats; it must be a number from 0 on.")

    def of(self, weight_format: str) -> dict[str, float]:
        """The least cosine and, of formats that a language model can have, the greatest divergence in nats."""
        limits = {"cosine": MIN_COSINE[weight_format] if self.min_cosine is None else self.min_cosine}
        return limits | ({"kl": MAX_KL[weight_format] if self.max_kl is None else self.max_kl} if weight_format in MAX_KL else {})

    def shortfall(self, label: str, figures: Figures) -> str | None:
        """One sentence about a part that is too far off, or None. What is not a number is too far off."""
        limits = self.of(figures["format"])
        too_far = f"The {label} in {figures['format']} is too far from the checkpoint:"
        if not figures["cosine"] >= limits["cosine"]:
            return f"{too_far} its cosine is {figures['cosine']:.6f}, and the limit is {limits['cosine']}."
        if "kl" in figures and not figures["kl"] <= limits["kl"]:
            return f"{too_far} it diverges by {figures['kl']:.4f} nats, and the limit is {limits['kl']}."
        return None


def compare(expected: Sequence[Array], found: Sequence[Array]) -> Figures:
    """The worst cosine and relative error of any input; each pair is compared as a whole."""
    pairs = [(one.ravel().astype(np.float64), other.ravel().astype(np.float64)) for one, other in zip(expected, found, strict=True)]
    cosines = [one @ other / (np.linalg.norm(one) * np.linalg.norm(other)) for one, other in pairs]
    errors = [np.linalg.norm(other - one) / np.linalg.norm(one) for one, other in pairs]
    return {"cosine": round(float(np.min(cosines)), 6), "relative_error": round(float(np.max(errors)), 5)}


def compare_logits(expected: Sequence[Array], found: Sequence[Array]) -> Figures:
    """The same of logits (1, tokens, vocab), and over all tokens: the share with the same likeliest token, the mean divergence of `found` in nats."""
    rows = [pair for one, other in zip(expected, found, strict=True) for pair in zip(one[0], other[0], strict=True)]
    top_1 = np.mean([one.argmax() == other.argmax() for one, other in rows])
    kl = np.mean([_divergence(_log_softmax(one), _log_softmax(other)) for one, other in rows])
    return {**compare(expected, found), "tokens": len(rows), "top_1": round(float(top_1), 4), "kl": round(float(kl), 5)}


def table(parts: Mapping[str, Figures]) -> list[str]:
    """Markdown, a row for each part."""
    lines = ["| part | format | cosine | relative error | same likeliest token | KL, nats |", "|---|---|---|---|---|---|"]
    for label, figures in parts.items():
        words = [f"{figures['top_1']:.1%}", f"{figures['kl']:.4f}"] if "kl" in figures else ["-", "-"]
        cells = [label, figures["format"], f"{figures['cosine']:.6f}", f"{figures['relative_error']:.4f}", *words]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _divergence(expected: NDArray[np.float64], found: NDArray[np.float64]) -> float:
    return float((np.exp(expected) * (expected - found)).sum())


def _log_softmax(logits: Array) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max()
    return shifted - np.log(np.exp(shifted).sum())
